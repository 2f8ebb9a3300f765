// SPDX-License-Identifier: Apache-2.0
#include "lightseq/softmax/partial.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

#include "laws/partial.hpp"

using namespace lightseq;

namespace {

auto const library = [](float lse_a, float lse_b) { return merge(lse_a, lse_b); };

/// As merge(), but wrong: it forgets the earlier sum, or lets -inf become NaN.
auto const forgetful = [](float lse_a, float lse_b) { return Merge{0, 1, lse_b > lse_a ? lse_b : lse_a}; };

}  // namespace

TEST_CASE("partial results are a commutative monoid") { test::check_merger(library); }

TEST_CASE("any grouping of parts gives the same result") { test::check_merges_any_tree(library); }

TEST_CASE("the measure of roundings notices a wrong merge") {
  test::Partial const x{{1, 2, 3}, 0}, y{{3, 2, 1}, 1};
  CHECK(test::roundings_apart(test::merged(forgetful, x, y), test::merged_at_once({x, y})) > 1e5);
  CHECK(test::roundings_apart(test::merged(library, x, y), test::merged_at_once({x, y})) < 2);
  CHECK(test::roundings_apart(x, {}) > 1e5);
}

TEST_CASE("two empty results are an empty result") {
  Merge const m = merge(test::minus_infinity, test::minus_infinity);
  CHECK(m.a == 0);
  CHECK(m.b == 0);
  CHECK(m.lse == test::minus_infinity);
}

TEST_CASE("no pair of LSEs gives a NaN, and the weights add up to 1") {
  std::mt19937_64 random(test::run_seed());
  float const extremes[] = {test::minus_infinity,
                            std::numeric_limits<float>::lowest(),
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
      CHECK_FALSE(std::isnan(m.lse));
      CHECK(m.a >= 0);
      CHECK(m.b >= 0);
      if (a == test::minus_infinity && b == test::minus_infinity) continue;
      CHECK(m.a + m.b == doctest::Approx(1).epsilon(1e-6));
      CHECK(m.lse >= std::max(a, b));
    }
}

TEST_CASE("equal LSEs weigh alike, and a difference of ln 3 weighs 1 to 3") {
  for (float const lse : {-1000.0f, 0.0f, 12.5f}) {
    Merge const m = merge(lse, lse);
    CHECK(m.a == 0.5f);
    CHECK(m.b == 0.5f);
    CHECK(m.lse == doctest::Approx(lse + std::log(2.0)));
  }
  Merge const m = merge(0, std::log(3.0f));
  CHECK(m.a == doctest::Approx(0.25));
  CHECK(m.b == doctest::Approx(0.75));
  CHECK(m.lse == doctest::Approx(std::log(4.0)));
}
