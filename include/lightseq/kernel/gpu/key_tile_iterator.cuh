// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/kernel/gpu/segment.cuh"
#include "lightseq/mask/mask.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// What walks over key tiles: KeyTileIterator.
template <class Walk>
concept KeyWalk = requires(Walk walk) {
  { walk.next() } -> std::same_as<bool>;
  { walk.segment } -> std::convertible_to<int>;
  { walk.first } -> std::convertible_to<int>;
  { walk.tests } -> std::convertible_to<bool>;
};

/// The tiles of `KeyRows` keys that some queries see, in each segment from the last to the first: those that
/// a mask cuts tend to come first. A whole warp walks, and asks the mask about 32 tiles at a time of those
/// within its bounds.
template <int KeyRows, Mask M>
struct KeyTileIterator {
  M const& mask;
  LaunchSegment const* keys;  ///< the segments
  Range queries;
  int segment;         ///< the current tile's; at first one before or one past the segments to walk
  int last, step;      ///< the last segment to walk, and the way there: 1 or -1
  int first = 0;       ///< the current tile's first row in `segment`
  bool tests = false;  ///< whether the current tile needs element tests
  int left = 0;        ///< tiles of the segment that the mask has yet to be asked about
  int end = 0;         ///< the last of them, plus 1: bit i of the two below is tile end + 31 - i
  unsigned visible = 0, partial = 0;
  TileSpan<int> earlier = {};  ///< tiles of the segment to come after those left, of a mask of key ranges

  /// Goes to the next tile, if there is one.
  __device__ __forceinline__ bool next() {
    while (visible == 0) {
      if (left <= 0) {
        if constexpr (gives_key_ranges<M>)
          if (take_earlier()) continue;
        if (segment == last) return false;
        segment += step;
        TileSpan<int> const tiles = last_tiles();
        left = tiles.size(), end = tiles.end;
      } else {
        scan();
      }
    }
    int const bit = __ffs(static_cast<int>(visible)) - 1;
    visible &= visible - 1;
    first = (end + 31 - bit) * KeyRows;
    tests = (partial >> bit & 1) != 0;
    return true;
  }

 private:
  /// Goes to the tiles before a gap in the segment, if there are any.
  __device__ __forceinline__ bool take_earlier() {
    left = earlier.size(), end = earlier.end;
    earlier = {};
    return left > 0;
  }

  /// The tiles of the segment within the bounds; of a mask of key ranges those after the gap.
  __device__ __forceinline__ TileSpan<int> last_tiles() {
    if constexpr (gives_key_ranges<M>) {
      RangePair const ranges = mask.key_ranges_of(queries);
      TileSpanPair<int> const tiles = apart(keys[segment].tiles_within(KeyRows, ranges.first),
                                            keys[segment].tiles_within(KeyRows, ranges.second));
      earlier = tiles.first;
      return tiles.second;
    } else {
      return keys[segment].tiles_within(KeyRows, bound());
    }
  }

  /// keys_within(), which the host calls too: there nvcc only warns of a mask's function that is the host's.
  __device__ __forceinline__ Range bound() const {
    if constexpr (is_bounded<M>)
      return mask.keys_of(queries);
    else
      return Range::everything();
  }

  __device__ __forceinline__ void scan() {
    int const lane = static_cast<int>(threadIdx.x) % 32, row = (end - 1 - lane) * KeyRows;
    int const rows = min(KeyRows, keys[segment].count - row);
    Cover const cover = lane >= left ? Cover::none : mask.cover(queries, keys[segment].hull(row, rows));
    visible = __ballot_sync(~0u, cover != Cover::none);
    partial = __ballot_sync(~0u, cover == Cover::partial || rows < KeyRows);
    left -= 32, end -= 32;
  }
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
