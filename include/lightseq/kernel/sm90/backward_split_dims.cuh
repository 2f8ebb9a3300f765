// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

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

/// The matrix products of a warpgroup, `group`, that holds half of the dims. Each begins here, as a group of
/// wgmmas, and is waited for elsewhere.
template <BackwardBlock Block>
struct SplitDimsProducts {
  using T = typename Block::T;
  static constexpr int query_rows = Block::query_rows, key_rows = Block::key_rows;
  static constexpr int query_panel = Block::query_panel, key_panel = Block::key_panel;
  static constexpr int queries = query_rows / 2;  ///< that a warpgroup weighs
  using Scores = Wgmma<queries, T>;
  using Sums = Wgmma<128, T>;

  int group;
  /// Descriptors: keys and values; the first stages of queries and of gradients of outputs.
  std::uint32_t k, v, q, d_o;

  __device__ __forceinline__ SplitDimsProducts(typename Block::Memory& memory, int this_group)
      : group(this_group),
        k(descriptor(ptx::shared_address(memory.k), key_panel)),
        v(k + (Block::key_bytes >> 4)),
        q(descriptor(ptx::shared_address(memory.q), query_panel)),
        d_o(descriptor(ptx::shared_address(memory.d_o), query_panel)) {}

  __device__ __forceinline__ std::uint32_t q_at(int stage) const {
    return q + stage * (Block::query_bytes >> 4);
  }
  __device__ __forceinline__ std::uint32_t d_o_at(int stage) const {
    return d_o + stage * (Block::query_bytes >> 4);
  }

  /// Adds the sums along the dims: [64 keys, this group's queries].
  __device__ __forceinline__ void begin_scores(float (&to)[queries / 2], std::uint32_t left,
                                               std::uint32_t right) const {
    pin(to);
    wgmma_fence();
    right += group * (queries * 128 >> 4);
#pragma unroll
    for (int i = 0; i < Block::head_dim / 16; ++i)
      Scores::template both_shared<true>(to, left + ((i / 4 * key_panel + i % 4 * 32) >> 4),
                                         right + ((i / 4 * query_panel + i % 4 * 32) >> 4));
    wgmma_commit();
  }

  /// Adds the sums along the queries: [64 keys, this group's dims].
  __device__ __forceinline__ void begin_key_sums(float (&to)[64], std::uint32_t left,
                                                 std::uint32_t right) const {
    pin(to);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < query_rows / 16; ++i)
      Sums::template both_shared<true, true, true>(to, left + i * 128,
                                                   right + group * (query_panel >> 3) + i * 128);
    wgmma_commit();
  }

  /// The sums along the keys: [64 queries, this group's dims].
  __device__ __forceinline__ void begin_dq(float (&to)[64], std::uint32_t ds) const {
#pragma unroll
    for (int i = 0; i < 64; ++i) to[i] = 0;
    pin(to);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < key_rows / 16; ++i)
      Sums::template both_shared<true, false, true>(to, ds + i * 2, k + group * (key_panel >> 3) + i * 128);
    wgmma_commit();
  }
};

/// A warpgroup that holds half of the dims of all keys' gradients. It weighs half of the queries.
template <BackwardBlock Block>
struct SplitDims {
  using T = typename Block::T;
  using KeyTile = typename Block::KeyTile;
  using Products = SplitDimsProducts<Block>;
  static constexpr int query_rows = Block::query_rows, queries = Products::queries;

  Block const& block;
  int group;
  std::uint32_t leads_warpgroup;
  Products products;
  std::uint32_t p_address, ds_address;  ///< of the weights and of the gradients of scores
  std::uint32_t p_all, ds_all;          ///< their descriptors
  float scale;
  Ring<Block::stages> ring;
  int number = 0;  ///< steps

  /// What registers hold of a key tile; as SplitKeys::Held.
  struct Held {
    float dk[64], dv[64];
  };

  __device__ __forceinline__ SplitDims(Block const& shared, int this_group)
      : block(shared),
        group(this_group),
        leads_warpgroup(threadIdx.x % 128 == 0),
        products(shared.memory, group),
        p_address(ptx::shared_address(shared.memory.ds)),
        ds_address(p_address + Block::ds_bytes),
        p_all(descriptor(p_address)),
        ds_all(descriptor(ds_address)),
        scale(exponent_scale<typename Block::M>(shared.launch.scale)) {}

  __device__ __forceinline__ void run() {
    Held held;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      int steps;
      KeyTile const& key_tile = block.take_tile(tile_parity, steps);
      if (steps < 0) break;
#pragma unroll
      for (int i = 0; i < 64; ++i) held.dk[i] = held.dv[i] = 0;
      block.memory.control.kv_full.wait(tile_parity);
#pragma unroll 1
      for (int step = 0; step < steps; ++step, ++number) attend(held, key_tile, tile_parity);
      BackwardStore<Block>{block, group}.store_dkv(key_tile, number, held.dk, held.dv);
    }
  }

 private:
  /// Attends one query tile.
  __device__ __forceinline__ void attend(Held& held, KeyTile const& key_tile, std::uint32_t tile_parity) {
    auto& control = block.memory.control;
    int const stage = ring.stage;
    std::uint32_t const q_stage = products.q_at(stage), d_o_stage = products.d_o_at(stage);
    float s[queries / 2], dp[queries / 2], dq[64];
    std::uint32_t p[queries / 4], ds[queries / 4];
    control.q_full[stage].wait(ring.parity);
    begin_dp(dp, control.stats[stage] + query_rows + queries * group);
#pragma unroll
    for (int i = 0; i < queries / 2; ++i) s[i] = 0;
    pin(dp);
    products.begin_scores(s, products.k, q_stage);
    control.d_o_full[stage].wait(ring.parity);
    products.begin_scores(dp, products.v, d_o_stage);
    wgmma_wait<1>();
    pin(s);
    BackwardHide<Block>{block}.run(s, dp, key_tile, tile_parity, 0, queries * group, number, stage);
    if constexpr (HasRule<typename Block::M>) {
      auto const pairs = BackwardHide<Block>{block}.pairs(key_tile, 0, queries * group, number);
      bool const tested = ptx::uniform(control.steps[number % Block::steps_known].tests) != 0;
      weigh_by_rule(block, s, p, tested, control.stats[stage] + queries * group, pairs);
    } else {
      weigh(s, control.stats[stage] + queries * group, scale);
      pack<T>(p, s);
    }
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
    products.begin_key_sums(held.dv, p_all, d_o_stage);
    products.begin_key_sums(held.dk, ds_all, q_stage);
    products.begin_dq(dq, ds_all);
    wgmma_wait<0>();
    pin(held.dv);
    pin(held.dk);
    pin(dq);
    control.d_o_empty[stage].arrive_if(leads_warpgroup);
    control.q_empty[stage].arrive();
    BackwardStore<Block>{block, group}.stage_dq(dq, number);
    ring.advance();
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
