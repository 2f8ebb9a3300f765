// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/element.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/gpu/backward_care.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/output_stage.cuh"

/// What the backward kernel does with a thread's values. Scores and what follows from them come transposed:
/// a thread's two rows are keys, and its columns queries.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// Whether weights carry the factor on q.k, so that the gradients of queries come out with it and only those
/// of values, at the end, must be freed from it. The weights of float16 would become too small for that.
template <class T>
constexpr bool scales_weights = std::is_same_v<T, bfloat16>;

/// Floats that backward_stats writes for a query tile: for each row what is subtracted from its scores, in
/// powers of 2, and then -delta; at the end 1 if a row that exists asks for care, or else 0.
template <int QueryRows>
constexpr int stats_floats = 2 * QueryRows + 4;

/// Arguments of backward_stats, the kernel that prepares the row statistics of a backward launch.
struct BackwardStats {
  RowStats<float const> lse = {}, delta = {};
  LaunchSegment queries[2] = {};
  int heads = 0;
  int query_tiles = 0;     ///< of one batch and head
  std::int64_t tiles = 0;  ///< of all batches and heads
  float shift = 0;         ///< log2 of the factor that weights carry
  float* to = nullptr;
  std::int64_t counters = 0;
  unsigned* counter = nullptr;
};

/// Writes the statistics of each query tile, a warp a tile; and zeros to the counters.
template <int QueryRows>
__global__ void __launch_bounds__(256) backward_stats(__grid_constant__ BackwardStats const launch) {
  std::int64_t const step = std::int64_t{gridDim.x} * blockDim.x;
  std::int64_t const start = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  int const in_first = (launch.queries[0].count + QueryRows - 1) / QueryRows;
  int const lane = static_cast<int>(threadIdx.x) % 32;
  for (std::int64_t tile = start / 32; tile < launch.tiles; tile += step / 32) {
    std::int64_t const batch_head = tile / launch.query_tiles;
    std::int64_t const batch = batch_head / launch.heads, head = batch_head % launch.heads;
    int const number = static_cast<int>(tile % launch.query_tiles), segment = number < in_first ? 0 : 1;
    int const first = (number - segment * in_first) * QueryRows;
    float* const to = launch.to + tile * stats_floats<QueryRows>;
    bool ordinary = true;
#pragma unroll
    for (int i = 0; i < QueryRows; i += 32) {
      int const in_tile = i + lane, row = first + in_tile;
      if (in_tile >= QueryRows) break;
      // A row that is none has no weights.
      float offset = OnlineSoftmax::infinity, delta = 0;
      if (row < launch.queries[segment].count) {
        int const token = segment * launch.queries[0].count + row;
        float const lse = launch.lse.at(batch, head)[token];
        delta = launch.delta.at(batch, head)[token];
        offset = score_offset(lse) - launch.shift;
        ordinary &= is_ordinary(lse, delta);
      }
      to[in_tile] = offset;
      to[QueryRows + in_tile] = -delta;
    }
    ordinary = __all_sync(~0u, ordinary);
    if (lane == 0) to[2 * QueryRows] = ordinary ? 0.0f : 1.0f;
  }
  for (std::int64_t i = start; i < launch.counters; i += step) launch.counter[i] = 0;
}

/// The weights exp2(scale * s - offset), with the offsets of the columns.
template <int Size>
__device__ __forceinline__ void weigh(float (&s)[Size], float const* offsets, float scale) {
  auto const* const pairs = reinterpret_cast<float2 const*>(offsets) + threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < Size / 4; ++i) {
    float2 const offset = pairs[4 * i];
    s[4 * i] = exp2_approx(s[4 * i] * scale - offset.x);
    s[4 * i + 1] = exp2_approx(s[4 * i + 1] * scale - offset.y);
    s[4 * i + 2] = exp2_approx(s[4 * i + 2] * scale - offset.x);
    s[4 * i + 3] = exp2_approx(s[4 * i + 3] * scale - offset.y);
  }
}

/// What the sums of the weights' gradients start from: -delta of the columns' queries.
template <int Size>
__device__ __forceinline__ void begin_dp(float (&dp)[Size], float const* delta) {
  auto const* const pairs = reinterpret_cast<float2 const*>(delta) + threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < Size / 4; ++i) {
    float2 const pair = pairs[4 * i];
    dp[4 * i] = dp[4 * i + 2] = pair.x;
    dp[4 * i + 1] = dp[4 * i + 3] = pair.y;
  }
}

template <class T, int Size>
__device__ __forceinline__ void pack(std::uint32_t (&packed)[Size], float const (&x)[2 * Size]) {
#pragma unroll
  for (int i = 0; i < Size; ++i) packed[i] = ptx::pack<T>(x[2 * i], x[2 * i + 1]);
}

/// Writes packed sums [64 keys, queries] as a panel [queries, keys].
template <int Size>
__device__ __forceinline__ void store_down(std::uint32_t to, std::uint32_t const (&packed)[Size]) {
  int const lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  to += (lane / 16 * 8 + lane % 8) * 128 + ((warp * 2 + lane / 8 % 2) ^ lane % 8) * 16;
#pragma unroll
  for (int i = 0; i < Size / 4; ++i)
    store_transposed(to + i * 16 * 128, packed[4 * i], packed[4 * i + 1], packed[4 * i + 2],
                     packed[4 * i + 3]);
}

/// Writes sums [64 dims, queries] as two panels [queries, 32 dims] of floats.
template <int Size>
__device__ __forceinline__ void write_across(std::uint8_t* memory, float const (&x)[Size]) {
  constexpr int panel_bytes = 2 * Size * 128;
  int const lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  std::uint8_t* const panel = memory + warp / 2 * panel_bytes + lane / 4 % 4 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    int const query = lane % 4 * 2 + i % 2, chunk = warp % 2 * 4 + lane / 16 + i / 2 * 2;
    std::uint8_t* const column = panel + query * 128 + (chunk ^ query) * 16;
#pragma unroll
    for (int j = 0; j < Size / 4; ++j) *reinterpret_cast<float*>(column + j * 1024) = x[4 * j + i];
  }
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
