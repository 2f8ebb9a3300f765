// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/problem.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <limits>
#include <random>
#include <string>

#include "support/data.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

std::string complaint(Problem const& problem, int head_dim) {
  try {
    return validated(problem, head_dim).seqlen == problem.seqlen ? "" : "the length changed";
  } catch (Error const& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("a good problem passes, with its defaults filled in") {
  Problem const full{.batch = 2, .seqlen = 100, .heads = 8, .kv_heads = 2, .scale = 0.5f};
  Problem const same = validated(full, 64);
  CHECK(same.batch == 2);
  CHECK(same.seqlen == 100);
  CHECK(same.heads == 8);
  CHECK(same.kv_heads == 2);
  CHECK(same.scale == 0.5f);

  Problem const defaults = validated({.seqlen = 1}, 64);
  CHECK(defaults.batch == 1);
  CHECK(defaults.heads == 1);
  CHECK(defaults.kv_heads == 1);
  CHECK(defaults.scale == 0.125f);
  CHECK(validated({.seqlen = 1, .heads = 12}, 64).kv_heads == 12);
  for (int64_t const kv_heads : {1, 2, 3, 4, 6, 12})
    CHECK(validated({.seqlen = 1, .heads = 12, .kv_heads = kv_heads}, 64).kv_heads == kv_heads);
}

TEST_CASE("each bad problem has its own sentence, with the numbers") {
  constexpr float nan = std::numeric_limits<float>::quiet_NaN(),
                  infinity = std::numeric_limits<float>::infinity();
  struct Case {
    Problem problem;
    char const* sentence;
  };
  Case const cases[] = {
      {{.batch = 0, .seqlen = 8}, "batch is 0, it must be at least 1"},
      {{.batch = -3, .seqlen = 8}, "batch is -3, it must be at least 1"},
      {{}, "seqlen is 0, it must be at least 1"},
      {{.seqlen = -8}, "seqlen is -8, it must be at least 1"},
      {{.seqlen = 8, .heads = 0}, "heads is 0, it must be at least 1"},
      {{.seqlen = 8, .heads = -1}, "heads is -1, it must be at least 1"},
      {{.seqlen = 8, .heads = 4, .kv_heads = -2}, "kv_heads is -2, it must not be negative"},
      {{.seqlen = 8, .heads = 4, .kv_heads = 3}, "heads is 4, which is not a multiple of kv_heads, 3"},
      {{.seqlen = 8, .heads = 4, .kv_heads = 8}, "heads is 4, which is not a multiple of kv_heads, 8"},
      {{.batch = 4, .seqlen = int64_t{1} << 46, .heads = 2},
       "batch 4 x seqlen 70368744177664 x heads 2 x head dim 64 overflows 63 bits"},
      {{.batch = std::numeric_limits<int64_t>::max(), .seqlen = 2, .heads = 1},
       "batch 9223372036854775807 x seqlen 2 x heads 1 x head dim 64 overflows 63 bits"},
      {{.seqlen = 8, .scale = -1},
       "scale is -1, it must be positive and finite, or 0 for 1 / sqrt(head dim)"},
      {{.seqlen = 8, .scale = nan},
       "scale is nan, it must be positive and finite, or 0 for 1 / sqrt(head dim)"},
      {{.seqlen = 8, .scale = infinity},
       "scale is inf, it must be positive and finite, or 0 for 1 / sqrt(head dim)"},
  };
  for (Case const& c : cases) CHECK(complaint(c.problem, 64) == std::string("lightseq: ") + c.sentence);
  CHECK(complaint({.batch = 2, .seqlen = int64_t{1} << 46, .heads = 2}, 64) == "");  // the largest that fits
}

TEST_CASE("checked_product is the product, or -1 where it does not fit, in whatever order") {
  std::mt19937_64 random(test::run_seed());
  auto const size = [&] { return static_cast<int64_t>(random() >> (1 + random() % 63)); };
  int fits = 0, overflows = 0;
  for (int run = 0; run < 20000; ++run) {
    int64_t const a = size(), b = size(), c = run % 4 == 0 ? random() % 3 : size();
    int64_t ab = 0, product = 0;
    bool const overflow =
        c != 0 && (__builtin_mul_overflow(a, b, &ab) || __builtin_mul_overflow(ab, c, &product));
    int64_t const wanted = overflow && a != 0 && b != 0 ? -1 : a == 0 || b == 0 ? 0 : product;
    CHECK(checked_product(a, b, c) == wanted);
    CHECK(checked_product(c, b, a) == wanted);
    CHECK(checked_product(b, c, a) == wanted);
    ++(wanted < 0 ? overflows : fits);
  }
  CHECK(fits > 1000);
  CHECK(overflows > 1000);
  CHECK(checked_product(7) == 7);
  constexpr int64_t top = std::numeric_limits<int64_t>::max();
  CHECK(checked_product(top, 1) == top);
  CHECK(checked_product(top, 2) == -1);
  CHECK(checked_product(int64_t{1} << 31, int64_t{1} << 31) == int64_t{1} << 62);
  CHECK(checked_product(int64_t{1} << 32, int64_t{1} << 31) == -1);
}

TEST_CASE("capped_sum is the sum, or the largest number") {
  constexpr int64_t top = std::numeric_limits<int64_t>::max();
  CHECK(capped_sum(0, 0) == 0);
  CHECK(capped_sum(top - 5, 5) == top);
  CHECK(capped_sum(top - 5, 6) == top);
  CHECK(capped_sum(top, top) == top);
  CHECK(capped_sum(40, 2) == 42);
}
