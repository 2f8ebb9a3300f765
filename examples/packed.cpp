// SPDX-License-Identifier: Apache-2.0
// Packed documents: texts of different lengths lie one after another in one sequence, and each attends to
// itself alone. The mask is the list of their ends, here as an engine has it: cu_seqlens. The check attends
// each document by itself, on one rank, with random_sequence(), run_world() and part_of() of
// lightseq::testing.
#include <algorithm>
#include <cstdio>
#include <random>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"

int main() {
  constexpr int ranks = 4, head_dim = 32;
  std::vector<std::int32_t> const cu_seqlens{0, 3, 200, 201, 450, 460};
  lightseq::Problem problem{.seqlen = cu_seqlens.back(), .heads = 4, .kv_heads = 2};
  auto packed = lightseq::testing::random_sequence<float>(problem, head_dim, std::random_device{}());

  lightseq::Documents<lightseq::Causal> const documents(cu_seqlens);
  using Packed = lightseq::DistAttn<head_dim, lightseq::Documents<lightseq::Causal>, lightseq::ZigzagRing>;
  lightseq::LocalWorld world(ranks);
  auto const fault =
      lightseq::testing::run_world<Packed>(world, problem, documents, lightseq::ZigzagRing{}, packed);
  if (!fault.empty()) {
    std::printf("%s\n", fault.c_str());
    return 1;
  }

  using Alone = lightseq::DistAttn<head_dim, lightseq::Causal, lightseq::Ring>;
  double worst = 0;
  for (int i = 0; i < documents.view().count(); ++i) {
    lightseq::Range const tokens = documents.view().positions(i);
    auto const part =
        lightseq::testing::part_of(packed, {{{tokens.begin, tokens.size(), 1}, {}}});  // its inputs
    auto alone = part;
    problem.seqlen = tokens.size();
    alone.q_shape.tokens = alone.kv_shape.tokens = tokens.size();
    lightseq::LocalWorld one(1);
    lightseq::testing::run_world<Alone>(one, problem, lightseq::Causal{}, lightseq::Ring{}, alone);
    auto const first = static_cast<std::size_t>(tokens.begin) * 4 * head_dim;
    for (std::size_t j = 0; j < alone.o.size(); ++j)
      worst = std::max({worst, std::abs(double{alone.o[j]} - packed.o[first + j]),
                        std::abs(double{alone.dq[j]} - packed.dq[first + j])});
  }
  std::printf("%d documents on %d ranks: o and dq differ by at most %.1e from documents one by one\n",
              documents.view().count(), ranks, worst);
  return worst < 1e-4 ? 0 : 1;
}
