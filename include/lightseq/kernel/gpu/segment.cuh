// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/kernel/gpu/launch_limits.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// A Segment in the 32 bits that are ample for one launch.
struct LaunchSegment {
  int begin = 0;   ///< position of the first row
  int stride = 1;  ///< from one row's position to the next one's
  int count = 0;   ///< rows

  __device__ __forceinline__ int position(int row) const { return begin + row * stride; }
  __device__ __forceinline__ Range hull(int first, int rows) const {
    return {position(first), std::int64_t{position(first + rows - 1)} + 1};
  }

  /// Its tiles of `size` rows that a range of positions touches.
  __device__ __forceinline__ TileSpan<int> tiles_within(int size, Range const& range) const {
    return lightseq::tiles_within<int>(begin, stride, count, size, range);
  }
};

/// The segment in 32 bits, or too_large.
inline Status narrow(Segment const& segment, LaunchSegment& to, char const* name) {
  constexpr std::int64_t most = max_launch_position;
  std::int64_t const end = segment.hull().end;
  if (segment.rows > most || end > most)
    return {.code = Code::too_large, .subject = name, .other = "last position", .have = end, .need = most};
  to = {static_cast<int>(segment.begin), static_cast<int>(segment.stride), static_cast<int>(segment.rows)};
  return {};
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
