// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/gpu/backward_care.cuh"
#include "lightseq/kernel/gpu/compiled.cuh"
#include "lightseq/kernel/gpu/dq_semaphore.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/key_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/gpu/query_tile_scheduler.cuh"
#include "lightseq/kernel/sm80/row_tile.cuh"
#include "lightseq/kernel/sm80/tile.hpp"
#include "lightseq/mask/mask.hpp"

/// What a thread block of the portable backward kernel does. It keeps a tile of keys and values, brings the
/// query tiles that see it past them, and has the gradients of its keys and values in registers. Scores are
/// held transposed, keys down and queries across: as they lie they are the left operands of those gradients.
/// The gradients of queries are sums over all keys, so each thread block adds its part to global memory.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm80 {

/// All that a launch is told. Element 0 and 1 of an array belong to the two segments of a shard.
template <class T, class KeyGrad, Mask M>
struct BackwardLaunch {
  M mask;
  Tensor<T const> q = {}, k = {}, v = {}, d_o = {};
  RowStats<float const> lse = {}, delta = {};
  Tensor<float> dq = {};
  Tensor<KeyGrad> dk = {}, dv = {};
  LaunchSegment queries[2] = {}, keys[2] = {};
  KeyTileScheduler order = {};
  float scale = 0;
  unsigned* counter = nullptr;  ///< of key tiles that have been taken
  unsigned* semaphores = nullptr;
};

/// Whether one instruction adds four floats to global memory. Then keys and queries lie in shared memory so
/// that a thread's sums are four neighbours, and four threads add 64 bytes in a row: pieces of 32 bytes, as
/// mma.sync leaves them, take 9% more time (H100, head dim 128), though their bytes are the same.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
constexpr bool adds_fours = true;
#else
constexpr bool adds_fours = false;
#endif

/// Adds four floats to those at `to`, a multiple of 16 bytes, if it adds fours; two each to those at `to` and
/// `to` + 8 otherwise.
__device__ __forceinline__ void add_four(float* to, float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(a), "f"(b), "f"(c),
               "f"(d)
               : "memory");
#else
  atomicAdd(to, a);
  atomicAdd(to + 1, b);
  atomicAdd(to + 8, c);
  atomicAdd(to + 9, d);
#endif
}

template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic, bool Large>
struct Backward {
  static constexpr BackwardTile tile = backward_tile(HeadDim, Large);
  static constexpr int fragments = tile.fragments, columns = tile.columns, query_rows = tile.query_rows;
  static constexpr int warp_keys = 16 * fragments, key_rows = warp_keys * tile.warps / columns;
  static constexpr int warp_queries = query_rows / columns;  ///< whose scores a warp computes
  static constexpr int threads = 32 * tile.warps;
  static_assert(HeadDim % 16 == 0 && HeadDim >= 16 && HeadDim <= 256,
                "lightseq: the head dim must be a multiple of 16, from 16 to 256");

  /// Blocks of 16 dims: of the head, of a warp's share of dk and dv, and of its share of dq. A warp drops
  /// what it computes for blocks past the head dim.
  static constexpr int blocks = HeadDim / 16, warp_blocks = (blocks + columns - 1) / columns;
  static constexpr int dq_blocks = (blocks + tile.dq_columns - 1) / tile.dq_columns;
  /// Fragments of 16 queries whose dq a warp computes.
  static constexpr int dq_fragments = query_rows / 16 / (tile.warps / tile.dq_columns);
  static_assert(dq_fragments * 16 * (tile.warps / tile.dq_columns) == query_rows);
  static_assert(columns == 1 || warp_queries == 16 || warp_queries == 32 || warp_queries == 64);

  /// Shared memory: keys, values, two stages of queries, one or two of output gradients, the scores'
  /// gradients with a key in each row of 128 bytes, the weights likewise where warps share them, and two
  /// stages of two numbers for each query, followed by bits that say which queries ask for care.
  using QueryTile = RowTile<query_rows, HeadDim, threads>;
  using KeyTile = RowTile<key_rows, HeadDim, threads>;
  static constexpr int query_panel = QueryTile::panel, key_panel = KeyTile::panel;  ///< bytes
  static constexpr int v_offset = KeyTile::bytes, q_offset = v_offset + KeyTile::bytes;
  static constexpr int d_o_offset = q_offset + 2 * QueryTile::bytes;
  static constexpr int ds_offset = d_o_offset + tile.d_o_stages * QueryTile::bytes;
  static constexpr int score_bytes = (query_rows + 63) / 64 * key_panel;
  static constexpr int p_offset = ds_offset + score_bytes;
  static constexpr int stats_offset = p_offset + (columns > 1 ? score_bytes : 0);
  static constexpr int stats_bytes = query_rows * 8 + 16;
  static_assert(query_rows <= 64);
  static constexpr int largest_offset = stats_offset + 2 * stats_bytes;  ///< for queries that ask for care
  static constexpr int shared_bytes = largest_offset + query_rows * 4;
  static_assert(shared_bytes <= (Large ? 162 : 98) * 1024,
                "lightseq: the backward tile does not fit in shared memory");

  using Launch = BackwardLaunch<T, KeyGrad, M>;
  using Semaphore = DqSemaphore<query_rows, key_rows, M>;
  using Walk = QueryTileIterator<query_rows, M>;

  Launch const& launch;
  std::uint32_t const shared;  ///< address, a multiple of 128

  __device__ __forceinline__ void run() const {
    __shared__ int taken;
    while (true) {
      __syncthreads();  // nobody is in the tile before any more
      // A tile is attended as soon as it is taken: others may wait for it.
      if (threadIdx.x == 0) taken = static_cast<int>(atomicAdd(launch.counter, 1));
      __syncthreads();
      int const index = taken;
      if (index >= launch.order.tiles) return;
      Work const work = begin(launch.order.locate(index, launch.keys[0].count, key_rows));
      if (work.more && needs_care(work)) {
        attend_with_care(launch, shared, work, launch.order.turn(index));
      } else {
        attend<false>(work, launch.order.turn(index));
      }
    }
  }

  /// The query tiles that see a key tile, head after head.
  struct Steps {
    int head, last_head;
    Walk walk;

    __device__ __forceinline__ bool next() {
      while (!walk.next()) {
        if (head == last_head) return false;
        ++head;
        walk.segment = -1;
        walk.tiles = walk.scanned = 0;
      }
      return true;
    }
  };

  /// A key tile whose first step is under way.
  struct Work {
    TilePlace place;
    LaunchSegment keys;
    int some_keys;  ///< those there are
    Steps steps;
    bool more;  ///< whether there is a step
  };

  __device__ __forceinline__ Work begin(TilePlace const& place) const {
    LaunchSegment const keys = launch.keys[place.segment];
    int const some_keys = min(key_rows, keys.count - place.first), group = launch.order.group;
    Walk const walk{launch.mask, launch.queries, keys.hull(place.first, some_keys)};
    Work work{place, keys, some_keys, {place.head * group, place.head * group + group - 1, walk}, false};
    work.more = work.steps.next();
    if (work.more) {
      int const token = place.segment * launch.keys[0].count + place.first;
      KeyTile::template load_ordered<adds_fours>(shared, launch.k, place.batch, token, place.head, some_keys);
      KeyTile::template load_ordered<false>(shared + v_offset, launch.v, place.batch, token, place.head,
                                            some_keys);
      load_q(work.steps, place.batch, 0);
      load_d_o(work.steps, place.batch, 0);
      store_stats<true>(0, load_stats(work.steps, place.batch));
    }
    return work;
  }

  /// Attends one key tile with care. It is called and not inlined: what care takes of registers would
  /// otherwise make the loop without care spill.
  __noinline__ __device__ static void attend_with_care(Launch const& launch, std::uint32_t shared, Work work,
                                                       int turn) {
    Backward{launch, shared}.template attend<true>(work, turn);
  }

  /// Attends one key tile, with or without care for hidden pairs whose numbers are not finite.
  template <bool Careful>
  __device__ __forceinline__ void attend(Work const& work, int turn) const {
    TilePlace const& place = work.place;
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int const column = warp % columns, key_warp = warp / columns;
    LaunchSegment const& keys = work.keys;
    int const some_keys = work.some_keys, key_offset = place.segment * launch.keys[0].count;
    auto const rows = [&](int fragment) {
      return RowPair{place.batch, place.head, key_offset,
                     place.first + key_warp * warp_keys + fragment * 16 + lane / 4, keys};
    };
    Steps steps = work.steps;
    bool more = work.more;
    Semaphore const semaphore{launch.mask, launch.order, launch.queries, launch.keys, launch.semaphores};

    // Lane l names row l % 8 of matrix l / 8. The matrices follow each other down the rows first, or along
    // the columns first.
    std::uint32_t const swap = lane % 8 * 16;
    std::uint32_t const down = lane % 16 * 128 + (static_cast<std::uint32_t>(lane) / 16 * 16 ^ swap);
    std::uint32_t const along =
        (lane / 16 * 8 + lane % 8) * 128 + (static_cast<std::uint32_t>(lane) / 8 % 2 * 16 ^ swap);
    int const dq_column = warp % tile.dq_columns, dq_first = warp / tile.dq_columns * dq_fragments;
    int const own_query = column * warp_queries;
    // Where this thread's scores go, as packed pairs.
    std::uint32_t const scores = shared + own_query / 64 * key_panel +
                                 (key_warp * warp_keys + lane / 4) * 128 +
                                 ((own_query / 8 ^ lane / 4) & 7) * 16 + lane % 4 * 4;
    std::uint32_t const row_scores = shared + key_warp * warp_keys * 128 + down;

    float dk[fragments][warp_blocks * 8], dv[fragments][warp_blocks * 8];
    clear(dk);
    clear(dv);
    float const scale = exponent_scale(launch.scale);
    bool opens = true;
    unsigned* passed = nullptr;
    int stage = 0;
#pragma unroll 1
    while (more) {
      int const segment = steps.walk.segment, first = steps.walk.first, head = steps.head;
      bool const tests = steps.walk.cut || some_keys < key_rows;
      ptx::wait_copies();
      __syncthreads();  // the tile is there for all, and nobody is in the step before any more
      if constexpr (Deterministic)
        if (threadIdx.x == 0 && passed != nullptr) Semaphore::pass(passed, turn);
      float2 stats{};
      more = steps.next();
      if (more) {
        load_q(steps, place.batch, stage ^ 1);
        if constexpr (tile.d_o_stages == 2) load_d_o(steps, place.batch, stage ^ 1);
        stats = load_stats(steps, place.batch);
      }
      std::uint32_t const q_stage = shared + q_offset + stage * QueryTile::bytes;
      std::uint32_t const d_o_stage =
          shared + d_o_offset + (tile.d_o_stages == 2 ? stage * QueryTile::bytes : 0);
      std::uint32_t const row_stats =
          shared + stats_offset + stage * stats_bytes + own_query * 4 + lane % 4 * 8;

      bool const odd_queries = Careful && tests && has_odd_queries(stage);
      if (odd_queries) clean_queries(stage, q_stage, d_o_stage);

      float s[fragments][warp_queries / 2];
      clear(s);
      multiply_rows(s, row_scores, q_stage + own_query * 128 + along, [](int) {});
      bool const bad_keys = Careful && opens && !begin_finite(s);
      if (odd_queries) {
#pragma unroll
        for (int f = 0; f < fragments; ++f) judge(s[f], shared + largest_offset + own_query * 4);
      }
      if (tests) {
#pragma unroll
        for (int f = 0; f < fragments; ++f)
          hide_keys(s[f], rows(f), launch.queries[segment], first + own_query, launch.mask);
      }
      // What is done to scores and weights is given out among the multiplications, which hide it.
      constexpr int units = fragments * warp_queries / 8;  ///< of four scores of a thread
      std::uint32_t p_packed[fragments][warp_queries / 4], ds_packed[fragments][warp_queries / 4];
      float2 lse{};
      auto const weigh_some = [&](int gap) {
#pragma unroll
        for (int u = gap * units / blocks; u < (gap + 1) * units / blocks; ++u) {
          int const f = u % fragments, j = u / fragments;
          if (f == 0) lse = pair_at(row_stats + j * 32);
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float& weight = s[f][4 * j + i];
            weight = exp2_here(fmaf(weight, scale, i % 2 == 0 ? lse.x : lse.y));
          }
#pragma unroll
          for (int i = 2 * j; i < 2 * j + 2; ++i) {
            p_packed[f][i] = ptx::pack<T>(s[f][2 * i], s[f][2 * i + 1]);
            if constexpr (columns > 1) store_score(scores + p_offset, f, i, p_packed[f][i]);
          }
        }
      };
      float ds[fragments][warp_queries / 2];
#pragma unroll
      for (int j = 0; j < warp_queries / 8; ++j) {
        float2 const delta = pair_at(row_stats + query_rows * 4 + j * 32);
#pragma unroll
        for (int f = 0; f < fragments; ++f)
#pragma unroll
          for (int i = 0; i < 4; ++i) ds[f][4 * j + i] = i % 2 == 0 ? delta.x : delta.y;
      }
      multiply_rows(ds, row_scores + v_offset, d_o_stage + own_query * 128 + along, weigh_some);
      if (Careful && tests && (odd_queries || !begin_finite(ds))) {
#pragma unroll
        for (int f = 0; f < fragments; ++f) {
          float seen[warp_queries / 2] = {};
          hide_keys(seen, rows(f), launch.queries[segment], first + own_query, launch.mask);
          drop_hidden(seen, ds[f]);
        }
      }

      constexpr int dv_gaps = warp_queries / 16 * warp_blocks;
      multiply_columns(dv, p_packed, d_o_stage + own_query * 128 + down, column * warp_blocks, [&](int gap) {
#pragma unroll
        for (int u = gap * units / dv_gaps; u < (gap + 1) * units / dv_gaps; ++u) {
          int const f = u % fragments, j = u / fragments;
#pragma unroll
          for (int i = 2 * j; i < 2 * j + 2; ++i) {
            ds_packed[f][i] = ptx::pack<T>(ds[f][2 * i] * s[f][2 * i], ds[f][2 * i + 1] * s[f][2 * i + 1]);
            store_score(scores + ds_offset, f, i, ds_packed[f][i]);
          }
        }
      });
      if constexpr (Deterministic) {
        passed = semaphore.at(place.batch, head, segment, first);
        LaunchSegment const& queries = launch.queries[segment];
        if (warp == 0)
          semaphore.wait(passed, queries.hull(first, min(query_rows, queries.count - first)), turn);
      }
      // The scores are there for all.
      if (!Careful || !opens) {
        __syncthreads();
      } else if (__syncthreads_or(bad_keys)) {
        if (bad_keys) clean_keys(key_warp);
        __syncthreads();
      }
      opens = false;
      if constexpr (columns > 1)
        multiply_others(dv, row_scores + p_offset, d_o_stage + down, column, [](int) {});
      if constexpr (columns > 1 && tile.d_o_stages == 1) __syncthreads();  // nobody reads d_o any more
      if (more) {
        if constexpr (tile.d_o_stages == 1) load_d_o(steps, place.batch, 0);
        store_stats<Careful>(stage ^ 1, stats);
      }

      float dq[dq_fragments][dq_blocks * 8];
      clear(dq);
#pragma unroll
      for (int j = 0; j < key_rows / 16; ++j) {
        std::uint32_t a[dq_fragments][4];
#pragma unroll
        for (int f = 0; f < dq_fragments; ++f)
          ptx::load_transposed(a[f],
                               block_at<key_panel>(shared + ds_offset + along, dq_first + f) + j * 16 * 128);
#pragma unroll
        for (int i = 0; i < dq_blocks; ++i) {
          std::uint32_t b[4];
          ptx::load_transposed(b,
                               block_at<key_panel>(shared + down, dq_column * dq_blocks + i) + j * 16 * 128);
          multiply(dq, 8 * i, a, b);
        }
      }
      // Additions to global memory in a row would block the multiplications of the other warps too.
      constexpr int additions = dq_fragments * 2 * dq_blocks, gaps = query_rows / 16 * warp_blocks;
      float* dq_rows[dq_fragments][2];
#pragma unroll
      for (int f = 0; f < dq_fragments; ++f)
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          // A row past the end has zeros only: the last one can take them, and no addition needs a branch.
          int const row =
              min(first + (dq_first + f) * 16 + r * 8 + lane / 4, launch.queries[segment].count - 1);
          dq_rows[f][r] = launch.dq.at(place.batch, segment * launch.queries[0].count + row, head) +
                          dq_column * dq_blocks * 16 + lane % 4 * (adds_fours ? 4 : 2);
        }
      auto const add_some = [&](int gap) {
#pragma unroll
        for (int i = gap * additions / gaps; i < (gap + 1) * additions / gaps; ++i) {
          int const f = i / (2 * dq_blocks), block = i / 2 % dq_blocks, r = i % 2;
          float const* const sum = dq[f] + block * 8 + r * 2;
          if (blocks % tile.dq_columns == 0 || dq_column * dq_blocks + block < blocks)
            add_four(dq_rows[f][r] + block * 16, sum[0] * launch.scale, sum[1] * launch.scale,
                     sum[4] * launch.scale, sum[5] * launch.scale);
        }
      };
      multiply_columns(dk, ds_packed, q_stage + own_query * 128 + down, column * warp_blocks, add_some);
      if constexpr (columns > 1)
        multiply_others(dk, row_scores + ds_offset, q_stage + down, column,
                        [&](int gap) { add_some(warp_queries / 16 * warp_blocks + gap); });
      stage ^= 1;
    }
    if constexpr (Deterministic) {
      __syncthreads();
      if (threadIdx.x == 0 && passed != nullptr) Semaphore::pass(passed, turn);
    }

#pragma unroll
    for (int f = 0; f < fragments; ++f) {
      store<adds_fours>(launch.dk, rows(f), column * warp_blocks, dk[f], launch.scale);
      store<false>(launch.dv, rows(f), column * warp_blocks, dv[f], 1);
    }
  }

 private:
  /// Begin to load the queries of the step that is next, the gradients of their outputs and their statistics.
  __device__ __forceinline__ void load_q(Steps const& steps, int batch, int stage) const {
    int const token = steps.walk.segment * launch.queries[0].count + steps.walk.first;
    int const count = launch.queries[steps.walk.segment].count - steps.walk.first;
    QueryTile::template load_ordered<adds_fours>(shared + q_offset + stage * QueryTile::bytes, launch.q,
                                                 batch, token, steps.head, count);
  }
  __device__ __forceinline__ void load_d_o(Steps const& steps, int batch, int stage) const {
    int const token = steps.walk.segment * launch.queries[0].count + steps.walk.first;
    int const count = launch.queries[steps.walk.segment].count - steps.walk.first;
    QueryTile::template load_ordered<false>(shared + d_o_offset + stage * QueryTile::bytes, launch.d_o, batch,
                                            token, steps.head, count);
  }
  /// A query's lse and delta, which nothing may wait for here. One that does not exist has the largest LSE.
  __device__ __forceinline__ float2 load_stats(Steps const& steps, int batch) const {
    float2 stats{largest_float, 0};
    int const row = steps.walk.first + static_cast<int>(threadIdx.x);
    if (threadIdx.x < query_rows && row < launch.queries[steps.walk.segment].count) {
      int const token = steps.walk.segment * launch.queries[0].count + row;
      stats = {launch.lse.at(batch, steps.head)[token], launch.delta.at(batch, steps.head)[token]};
    }
    return stats;
  }
  /// Stores what is added to a query's scores to make weights of them, and -delta; and bits for `Careful`.
  template <bool Careful>
  __device__ __forceinline__ void store_stats(int stage, float2 const& stats) const {
    std::uint32_t const to = shared + stats_offset + stage * stats_bytes;
    if (threadIdx.x < query_rows) {
      float const offset = -score_offset(stats.x);
      std::uint32_t const own = to + threadIdx.x * 4;
      asm volatile("st.shared.f32 [%0], %1;" ::"r"(own), "f"(offset) : "memory");
      asm volatile("st.shared.f32 [%0], %1;" ::"r"(own + query_rows * 4), "f"(-stats.y) : "memory");
    }
    if constexpr (Careful) {
      bool const ordinary = stats.x == largest_float || is_ordinary(stats.x, stats.y);
      unsigned const odd = __ballot_sync(~0u, threadIdx.x < query_rows && !ordinary);
      store_if(to + query_rows * 8 + threadIdx.x / 32 * 4, __uint_as_float(odd),
               threadIdx.x % 32 == 0 && threadIdx.x < 64);
    }
  }

  /// Whether a tile in which pairs are hidden has a key or value that is not finite, or such a query tile a
  /// query that asks for care. All threads call it.
  __device__ __forceinline__ bool needs_care(Work const& work) const {
    TilePlace const& place = work.place;
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32, group = launch.order.group;
    bool tests = false, odd = false;
    Walk walk{launch.mask, launch.queries, work.keys.hull(place.first, work.some_keys)};
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

  /// Whether this warp's share of the keys and values is finite, and so small that no product with ordinary
  /// numbers overflows: times a large number it is finite then. Products of float16 never overflow.
  __device__ __forceinline__ bool finds_finite() const {
    constexpr int pieces = 2 * key_rows / 16 / tile.warps;
    static_assert(pieces * tile.warps * 16 == 2 * key_rows && (key_rows / 16) % pieces == 0);
    std::uint32_t const lane = threadIdx.x % 32, first = threadIdx.x / 32 * pieces * 16;
    std::uint32_t const from = shared + first / key_rows * KeyTile::bytes +
                               (first % key_rows + lane % 16) * 128 + ((lane / 16 ^ lane % 8) * 16);
    constexpr std::uint32_t large = std::is_same_v<T, bfloat16> ? 0x5f805f80 : 0;  // two of 2^64
    float sums[pieces][4] = {};
#pragma unroll
    for (int i = 0; i < blocks; ++i)
#pragma unroll
      for (int piece = 0; piece < pieces; ++piece) {
        std::uint32_t a[4];
        ptx::load_matrices(a, block_at<key_panel>(from, i) + piece * 16 * 128);
        ptx::multiply<T>(sums[piece], a, large, large);
      }
    float sum = 0;
#pragma unroll
    for (int piece = 0; piece < pieces; ++piece) sum += fabsf(sums[piece][0]) + fabsf(sums[piece][2]);
    return sum < OnlineSoftmax::infinity;
  }

  template <int Size>
  __device__ __forceinline__ static bool begin_finite(float const (&x)[fragments][Size]) {
    bool finite = true;
#pragma unroll
    for (int f = 0; f < fragments; ++f) finite &= begins_finite(x[f]);
    return __all_sync(~0u, finite);
  }

  /// Makes finite this warp's keys.
  __device__ __forceinline__ void clean_keys(int key_warp) const {
    std::uint32_t const row = min(threadIdx.x % 32, warp_keys - 1);
    std::uint32_t const from = shared + (key_warp * warp_keys + row) * 128;
    make_row_finite<T, KeyTile::panels, key_panel>(from);
    make_row_finite<T, KeyTile::panels, key_panel>(from + 16);
  }

  /// Whether a query of a stage asks for care.
  __device__ __forceinline__ bool has_odd_queries(int stage) const {
    std::uint32_t low, high;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];"
                 : "=r"(low), "=r"(high)
                 : "r"(shared + stats_offset + stage * stats_bytes + query_rows * 8)
                 : "memory");
    return (low | high) != 0;
  }

  /// Makes finite a step's queries and gradients of outputs, and all offsets numbers, and notes the largest
  /// score of each row: NaN for one that had a NaN as offset or was not finite. All threads call it.
  __device__ __forceinline__ void clean_queries(int stage, std::uint32_t q, std::uint32_t d_o) const {
    std::uint32_t const row = min(threadIdx.x % 64, query_rows - 1);
    std::uint32_t const offset = shared + stats_offset + stage * stats_bytes + row * 4;
    std::uint32_t const largest = shared + largest_offset + row * 4;
    float added;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(added) : "r"(offset) : "memory");
    float const most = largest_score<T>(-added, exponent_scale(launch.scale));
    std::uint32_t const from = (threadIdx.x / 64 % 2 == 0 ? q : d_o) + row * 128;
    bool const low = make_row_finite<T, QueryTile::panels, query_panel>(from);
    bool const high = make_row_finite<T, QueryTile::panels, query_panel>(from + 16);
    __syncthreads();
    store_if(offset, 0, threadIdx.x < query_rows && most != most);
    store_if(largest, most, threadIdx.x < query_rows);
    __syncthreads();
    store_if(largest, not_a_number, low | high);
    __syncthreads();
  }

  template <int Fragments, int Size>
  __device__ __forceinline__ static void clear(float (&x)[Fragments][Size]) {
#pragma unroll
    for (int f = 0; f < Fragments; ++f)
#pragma unroll
      for (int i = 0; i < Size; ++i) x[f][i] = 0;
  }

  __device__ __forceinline__ static float2 pair_at(std::uint32_t address) {
    float2 pair;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(pair.x), "=f"(pair.y) : "r"(address) : "memory");
    return pair;
  }

  /// Where 16 columns begin in a row of panels whose first chunk, swapped, is at `address`.
  template <int Panel>
  __device__ __forceinline__ static std::uint32_t block_at(std::uint32_t address, int block) {
    return (address ^ block % 4 * 32) + block / 4 * Panel;
  }

  /// Columns first, ..., first + 15 of d += a b, for all fragments.
  template <int Fragments, int Size>
  __device__ __forceinline__ static void multiply(float (&d)[Fragments][Size], int first,
                                                  std::uint32_t const (&a)[Fragments][4],
                                                  std::uint32_t const (&b)[4]) {
#pragma unroll
    for (int f = 0; f < Fragments; ++f) {
      ptx::multiply<T>(d[f] + first, a[f], b[0], b[1]);
      ptx::multiply<T>(d[f] + first + 4, a[f], b[2], b[3]);
    }
  }

  /// d += a b^T, for a warp's rows of keys or values at `a_lane` and the queries or output gradients at
  /// `b_lane`. Calls `between(i)` after the multiplications of block i.
  template <class Between>
  __device__ __forceinline__ static void multiply_rows(float (&d)[fragments][warp_queries / 2],
                                                       std::uint32_t a_lane, std::uint32_t b_lane,
                                                       Between const& between) {
#pragma unroll
    for (int i = 0; i < blocks; ++i) {
      std::uint32_t a[fragments][4];
#pragma unroll
      for (int f = 0; f < fragments; ++f)
        ptx::load_matrices(a[f], block_at<key_panel>(a_lane, i) + f * 16 * 128);
#pragma unroll
      for (int j = 0; j < warp_queries / 16; ++j) {
        std::uint32_t b[4];
        ptx::load_matrices(b, block_at<query_panel>(b_lane, i) + j * 16 * 128);
        multiply(d, 8 * j, a, b);
      }
      between(i);
    }
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

  /// d += a b, for a warp's packed scores a and some blocks of the columns of b, the first of them `first`.
  template <class Between>
  __device__ __forceinline__ static void multiply_columns(
      float (&d)[fragments][warp_blocks * 8], std::uint32_t const (&packed)[fragments][warp_queries / 4],
      std::uint32_t b_lane, int first, Between const& between) {
#pragma unroll
    for (int j = 0; j < warp_queries / 16; ++j) {
      std::uint32_t a[fragments][4];
#pragma unroll
      for (int f = 0; f < fragments; ++f)
#pragma unroll
        for (int i = 0; i < 4; ++i) a[f][i] = packed[f][4 * j + i];
#pragma unroll
      for (int i = 0; i < warp_blocks; ++i) {
        std::uint32_t b[4];
        ptx::load_transposed(b, block_at<query_panel>(b_lane, first + i) + j * 16 * 128);
        multiply(d, 8 * i, a, b);
        between(j * warp_blocks + i);
      }
    }
  }

  /// The same for the scores that the other warps of these keys have computed.
  template <class Between>
  __device__ __forceinline__ static void multiply_others(float (&d)[fragments][warp_blocks * 8],
                                                         std::uint32_t a_lane, std::uint32_t b_lane,
                                                         int column, Between const& between) {
#pragma unroll
    for (int k = 1; k < columns; ++k) {
      int const query = (column ^ k) * warp_queries;
#pragma unroll
      for (int j = 0; j < warp_queries / 16; ++j) {
        std::uint32_t a[fragments][4];
#pragma unroll
        for (int f = 0; f < fragments; ++f)
          ptx::load_matrices(a[f], block_at<key_panel>(a_lane, query / 16 + j) + f * 16 * 128);
#pragma unroll
        for (int i = 0; i < warp_blocks; ++i) {
          std::uint32_t b[4];
          ptx::load_transposed(
              b, block_at<query_panel>(b_lane, column * warp_blocks + i) + (query + j * 16) * 128);
          multiply(d, 8 * i, a, b);
          between(((k - 1) * (warp_queries / 16) + j) * warp_blocks + i);
        }
      }
    }
  }

  /// Adds the rows times `scale` to floats, or writes them as elements. With `Fours` the columns lie as
  /// RowTile::load_ordered leaves them.
  template <bool Fours>
  __device__ __forceinline__ static void store(Tensor<KeyGrad> const& tensor, RowPair const& rows,
                                               int first_block, float const (&x)[warp_blocks * 8],
                                               float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!rows.exists(r)) break;
      KeyGrad* const to = tensor.at(rows.batch, rows.token(r), rows.head) + first_block * 16 +
                          threadIdx.x % 4 * (Fours ? 4 : 2);
#pragma unroll
      for (int i = 0; i < warp_blocks * 2; ++i) {
        if (first_block + i / 2 >= blocks) break;
        KeyGrad* const at = to + (Fours ? i / 2 * 16 + i % 2 * 2 : i * 8);
        float const a = x[4 * i + 2 * r] * scale, b = x[4 * i + 2 * r + 1] * scale;
        if constexpr (std::is_same_v<KeyGrad, float>) {
          float2& pair = *reinterpret_cast<float2*>(at);
          pair = {pair.x + a, pair.y + b};
        } else {
          *reinterpret_cast<std::uint32_t*>(at) = ptx::pack<T>(a, b);
        }
      }
    }
  }
};

template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic, bool Large>
__global__ void __launch_bounds__(Backward<HeadDim, T, KeyGrad, M, Deterministic, Large>::threads,
                                  backward_tile(HeadDim, Large).blocks)
    backward_kernel(__grid_constant__ BackwardLaunch<T, KeyGrad, M> const launch) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(128) std::uint8_t shared[];
  Backward<HeadDim, T, KeyGrad, M, Deterministic, Large>{launch, ptx::shared_address(shared)}.run();
#else
  refuse_portable_kernel<HeadDim>();
#endif
}

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
