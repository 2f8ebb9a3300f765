// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/backward_fragment.cuh"
#include "lightseq/kernel/sm90/backward_hide.cuh"
#include "lightseq/kernel/sm90/backward_shared.cuh"
#include "lightseq/kernel/sm90/backward_store.cuh"
#include "lightseq/kernel/sm90/barrier.cuh"
#include "lightseq/kernel/sm90/wgmma.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// The last `Steps` pieces of 16 dims of a warpgroup's 64 rows of `Dims` dims, as left operands: what stays
/// in registers need not come from shared memory, whose bandwidth is short, for each product.
template <int Dims, int Steps>
struct HeldRows {
  static constexpr int first = Dims / 16 - Steps;
  std::uint32_t registers[Steps == 0 ? 1 : Steps][4];

  /// Reads them from panels that are `panel` bytes each.
  __device__ __forceinline__ void load(std::uint32_t from, int panel) {
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    std::uint32_t const row = from + (warp * 16 + lane % 16) * 128;
#pragma unroll
    for (int i = first; i < first + Steps; ++i)
      ptx::load_matrices(registers[i - first],
                         row + i / 4 * panel + ((i % 4 * 2 + lane / 16) ^ lane % 8) * 16);
  }
};

/// A warpgroup that holds half of the keys, and of their gradients.
template <BackwardBlock Block>
__device__ __forceinline__ void compute_split_keys(Block const& block, int group) {
  using T = typename Block::T;
  constexpr int HeadDim = Block::head_dim;
  constexpr int query_rows = Block::query_rows, key_rows = Block::key_rows;
  constexpr int query_panel = Block::query_panel, key_panel = Block::key_panel;
  constexpr int query_bytes = Block::query_bytes, ds_bytes = Block::ds_bytes;
  constexpr bool dq_transposed = Block::dq_transposed, dq_late = Block::dq_late;
  constexpr int dq_columns = dq_transposed ? query_rows : HeadDim;
  using Scores = Wgmma<query_rows, T>;
  using KeySums = Wgmma<HeadDim, T>;
  using DqSums = Wgmma<dq_columns, T>;
  auto& memory = block.memory;
  auto& control = memory.control;
  BackwardStore<Block> const store{block, group};
  BackwardHide<Block> const hide{block};
  std::uint32_t const leads_warp = threadIdx.x % 32 == 0, leads_warpgroup = threadIdx.x % 128 == 0;
  std::uint32_t const k_all = descriptor(ptx::shared_address(memory.k), key_panel);
  std::uint32_t const k_own = k_all + group * 512, v_own = k_own + (Block::key_bytes >> 4);
  std::uint32_t const q_base = descriptor(ptx::shared_address(memory.q), query_panel);
  std::uint32_t const d_o_base = descriptor(ptx::shared_address(memory.d_o), query_panel);
  std::uint32_t const ds_base = descriptor(ptx::shared_address(memory.ds));
  std::uint32_t const ds_own = ptx::shared_address(memory.ds) + group * query_panel;
  float scale = exponent_scale(block.launch.scale);
  pin(scale);

  float dk[HeadDim / 2], dv[HeadDim / 2];
  HeldRows<HeadDim, Block::tile.held_k> held_k;
  HeldRows<HeadDim, Block::tile.held_v> held_v;
  // The sums along the dims: [64 keys, queries].
  auto const begin_scores = [&](auto& to, auto const& held, std::uint32_t left, std::uint32_t right,
                                auto adds) {
    pin(to);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < HeadDim / 16; ++i) {
      std::uint32_t const left_step = left + ((i / 4 * key_panel + i % 4 * 32) >> 4);
      std::uint32_t const right_step = right + ((i / 4 * query_panel + i % 4 * 32) >> 4);
      if (i == 0 && !decltype(adds)::value) {
        Scores::template both_shared<false>(to, left_step, right_step);
      } else if (i >= held.first) {
        Scores::left_registers(to, held.registers[i - held.first], right_step);
      } else {
        Scores::template both_shared<true>(to, left_step, right_step);
      }
    }
    wgmma_commit();
  };
  // The sums along the queries: [64 keys, dims].
  auto const begin_key_sums = [&](float(&to)[HeadDim / 2], std::uint32_t(&left)[query_rows / 4],
                                  std::uint32_t right) {
    pin(to);
    pin(left);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < query_rows / 16; ++i)
      KeySums::template left_registers<true>(to, left + 4 * i, right + i * 128);
    wgmma_commit();
  };
  // The sums along the keys of both groups: of this one's rows or dims.
  auto const begin_dq = [&](float(&to)[dq_columns / 2], int stage) {
    pin(to);
    wgmma_fence();
    std::uint32_t const ds = ds_base + stage * (ds_bytes >> 4);
    auto const step = [&](auto adds, int i) {
      constexpr bool accumulate = decltype(adds)::value;
      std::uint32_t const ds_step = ds + ((i / 4 * query_panel + i % 4 * 32) >> 4);
      if constexpr (dq_transposed) {
        DqSums::template both_shared<accumulate, true, false>(to, k_all + group * (key_panel >> 4) + i * 128,
                                                              ds_step);
      } else {
        DqSums::template both_shared<accumulate, false, true>(to, ds_step + group * 512, k_all + i * 128);
      }
    };
    step(std::false_type{}, 0);
#pragma unroll
    for (int i = 1; i < key_rows / 16; ++i) step(std::true_type{}, i);
    wgmma_commit();
  };

  int number = 0;  // of the step, over all tiles
  int puts = 0;
  // What must be tested in a step, as soon as its queries have come. Known in time, it delays nothing; where
  // registers are short it is read when it is needed.
  constexpr bool looks_ahead = HeadDim > 64;
  auto const tests_of = [&](int i) {
    control.q_full[i & 1].wait(i >> 1 & 1);
    return block.tests(i);
  };
  for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
    int steps;
    auto const& key_tile = block.take_tile(tile_parity, steps);
    if (steps < 0) break;
#pragma unroll
    for (int i = 0; i < HeadDim / 2; ++i) dk[i] = dv[i] = 0;
    control.kv_full.wait(tile_parity);
    held_k.load(ptx::shared_address(memory.k) + group * 64 * 128, key_panel);
    held_v.load(ptx::shared_address(memory.v) + group * 64 * 128, key_panel);
    int step = 0, tests = 0;
    auto const attend = [&](auto tested) {
      int const stage = number & 1;
      std::uint32_t const parity = number >> 1 & 1;
      std::uint32_t const q_stage = q_base + stage * (query_bytes >> 4);
      std::uint32_t const d_o_stage = d_o_base + stage * (query_bytes >> 4);
      float s[query_rows / 2], dp[query_rows / 2];
      std::uint32_t p[query_rows / 4], ds[query_rows / 4];
      begin_dp(dp, control.stats[stage] + query_rows);
      pin(dp);
      begin_scores(s, held_k, k_own, q_stage, std::false_type{});
      control.d_o_full[stage].wait(parity);
      begin_scores(dp, held_v, v_own, d_o_stage, std::true_type{});
      wgmma_wait<1>();
      pin(s);
      if constexpr (decltype(tested)::value)
        hide.run(s, dp, key_tile, tile_parity, 64 * group, 0, number, stage);
      weigh(s, control.stats[stage], scale);
      pack<T>(p, s);
      wgmma_wait<0>();
      pin(dp);
#pragma unroll
      for (int i = 0; i < query_rows / 2; ++i) dp[i] *= s[i];
      pack<T>(ds, dp);
      if constexpr (dq_late) control.ds_empty[stage].wait(parity ^ 1);
      store_down(ds_own + stage * ds_bytes, ds);
      begin_key_sums(dv, p, d_o_stage);
      fence_shared_writes();
      // Which step's gradients of queries are computed now; none before a tile's first step.
      int const dq_stage = dq_late ? stage ^ 1 : stage;
      if constexpr (dq_late) {
        __syncwarp();
        control.ds_full[stage].arrive_if(leads_warp);
        control.ds_full[dq_stage].wait((number - 1) >> 1 & 1);
      } else {
        Block::sync_both_warpgroups();
      }
      float dq[dq_columns / 2];
      begin_dq(dq, dq_stage);
      wgmma_wait<1>();
      pin(dv);
      pin(p);
      control.d_o_empty[stage].arrive_if(leads_warpgroup);
      begin_key_sums(dk, ds, q_stage);
      wgmma_wait<1>();
      pin(dq);
      if (!dq_late || step > 0) {
        if constexpr (dq_late) control.ds_empty[dq_stage].arrive_if(leads_warpgroup);
        store.stage_dq(dq, puts++);
      }
      if constexpr (looks_ahead)
        if (step + 1 < steps) tests = tests_of(number + 1);
      wgmma_wait<0>();
      pin(dk);
      pin(ds);
      control.q_empty[stage].arrive();
      ++step;
      ++number;
    };
    // The loop that most steps take has no code for tests: with it, it would be too long for instructions to
    // be read ahead.
#pragma unroll 1
    while (step < steps) {
      control.q_full[number & 1].wait(number >> 1 & 1);
      attend(std::true_type{});
#pragma unroll 1
      while (step < steps && (looks_ahead ? tests : tests_of(number)) == 0) attend(std::false_type{});
    }
    if constexpr (dq_late) {
      if (steps > 0) {
        int const stage = (number - 1) & 1;
        control.ds_full[stage].wait((number - 1) >> 1 & 1);
        float dq[dq_columns / 2];
        begin_dq(dq, stage);
        wgmma_wait<0>();
        pin(dq);
        control.ds_empty[stage].arrive_if(leads_warpgroup);
        store.stage_dq(dq, puts++);
      }
    }
    store.store_dkv(key_tile, puts, dk, dv);
  }
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
