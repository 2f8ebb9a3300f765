// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/gpu/key_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/query_units.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// What becomes of the sums of the gradients of queries beside the work on key tiles, while they are in the
/// L2 cache: warps that have nothing else to do zero those of a section of heads, or of a unit of a long
/// head, before it begins, and round them to elements when all of its key tiles have added their parts. No
/// warp waits for one that has not started.
template <int HeadDim, class T, int TileRows>
struct DqZeroRound {
  Tensor<float> sums = {};
  Tensor<T> rounded = {};  ///< null: they stay floats
  bool zeroes = false;
  int rows[2] = {};          ///< of a batch and head, in each segment
  int head_jobs = 0;         ///< query tiles of the heads that share a key/value head
  int jobs = 0;              ///< in all sections, one section after another
  QueryUnits in_units = {};  ///< of a section: one, or the units of its head if it has one head
  int unit_jobs = 0,
      unit_tiles = 0;  ///< of a unit of queries, and of keys; of the last one there may be fewer
  int ahead = 0;       ///< key tiles: sums are not zero long before the first part comes
  std::int64_t sums_step = 0, rounded_step = 0;  ///< elements from one row of a lane to the next one
  /// How many jobs of zeroing and of rounding have been taken; then, for each unit, how many jobs of zeroing
  /// are done, and how often a warp has added all of its parts of a key tile.
  unsigned* counters = nullptr;

  /// The counters that a launch of this size may need, and the counters of this launch.
  static constexpr std::int64_t counters_for(std::int64_t batch_heads, std::int64_t key_tiles) {
    return 2 + 2 * batch_heads * QueryUnits::most_for(key_tiles);
  }
  std::int64_t counters_of(KeyTileScheduler const& order) const {
    return 2 + std::int64_t{2} * order.batch_heads * in_units.count;
  }

  template <BackwardAttentionCall Call, Mask M>
  void describe(Call const& call, M const& mask, KeyTileScheduler const& order, int query_tiles, int key_rows,
                int multiprocessors) {
    sums = call.dq;
    rounded = call.dq_out;
    zeroes = call.dq_zero;
    if (!zeroes && rounded.data == nullptr) return;
    for (int i = 0; i < 2; ++i) rows[i] = static_cast<int>(call.queries.segments[i].rows);
    head_jobs = query_tiles * order.group;
    jobs = head_jobs * order.batch_heads;
    if (order.section == 1) in_units = QueryUnits::make(mask, call.queries, TileRows, call.keys, key_rows);
    unit_jobs = in_units.count > 1 ? in_units.query_tiles * order.group : order.section * head_jobs;
    unit_tiles = in_units.count > 1 ? in_units.key_tiles : order.section * order.key_tiles;
    ahead = 2 * multiprocessors;
    sums_step = rows_at_once * sums.strides.token, rounded_step = rows_at_once * rounded.strides.token;
  }

  /// The unit that key tile `index` belongs to, counted through all sections.
  __device__ __forceinline__ int unit_of_tile(KeyTileScheduler const& order, int index) const {
    int const section = order.section_of(index);
    if (in_units.count == 1) return section;
    int const turn = index - section * order.key_tiles;
    return section * in_units.count + order.number_at(turn, index < order.from_last) / unit_tiles;
  }

  /// Waits until the sums are zero to which a unit of keys adds. Called by the thread that then adds to them.
  __device__ __forceinline__ void wait_zeroed(KeyTileScheduler const& order, int unit) const {
    if (!zeroes) return;
    int const of_section = unit % in_units.count, first = unit - of_section;
    for (int i = in_units.units[of_section].queries_begin; i < in_units.units[of_section].queries_end; ++i)
      while (static_cast<int>(load(zeroed(first + i))) != jobs_in(order, first + i)) {
      }
    fence();
  }

  /// Called by the two threads that have added all parts of a key tile, when these have arrived.
  __device__ __forceinline__ void added(int unit) const { count(parts(unit)); }

  /// Zeroes the query tiles of which `zeroes_tile(segment, first row)` is true and rounds all, until nothing
  /// is left. A whole warp calls it. It has `Loads` rows under way at a time.
  template <int Loads, class Zeroes>
  __device__ __forceinline__ void zero_and_round(KeyTileScheduler const& order, unsigned const* taken,
                                                 Zeroes const& zeroes_tile) const {
    int zero = zeroes ? take(0) : jobs, round = rounded.data != nullptr ? take(1) : jobs;
    while (zero < jobs || round < jobs) {
      int const next = unit_of_job(order, zero), last = unit_of_job(order, round);
      // Lanes may see different numbers: all of them have to see enough.
      if (__all_sync(~0u, zero < jobs && is_due(order, next, taken))) {
        zero_rows(order, zero, zeroes_tile);
        fence();
        __syncwarp();
        if (threadIdx.x % 32 == 0) count(zeroed(next));
        zero = take(0);
      } else if (__all_sync(~0u, round < jobs && complete(order, last))) {
        fence();
        round_rows<Loads>(order, round);
        round = take(1);
      } else {
        __nanosleep(500);
      }
    }
  }

 private:
  static constexpr int eights = HeadDim / 8, rows_at_once = 32 / eights;  ///< of a warp

  __device__ __forceinline__ unsigned* zeroed(int unit) const { return counters + 2 + 2 * unit; }
  __device__ __forceinline__ unsigned* parts(int unit) const { return counters + 3 + 2 * unit; }

  /// The unit that a job belongs to, counted through all sections.
  __device__ __forceinline__ int unit_of_job(KeyTileScheduler const& order, int job) const {
    int const of_section = order.section * head_jobs, section = job / of_section;
    return section * in_units.count + (job - section * of_section) / unit_jobs;
  }

  /// How many jobs a unit has, and how many key tiles.
  __device__ __forceinline__ int jobs_in(KeyTileScheduler const& order, int unit) const {
    int const section = unit / in_units.count;
    return min(unit_jobs, order.heads_in(section) * head_jobs - unit % in_units.count * unit_jobs);
  }
  __device__ __forceinline__ int tiles_in(KeyTileScheduler const& order, int unit) const {
    int const section = unit / in_units.count;
    return min(unit_tiles, order.heads_in(section) * order.key_tiles - unit % in_units.count * unit_tiles);
  }

  /// Whether it is time to zero a unit's sums.
  __device__ __forceinline__ bool is_due(KeyTileScheduler const& order, int unit,
                                         unsigned const* taken) const {
    int const section = unit / in_units.count;
    int const due =
        section * order.section * order.key_tiles + in_units.units[unit % in_units.count].due * unit_tiles;
    return due <= static_cast<int>(load(taken)) + ahead;
  }

  /// Whether all parts of a unit's sums have arrived.
  __device__ __forceinline__ bool complete(KeyTileScheduler const& order, int unit) const {
    int const of_section = unit % in_units.count, first = unit - of_section;
    for (int i = in_units.units[of_section].keys_begin; i < in_units.units[of_section].keys_end; ++i)
      if (static_cast<int>(load(parts(first + i))) != 2 * tiles_in(order, first + i)) return false;
    return !zeroes || static_cast<int>(load(zeroed(unit))) == jobs_in(order, unit);
  }

  __device__ __forceinline__ int take(int kind) const {
    int job = 0;
    if (threadIdx.x % 32 == 0) job = static_cast<int>(atomicAdd(counters + kind, 1));
    return ptx::uniform(job);
  }

  /// Looks at a counter. To acquire it each time would empty the L1 cache, where the warps that move data
  /// keep what finds no room in registers.
  __device__ __forceinline__ static unsigned load(unsigned const* from) { return ptx::load_relaxed(from); }
  __device__ __forceinline__ static void count(unsigned* at) { ptx::count_release(at); }

  /// Orders what was seen or written before it and what follows, of threads and of TMA alike.
  __device__ __forceinline__ static void fence() {
    asm volatile("fence.acq_rel.gpu; fence.proxy.async;" ::: "memory");
  }

  /// Calls f(batch, head, row, end, dim) in the lanes that have rows of a job, if `counts(segment, row)` is
  /// true of its first row.
  template <class Counts, class F>
  __device__ __forceinline__ void for_job(KeyTileScheduler const& order, int job, Counts const& counts,
                                          F const& f) const {
    int const batch_head = job / head_jobs, rest = job % head_jobs, number = rest / order.group;
    int const head = batch_head % order.kv_heads * order.group + rest % order.group;
    int const in_first = (rows[0] + TileRows - 1) / TileRows;
    int const segment = number < in_first ? 0 : 1, first = (number - segment * in_first) * TileRows;
    if (!counts(segment, first)) return;
    int const before = segment * rows[0], lane = static_cast<int>(threadIdx.x) % 32;
    if (lane / eights < rows_at_once)
      f(batch_head / order.kv_heads, head, before + first + lane / eights,
        before + min(rows[segment], first + TileRows), lane % eights * 8);
  }

  template <class Counts>
  __device__ __forceinline__ void zero_rows(KeyTileScheduler const& order, int job,
                                            Counts const& counts) const {
    for_job(order, job, counts, [&](int batch, int head, int row, int end, int dim) {
      float* to = sums.at(batch, row, head) + dim;
#pragma unroll 1
      for (; row < end; row += rows_at_once, to += sums_step) {
        reinterpret_cast<float4*>(to)[0] = {};
        reinterpret_cast<float4*>(to)[1] = {};
      }
    });
  }

  template <int Loads>
  __device__ __forceinline__ void round_rows(KeyTileScheduler const& order, int job) const {
    auto const all = [](int, int) { return true; };
    for_job(order, job, all, [&](int batch, int head, int row, int end, int dim) {
      float const* from = sums.at(batch, row, head) + dim;
      T* to = rounded.at(batch, row, head) + dim;
#pragma unroll 1
      while (row < end) {
        float4 low[Loads], high[Loads];
#pragma unroll
        for (int i = 0; i < Loads; ++i, from += sums_step)
          if (row + i * rows_at_once < end) {
            low[i] = __ldcg(reinterpret_cast<float4 const*>(from));
            high[i] = __ldcg(reinterpret_cast<float4 const*>(from) + 1);
          }
#pragma unroll
        for (int i = 0; i < Loads; ++i, row += rows_at_once, to += rounded_step)
          if (row < end)
            *reinterpret_cast<uint4*>(to) = {
                ptx::pack<T>(low[i].x, low[i].y), ptx::pack<T>(low[i].z, low[i].w),
                ptx::pack<T>(high[i].x, high[i].y), ptx::pack<T>(high[i].z, high[i].w)};
      }
    });
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
