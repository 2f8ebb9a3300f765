// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/backward_order.cuh"
#include "lightseq/kernel/ptx.cuh"

namespace lightseq::sm90 {

/// What becomes of the sums of the gradients of queries beside the work on key tiles, while they are in the
/// L2 cache: warps that have nothing else to do zero those of a section of heads before it begins, and round
/// them to elements when all of its key tiles have added their parts. No warp waits for one that has not
/// started.
template <int HeadDim, class T, int TileRows>
struct QuerySums {
  Tensor<float> sums = {};
  Tensor<T> rounded = {};  ///< null: they stay floats
  bool zeroes = false;
  int rows[2] = {};   ///< of a batch and head, in each segment
  int head_jobs = 0;  ///< query tiles of the heads that share a key/value head
  int jobs = 0;       ///< those of all of them, section by section
  int ahead = 0;      ///< key tiles: sums are not zero long before the first part comes
  std::int64_t sums_step = 0, rounded_step = 0;  ///< elements from one row of a lane to the next one
  /// How many jobs of zeroing and of rounding have been taken; then, for each section, how many jobs of
  /// zeroing are done, and how often a warp has added all of its parts of a key tile.
  unsigned* counters = nullptr;

  static constexpr std::int64_t counters_for(std::int64_t sections) { return 2 + 2 * sections; }

  template <class Call>
  void describe(Call const& call, KeyTileOrder const& order, int query_tiles, int multiprocessors) {
    Shape const shape{call.batch, call.queries.rows(), call.heads, HeadDim};
    sums = call.dq.resolved(shape);
    rounded = call.dq_out.resolved(shape);
    zeroes = call.dq_zero;
    if (!zeroes && rounded.data == nullptr) return;
    for (int i = 0; i < 2; ++i) rows[i] = static_cast<int>(call.queries.segments[i].rows);
    head_jobs = query_tiles * order.group;
    jobs = head_jobs * order.batch_heads;
    ahead = 2 * multiprocessors;
    sums_step = rows_at_once * sums.strides.token, rounded_step = rows_at_once * rounded.strides.token;
  }

  /// Waits until a section's sums are zero. Called by the thread that then adds to them.
  __device__ __forceinline__ void wait_zeroed(KeyTileOrder const& order, int section) const {
    if (!zeroes) return;
    unsigned const want = order.heads_in(section) * head_jobs;
    while (load(zeroed(section)) != want) {
    }
    fence();
  }

  /// Called by the two threads that have added all parts of a key tile, when these have arrived.
  __device__ __forceinline__ void added(int section) const { count(parts(section)); }

  /// Zeroes the query tiles of which `zeroes_tile(segment, first row)` is true and rounds all, until nothing
  /// is left. A whole warp calls it. It has `Loads` rows under way at a time.
  template <int Loads, class Zeroes>
  __device__ __forceinline__ void accompany(KeyTileOrder const& order, unsigned const* taken,
                                            Zeroes const& zeroes_tile) const {
    int zero = zeroes ? take(0) : jobs, round = rounded.data != nullptr ? take(1) : jobs;
    while (zero < jobs || round < jobs) {
      int const next = zero / head_jobs / order.section, last = round / head_jobs / order.section;
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

  __device__ __forceinline__ unsigned* zeroed(int section) const { return counters + 2 + 2 * section; }
  __device__ __forceinline__ unsigned* parts(int section) const { return counters + 3 + 2 * section; }

  /// Whether it is time to zero a section's sums.
  __device__ __forceinline__ bool is_due(KeyTileOrder const& order, int section,
                                         unsigned const* taken) const {
    return section * order.section * order.key_tiles <= static_cast<int>(load(taken)) + ahead;
  }

  /// Whether all parts of a section's sums have arrived.
  __device__ __forceinline__ bool complete(KeyTileOrder const& order, int section) const {
    unsigned const heads = order.heads_in(section);
    return load(parts(section)) == 2 * heads * order.key_tiles &&
           (!zeroes || load(zeroed(section)) == heads * head_jobs);
  }

  __device__ __forceinline__ int take(int kind) const {
    int job = 0;
    if (threadIdx.x % 32 == 0) job = static_cast<int>(atomicAdd(counters + kind, 1));
    return ptx::uniform(job);
  }

  /// Looks at a counter. To acquire it each time would empty the L1 cache, where the warps that move data
  /// keep what finds no room in registers.
  __device__ __forceinline__ static unsigned load(unsigned const* from) {
    unsigned value;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
    return value;
  }
  __device__ __forceinline__ static void count(unsigned* at) {
    asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(at) : "memory");
  }

  /// Orders what was seen or written before it and what follows, of threads and of the copy engine alike.
  __device__ __forceinline__ static void fence() {
    asm volatile("fence.acq_rel.gpu; fence.proxy.async;" ::: "memory");
  }

  /// Calls f(batch, head, row, end, dim) in the lanes that have rows of a job, if `counts(segment, row)` is
  /// true of its first row.
  template <class Counts, class F>
  __device__ __forceinline__ void for_job(KeyTileOrder const& order, int job, Counts const& counts,
                                          F const& f) const {
    int const tiles = head_jobs / order.group, batch_head = job / head_jobs;
    int const head = batch_head % order.kv_heads * order.group + job / tiles % order.group;
    int const in_first = (rows[0] + TileRows - 1) / TileRows, number = job % tiles;
    int const segment = number < in_first ? 0 : 1, first = (number - segment * in_first) * TileRows;
    if (!counts(segment, first)) return;
    int const before = segment * rows[0], lane = static_cast<int>(threadIdx.x) % 32;
    if (lane / eights < rows_at_once)
      f(batch_head / order.kv_heads, head, before + first + lane / eights,
        before + min(rows[segment], first + TileRows), lane % eights * 8);
  }

  template <class Counts>
  __device__ __forceinline__ void zero_rows(KeyTileOrder const& order, int job, Counts const& counts) const {
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
  __device__ __forceinline__ void round_rows(KeyTileOrder const& order, int job) const {
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

}  // namespace lightseq::sm90
