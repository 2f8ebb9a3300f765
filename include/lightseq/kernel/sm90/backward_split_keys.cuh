// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/backward_fragment.cuh"
#include "lightseq/kernel/sm90/backward_hide.cuh"
#include "lightseq/kernel/sm90/backward_rule.cuh"
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

/// The matrix products of a warpgroup, `group`, that holds half of the keys. Each begins here, as a group of
/// wgmmas, and is waited for elsewhere.
template <BackwardBlock Block>
struct SplitKeysProducts {
  using T = typename Block::T;
  static constexpr int head_dim = Block::head_dim;
  static constexpr int query_rows = Block::query_rows, key_rows = Block::key_rows;
  static constexpr int query_panel = Block::query_panel, key_panel = Block::key_panel;
  static constexpr bool dq_transposed = Block::dq_transposed;
  static constexpr int dq_columns = dq_transposed ? query_rows : head_dim;
  using Scores = Wgmma<query_rows, T>;
  using KeySums = Wgmma<head_dim, T>;
  using DqSums = Wgmma<dq_columns, T>;

  int group;
  /// Descriptors: keys of both groups; this one's keys and values; the first stages of what has several.
  std::uint32_t k_all, k_own, v_own, q, d_o, ds;

  __device__ __forceinline__ SplitKeysProducts(typename Block::Memory& memory, int this_group)
      : group(this_group),
        k_all(descriptor(ptx::shared_address(memory.k), key_panel)),
        k_own(k_all + group * 512),
        v_own(k_own + (Block::key_bytes >> 4)),
        q(descriptor(ptx::shared_address(memory.q), query_panel)),
        d_o(descriptor(ptx::shared_address(memory.d_o), query_panel)),
        ds(descriptor(ptx::shared_address(memory.ds))) {}

  __device__ __forceinline__ std::uint32_t q_at(int stage) const {
    return q + stage * (Block::query_bytes >> 4);
  }
  __device__ __forceinline__ std::uint32_t d_o_at(int stage) const {
    return d_o + stage * (Block::query_bytes >> 4);
  }

  /// Sums along the dims, [64 keys, queries], added to those in `to` where `Adds`.
  template <bool Adds, int Steps>
  __device__ __forceinline__ void begin_scores(float (&to)[query_rows / 2],
                                               HeldRows<head_dim, Steps> const& held, std::uint32_t left,
                                               std::uint32_t right) const {
    pin(to);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < head_dim / 16; ++i) {
      std::uint32_t const left_step = left + ((i / 4 * key_panel + i % 4 * 32) >> 4);
      std::uint32_t const right_step = right + ((i / 4 * query_panel + i % 4 * 32) >> 4);
      if (i == 0 && !Adds) {
        Scores::template both_shared<false>(to, left_step, right_step);
      } else if (i >= held.first) {
        Scores::left_registers(to, held.registers[i - held.first], right_step);
      } else {
        Scores::template both_shared<true>(to, left_step, right_step);
      }
    }
    wgmma_commit();
  }

  /// Adds the sums along the queries: [64 keys, dims].
  __device__ __forceinline__ void begin_key_sums(float (&to)[head_dim / 2],
                                                 std::uint32_t (&left)[query_rows / 4],
                                                 std::uint32_t right) const {
    pin(to);
    pin(left);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < query_rows / 16; ++i)
      KeySums::template left_registers<true>(to, left + 4 * i, right + i * 128);
    wgmma_commit();
  }

  /// The sums along the keys of both groups: of this one's rows or dims.
  __device__ __forceinline__ void begin_dq(float (&to)[dq_columns / 2], int stage) const {
    pin(to);
    wgmma_fence();
    std::uint32_t const ds_stage = ds + stage * (Block::ds_bytes >> 4);
    dq_step<false>(to, ds_stage, 0);
#pragma unroll
    for (int i = 1; i < key_rows / 16; ++i) dq_step<true>(to, ds_stage, i);
    wgmma_commit();
  }

 private:
  template <bool Adds>
  __device__ __forceinline__ void dq_step(float (&to)[dq_columns / 2], std::uint32_t ds_stage, int i) const {
    std::uint32_t const ds_step = ds_stage + ((i / 4 * query_panel + i % 4 * 32) >> 4);
    if constexpr (dq_transposed) {
      DqSums::template both_shared<Adds, true, false>(to, k_all + group * (key_panel >> 4) + i * 128,
                                                      ds_step);
    } else {
      DqSums::template both_shared<Adds, false, true>(to, ds_step + group * 512, k_all + i * 128);
    }
  }
};

/// A warpgroup that holds half of the keys, and of their gradients.
template <BackwardBlock Block>
struct SplitKeys {
  using T = typename Block::T;
  using KeyTile = typename Block::KeyTile;
  using Products = SplitKeysProducts<Block>;
  static constexpr int head_dim = Block::head_dim, query_rows = Block::query_rows;
  static constexpr bool dq_late = Block::dq_late;
  Block const& block;
  int group;
  std::uint32_t leads_warp, leads_warpgroup;
  Products products;
  std::uint32_t ds_own;  ///< where this group's gradients of scores go, of the first stage
  float scale;
  int number = 0, puts = 0;  ///< steps over all key tiles, and gradients of queries staged
  int step = 0, steps = 0;   ///< of the key tile

  /// What registers hold of a key tile. Arrays are no members of this: the compiler would keep the numbers
  /// beside them in memory until it has unrolled all loops, and find worse code.
  struct Held {
    float dk[head_dim / 2], dv[head_dim / 2];
    HeldRows<head_dim, Block::tile.held_k> k;
    HeldRows<head_dim, Block::tile.held_v> v;
  };

  __device__ __forceinline__ SplitKeys(Block const& shared, int this_group)
      : block(shared),
        group(this_group),
        leads_warp(threadIdx.x % 32 == 0),
        leads_warpgroup(threadIdx.x % 128 == 0),
        products(shared.memory, group),
        ds_own(ptx::shared_address(shared.memory.ds) + group * Block::query_panel),
        scale(exponent_scale<typename Block::M>(shared.launch.scale)) {
    pin(scale);
  }

  __device__ __forceinline__ void run() {
    auto& memory = block.memory;
    Held held;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      KeyTile const& key_tile = block.take_tile(tile_parity, steps);
      if (steps < 0) break;
#pragma unroll
      for (int i = 0; i < head_dim / 2; ++i) held.dk[i] = held.dv[i] = 0;
      memory.control.kv_full.wait(tile_parity);
      held.k.load(ptx::shared_address(memory.k) + group * 64 * 128, Block::key_panel);
      held.v.load(ptx::shared_address(memory.v) + group * 64 * 128, Block::key_panel);
      step = 0;
      int head = 0;  // the first step of the head
      // The loop that most steps take has no code for tests: with it, it would be too long for instructions
      // to be read ahead. Nor does it ask whether a step needs any: that takes 1 to 5 %.
#pragma unroll 1
      while (step < steps) {
        attend<true>(held, key_tile, tile_parity);
        WholeSteps const whole{ptx::uniform(key_tile.whole.head_steps), ptx::uniform(key_tile.whole.begin),
                               ptx::uniform(key_tile.whole.end)};
        int const end = whole.until(step, steps, head);
#pragma unroll 1
        while (step < end) attend<false>(held, key_tile, tile_parity);
      }
      if constexpr (dq_late)
        if (steps > 0) end_dq();
      BackwardStore<Block>{block, group}.store_dkv(key_tile, puts, held.dk, held.dv);
    }
  }

 private:
  /// Attends one query tile.
  template <bool Tested>
  __device__ __forceinline__ void attend(Held& held, KeyTile const& key_tile, std::uint32_t tile_parity) {
    auto& control = block.memory.control;
    int const stage = number & 1;
    std::uint32_t const parity = number >> 1 & 1;
    std::uint32_t const q_stage = products.q_at(stage), d_o_stage = products.d_o_at(stage);
    float s[query_rows / 2], dp[query_rows / 2];
    std::uint32_t p[query_rows / 4], ds[query_rows / 4];
    control.q_full[stage].wait(parity);
    begin_dp(dp, control.stats[stage] + query_rows);
    pin(dp);
    products.template begin_scores<false>(s, held.k, products.k_own, q_stage);
    control.d_o_full[stage].wait(parity);
    products.template begin_scores<true>(dp, held.v, products.v_own, d_o_stage);
    wgmma_wait<1>();
    pin(s);
    if constexpr (Tested)
      BackwardHide<Block>{block}.run(s, dp, key_tile, tile_parity, 64 * group, 0, number, stage);
    if constexpr (HasRule<typename Block::M>) {
      auto const pairs = BackwardHide<Block>{block}.pairs(key_tile, 64 * group, 0, number);
      weigh_by_rule(block, s, p, Tested, control.stats[stage], pairs);
    } else {
      weigh(s, control.stats[stage], scale);
      pack<T>(p, s);
    }
    wgmma_wait<0>();
    pin(dp);
#pragma unroll
    for (int i = 0; i < query_rows / 2; ++i) dp[i] *= s[i];
    pack<T>(ds, dp);
    if constexpr (dq_late) control.ds_empty[stage].wait(parity ^ 1);
    store_down(ds_own + stage * Block::ds_bytes, ds);
    products.begin_key_sums(held.dv, p, d_o_stage);
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
    float dq[Products::dq_columns / 2];
    products.begin_dq(dq, dq_stage);
    wgmma_wait<1>();
    pin(held.dv);
    pin(p);
    control.d_o_empty[stage].arrive_if(leads_warpgroup);
    products.begin_key_sums(held.dk, ds, q_stage);
    wgmma_wait<1>();
    pin(dq);
    if (!dq_late || step > 0) {
      if constexpr (dq_late) control.ds_empty[dq_stage].arrive_if(leads_warpgroup);
      BackwardStore<Block>{block, group}.stage_dq(dq, puts++);
    }
    wgmma_wait<0>();
    pin(held.dk);
    pin(ds);
    control.q_empty[stage].arrive();
    ++step;
    ++number;
  }

  /// The gradients of queries of a key tile's last step, where they are late.
  __device__ __forceinline__ void end_dq() {
    auto& control = block.memory.control;
    int const stage = (number - 1) & 1;
    control.ds_full[stage].wait((number - 1) >> 1 & 1);
    float dq[Products::dq_columns / 2];
    products.begin_dq(dq, stage);
    wgmma_wait<0>();
    pin(dq);
    control.ds_empty[stage].arrive_if(leads_warpgroup);
    BackwardStore<Block>{block, group}.stage_dq(dq, puts++);
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
