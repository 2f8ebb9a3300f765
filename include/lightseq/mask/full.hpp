// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// Every query sees every key.
struct Full {
  static constexpr char const* name = "Full";
  static constexpr bool exact_rows = true;

  LIGHTSEQ_HD static constexpr bool visible(std::int64_t, std::int64_t) { return true; }
  LIGHTSEQ_HD static constexpr Cover cover(Range, Range) { return Cover::full; }
  static constexpr Reach reach() { return {Reach::far, Reach::far}; }
};
static_assert(HasReach<Full>);

}  // namespace lightseq
