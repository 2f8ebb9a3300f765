// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/host_device.hpp"

namespace lightseq {

/// Global token positions begin, ..., end - 1.
struct Range {
  std::int64_t begin = 0;
  std::int64_t end = 0;

  LIGHTSEQ_HD constexpr std::int64_t size() const { return end - begin; }
  LIGHTSEQ_HD constexpr bool empty() const { return end <= begin; }
  friend constexpr bool operator==(Range const&, Range const&) = default;
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

/// Where the rows of a shard sit in the sequence: the rows of at most two segments, one behind the other.
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

}  // namespace lightseq
