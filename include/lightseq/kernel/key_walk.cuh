// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/range.hpp"
#include "lightseq/kernel/fragment.cuh"
#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// The tiles of `KeyRows` keys that some queries see, in each segment from the last to the first: those that
/// a mask cuts tend to come first. A whole warp walks, and asks the mask about 32 tiles at a time.
template <int KeyRows, Mask M>
struct KeyWalk {
  M const& mask;
  LaunchSegment const* keys;  ///< the segments
  Range queries;
  int segment;         ///< the current tile's; at first the one before or behind those to walk
  int last, step;      ///< the last segment to walk, and the way there: 1 or -1
  int first = 0;       ///< the current tile's first row in `segment`
  bool tests = false;  ///< whether the current tile needs element tests
  int end = 0;         ///< the tiles from here on are behind us
  int scanned = 0;     ///< bit i of the two below is tile scanned - 1 - i
  unsigned visible = 0, partial = 0;

  /// Goes to the next tile, if there is one.
  __device__ __forceinline__ bool next() {
    while (visible == 0) {
      if (end == 0) {
        if (segment == last) return false;
        segment += step;
        end = (keys[segment].count + KeyRows - 1) / KeyRows;
      } else {
        scan();
      }
    }
    int const bit = __ffs(static_cast<int>(visible)) - 1;
    visible &= visible - 1;
    first = (scanned - 1 - bit) * KeyRows;
    tests = (partial >> bit & 1) != 0;
    return true;
  }

 private:
  __device__ __forceinline__ void scan() {
    int const row = (end - 1 - static_cast<int>(threadIdx.x) % 32) * KeyRows;
    int const rows = min(KeyRows, keys[segment].count - row);
    Cover const cover = row < 0 ? Cover::none : mask.cover(queries, keys[segment].hull(row, rows));
    visible = __ballot_sync(~0u, cover != Cover::none);
    partial = __ballot_sync(~0u, cover == Cover::partial || rows < KeyRows);
    scanned = end;
    end = max(end - 32, 0);
  }
};

}  // namespace lightseq
