// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/backward_care.cuh"
#include "lightseq/kernel/gpu/follow_rule.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/key_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/backward_shared.cuh"
#include "lightseq/kernel/sm90/wgmma.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// What the computing warpgroups do about pairs that the mask hides.
template <BackwardBlock Block>
struct BackwardHide {
  using T = typename Block::T;
  using M = typename Block::M;
  using KeyTile = typename Block::KeyTile;
  static constexpr int query_rows = Block::query_rows;

  Block const& block;

  /// The positions of a step's pairs, for rules that ask for them.
  __device__ __forceinline__ KeyPairs pairs([[maybe_unused]] KeyTile const& key_tile,
                                            [[maybe_unused]] int key_offset,
                                            [[maybe_unused]] int query_offset,
                                            [[maybe_unused]] int number) const {
    if constexpr (is_placed<M>) {
      typename Block::Step const step = block.memory.control.steps[number % Block::steps_known];
      return {keys_of(key_tile, key_offset), block.launch.queries[step.segment], step.first + query_offset,
              step.head};
    } else {
      return {};
    }
  }

  /// Hides what the mask hides in the transposed scores of a step that asks for it, of the queries from
  /// `query_offset` in the tile on, and sees to it that hidden pairs add nothing, whatever the numbers are.
  /// `dp` is under way.
  template <int Size>
  __device__ __forceinline__ void run(float (&s)[Size], float (&dp)[Size], KeyTile const& key_tile,
                                      std::uint32_t tile_parity, int key_offset, int query_offset, int number,
                                      int stage) const {
    auto const& launch = block.launch;
    auto& control = block.memory.control;
    typename Block::Step const step = control.steps[number % Block::steps_known];
    if (ptx::uniform(step.tests) == 0) return;
    bool const cuts = (ptx::uniform(step.tests) & Block::cut) != 0,
               late = (ptx::uniform(step.tests) & Block::scales) != 0;
    // Both warpgroups find the same here.
    bool const odd_queries = cuts && ptx::uniform(control.stats[stage][2 * query_rows] != 0) != 0;
    if (odd_queries) {
      clean_queries(stage);
      auto const score = [&](float x, int i) {
        return score_or_product(launch.mask, x, launch.scale,
                                pairs(key_tile, key_offset, query_offset, number), i);
      };
      judge(s, ptx::shared_address(control.stats[stage]) + (query_rows + query_offset) * 4, score);
    }
    if (cuts) {
      control.k_finite.wait(tile_parity);
      hide_keys(s, keys_of(key_tile, key_offset), launch.queries[step.segment], step.first + query_offset,
                launch.mask);
    }
    wgmma_wait<0>();
    pin(dp);
    if (late) {
#pragma unroll
      for (int i = 0; i < Size; ++i) dp[i] *= launch.late_scale;
    }
    if (cuts && (odd_queries || !__all_sync(~0u, begins_finite(dp)))) drop_hidden(s, dp);
  }

 private:
  /// threadIdx.x for code that seldom runs: the compiler computes nothing of it beforehand, which would take
  /// registers from the main loop.
  __device__ __forceinline__ static std::uint32_t seldom_thread() {
    std::uint32_t thread = threadIdx.x;
    asm volatile("" : "+r"(thread));
    return thread;
  }

  /// A thread's two keys of the tile, its warpgroup's first one being `offset`.
  __device__ __forceinline__ RowPair keys_of(KeyTile const& at, int offset) const {
    // Unsigned: signed arithmetic on threadIdx.x costs the main loop 40 instructions.
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    return {at.batch, at.head, 0, at.first + offset + warp * 16 + lane / 4, block.launch.keys[at.segment]};
  }

  /// Makes finite a step's queries and gradients of outputs, and all offsets numbers. The place of delta,
  /// which has been read, gets the largest score of a row: NaN for each that had a NaN as offset or was not
  /// finite. Both warpgroups call it.
  __device__ __forceinline__ void clean_queries(int stage) const {
    auto& memory = block.memory;
    auto const& stats = memory.control.stats[stage];
    std::uint32_t const thread = seldom_thread() - 128, second = thread >= 128;
    std::uint32_t const row = min(thread, query_rows - 1), owns = thread < query_rows;
    std::uint32_t const offset = ptx::shared_address(stats), largest = offset + query_rows * 4;
    // The gradients of outputs lie after the queries.
    std::uint32_t const tile =
        ptx::shared_address(memory.q) + (second ? sizeof(memory.q) : 0) + stage * Block::query_bytes;
    float const most = largest_score<T>(stats[row], exponent_scale<M>(block.launch.scale));
    Block::sync_both_warpgroups();
    store_if(offset + row * 4, 0, owns && most != most);
    store_if(largest + row * 4, most, owns);
    Block::sync_both_warpgroups();
    make_rows_finite<T, query_rows, 128, Block::panels, Block::query_panel>(
        tile, thread % 128,
        [&](std::uint32_t bad_row, bool bad) { store_if(largest + bad_row * 4, not_a_number, bad); });
    fence_shared_writes();
    Block::sync_both_warpgroups();
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
