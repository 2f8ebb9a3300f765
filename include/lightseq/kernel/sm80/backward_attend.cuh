// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/gpu/backward_care.cuh"
#include "lightseq/kernel/gpu/follow_rule.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/key_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm80/backward_finite.cuh"
#include "lightseq/kernel/sm80/backward_products.cuh"
#include "lightseq/kernel/sm80/backward_shared.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm80 {

/// A warp's share of one key tile, with or without care for hidden pairs whose numbers are not finite.
template <BackwardBlock Block, bool Careful>
struct BackwardWarp {
  using T = typename Block::T;
  using M = typename Block::M;
  using KeyGrad = typename Block::KeyGrad;
  using Semaphore = typename Block::Semaphore;
  using Products = BackwardProducts<Block>;
  using Finite = BackwardFinite<Block>;
  static constexpr BackwardTile tile = Block::tile;
  static constexpr int fragments = Block::fragments, columns = Block::columns, blocks = Block::blocks;
  static constexpr int warp_blocks = Block::warp_blocks, warp_keys = Block::warp_keys;
  static constexpr int warp_queries = Block::warp_queries, query_rows = Block::query_rows;
  static constexpr int dq_blocks = Block::dq_blocks, dq_fragments = Block::dq_fragments;
  static constexpr int query_bytes = Block::QueryTile::bytes, key_panel = Block::key_panel;
  static constexpr int units = fragments * warp_queries / 8;  ///< of four scores of a thread

  /// A query tile under way.
  struct Step {
    int segment, first, head;
    bool tests;            ///< whether pairs may be hidden
    bool odd_queries;      ///< whether a query asks for care
    std::uint32_t q, d_o;  ///< addresses of the stages
    std::uint32_t stats;   ///< address of what this thread reads of Block::Stats
  };

  /// What registers hold. Arrays are no members of BackwardWarp: the compiler would keep the numbers
  /// beside them in memory until it has unrolled all loops, and find worse code.
  struct Sums {
    float dk[fragments][warp_blocks * 8], dv[fragments][warp_blocks * 8];
  };
  using Scores = float[fragments][warp_queries / 2];
  using Packed = std::uint32_t[fragments][warp_queries / 4];

  Block const& block;
  TilePlace place;
  LaunchSegment keys;
  int some_keys, key_offset;
  int turn;
  int lane, column, key_warp;  ///< of this thread and its warp
  typename Block::Steps steps;
  bool more;
  std::uint32_t down, along;  ///< what a lane adds to a tile's address
  int dq_column, dq_first;    ///< blocks of dims, and the first fragment, whose dq this warp computes
  int own_query;              ///< the first one whose scores it computes
  /// Where this warp's rows of keys begin; those of values, of weights and of gradients of scores are an
  /// offset further. And the same for what this thread writes of weights and gradients of scores.
  std::uint32_t row_scores, scores;
  float scale;
  bool opens = true;           ///< whether no step has been attended
  unsigned* passed = nullptr;  ///< the semaphore that the next step passes on
  int stage = 0;

  __device__ __forceinline__ BackwardWarp(Block const& shared, typename Block::Work const& work,
                                          int this_turn)
      : block(shared),
        place(work.place),
        keys(work.keys),
        some_keys(work.some_keys),
        key_offset(place.segment * block.launch.keys[0].count),
        turn(this_turn),
        lane(threadIdx.x % 32),
        column(static_cast<int>(threadIdx.x / 32) % columns),
        key_warp(static_cast<int>(threadIdx.x / 32) / columns),
        steps(work.steps),
        more(work.more) {
    // Lane l names row l % 8 of matrix l / 8. The matrices follow each other down the rows first, or along
    // the columns first.
    int const warp = threadIdx.x / 32;
    std::uint32_t const swap = lane % 8 * 16;
    down = lane % 16 * 128 + (static_cast<std::uint32_t>(lane) / 16 * 16 ^ swap);
    along = (lane / 16 * 8 + lane % 8) * 128 + (static_cast<std::uint32_t>(lane) / 8 % 2 * 16 ^ swap);
    dq_column = warp % tile.dq_columns, dq_first = warp / tile.dq_columns * dq_fragments;
    own_query = column * warp_queries;
    scores = block.shared + own_query / 64 * key_panel + (key_warp * warp_keys + lane / 4) * 128 +
             ((own_query / 8 ^ lane / 4) & 7) * 16 + lane % 4 * 4;
    row_scores = block.shared + key_warp * warp_keys * 128 + down;
    scale = exponent_scale<M>(block.launch.scale);
  }

  __device__ __forceinline__ void run() {
    Sums sums;
    Products::clear(sums.dk);
    Products::clear(sums.dv);
#pragma unroll 1
    while (more) attend(sums);
    if constexpr (Block::deterministic) {
      __syncthreads();
      pass_turn();
    }
#pragma unroll
    for (int f = 0; f < fragments; ++f) {
      store<adds_fours>(block.launch.dk, rows(f), sums.dk[f], block.launch.scale);
      store<false>(block.launch.dv, rows(f), sums.dv[f], 1);
    }
  }

 private:
  __device__ __forceinline__ RowPair rows(int fragment) const {
    return {place.batch, place.head, key_offset,
            place.first + key_warp * warp_keys + fragment * 16 + lane / 4, keys};
  }

  /// The positions of a fragment's pairs, for rules that ask for them.
  __device__ __forceinline__ KeyPairs pairs([[maybe_unused]] Step const& step, [[maybe_unused]] int f) const {
    if constexpr (is_placed<M>)
      return {rows(f), block.launch.queries[step.segment], step.first + own_query, step.head};
    else
      return {};
  }

  /// Attends one query tile.
  __device__ __forceinline__ void attend(Sums& sums) {
    float2 stats{};
    Step const step = begin(stats);
    Scores s, ds;
    Packed p_packed, ds_packed;
    bool const bad_keys = score(step, s);
    weigh(step, s, ds, p_packed);
    add_dv(step, s, ds, p_packed, ds_packed, sums.dv);
    if constexpr (Block::deterministic) wait_turn(step);
    share_scores(bad_keys);
    if constexpr (columns > 1)
      Products::multiply_others(sums.dv, row_scores + Block::p_offset, step.d_o + down, column, [](int) {});
    if constexpr (columns > 1 && tile.d_o_stages == 1) __syncthreads();  // nobody reads d_o any more
    if (more) {
      if constexpr (tile.d_o_stages == 1) block.load_d_o(steps, place.batch, 0);
      block.template store_stats<Careful>(stage ^ 1, stats);
    }
    add_dq_and_dk(step, ds_packed, sums.dk);
    stage ^= 1;
  }

  /// Waits for a query tile, and begins to load the next one.
  __device__ __forceinline__ Step begin(float2& next_stats) {
    Step step{steps.walk.segment, steps.walk.first, steps.head};
    step.tests = steps.walk.cut || some_keys < Block::key_rows;
    ptx::wait_copies();
    __syncthreads();  // the tile is there for all, and nobody is in the step before any more
    if constexpr (Block::deterministic) pass_turn();
    more = steps.next();
    if (more) {
      block.load_q(steps, place.batch, stage ^ 1);
      if constexpr (tile.d_o_stages == 2) block.load_d_o(steps, place.batch, stage ^ 1);
      next_stats = block.load_stats(steps, place.batch);
    }
    step.q = block.shared + Block::q_offset + stage * query_bytes;
    step.d_o = block.shared + Block::d_o_offset + (tile.d_o_stages == 2 ? stage * query_bytes : 0);
    step.stats = block.stats_at(stage) + own_query * 4 + lane % 4 * 8;
    step.odd_queries = Careful && step.tests && Finite{block}.has_odd_queries(stage);
    if (step.odd_queries) Finite{block}.clean_queries(stage, step.q, step.d_o);
    return step;
  }

  /// The scores, and whether this warp's keys are not finite, where that is asked.
  __device__ __forceinline__ bool score(Step const& step, Scores& s) const {
    Products::clear(s);
    Products::multiply_rows(s, row_scores, step.q + own_query * 128 + along, [](int) {});
    bool const bad_keys = Careful && opens && !Finite::begin_finite(s);
    if (step.odd_queries) {
#pragma unroll
      for (int f = 0; f < fragments; ++f) {
        auto const score = [&](float x, int i) {
          return score_or_product(block.launch.mask, x, block.launch.scale, pairs(step, f), i);
        };
        judge(s[f], block.shared + Block::largest_offset + own_query * 4, score);
      }
    }
    if (step.tests) {
#pragma unroll
      for (int f = 0; f < fragments; ++f)
        hide_keys(s[f], rows(f), block.launch.queries[step.segment], step.first + own_query,
                  block.launch.mask);
    }
    return bad_keys;
  }

  /// Makes weights of the scores while the tensor cores multiply values by gradients of outputs, of which
  /// come the gradients of the weights, `ds`.
  __device__ __forceinline__ void weigh(Step const& step, Scores& s, Scores& ds, Packed& p_packed) const {
    float2 lse{};
    auto const weigh_some = [&](int gap) {
#pragma unroll
      for (int u = gap * units / blocks; u < (gap + 1) * units / blocks; ++u) {
        int const f = u % fragments, j = u / fragments;
        if (f == 0) lse = pair_at(step.stats + j * 32);
        float slopes[4];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          float& weight = s[f][4 * j + i];
          float const offset = i % 2 == 0 ? lse.x : lse.y;
          if constexpr (HasRule<M>) {
            bool const hidden = step.tests && weight == -OnlineSoftmax::infinity;
            PairScore const pair =
                score_pair(block.launch.mask, weight * block.launch.scale, pairs(step, f), 4 * j + i);
            weight = hidden ? 0.0f : exp2_here(fmaf(pair.score, scale, offset));
            slopes[i] = hidden ? 0.0f : pair.slope;
          } else {
            weight = exp2_here(fmaf(weight, scale, offset));
          }
        }
#pragma unroll
        for (int i = 2 * j; i < 2 * j + 2; ++i) {
          p_packed[f][i] = ptx::pack<T>(s[f][2 * i], s[f][2 * i + 1]);
          if constexpr (columns > 1) store_score(scores + Block::p_offset, f, i, p_packed[f][i]);
        }
        // Gradients of weights are multiplied by both.
        if constexpr (HasRule<M>) {
#pragma unroll
          for (int i = 0; i < 4; ++i) s[f][4 * j + i] *= slopes[i];
        }
      }
    };
#pragma unroll
    for (int j = 0; j < warp_queries / 8; ++j) {
      float2 const delta = pair_at(step.stats + query_rows * 4 + j * 32);
#pragma unroll
      for (int f = 0; f < fragments; ++f)
#pragma unroll
        for (int i = 0; i < 4; ++i) ds[f][4 * j + i] = i % 2 == 0 ? delta.x : delta.y;
    }
    Products::multiply_rows(ds, row_scores + Block::v_offset, step.d_o + own_query * 128 + along, weigh_some);
    if (Careful && step.tests && (step.odd_queries || !Finite::begin_finite(ds))) {
#pragma unroll
      for (int f = 0; f < fragments; ++f) {
        float seen[warp_queries / 2] = {};
        hide_keys(seen, rows(f), block.launch.queries[step.segment], step.first + own_query,
                  block.launch.mask);
        drop_hidden(seen, ds[f]);
      }
    }
  }

  /// Adds to dv what this warp's weights give, and between the multiplications makes and shares the gradients
  /// of the scores.
  __device__ __forceinline__ void add_dv(Step const& step, Scores const& s, Scores const& ds,
                                         Packed const& p_packed, Packed& ds_packed,
                                         float (&dv)[fragments][warp_blocks * 8]) const {
    std::uint32_t const to = scores + Block::ds_offset;
    constexpr int gaps = warp_queries / 16 * warp_blocks;
    auto const share_some = [&](int gap) {
#pragma unroll
      for (int u = gap * units / gaps; u < (gap + 1) * units / gaps; ++u) {
        int const f = u % fragments, j = u / fragments;
#pragma unroll
        for (int i = 2 * j; i < 2 * j + 2; ++i) {
          ds_packed[f][i] = ptx::pack<T>(ds[f][2 * i] * s[f][2 * i], ds[f][2 * i + 1] * s[f][2 * i + 1]);
          store_score(to, f, i, ds_packed[f][i]);
        }
      }
    };
    Products::multiply_columns(dv, p_packed, step.d_o + own_query * 128 + down, column * warp_blocks,
                               share_some);
  }

  /// Waits until the scores are there for all.
  __device__ __forceinline__ void share_scores(bool bad_keys) {
    if (!Careful || !opens) {
      __syncthreads();
    } else if (__syncthreads_or(bad_keys)) {
      if (bad_keys) Finite{block}.clean_keys(key_warp, column);
      __syncthreads();
    }
    opens = false;
  }

  /// The gradients of queries, which are added to global memory among the multiplications of those of keys:
  /// additions in a row would block the multiplications of the other warps too.
  __device__ __forceinline__ void add_dq_and_dk(Step const& step, Packed const& ds_packed,
                                                float (&dk)[fragments][warp_blocks * 8]) const {
    auto const& launch = block.launch;
    float dq[dq_fragments][dq_blocks * 8];
    Products::multiply_keys(dq, block.shared + Block::ds_offset + along, block.shared + down, dq_first,
                            dq_column * dq_blocks);
    constexpr int additions = dq_fragments * 2 * dq_blocks, gaps = query_rows / 16 * warp_blocks;
    float* dq_rows[dq_fragments][2];
#pragma unroll
    for (int f = 0; f < dq_fragments; ++f)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        // A row past the end has zeros only: the last one can take them, and no addition needs a branch.
        int const row =
            min(step.first + (dq_first + f) * 16 + r * 8 + lane / 4, launch.queries[step.segment].count - 1);
        dq_rows[f][r] = launch.dq.at(place.batch, step.segment * launch.queries[0].count + row, step.head) +
                        dq_column * dq_blocks * 16 + lane % 4 * (adds_fours ? 4 : 2);
      }
    auto const add_some = [&](int gap) {
#pragma unroll
      for (int i = gap * additions / gaps; i < (gap + 1) * additions / gaps; ++i) {
        int const f = i / (2 * dq_blocks), at = i / 2 % dq_blocks, r = i % 2;
        float const* const sum = dq[f] + at * 8 + r * 2;
        if (blocks % tile.dq_columns == 0 || dq_column * dq_blocks + at < blocks)
          ptx::add_four(dq_rows[f][r] + at * 16, sum[0] * launch.scale, sum[1] * launch.scale,
                        sum[4] * launch.scale, sum[5] * launch.scale);
      }
    };
    Products::multiply_columns(dk, ds_packed, step.q + own_query * 128 + down, column * warp_blocks,
                               add_some);
    if constexpr (columns > 1)
      Products::multiply_others(dk, row_scores + Block::ds_offset, step.q + down, column,
                                [&](int gap) { add_some(warp_queries / 16 * warp_blocks + gap); });
  }

  /// Waits until earlier key tiles have added to a step's gradients of queries.
  __device__ __forceinline__ void wait_turn(Step const& step) {
    auto const& launch = block.launch;
    Semaphore const semaphore{launch.mask, launch.order, launch.queries, launch.keys, launch.semaphores};
    passed = semaphore.at(place.batch, step.head, step.segment, step.first);
    LaunchSegment const& queries = launch.queries[step.segment];
    if (threadIdx.x / 32 == 0)
      semaphore.wait(passed, queries.hull(step.first, min(query_rows, queries.count - step.first)), turn);
  }
  __device__ __forceinline__ void pass_turn() const {
    if (threadIdx.x == 0 && passed != nullptr) Semaphore::pass(passed, turn);
  }

  __device__ __forceinline__ static float2 pair_at(std::uint32_t address) {
    float2 pair;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(pair.x), "=f"(pair.y) : "r"(address) : "memory");
    return pair;
  }

  /// 2^x where it is written: the compiler would gather all of them after the multiplications.
  __device__ __forceinline__ static float exp2_here(float x) {
    float y;
    asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }

  /// Puts pair i of a fragment's packed scores where other warps find it.
  __device__ __forceinline__ static void store_score(std::uint32_t to, int fragment, int i,
                                                     std::uint32_t packed) {
    asm volatile("st.shared.b32 [%0], %1;" ::"r"((to ^ i / 2 % 8 * 16) + i / 16 * key_panel +
                                                 (fragment * 16 + i % 2 * 8) * 128),
                 "r"(packed)
                 : "memory");
  }

  /// The epilogue: adds the rows times `factor` to floats, or writes them as elements. With `Fours` the
  /// columns lie as RowTile::load_ordered leaves them.
  template <bool Fours>
  __device__ __forceinline__ void store(Tensor<KeyGrad> const& tensor, RowPair const& pair,
                                        float const (&x)[warp_blocks * 8], float factor) const {
    int const first_block = column * warp_blocks;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!pair.exists(r)) break;
      KeyGrad* const to = tensor.at(pair.batch, pair.token(r), pair.head) + first_block * 16 +
                          threadIdx.x % 4 * (Fours ? 4 : 2);
#pragma unroll
      for (int i = 0; i < warp_blocks * 2; ++i) {
        if (first_block + i / 2 >= blocks) break;
        KeyGrad* const at = to + (Fours ? i / 2 * 16 + i % 2 * 2 : i * 8);
        float const a = x[4 * i + 2 * r] * factor, b = x[4 * i + 2 * r + 1] * factor;
        if constexpr (std::is_same_v<KeyGrad, float>) {
          float2& there = *reinterpret_cast<float2*>(at);
          there = {there.x + a, there.y + b};
        } else {
          *reinterpret_cast<std::uint32_t*>(at) = ptx::pack<T>(a, b);
        }
      }
    }
  }
};

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
