// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/key_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Whose turn it is to add to the gradients of a query tile: key tiles add their parts in the order in which
/// the launch takes the key tiles. A thread block waits only for tiles that were taken earlier, by thread
/// blocks that are therefore running.
template <int QueryRows, int KeyRows, Mask M>
struct DqSemaphore {
  M const& mask;
  KeyTileScheduler const& order;
  LaunchSegment const *queries, *keys;
  /// For each batch, head and query tile: the turn, plus 1, of the key tile that has added its part last.
  unsigned* semaphores;

  /// The semaphores that a launch of this size may need: its rows may lie in two segments.
  static constexpr std::int64_t count(std::int64_t batch, std::int64_t heads, std::int64_t query_rows) {
    return batch * heads * (query_rows / QueryRows + 2);
  }

  /// Where the turn is kept of the query tile from row `first` of `segment` on.
  __device__ __forceinline__ unsigned* at(int batch, int head, int segment, int first) const {
    int const in_first = (queries[0].count + QueryRows - 1) / QueryRows;
    int const tiles = in_first + (queries[1].count + QueryRows - 1) / QueryRows;
    std::int64_t const batch_head = std::int64_t{batch} * order.kv_heads * order.group + head;
    return semaphores + batch_head * tiles + segment * in_first + first / QueryRows;
  }

  /// The last turn before `turn` of a tile that adds to the query tile of these positions, or -1. A whole
  /// warp looks for it: the mask tells which tiles those are. `from_last` says whether the last keys come
  /// first.
  __device__ __forceinline__ int last_before(Range const& hull, int turn, bool from_last) const {
    int const lane = static_cast<int>(threadIdx.x) % 32;
    int before = turn - 1, step = 1;  // a lane asks about so many turns at once
    while (before >= 0) {
      bool visible = false;
      if (int const high = before - lane * step; high >= 0) {
        int const number = order.number_at(high, from_last),
                  other = order.number_at(max(high - step + 1, 0), from_last);
        TilePlace const first = KeyTileScheduler::place_of(min(number, other), keys[0].count, KeyRows);
        TilePlace const last = KeyTileScheduler::place_of(max(number, other), keys[0].count, KeyRows);
        LaunchSegment const& segment = keys[last.segment];
        Range const key_hull =
            segment.hull(first.first, min(last.first + KeyRows, segment.count) - first.first);
        visible =
            first.segment != last.segment || (step == 1 ? cover_within(mask, hull, key_hull) != Cover::none
                                                        : keys_within(mask, hull).touches(key_hull));
      }
      unsigned const any = __ballot_sync(~0u, visible);
      if (any == 0) {
        before -= 32 * step;
        if constexpr (BoundedMask<M>) step *= 32;
      } else {
        before -= (__ffs(static_cast<int>(any)) - 1) * step;
        if (step == 1) return before;
        step = 1;
      }
    }
    return -1;
  }

  /// Waits until the tiles before `turn` have added their parts to the query tile of these positions, and
  /// says whether there are any. A whole warp calls it.
  __device__ __forceinline__ bool wait(unsigned const* place, Range const& hull, int turn,
                                       bool from_last) const {
    unsigned const want = static_cast<unsigned>(last_before(hull, turn, from_last) + 1);
    if (threadIdx.x % 32 == 0) {
      while (ptx::load_acquire(place) != want) {
      }
    }
    __syncwarp();
    return want > 0;
  }
  __device__ __forceinline__ void wait(unsigned const* place, Range const& hull, int turn) const {
    wait(place, hull, turn, order.from_last > 0);
  }

  /// Says that the tile of `turn` has added its part. One of the threads that added calls it, after a barrier
  /// of all of them.
  __device__ __forceinline__ static void pass(unsigned* place, int turn) {
    ptx::store_release(place, static_cast<unsigned>(turn + 1));
  }
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
