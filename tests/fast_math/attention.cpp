// SPDX-License-Identifier: Apache-2.0
// Attention over ranks, to be built with flags that let a compiler break IEEE 754: whatever builds must be
// right. Numbers are judged by their bits, as the same flags hold here.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <vector>

#include "lightseq/mask/mask.hpp"
#include "lightseq/schedule/ring.hpp"
#include "lightseq/testing/sequence.hpp"

using namespace lightseq;

namespace {

/// Some queries see nothing, some see nothing of another rank's keys.
struct Holes {
  static constexpr bool visible(std::int64_t query, std::int64_t key) {
    return query % 5 != 3 && (query + key) % 7 != 2 && query + 20 > key;
  }
  static constexpr Cover cover(Range, Range) { return Cover::partial; }
};

constexpr int head_dim = 16;
using Attn = DistAttn<head_dim, Holes, Ring>;
Problem const problem{.seqlen = 53, .heads = 2, .kv_heads = 1};

int faults = 0;
void expect(bool right, char const* what) {
  if (right) return;
  std::printf("wrong: %s\n", what);
  ++faults;
}

bool is_nan(float x) { return (std::bit_cast<std::uint32_t>(x) & 0x7fffffffu) > 0x7f800000u; }
bool is_minus_infinity(float x) { return std::bit_cast<std::uint32_t>(x) == 0xff800000u; }

bool close(std::vector<float> const& got, std::vector<double> const& want) {
  bool right = got.size() == want.size();
  for (std::size_t i = 0; right && i < got.size(); ++i) {
    auto const w = static_cast<float>(want[i]);
    right = is_minus_infinity(w)
                ? is_minus_infinity(got[i])
                : !is_nan(got[i]) && std::abs(got[i] - w) < 1e-5 * std::max(1.0f, std::abs(w));
  }
  return right;
}

void equals_dense(int ranks) {
  auto s = testing::random_sequence<float>(problem, head_dim, 1);
  LocalWorld world(ranks);
  expect(testing::run_world<Attn>(world, problem, Holes{}, Ring{}, s).empty(), "a status");
  testing::Dense const want = testing::dense<head_dim>(s, Holes{});
  expect(close(s.o, want.o), "o");
  expect(close(s.lse, want.lse), "lse");
  expect(close(s.dq, want.dq), "dq");
  expect(close(s.dk, want.dk), "dk");
  expect(close(s.dv, want.dv), "dv");
}

/// A NaN in a value stays one in each row of o that sees it, one in a key in its lse and gradient, too; rows
/// that see neither have none.
void keeps_nan(int ranks, std::uint32_t bits) {
  constexpr std::int64_t key = 30;
  auto s = testing::random_sequence<float>(problem, head_dim, 2);
  s.v[key * head_dim + 5] = std::bit_cast<float>(bits);
  s.k[(key + 1) * head_dim] = std::bit_cast<float>(bits);
  LocalWorld world(ranks);
  expect(testing::run_world<Attn>(world, problem, Holes{}, Ring{}, s).empty(), "a status");
  for (std::int64_t query = 0; query < problem.seqlen; ++query)
    for (std::int64_t head = 0; head < problem.heads; ++head) {
      auto const row = static_cast<std::size_t>((query * problem.heads + head) * head_dim);
      auto const stat = static_cast<std::size_t>(head * problem.seqlen + query);
      if (Holes::visible(query, key)) expect(is_nan(s.o[row + 5]), "o of a NaN in v");
      if (!Holes::visible(query, key) && !Holes::visible(query, key + 1)) {
        expect(!is_nan(s.o[row]) && !is_nan(s.o[row + 5]), "o of no NaN");
        expect(!is_nan(s.lse[stat]), "lse of no NaN");
        expect(!is_nan(s.dq[row]) && !is_nan(s.dq[row + 5]), "dq of no NaN");
      }
      if (!Holes::visible(query, key + 1)) continue;
      expect(is_nan(s.o[row]), "o of a NaN in k");
      expect(is_nan(s.lse[stat]), "lse of a NaN in k");
      expect(is_nan(s.dq[row]), "dq of a NaN in k");
    }
}

}  // namespace

int main() try {
  for (int const ranks : {1, 3}) {
    equals_dense(ranks);
    keeps_nan(ranks, 0x7fc00000u);
  }
  return faults > 0 ? 1 : 0;
} catch (Error const& error) {
  std::printf("%s\n", error.what());
  return 3;
}
