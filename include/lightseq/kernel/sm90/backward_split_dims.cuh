// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

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

/// A warpgroup that holds half of the dims of all keys' gradients. It weighs half of the queries.
template <BackwardBlock Block>
__device__ __forceinline__ void compute_split_dims(Block const& block, int group) {
  using T = typename Block::T;
  constexpr int HeadDim = Block::head_dim;
  constexpr int query_rows = Block::query_rows, key_rows = Block::key_rows;
  constexpr int query_panel = Block::query_panel, key_panel = Block::key_panel;
  constexpr int query_bytes = Block::query_bytes;
  constexpr int queries = query_rows / 2;
  using Scores = Wgmma<queries, T>;
  using Sums = Wgmma<128, T>;
  auto& memory = block.memory;
  auto& control = memory.control;
  BackwardStore<Block> const store{block, group};
  BackwardHide<Block> const hide{block};
  std::uint32_t const leads_warpgroup = threadIdx.x % 128 == 0;
  std::uint32_t const k_all = descriptor(ptx::shared_address(memory.k), key_panel);
  std::uint32_t const v_all = k_all + (Block::key_bytes >> 4);
  std::uint32_t const q_base = descriptor(ptx::shared_address(memory.q), query_panel);
  std::uint32_t const d_o_base = descriptor(ptx::shared_address(memory.d_o), query_panel);
  std::uint32_t const p_address = ptx::shared_address(memory.ds), ds_address = p_address + Block::ds_bytes;
  std::uint32_t const p_all = descriptor(p_address), ds_all = descriptor(ds_address);
  float const scale = exponent_scale(block.launch.scale);

  float dk[64], dv[64];
  auto const begin_scores = [&](float(&to)[queries / 2], std::uint32_t left, std::uint32_t right) {
    pin(to);
    wgmma_fence();
    right += group * (queries * 128 >> 4);
#pragma unroll
    for (int i = 0; i < HeadDim / 16; ++i)
      Scores::template both_shared<true>(to, left + ((i / 4 * key_panel + i % 4 * 32) >> 4),
                                         right + ((i / 4 * query_panel + i % 4 * 32) >> 4));
    wgmma_commit();
  };
  auto const begin_key_sums = [&](float(&to)[64], std::uint32_t left, std::uint32_t right) {
    pin(to);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < query_rows / 16; ++i)
      Sums::template both_shared<true, true, true>(to, left + i * 128,
                                                   right + group * (query_panel >> 3) + i * 128);
    wgmma_commit();
  };

  Ring<Block::stages> ring;
  int number = 0;
  for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
    int steps;
    auto const& key_tile = block.take_tile(tile_parity, steps);
    if (steps < 0) break;
#pragma unroll
    for (int i = 0; i < 64; ++i) dk[i] = dv[i] = 0;
    control.kv_full.wait(tile_parity);
#pragma unroll 1
    for (int step = 0; step < steps; ++step, ++number) {
      int const stage = ring.stage;
      std::uint32_t const q_stage = q_base + stage * (query_bytes >> 4);
      std::uint32_t const d_o_stage = d_o_base + stage * (query_bytes >> 4);
      float s[queries / 2], dp[queries / 2], dq[64];
      std::uint32_t p[queries / 4], ds[queries / 4];
      control.q_full[stage].wait(ring.parity);
      begin_dp(dp, control.stats[stage] + query_rows + queries * group);
#pragma unroll
      for (int i = 0; i < queries / 2; ++i) s[i] = 0;
      pin(dp);
      begin_scores(s, k_all, q_stage);
      control.d_o_full[stage].wait(ring.parity);
      begin_scores(dp, v_all, d_o_stage);
      wgmma_wait<1>();
      pin(s);
      hide.run(s, dp, key_tile, tile_parity, 0, queries * group, number, stage);
      weigh(s, control.stats[stage] + queries * group, scale);
      pack<T>(p, s);
      wgmma_wait<0>();
      pin(dp);
#pragma unroll
      for (int i = 0; i < queries / 2; ++i) dp[i] *= s[i];
      pack<T>(ds, dp);
      Block::sync_both_warpgroups();  // both have read the last step's p and ds
      store_down(p_address + group * queries * 128, p);
      store_down(ds_address + group * queries * 128, ds);
      fence_shared_writes();
      Block::sync_both_warpgroups();
      begin_key_sums(dv, p_all, d_o_stage);
      begin_key_sums(dk, ds_all, q_stage);
#pragma unroll
      for (int i = 0; i < 64; ++i) dq[i] = 0;
      pin(dq);
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < key_rows / 16; ++i)
        Sums::template both_shared<true, false, true>(dq, ds_all + i * 2,
                                                      k_all + group * (key_panel >> 3) + i * 128);
      wgmma_commit();
      wgmma_wait<0>();
      pin(dv);
      pin(dk);
      pin(dq);
      control.d_o_empty[stage].arrive_if(leads_warpgroup);
      control.q_empty[stage].arrive();
      store.stage_dq(dq, number);
      ring.advance();
    }
    store.store_dkv(key_tile, number, dk, dv);
  }
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
