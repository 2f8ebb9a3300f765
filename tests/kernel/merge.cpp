// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/merge.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "laws/partial.hpp"

using namespace lightseq;

namespace {

auto const library = [](float top_a, float top_b) { return merge(top_a, top_b); };

/// As merge(), but wrong: it forgets the earlier sum.
auto const forgetful = [](float top_a, float top_b) { return Merge{0, 1, top_b > top_a ? top_b : top_a}; };

}  // namespace

TEST_CASE("partial results are a commutative monoid") { test::check_merger(library); }

TEST_CASE("any grouping of parts gives the same result, whatever the size of the scores") {
  test::check_merges_any_tree(library);
}

TEST_CASE("the measure of roundings notices a wrong merge") {
  test::PartialRow const x{{1, 2, 3}, 0, 1}, y{{3, 2, 1}, 1, 2};
  auto const apart = [&](auto const& merger) {
    return test::roundings_apart(test::finished_at_once({test::merged(merger, x, y)}),
                                 test::finished_at_once({x, y}));
  };
  CHECK(apart(forgetful) > 1e5);
  CHECK(apart(library) < 2);
  CHECK(test::roundings_apart(test::finished_at_once({x}), {}) > 1e5);
}

TEST_CASE("two empty results are an empty result") {
  Merge const m = merge(Merge::none, Merge::none);
  CHECK(m.a == 0);
  CHECK(m.b == 0);
  CHECK(m.top == Merge::none);
}

TEST_CASE("no pair of tops gives a NaN, and the larger one's weight is 1") {
  float const extremes[] = {Merge::none,
                            Merge::least,
                            -1e30f,
                            -1000,
                            -88,
                            -1,
                            -0.0f,
                            0,
                            std::numeric_limits<float>::denorm_min(),
                            1,
                            88,
                            1000,
                            1e30f,
                            std::numeric_limits<float>::max()};
  for (float const a : extremes)
    for (float const b : extremes) {
      Merge const m = merge(a, b);
      CHECK(m.top == std::max(a, b));
      if (a == Merge::none && b == Merge::none) continue;
      CHECK(std::max(m.a, m.b) == 1);
      CHECK(std::min(m.a, m.b) >= 0);
    }
}

TEST_CASE("what is NaN or infinite stays NaN, on either side and whatever its bits") {
  for (std::uint32_t const bits : {0x7fc00000u, 0xffffffffu, 0x7fc00001u, 0x7f800000u}) {
    float const lost = std::bit_cast<float>(bits);
    for (float const other : {Merge::none, Merge::least, -3.0f, 0.0f, 1e30f}) {
      CHECK(std::isnan(merge(lost, other).a));
      CHECK(std::isnan(merge(other, lost).b));
    }
    CHECK(std::isnan(finished_lse(lost, std::nanf(""))));
    CHECK(std::isnan(finished_factor(lost, std::nanf(""))));
  }
}

TEST_CASE("equal tops weigh alike, and a difference of 2 weighs 1 to 4") {
  for (float const top : {-1000.0f, 0.0f, 12.5f, 1e9f}) {
    Merge const m = merge(top, top);
    CHECK(m.a == 1);
    CHECK(m.b == 1);
    CHECK(m.top == top);
  }
  Merge const m = merge(0, 2);
  CHECK(m.a == 0.25f);
  CHECK(m.b == 1);
  CHECK(m.top == 2);
}

TEST_CASE("a finished LSE is right to its last bit, and tells no keys from keys without a softmax") {
  std::mt19937_64 random(test::run_seed());
  std::normal_distribution<float> normal;
  for (float const spread : {0.0f, 1.0f, 1000.0f, 1e6f, 1e9f})
    for (int run = 0; run < 1000; ++run) {
      float const top = spread * normal(random), sum = 1 + 100 * std::abs(normal(random));
      long double const exact =
          (static_cast<long double>(top) + std::log2(static_cast<long double>(sum))) * std::log(2.0L);
      float const got = finished_lse(top, sum);
      auto const step = static_cast<long double>(std::nextafter(std::abs(got), 1e30f)) - std::abs(got);
      REQUIRE(std::abs(static_cast<long double>(got) - exact) <= 0.51L * step);
      CHECK(finished_factor(top, sum) == 1 / sum);
    }
  CHECK(finished_lse(Merge::none, 0) == Merge::none);
  CHECK(finished_factor(Merge::none, 0) == 0);
  CHECK(std::isnan(finished_lse(Merge::least, 0)));
  CHECK(std::isnan(finished_factor(Merge::least, 5)));
}
