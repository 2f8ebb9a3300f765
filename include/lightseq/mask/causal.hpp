// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// A query sees itself and every earlier key.
struct Causal {
  static constexpr char const* name = "Causal";
  static constexpr bool exact_rows = true;

  LIGHTSEQ_HD static constexpr bool visible(std::int64_t query, std::int64_t key) { return key <= query; }
  LIGHTSEQ_HD static constexpr Cover cover(Range queries, Range keys) {
    if (keys.begin >= queries.end) return Cover::none;
    return keys.end <= queries.begin + 1 ? Cover::full : Cover::partial;
  }
  LIGHTSEQ_HD static constexpr Range keys_of(Range queries) { return {0, queries.end}; }
  LIGHTSEQ_HD static constexpr Range queries_of(Range keys) { return {keys.begin, Range::everything().end}; }
  static constexpr Reach reach() { return {Reach::far, 0}; }
};
static_assert(BoundedMask<Causal> && HasReach<Causal>);

}  // namespace lightseq
