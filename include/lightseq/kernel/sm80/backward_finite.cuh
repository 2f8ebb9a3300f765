// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/backward_care.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm80/backward_shared.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm80 {

/// What the portable backward kernel does about numbers that are not finite: see gpu/backward_care.cuh.
template <BackwardBlock Block>
struct BackwardFinite {
  using T = typename Block::T;
  using QueryTile = typename Block::QueryTile;
  using KeyTile = typename Block::KeyTile;
  static constexpr BackwardTile tile = Block::tile;
  static constexpr int key_rows = Block::key_rows, query_rows = Block::query_rows;
  static constexpr int query_panel = Block::query_panel, key_panel = Block::key_panel;

  Block const& block;

  /// Whether a tile in which pairs are hidden has a key or value that is not finite, or such a query tile a
  /// query that asks for care. All threads call it.
  __device__ __forceinline__ bool needs_care(typename Block::Work const& work) const {
    auto const& launch = block.launch;
    TilePlace const& place = work.place;
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = launch.order.group;
    bool tests = false, odd = false;
    typename Block::Walk walk{launch.mask, launch.queries, work.keys.hull(place.first, work.some_keys)};
    int number = 0;  // the warps take turns: nobody waits long for memory
    while (work.some_keys < key_rows ? walk.next() : walk.next_cut()) {
      tests = true;
      LaunchSegment const& queries = launch.queries[walk.segment];
      for (int head = place.head * group; head < place.head * group + group; ++head) {
        if (number++ % tile.warps != warp) continue;
        float const* const lse = launch.lse.at(place.batch, head) + walk.segment * launch.queries[0].count;
        float const* const delta =
            launch.delta.at(place.batch, head) + walk.segment * launch.queries[0].count;
#pragma unroll
        for (int i = 0; i < query_rows; i += 32) {
          int const row = min(walk.first + min(i + lane, query_rows - 1), queries.count - 1);
          odd |= !is_ordinary(lse[row], delta[row]);
        }
      }
    }
    if (!tests) return false;
    ptx::wait_copies();
    __syncthreads();
    // The compiler must know that the threads of a warp stay together: after a branch that may part them it
    // uses no uniform registers, and spills.
    bool const finite = finds_finite();  // whole warps multiply
    return ptx::uniform(__syncthreads_or(odd || !finite)) != 0;
  }

  template <int Fragments, int Size>
  __device__ __forceinline__ static bool begin_finite(float const (&x)[Fragments][Size]) {
    bool finite = true;
#pragma unroll
    for (int f = 0; f < Fragments; ++f) finite &= begins_finite(x[f]);
    return __all_sync(~0u, finite);
  }

  /// Makes finite a warp's part of the keys that it shares with the warps of other columns.
  __device__ __forceinline__ void clean_keys(int key_warp, int column) const {
    constexpr int rows = Block::warp_keys, threads = 32 * Block::columns;
    make_rows_finite<T, rows, threads, KeyTile::panels, key_panel>(
        block.shared + key_warp * rows * 128, column * 32 + threadIdx.x % 32, [](std::uint32_t, bool) {});
  }

  /// Whether a query of a stage asks for care.
  __device__ __forceinline__ bool has_odd_queries(int stage) const {
    std::uint32_t low, high;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];"
                 : "=r"(low), "=r"(high)
                 : "r"(block.stats_at(stage) + query_rows * 8)
                 : "memory");
    return (low | high) != 0;
  }

  /// Makes finite a step's queries and gradients of outputs, and all offsets numbers, and notes the largest
  /// score of each row: NaN for one that had a NaN as offset or was not finite. All threads call it.
  __device__ __forceinline__ void clean_queries(int stage, std::uint32_t q, std::uint32_t d_o) const {
    std::uint32_t const row = min(threadIdx.x, query_rows - 1), owns = threadIdx.x < query_rows;
    std::uint32_t const offset = block.stats_at(stage) + row * 4;
    std::uint32_t const largest = block.shared + Block::largest_offset;
    float added;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(added) : "r"(offset) : "memory");
    float const most = largest_score<T>(-added, exponent_scale<typename Block::M>(block.launch.scale));
    store_if(largest + row * 4, most, owns);
    __syncthreads();
    store_if(offset, 0, owns && most != most);
    auto const note = [&](std::uint32_t bad_row, bool bad) {
      store_if(largest + bad_row * 4, not_a_number, bad);
    };
    make_rows_finite<T, query_rows, Block::threads, QueryTile::panels, query_panel>(q, threadIdx.x, note);
    make_rows_finite<T, query_rows, Block::threads, QueryTile::panels, query_panel>(d_o, threadIdx.x, note);
    __syncthreads();
  }

 private:
  /// Whether this warp's share of the keys and values is finite, and so small that no product with ordinary
  /// numbers overflows: times a large number it is finite then. Products of float16 never overflow.
  __device__ __forceinline__ bool finds_finite() const {
    constexpr int pieces = 2 * key_rows / 16 / tile.warps;
    static_assert(pieces * tile.warps * 16 == 2 * key_rows && (key_rows / 16) % pieces == 0);
    std::uint32_t const lane = threadIdx.x % 32, first = threadIdx.x / 32 * pieces * 16;
    // Values lie after keys.
    std::uint32_t const from = block.shared + first / key_rows * KeyTile::bytes +
                               (first % key_rows + lane % 16) * 128 + ((lane / 16 ^ lane % 8) * 16);
    constexpr std::uint32_t large = std::is_same_v<T, bfloat16> ? 0x5f805f80 : 0;  // two of 2^64
    float sums[pieces][4] = {};
#pragma unroll
    for (int i = 0; i < Block::blocks; ++i)
#pragma unroll
      for (int piece = 0; piece < pieces; ++piece) {
        std::uint32_t a[4];
        ptx::load_matrices(a, Block::template block_at<key_panel>(from, i) + piece * 16 * 128);
        ptx::multiply<T>(sums[piece], a, large, large);
      }
    float sum = 0;
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece) sum += fabsf(sums[piece][0]) + fabsf(sums[piece][2]);
    return sum < OnlineSoftmax::infinity;
  }
};

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
