// SPDX-License-Identifier: Apache-2.0
// A mask's reach() and pairs() are read by their types: of another type they would be passed over.
// expect: lightseq: reach() of a mask is constant and returns a lightseq::Reach
// expect: lightseq: pairs() of a mask is constant and returns a std::int64_t
#include "lightseq/mask/pairs.hpp"

struct Mine {
  static constexpr bool visible(std::int64_t query, std::int64_t key) { return key <= query; }
  static constexpr lightseq::Cover cover(lightseq::Range, lightseq::Range) {
    return lightseq::Cover::partial;
  }
#ifdef LIGHTSEQ_FAULT
  static constexpr int reach() { return 5; }
  static constexpr double pairs(lightseq::Range, lightseq::Range) { return 5; }
#endif
};

static_assert(!lightseq::known_pairs(Mine{}, {0, 5}, {0, 5}));
