// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>
#include <limits>

#include "lightseq/core/host_device.hpp"

namespace lightseq {

/// Global token positions begin, ..., end - 1.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  LIGHTSEQ_HD constexpr std::int64_t size() const { return end - begin; }
  LIGHTSEQ_HD constexpr bool empty() const { return end <= begin; }
  LIGHTSEQ_HD constexpr bool contains(std::int64_t position) const {
    return begin <= position && position < end;
  }
  LIGHTSEQ_HD constexpr bool touches(Range const& other) const {
    return begin < other.end && other.begin < end && !empty() && !other.empty();
  }

  /// The smallest range that holds both; an empty one adds nothing.
  LIGHTSEQ_HD constexpr Range joined(Range const& other) const {
    if (other.empty()) return *this;
    if (empty()) return other;
    return {begin < other.begin ? begin : other.begin, end > other.end ? end : other.end};
  }

  /// Every position that there is.
  LIGHTSEQ_HD static constexpr Range everything() { return {0, INT64_MAX}; }
  friend constexpr bool operator==(Range const&, Range const&) = default;
};

/// Positions in two ranges, of which the second is empty or lies after the first.
struct RangePair {
  Range first, second;

  LIGHTSEQ_HD constexpr bool touches(Range const& range) const {
    return first.touches(range) || second.touches(range);
  }
  LIGHTSEQ_HD constexpr Range hull() const { return first.joined(second); }

  /// What holds both: the first ranges joined and the second ones, or all of them where these two meet.
  LIGHTSEQ_HD constexpr RangePair joined(RangePair const& other) const {
    RangePair const both{first.joined(other.first), second.joined(other.second)};
    if (both.second.empty() || both.first.end < both.second.begin) return both;
    return {both.hull(), {}};
  }
  friend constexpr bool operator==(RangePair const&, RangePair const&) = default;
};

/// Rows 0, ..., rows - 1 at the global positions begin, begin + stride, begin + 2 * stride, ...
struct Segment {
  std::int64_t begin = 0;
  std::int64_t rows = 0;
  std::int64_t stride = 1;

  LIGHTSEQ_HD constexpr std::int64_t position(std::int64_t row) const { return begin + row * stride; }

  /// The rows first, ..., first + count - 1 of this segment.
  LIGHTSEQ_HD constexpr Segment slice(std::int64_t first, std::int64_t count) const {
    return {position(first), count, stride};
  }

  /// The smallest range that holds every position; empty if there are no rows.
  LIGHTSEQ_HD constexpr Range hull() const {
    return rows > 0 ? Range{begin, position(rows - 1) + 1} : Range{begin, begin};
  }
  friend constexpr bool operator==(Segment const&, Segment const&) = default;
};

/// Where the rows of a shard sit in the sequence: the rows of at most two segments, one after the other.
struct Positions {
  static constexpr int max_segments = 2;
  Segment segments[max_segments] = {};

  LIGHTSEQ_HD constexpr std::int64_t rows() const { return segments[0].rows + segments[1].rows; }

  /// Global position of a row, 0 <= row < rows().
  LIGHTSEQ_HD constexpr std::int64_t position(std::int64_t row) const {
    return row < segments[0].rows ? segments[0].position(row) : segments[1].position(row - segments[0].rows);
  }

  /// The rows first, ..., first + count - 1.
  LIGHTSEQ_HD constexpr Positions slice(std::int64_t first, std::int64_t count) const {
    std::int64_t const split = segments[0].rows;
    std::int64_t const end = first + count;
    std::int64_t const head = first < split ? (end < split ? end : split) - first : 0;
    std::int64_t const skip = first > split ? first - split : 0;
    return {{segments[0].slice(first < split ? first : 0, head), segments[1].slice(skip, count - head)}};
  }
  friend constexpr bool operator==(Positions const&, Positions const&) = default;
};

/// How many tiles of `tile` rows some rows take, the last of them perhaps not full.
LIGHTSEQ_HD constexpr std::int64_t tiles_of(std::int64_t rows, std::int64_t tile) {
  return rows / tile + (rows % tile > 0 ? 1 : 0);
}

/// Tiles begin, ..., end - 1 of rows that are cut into tiles of one size, from the first row on; the last
/// tile may be shorter.
template <std::signed_integral Int>
struct TileSpan {
  Int begin = 0;
  Int end = 0;

  LIGHTSEQ_HD constexpr Int size() const { return end - begin; }
  friend constexpr bool operator==(TileSpan const&, TileSpan const&) = default;
};

/// The span from the first tile to the last one in the spans of two segments, where the second one's tiles
/// are numbered after the `in_first` tiles of the first.
template <std::signed_integral Int>
LIGHTSEQ_HD constexpr TileSpan<Int> joined(TileSpan<Int> const& first, Int in_first,
                                           TileSpan<Int> const& second) {
  if (second.size() <= 0) return first;
  return {first.size() > 0 ? first.begin : in_first + second.begin, in_first + second.end};
}

/// Two spans of tiles, of which the second is empty or comes after the first.
template <std::signed_integral Int>
struct TileSpanPair {
  TileSpan<Int> first, second;
};

/// The tiles of two spans, no tile twice: all from the first to the last where the second does not come after
/// the first.
template <std::signed_integral Int>
LIGHTSEQ_HD constexpr TileSpanPair<Int> apart(TileSpan<Int> const& first, TileSpan<Int> const& second) {
  if (second.size() <= 0) return {first, {}};
  if (first.size() <= 0) return {second, {}};
  if (first.end <= second.begin) return {first, second};
  return {{first.begin < second.begin ? first.begin : second.begin,
           first.end > second.end ? first.end : second.end},
          {}};
}

/// The largest number of a type.
template <std::signed_integral Int>
inline constexpr Int largest = std::numeric_limits<Int>::max();

/// How many of the `rows` rows at begin, begin + stride, ... lie before `position`. The begin is not
/// negative, the stride positive, and Int holds the last row's position.
template <std::signed_integral Int>
LIGHTSEQ_HD constexpr Int rows_before(Int begin, Int stride, Int rows, Int position) {
  if (position <= begin) return 0;
  Int const distance = position - begin;
  if (distance > (rows - 1) * stride) return rows;
  return stride == 1 ? distance : (distance - 1) / stride + 1;  // most are 1, and a division is slow
}

/// Which of these rows' tiles of `size` rows a range touches: all others lie, from their first row to their
/// last, before it or after it. The range's begin and end may be any numbers.
template <std::signed_integral Int>
LIGHTSEQ_HD constexpr TileSpan<Int> tiles_within(Int begin, Int stride, Int rows, Int size,
                                                 Range const& range) {
  constexpr std::int64_t most = largest<Int>;
  auto const clamped = [](std::int64_t position) {
    return static_cast<Int>(position < 0 ? 0 : position < most ? position : most);
  };
  Int const before = rows_before<Int>(begin, stride, rows, clamped(range.begin));
  if (range.empty() || before == rows) return {};
  return {before / size, (rows_before<Int>(begin, stride, rows, clamped(range.end)) + size - 1) / size};
}
LIGHTSEQ_HD constexpr TileSpan<std::int64_t> tiles_within(Segment const& segment, std::int64_t size,
                                                          Range const& range) {
  return tiles_within<std::int64_t>(segment.begin, segment.stride, segment.rows, size, range);
}

/// How many tiles of at most `size` rows a shard falls into; no tile straddles its segments.
constexpr std::int64_t tiles_of(Positions const& shard, std::int64_t size) {
  return tiles_of(shard.segments[0].rows, size) + tiles_of(shard.segments[1].rows, size);
}

/// Rows first, ..., first + rows - 1 of a shard, all of one segment.
struct ShardTile {
  std::int64_t first = 0;
  int rows = 0;
  Segment positions = {};
};

/// Tile `index` of those.
constexpr ShardTile tile_at(Positions const& shard, std::int64_t size, std::int64_t index) {
  std::int64_t const in_first = tiles_of(shard.segments[0].rows, size);
  bool const second = index >= in_first;
  Segment const& segment = shard.segments[second ? 1 : 0];
  std::int64_t const skip = (second ? index - in_first : index) * size;
  std::int64_t const rows = segment.rows - skip < size ? segment.rows - skip : size;
  return {skip + (second ? shard.segments[0].rows : 0), static_cast<int>(rows), segment.slice(skip, rows)};
}

/// The same for the tiles of a shard, which do not straddle its segments. The span is exact where the
/// segments lie in the order of their positions.
LIGHTSEQ_HD constexpr TileSpan<std::int64_t> tiles_within(Positions const& shard, std::int64_t size,
                                                          Range const& range) {
  return joined<std::int64_t>(tiles_within(shard.segments[0], size, range),
                              tiles_of(shard.segments[0].rows, size),
                              tiles_within(shard.segments[1], size, range));
}

}  // namespace lightseq
