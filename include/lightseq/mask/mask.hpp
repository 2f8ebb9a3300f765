// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>
#include <utility>

#include "lightseq/core/range.hpp"

namespace lightseq {

/// What a rectangle of the attention matrix looks like under a mask.
enum class Cover {
  none,     ///< no pair is visible: the rectangle costs nothing
  partial,  ///< anything: every pair is asked for
  full      ///< every pair is visible: no pair is asked for
};

/// Which keys a query sees. `visible(q, k)` answers for one pair of global positions; `cover(queries, keys)`
/// for a rectangle of two ranges that are not empty. `none` and `full` must be exact, `partial` is always
/// allowed; laws::first_fault(mask, n) finds where they are not. A mask may hold values; it is copied into
/// kernels. Ranks compare these values, byte by byte; one that holds floats, padding, lists or addresses has,
/// in place of that, `std::int64_t digest() const`: a number that equal masks share, see digest_of(). Values
/// may make no sense, see HasFault, or not fit a sequence, see HasFaultIn, and may have names, see
/// NamesValues. What shows little of a long sequence should be a BoundedMask too; one that can count what it
/// shows says so, see HasReach and HasPairs.
template <class M>
concept Mask = std::copyable<M> && requires(M const mask, std::int64_t position, Range range) {
  { mask.visible(position, position) } -> std::same_as<bool>;
  { mask.cover(range, range) } -> std::same_as<Cover>;
};

/// A mask that says where to look: `keys_of(queries)` is a range outside of which no query of a range that is
/// not empty sees any key, `queries_of(keys)` one outside of which no query sees any of these keys. They may
/// reach beyond the sequence and be wider than need be, but of a part of a range they lie in those of the
/// whole. Kernels ask `cover` only about what lies within: their work is proportional to that, where it would
/// otherwise be to all pairs of tiles.
template <class M>
concept BoundedMask = Mask<M> && requires(M const mask, Range range) {
  { mask.keys_of(range) } -> std::same_as<Range>;
  { mask.queries_of(range) } -> std::same_as<Range>;
};

/// Whether a mask has one of the two, or what has their name.
template <class M>
concept HasBound = requires(M mask, Range range) {
  mask.keys_of(range);
}
|| requires(M mask, Range range) { mask.queries_of(range); };

/// Whether a mask has both; one that has half of them does not compile.
template <Mask M>
constexpr bool has_bounds() {
  static_assert(BoundedMask<M> || !HasBound<M>,
                "lightseq: keys_of and queries_of of a mask come together, each from a Range to a Range");
  return BoundedMask<M>;
}
template <Mask M>
inline constexpr bool is_bounded = has_bounds<M>();

/// Where the keys lie that these queries may see: everywhere, unless the mask knows better.
template <Mask M>
LIGHTSEQ_HD constexpr Range keys_within(M const& mask, Range const& queries) {
  if constexpr (is_bounded<M>) return mask.keys_of(queries);
  return Range::everything();
}

/// Where the queries lie that may see these keys.
template <Mask M>
LIGHTSEQ_HD constexpr Range queries_within(M const& mask, Range const& keys) {
  if constexpr (is_bounded<M>) return mask.queries_of(keys);
  return Range::everything();
}

/// A bounded mask that says more closely where keys lie: in two ranges of keys_of(queries), with a gap of
/// which no query sees a key. Kernels ask nothing about the gap.
template <class M>
concept HasKeyRanges = BoundedMask<M> && requires(M const mask, Range range) {
  { mask.key_ranges_of(range) } -> std::same_as<RangePair>;
};

/// Whether a mask does; one whose ranges are of another type, or lack bounds, does not compile.
template <Mask M>
constexpr bool has_key_ranges() {
  static_assert(
      HasKeyRanges<M> || !requires(M mask, Range range) { mask.key_ranges_of(range); },
      "lightseq: key_ranges_of of a mask that has keys_of goes from a Range to a RangePair");
  return HasKeyRanges<M>;
}
template <Mask M>
inline constexpr bool gives_key_ranges = has_key_ranges<M>();

/// The ranges in which the keys lie that these queries may see.
template <Mask M>
LIGHTSEQ_HD constexpr RangePair key_ranges_within(M const& mask, Range const& queries) {
  if constexpr (gives_key_ranges<M>)
    return mask.key_ranges_of(queries);
  else
    return {keys_within(mask, queries), {}};
}

/// What cover() says, but none where one of the bounds does: whoever looks from the queries' side and whoever
/// looks from the keys' agree, though bounds may be wider on one side.
template <Mask M>
LIGHTSEQ_HD constexpr Cover cover_within(M const& mask, Range const& queries, Range const& keys) {
  if constexpr (BoundedMask<M>)
    if (!mask.keys_of(queries).touches(keys) || !mask.queries_of(keys).touches(queries)) return Cover::none;
  return mask.cover(queries, keys);
}

/// A mask of which the bounds of a single position are exactly what is visible says so: `static constexpr
/// bool exact_rows = true`. A mask without bounds that says it shows everything. One that derives from
/// another and widens a bound must say that they are not.
template <class M>
concept HasExactRows = Mask<M> && requires {
  requires M::exact_rows;
};

/// A query at position i sees the keys i - left, ..., i + right, and no others.
struct Reach {
  static constexpr std::int64_t far = INT64_MAX;  ///< as far as there are positions

  std::int64_t left = 0;
  std::int64_t right = 0;
};

/// A mask under which distance alone decides may say how far queries see: `reach()`. Its pairs, and the tiles
/// that hold any, are then counted in O(1), for rows of any one stride.
template <class M>
concept HasReach = Mask<M> && requires(M const mask) {
  { mask.reach() } -> std::same_as<Reach>;
};

/// Any other mask may count by itself: `pairs(queries, keys)` is exactly how many pairs of a query and a key
/// of two ranges, which are not empty, are visible, at most 2^63 - 1, in O(1).
template <class M>
concept HasPairs = Mask<M> && requires(M const mask, Range range) {
  { mask.pairs(range, range) } -> std::same_as<std::int64_t>;
};

/// A mask that looks up once what all pairs of a row share: `row(query)` answers for a key whether the query
/// sees it, and `column(key)` for a query whether it sees the key.
template <class M>
concept HasRows = Mask<M> && requires(M const mask, std::int64_t position) {
  { mask.row(position)(position) } -> std::same_as<bool>;
  { mask.column(position)(position) } -> std::same_as<bool>;
};

/// Whether a mask has one of the two, or what has their name.
template <class M>
concept HasRowOrColumn = requires(M mask, std::int64_t position) {
  mask.row(position);
}
|| requires(M mask, std::int64_t position) { mask.column(position); };

/// Whether a mask has both; one that has half of them does not compile.
template <Mask M>
constexpr bool has_rows() {
  static_assert(HasRows<M> || !HasRowOrColumn<M>,
                "lightseq: row and column of a mask come together, each from a position to what answers for "
                "positions with a bool");
  return HasRows<M>;
}

/// Whether a mask is asked about whole rows: where its rows are ranges, and a pair is dearer than a
/// comparison.
template <Mask M>
inline constexpr bool is_asked_by_rows = HasExactRows<M>&& is_bounded<M> && !HasReach<M> && !has_rows<M>();

/// The answer for all of a row that is a range.
struct RowRange {
  Range range;
  LIGHTSEQ_HD constexpr bool operator()(std::int64_t position) const { return range.contains(position); }
};

/// Which keys a query sees.
template <Mask M>
struct KeysSeen {
  M const& mask;
  std::int64_t query;
  LIGHTSEQ_HD constexpr bool operator()(std::int64_t key) const { return mask.visible(query, key); }
};
template <Mask M>
requires is_asked_by_rows<M>
struct KeysSeen<M> : RowRange {
  LIGHTSEQ_HD constexpr KeysSeen(M const& mask, std::int64_t query)
      : RowRange{mask.keys_of({query, query + 1})} {}
};
template <Mask M>
requires(has_rows<M>()) struct KeysSeen<M> {
  decltype(std::declval<M const&>().row(0)) row;
  LIGHTSEQ_HD constexpr KeysSeen(M const& mask, std::int64_t query) : row(mask.row(query)) {}
  LIGHTSEQ_HD constexpr bool operator()(std::int64_t key) const { return row(key); }
};

/// Which queries see a key.
template <Mask M>
struct SeeingQueries {
  M const& mask;
  std::int64_t key;
  LIGHTSEQ_HD constexpr bool operator()(std::int64_t query) const { return mask.visible(query, key); }
};
template <Mask M>
requires is_asked_by_rows<M>
struct SeeingQueries<M> : RowRange {
  LIGHTSEQ_HD constexpr SeeingQueries(M const& mask, std::int64_t key)
      : RowRange{mask.queries_of({key, key + 1})} {}
};
template <Mask M>
requires(has_rows<M>()) struct SeeingQueries<M> {
  decltype(std::declval<M const&>().column(0)) column;
  LIGHTSEQ_HD constexpr SeeingQueries(M const& mask, std::int64_t key) : column(mask.column(key)) {}
  LIGHTSEQ_HD constexpr bool operator()(std::int64_t query) const { return column(query); }
};

}  // namespace lightseq
