// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <string>

#include "laws/mask.hpp"
#include "support/data.hpp"
#include "support/masks.hpp"

using namespace lightseq;
using std::int64_t;

TEST_CASE("cover() agrees with visible(), for every mask") {
  test::for_each_mask([](auto const& mask, char const* name) {
    INFO("mask ", std::string(name));
    test::check_mask(mask, false);
  });
}

TEST_CASE_TEMPLATE("cover() is never partial without need", M, Full, Causal, SlidingWindow, test::PrefixLm) {
  for (M const& mask : test::samples<M>()) test::check_mask(mask, true);
}

TEST_CASE(
    "SlidingWindow: cover() agrees with visible(), and is never partial without need, for all small "
    "windows") {
  for (int64_t left = 0; left <= 13; ++left)
    for (int64_t right = 0; right <= 13; ++right) test::check_mask(SlidingWindow{left, right}, true, 12);
}

namespace {

/// A mask that is wrong at the corner of a rectangle, and one that never commits itself.
struct TooFull : Causal {
  static Cover cover(Range queries, Range keys) {
    return keys.end <= queries.begin + 2 ? Cover::full : Causal::cover(queries, keys);
  }
};
struct TooEmpty : Causal {
  static Cover cover(Range queries, Range keys) {
    return keys.begin + 1 >= queries.end ? Cover::none : Causal::cover(queries, keys);
  }
};
struct Lazy : Causal {
  static Cover cover(Range, Range) { return Cover::partial; }
};

}  // namespace

TEST_CASE("the law of masks notices a wrong cover()") {
  CHECK(test::count_covers(TooFull{}, 6).wrong > 0);
  CHECK(test::count_covers(TooEmpty{}, 6).wrong > 0);
  CHECK(test::count_covers(Lazy{}, 6).wrong == 0);
  CHECK(test::count_covers(Lazy{}, 6).lazy > 0);
}

TEST_CASE("masks by their definition, pair by pair") {
  for (int64_t q = 0; q < 40; ++q)
    for (int64_t k = 0; k < 40; ++k) {
      CHECK(Full::visible(q, k));
      CHECK(Causal::visible(q, k) == (k <= q));
      for (int64_t const left : {0, 1, 7, 60})
        for (int64_t const right : {0, 1, 7, 60})
          CHECK(SlidingWindow{left, right}.visible(q, k) == (q - left <= k && k <= q + right));
    }
}

TEST_CASE("windows and positions may be as large as 63 bits hold") {
  constexpr int64_t huge = std::numeric_limits<int64_t>::max();
  std::mt19937_64 random(test::run_seed());
  auto const position = [&] { return static_cast<int64_t>(random() >> (1 + random() % 63)); };
  for (int run = 0; run < 20000; ++run) {
    int64_t const q = position(), k = position(), q_rows = 1 + position() % 100,
                  k_rows = 1 + position() % 100;
    Range const queries{q - q % 128, q - q % 128 + q_rows}, keys{k - k % 128, k - k % 128 + k_rows};
    SlidingWindow const all{huge, huge}, earlier{huge, 0}, later{0, huge};
    bool same = all.visible(q, k) && all.cover(queries, keys) == Cover::full;
    same = same && earlier.visible(q, k) == Causal::visible(q, k);
    same = same && earlier.cover(queries, keys) == Causal::cover(queries, keys);
    same = same && later.visible(q, k) == Causal::visible(k, q);
    CHECK(same);
  }
}
