// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/follow_rule.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/gpu/visible_pairs.cuh"
#include "lightseq/kernel/merge.hpp"
#include "lightseq/kernel/sm90/forward_shared.cuh"
#include "lightseq/kernel/sm90/wgmma.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// The matrix products of a warpgroup's 64 queries. Each begins here, as a group of wgmmas, and is waited for
/// elsewhere.
template <ForwardBlock Block>
struct ForwardProducts {
  using T = typename Block::T;
  static constexpr int head_dim = Block::head_dim, key_rows = Block::key_rows;
  static constexpr int query_panel = Block::query_panel, key_panel = Block::key_panel;
  using Scores = Wgmma<key_rows, T>;
  using Values = Wgmma<head_dim, T>;

  std::uint32_t q, k, v;  ///< descriptors: the warpgroup's queries, and the first stages

  __device__ __forceinline__ ForwardProducts(typename Block::Memory& memory, int warpgroup)
      : q(descriptor(ptx::shared_address(memory.q) + warpgroup * 64 * 128)),
        k(descriptor(ptx::shared_address(memory.k))),
        v(descriptor(ptx::shared_address(memory.v), key_panel)) {}

  /// The scores of a stage's keys.
  __device__ __forceinline__ void begin_scores(float (&s)[key_rows / 2], int stage) const {
    pin(s);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < head_dim / 16; ++i) {
      std::uint32_t const q_step = q + ((i / 4 * query_panel + i % 4 * 32) >> 4);
      std::uint32_t const k_step =
          k + stage * (Block::key_bytes >> 4) + ((i / 4 * key_panel + i % 4 * 32) >> 4);
      if (i == 0) {
        Scores::template both_shared<false>(s, q_step, k_step);
      } else {
        Scores::template both_shared<true>(s, q_step, k_step);
      }
    }
    wgmma_commit();
  }

  /// Adds weights times a stage's values.
  __device__ __forceinline__ void begin_values(float (&o)[head_dim / 2], std::uint32_t (&p)[key_rows / 4],
                                               int stage) const {
    pin(o);
    pin(p);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < key_rows / 16; ++i)
      Values::template left_registers<true>(o, p + 4 * i, v + stage * (Block::key_bytes >> 4) + i * 128);
    wgmma_commit();
  }
};

/// A warpgroup that holds 64 queries of each query tile.
template <ForwardBlock Block>
struct ForwardCompute {
  using T = typename Block::T;
  using Result = typename Block::Result;
  using Out = typename Block::Out;
  using M = typename Block::M;
  using QueryTile = typename Block::QueryTile;
  using OutputStage = typename Block::OutputStage;
  static constexpr int head_dim = Block::head_dim, key_rows = Block::key_rows;
  static constexpr int query_panel = Block::query_panel, key_panel = Block::key_panel;
  static constexpr bool stages_o = Block::stages_o, o_over_q = Block::o_over_q;
  static constexpr bool takes_turns = Block::tile.takes_turns;

  /// What the weights' sum over a thread's part of a tile may reach before the offset must move: weights
  /// must fit in T.
  static constexpr float largest_sum = std::is_same_v<T, float16> ? 0x1p14f : 0x1p50f;

  /// What registers hold: outputs, scores and packed weights. Arrays are no members of ForwardCompute: the
  /// compiler would keep the numbers beside them in memory until it has unrolled all loops, and find worse
  /// code.
  struct Fragments {
    float o[head_dim / 2], s[key_rows / 2];
    std::uint32_t p[key_rows / 4];
  };

  Block const& block;
  int warpgroup;
  std::uint32_t leads_warp, leads_warpgroup;
  ForwardProducts<Block> products;
  float scale;
  Ring<Block::stages> ring;
  std::uint32_t tile_parity = 0;

  __device__ __forceinline__ ForwardCompute(Block const& shared, int this_warpgroup)
      : block(shared),
        warpgroup(this_warpgroup),
        leads_warp(threadIdx.x % 32 == 0),
        leads_warpgroup(threadIdx.x % 128 == 0),
        products(shared.memory, warpgroup),
        scale(score_scale<M>(shared.launch.scale)) {
    pin(scale);
  }

  __device__ __forceinline__ void run() {
    auto const& launch = block.launch;
    auto& control = block.memory.control;
    int const thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
    Fragments fragments;
    if (takes_turns && warpgroup == 0) Block::give_turn(0);
    while (true) {
      control.tile_full.wait(tile_parity);
      QueryTile query_tile = control.query_tile;
      query_tile.kind = ptx::uniform(query_tile.kind);
      control.tile_empty.arrive();
      if (query_tile.kind == Block::no_more_tiles) break;
      RowPair const rows{query_tile.batch, query_tile.head, query_tile.segment * launch.queries[0].count,
                         query_tile.first + warpgroup * 64 + warp * 16 + lane / 4,
                         launch.queries[query_tile.segment]};
      OnlineSoftmax softmax;
      start(rows, softmax, fragments.o);
      RowSum carried[2] = {};
      control.q_full.wait(tile_parity);
      if (query_tile.kind == Block::some_keys) {
        attend(fragments, rows, softmax, carried);
      } else {
        if constexpr (!o_over_q) control.q_empty.arrive_if(leads_warp);
        load_carried(rows, carried);
        softmax.add_up();
      }
      if constexpr (stages_o) {
        stage_output(rows, softmax, carried, fragments.o);
      } else {
        finish(softmax, rows, launch.out, fragments.o);
        if constexpr (o_over_q) {
          store_over_queries(query_tile, fragments.o);
        } else {
          store_floats(launch.out.o, rows, fragments.o);
        }
      }
      tile_parity ^= 1;
    }
    if (o_over_q && leads_warpgroup) wait_stores();
  }

 private:
  __device__ __forceinline__ bool continues() const { return block.launch.carried.o.data != nullptr; }

  /// What a row starts from: no keys, or the result that it continues.
  __device__ __forceinline__ void start(RowPair const& rows, OnlineSoftmax& softmax,
                                        float (&o)[head_dim / 2]) const {
    softmax = OnlineSoftmax(largest_sum);
    if (stages_o || !continues()) {
#pragma unroll
      for (int i = 0; i < head_dim / 2; ++i) o[i] = 0;
    } else {
      resume(block.launch.carried, rows, softmax, o);
    }
  }

  /// What is merged at the end where outputs are staged.
  __device__ __forceinline__ void load_carried(RowPair const& rows, RowSum (&carried)[2]) const {
    if constexpr (stages_o) {
      if (!continues()) return;
#pragma unroll
      for (int r = 0; r < 2; ++r) carried[r] = load_sum(block.launch.carried, rows, r);
    }
  }

  __device__ __forceinline__ static void rescale(float (&o)[head_dim / 2], OnlineSoftmax const& softmax) {
#pragma unroll
    for (int i = 0; i < head_dim / 2; ++i) o[i] *= softmax.factor[i / 2 % 2];
  }

  __device__ __forceinline__ static void pack_weights(Fragments& fragments) {
#pragma unroll
    for (int i = 0; i < key_rows / 4; ++i)
      fragments.p[i] = ptx::pack<T>(fragments.s[2 * i], fragments.s[2 * i + 1]);
  }

  /// Attends all key tiles of a query tile, of which there are some.
  __device__ __forceinline__ void attend(Fragments& fragments, RowPair const& rows, OnlineSoftmax& softmax,
                                         RowSum (&carried)[2]) {
    auto& control = block.memory.control;
    auto& [o, s, p] = fragments;
    control.k_full[ring.stage].wait(ring.parity);
    products.begin_scores(s, ring.stage);
    int flags = ptx::read_first(control.key_tiles[ring.stage].flags);
    wgmma_wait<0>();
    pin(s);
    follow_rule(s, rows);
    if (flags & Block::masked) hide_pairs(s, rows);
    control.k_empty[ring.stage].arrive_if(leads_warp);
    if (softmax.add(s, scale) && !stages_o && continues()) rescale(o, softmax);
    pack_weights(fragments);
    Ring<Block::stages> before = ring;
    ring.advance();
    while (flags & (Block::more_masked | Block::more_unmasked)) {
#pragma unroll 1
      while (flags & Block::more_masked) step<true>(fragments, rows, softmax, before, flags);
#pragma unroll 1
      while (flags & Block::more_unmasked) step<false>(fragments, rows, softmax, before, flags);
    }
    if constexpr (!o_over_q) control.q_empty.arrive_if(leads_warp);
    load_carried(rows, carried);
    control.v_full[before.stage].wait(before.parity);
    products.begin_values(o, p, before.stage);
    wgmma_wait<0>();
    pin(o);
    control.v_empty[before.stage].arrive_if(leads_warpgroup);
    softmax.add_up();
    if (is_suspect(softmax, o)) mend(rows, softmax, o);
  }

  /// Makes the weights of a key tile while the tensor cores multiply those of the tile before by its values.
  template <bool Tested>
  __device__ __forceinline__ void step(Fragments& fragments, RowPair const& rows, OnlineSoftmax& softmax,
                                       Ring<Block::stages>& before, int& flags) {
    auto& control = block.memory.control;
    auto& [o, s, p] = fragments;
    // In turns, whoever comes first has waited for the tiles, and the barrier tells the others.
    bool const waits = !takes_turns || warpgroup == 0;
    if (waits) control.k_full[ring.stage].wait(ring.parity);
    Block::wait_turn(warpgroup);
    products.begin_scores(s, ring.stage);
    flags = ptx::read_first(control.key_tiles[ring.stage].flags);
    if (waits) control.v_full[before.stage].wait(before.parity);
    products.begin_values(o, p, before.stage);
    Block::give_turn((warpgroup + 1) % Block::warpgroups);
    wgmma_wait<1>();
    pin(s);
    bool moved = false;
    if constexpr (Tested) {
      follow_rule(s, rows);
      hide_pairs(s, rows);
      moved = softmax.add(s, scale);
    } else if (!add_fixed(s, rows, softmax)) {
      score_again(s, ring.stage);
      follow_rule(s, rows);
      moved = softmax.add(s, scale);
    }
    control.k_empty[ring.stage].arrive_if(leads_warp);
    wgmma_wait<0>();
    pin(o);
    pin(p);
    control.v_empty[before.stage].arrive_if(leads_warpgroup);
    pack_weights(fragments);
    if (moved) rescale(o, softmax);
    before = ring;
    ring.advance();
  }

  /// Products of the present key tile become scores by the mask's rule, if it has one.
  __device__ __forceinline__ void follow_rule([[maybe_unused]] float (&s)[key_rows / 2],
                                              [[maybe_unused]] RowPair const& rows) const {
    if constexpr (HasRule<M>) {
      LaunchSegment keys{};
      if constexpr (is_placed<M>)
        keys = ptx::read_first<LaunchSegment>(block.memory.control.key_tiles[ring.stage]);
      lightseq::follow_rule(s, rows, keys, block.launch.scale, block.launch.mask);
    }
  }

  /// OnlineSoftmax::add_fixed() of products.
  __device__ __forceinline__ bool add_fixed(float (&s)[key_rows / 2], RowPair const& rows,
                                            OnlineSoftmax& softmax) const {
    if constexpr (HasNearRule<M>) {
      NearProducts const& near = block.launch.near;
      if (__builtin_expect(near.serves(s), 1))
        return softmax.add_weights(s, [&](float x, float offset) { return near.weight(x, offset); });
    }
    follow_rule(s, rows);
    return softmax.add_fixed(s, scale);
  }

  /// Hides what the mask hides of the present key tile.
  __device__ __forceinline__ void hide_pairs(float (&s)[key_rows / 2], RowPair const& rows) const {
    hide(s, rows, ptx::read_first<LaunchSegment>(block.memory.control.key_tiles[ring.stage]),
         block.launch.mask);
  }

  /// The epilogue where outputs have shared memory: merges with what they continue and gives them to the warp
  /// that moves them.
  __device__ __forceinline__ void stage_output(RowPair const& rows, OnlineSoftmax const& softmax,
                                               RowSum const (&carried)[2], float (&o)[head_dim / 2]) const {
    auto& control = block.memory.control;
    bool const merges = continues();
    OutputStage const stage{block.memory.o[0] + warpgroup * OutputStage::bytes};
    float own[2] = {1, 1}, other[2] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      RowSum row{softmax.offset[r], softmax.sum[r]};
      if (merges) {
        Merge const both = merge(row.top, carried[r].top);
        row = {both.top, both.a * row.sum + both.b * carried[r].sum};
        own[r] = both.a, other[r] = both.b;
      }
      if constexpr (has_sinks<Result>) {
        RowEnd const end = row_end(block.launch.out, rows.head, row.top, row.sum);
        row = {end.top, end.sum};
        own[r] *= end.factor, other[r] *= end.factor;
      }
      store_sum(block.launch.out, rows, r, row);
      if constexpr (is_finished<Result>) {
        float const inverse = inverse_of(row.top, row.sum);
        own[r] *= inverse, other[r] *= inverse;
      }
    }
    control.o_empty.wait(tile_parity);
    if (merges) {
      stage.add_to(o, own, other);
    } else if constexpr (is_finished<Result>) {
#pragma unroll
      for (int i = 0; i < head_dim / 2; ++i) o[i] *= own[i / 2 % 2];
    }
    stage.write(o, Out{});
    fence_shared_writes();
    __syncwarp();
    control.o_full.arrive_if(leads_warp);
  }

  /// See VisiblePairs. The tile's memory is free again: all is read from where the maps take it.
  __device__ __forceinline__ void mend(RowPair const& rows, OnlineSoftmax& softmax,
                                       float (&o)[head_dim / 2]) const {
    auto const& launch = block.launch;
    int const row = warpgroup * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    int const first = ptx::uniform(rows.row - row);
    auto const make_walk = [&] { return block.walk_keys(rows.segment, first); };
    auto const segment = [&](int i) {
      return SegmentKeys<T>{launch.keys[i], launch.keys_at[i], launch.values_at[i]};
    };
    auto const restart = [&](OnlineSoftmax& fresh, float(&to)[head_dim / 2]) { start(rows, fresh, to); };
    VisiblePairs<head_dim, key_rows, T, M>{launch.mask, rows, launch.queries_at,
                                           rows.head / launch.order.group, launch.scale}
        .mend(make_walk, segment, restart, softmax, o);
  }

  /// Computes this warp's scores once more, with the instruction that needs no whole warpgroup.
  __device__ __forceinline__ void score_again(float (&s)[key_rows / 2], int stage) const {
    auto& memory = block.memory;
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, r = lane % 8;
    std::uint32_t const q_row =
        ptx::shared_address(memory.q) + (warpgroup * 64 + warp * 16 + lane % 16) * 128;
    std::uint32_t const k_row =
        ptx::shared_address(memory.k) + stage * Block::key_bytes + (lane / 16 * 8 + r) * 128;
#pragma unroll
    for (int i = 0; i < key_rows / 2; ++i) s[i] = 0;
#pragma unroll 1
    for (int i = 0; i < head_dim / 16; ++i) {
      int const chunk = i % 4 * 2;
      std::uint32_t a[4], b[4];
      ptx::load_matrices(a, q_row + i / 4 * query_panel + ((chunk + lane / 16) ^ r) * 16);
#pragma unroll
      for (int j = 0; j < key_rows / 16; ++j) {
        ptx::load_matrices(b, k_row + i / 4 * key_panel + j * 16 * 128 + ((chunk + lane / 8 % 2) ^ r) * 16);
        ptx::multiply<T>(s + 8 * j, a, b[0], b[1]);
        ptx::multiply<T>(s + 8 * j + 4, a, b[2], b[3]);
      }
    }
  }

  /// Writes a warpgroup's rows of o, which take the place of its queries.
  __device__ __forceinline__ void store_over_queries(QueryTile const& at,
                                                     float const (&o)[head_dim / 2]) const {
    auto const& launch = block.launch;
    std::uint8_t* const staging = block.memory.q + warpgroup * 64 * 128;
    write_elements<T>(staging, query_panel, o);
    fence_shared_writes();
    Block::sync_warpgroup(warpgroup);
    if (threadIdx.x % 128 == 0) {
      int const first = at.first + warpgroup * 64;
      if (first < launch.queries[at.segment].count)
        for (int i = 0; i < Block::panels; ++i)
          store_panel(launch.o[at.segment], 64 * i, first, at.head, at.batch,
                      ptx::shared_address(staging + i * query_panel));
      commit_stores();
      wait_stores_read();
      block.memory.control.q_empty.arrive();
    }
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
