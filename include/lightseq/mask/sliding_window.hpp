// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>

#include "lightseq/core/error.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// A query at position i sees the keys i - left, ..., i + right: left + right + 1 of them.
struct SlidingWindow {
  static constexpr char const* name = "SlidingWindow";
  static constexpr bool exact_rows = true;

  std::int64_t left = 0;   ///< earlier keys in sight, not negative
  std::int64_t right = 0;  ///< later keys in sight, not negative; 0 is causal

  /// Itself and the keys - 1 before it.
  static constexpr SlidingWindow seeing(std::int64_t keys) { return {keys - 1, 0}; }

  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return query - key <= left && key - query <= right;
  }
  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    std::int64_t const last_query = queries.end - 1;
    std::int64_t const last_key = keys.end - 1;
    if (queries.begin - last_key > left || keys.begin - last_query > right) return Cover::none;
    bool const all = last_query - keys.begin <= left && last_key - queries.begin <= right;
    return all ? Cover::full : Cover::partial;
  }

  /// A negative side, which elsewhere often means none.
  std::string fault() const {
    if (left >= 0 && right >= 0) return {};
    return sentence("SlidingWindow{", left, ", ", right,
                    "}: left and right must not be negative; a side without a limit has that of the "
                    "sequence's length or more");
  }
  void name_values(Fingerprint& fingerprint) const {
    fingerprint.add("the window's left", left);
    fingerprint.add("the window's right", right);
  }

  LIGHTSEQ_HD constexpr Range keys_of(Range queries) const { return widened(queries, left, right); }
  LIGHTSEQ_HD constexpr Range queries_of(Range keys) const { return widened(keys, right, left); }
  constexpr Reach reach() const { return {left, right}; }

 private:
  /// A range widened by so many positions before and after it, as far as there are any.
  LIGHTSEQ_HD static constexpr Range widened(Range range, std::int64_t before, std::int64_t behind) {
    constexpr Range all = Range::everything();
    return {range.begin > before ? range.begin - before : all.begin,
            all.end - range.end > behind ? range.end + behind : all.end};
  }
};
static_assert(BoundedMask<SlidingWindow> && HasReach<SlidingWindow> && HasFault<SlidingWindow> &&
              NamesValues<SlidingWindow>);

}  // namespace lightseq
