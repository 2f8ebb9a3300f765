// SPDX-License-Identifier: Apache-2.0
// What an advice says of itself: the type to paste, the memory, ties, numbers with units.
#include "lightseq/predict/advice.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/predict/advise.hpp"
#include "support/data.hpp"

/// As an advice declares it.
struct Relayed : lightseq::DefaultTraits {
  static constexpr lightseq::Route route = lightseq::Route::neighbour;
};

namespace mine {

/// A mask and a schedule as their users write them, without names.
struct Odd {
  bool visible(std::int64_t query, std::int64_t key) const { return key <= query && (query - key) % 2 == 0; }
  lightseq::Cover cover(lightseq::Range queries, lightseq::Range keys) const {
    return keys.begin >= queries.end ? lightseq::Cover::none : lightseq::Cover::partial;
  }
};

struct Backwards {
  using Partition = lightseq::Striped;
  static constexpr int steps(int world) { return world; }
  static constexpr lightseq::Work at(int rank, int step, int world) { return {rank, (rank + step) % world}; }
};

/// A list of a user's own beside the library's.
using List = std::tuple<lightseq::ZigzagRing, lightseq::TwoLevelZigzagRing, Backwards>;

}  // namespace mine

using namespace lightseq;

namespace {

/// The text of a type, and that the compiler knows it.
#define PASTED(...) (static_cast<void>(sizeof(__VA_ARGS__*)), std::string(#__VA_ARGS__))

template <class M>
std::vector<Advice> ask(M const& mask, int element_bytes, bool with_backward = true) {
  Problem const problem{.batch = 2, .seqlen = 4099, .heads = 8, .kv_heads = 2};
  return advise<mine::List>(problem, 64, element_bytes, mask, 8, {.ranks_per_node = 4}, h100(),
                            with_backward);
}

Advice const& named(std::vector<Advice> const& ranking, std::string const& name) {
  for (Advice const& a : ranking)
    if (a.name() == name) return a;
  FAIL("no such advice");
  return ranking.front();
}

}  // namespace

TEST_CASE("the type is what C++ compiles, for masks and schedules of the library and of one's own") {
  auto const ranking = ask(Causal{}, 4);
  CHECK(ranking.size() == 6);
  CHECK(named(ranking, "ZigzagRing").type ==
        PASTED(lightseq::DistAttn<64, lightseq::Causal, lightseq::ZigzagRing>));
  CHECK(named(ranking, "TwoLevelZigzagRing:neighbour").type ==
        PASTED(lightseq::DistAttn<64, lightseq::Causal, lightseq::TwoLevelZigzagRing, Relayed>));
  auto const own = ask(mine::Odd{}, 4);
  CHECK(named(own, "mine::Backwards").type == PASTED(lightseq::DistAttn<64, mine::Odd, mine::Backwards>));
  CHECK(named(own, "mine::Backwards:neighbour").type ==
        PASTED(lightseq::DistAttn<64, mine::Odd, mine::Backwards, Relayed>));
}

TEST_CASE("relayed ways bring traits, and two levels the argument; others need neither") {
  for (int const element_bytes : {2, 4})
    for (Advice const& a : ask(Causal{}, element_bytes)) {
      std::string const base = element_bytes == 4 ? "DefaultTraits" : "CudaTraits";
      std::string const relayed = "struct Relayed : lightseq::" + base +
                                  " { static constexpr lightseq::Route route = "
                                  "lightseq::Route::neighbour; };";
      CHECK(a.traits == (a.route == Route::neighbour ? relayed : ""));
      CHECK(a.argument == (a.schedule == "TwoLevelZigzagRing" ? "{.ranks_per_node = 4}" : ""));
    }
}

TEST_CASE("a rank's memory is its workspace and its tensors, counted one by one") {
  for (bool const with_backward : {false, true})
    for (Advice const& a : ask(Causal{}, 2, with_backward)) {
      std::int64_t const rows = 513;  // of 4099 over 8 ranks, however they are dealt out; of two sequences
      std::int64_t const q = 2 * rows * 8 * 64 * 2, kv = 2 * rows * 2 * 64 * 2;
      std::int64_t const lse = Extents::aligned(2 * rows * 8 * 4);
      std::int64_t const once = q + kv + kv + q + lse;  // q, k, v, o, lse
      CHECK(a.tensor_bytes == (with_backward ? 2 * (once - lse) + lse : once));
      CHECK(a.memory_bytes() == a.tensor_bytes + a.workspace_bytes);
      CHECK(a.workspace_bytes > 0);
    }
}

TEST_CASE("rows within a margin of the first are one group, and the text names them all") {
  std::mt19937_64 random(test::stream_seed(7));
  std::uniform_real_distribution<double> growth(1, 1.02);
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::vector<Advice> ranking(random() % 20);
    double seconds = 1;
    for (Advice& a : ranking) a.schedule = "S", a.forward_seconds = seconds *= growth(random);
    double const margin = repeat % 4 * 0.01;
    std::size_t next = 0;
    for (auto const group : tied(std::span<Advice const>(ranking), margin)) {
      REQUIRE(!group.empty());
      CHECK(group.data() == ranking.data() + next);
      next += group.size();
      CHECK(group.back().seconds() <= (1 + margin) * group.front().seconds());
      if (next < ranking.size()) CHECK(ranking[next].seconds() > (1 + margin) * group.front().seconds());
    }
    CHECK(next == ranking.size());
  }
  std::vector<Advice> three(3);
  three[0].schedule = "A", three[1].schedule = "B", three[2].schedule = "C";
  three[1].route = Route::neighbour;
  std::span<Advice const> const all(three);
  CHECK(tie_text(all) == "A, B:neighbour and C are within 1 %");
  CHECK(tie_text(all.first(2), 0.025) == "A and B:neighbour are within 2.5 %");
  CHECK(tie_text(all.first(1)).empty());
}

TEST_CASE("numbers have three digits and the unit in which they are at least 1") {
  CHECK(seconds_text(0) == "0 s");
  CHECK(seconds_text(1.5e-7) == "0.15 us");
  CHECK(seconds_text(12.34e-6) == "12.3 us");
  CHECK(seconds_text(999.4e-6) == "999 us");
  CHECK(seconds_text(999.6e-6) == "1 ms");
  CHECK(seconds_text(1.5) == "1.5 s");
  CHECK(seconds_text(2.0e3) == "2000 s");
  CHECK(bytes_text(0) == "0 bytes");
  CHECK(bytes_text(571'345'678) == "571 MB");
  CHECK(bytes_text(80'000'000'000) == "80 GB");
  CHECK(bytes_text(INT64_MAX) == "9.22e+06 TB");
  CHECK(count_text(950) == "950");
  CHECK(count_text(3141.5) == "3.14 k");
  CHECK(count_text(2.05e6) == "2.05 M");
  CHECK(length_text(65536) == "64k");
  CHECK(length_text(1 << 24) == "16M");
  CHECK(length_text(100000) == "100000");
  CHECK(rounded(std::numeric_limits<double>::infinity()) == "inf");
  std::mt19937_64 random(test::stream_seed(8));
  for (int repeat = 0; repeat < 200; ++repeat) {
    double const seconds = std::pow(10, std::uniform_real_distribution<double>(-6, 3)(random));
    std::string const text = seconds_text(seconds);
    double const unit = text.ends_with(" us") ? 1e-6 : text.ends_with(" ms") ? 1e-3 : 1;
    CHECK(unit * std::stod(text) == doctest::Approx(seconds).epsilon(0.0051));
    CHECK(std::stod(text) < 1000);
  }
}
