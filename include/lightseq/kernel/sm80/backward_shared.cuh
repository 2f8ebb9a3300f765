// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/gpu/backward_care.cuh"
#include "lightseq/kernel/gpu/dq_semaphore.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/key_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/gpu/query_tile_scheduler.cuh"
#include "lightseq/kernel/sm80/row_tile.cuh"
#include "lightseq/kernel/sm80/tile.hpp"
#include "lightseq/mask/mask.hpp"

/// What the parts of the portable backward kernel share: the launch, the shared memory, which tiles meet, and
/// how they are loaded.
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

/// What the parts of the kernel work on. A `Large` tile is that of backward_tile().
template <int HeadDim, class Element, class KeyGradient, Mask MaskType, bool InTurns, bool Large>
struct BackwardShared {
  using T = Element;
  using KeyGrad = KeyGradient;
  using M = MaskType;
  static constexpr bool deterministic = InTurns;

  static constexpr BackwardTile tile = backward_tile(HeadDim, Large);
  static constexpr int fragments = tile.fragments, columns = tile.columns, query_rows = tile.query_rows;
  static constexpr int warp_keys = 16 * fragments, key_rows = warp_keys * tile.warps / columns;
  static constexpr int warp_queries = query_rows / columns;  ///< whose scores a warp computes
  static constexpr int threads = 32 * tile.warps;
  static_assert(gpu_serves_head_dim(HeadDim),
                "lightseq: the head dim must be a multiple of 16, from 16 to 256");

  /// Blocks of 16 dims: of the head, of a warp's share of dk and dv, and of its share of dq. A warp drops
  /// what it computes for blocks past the head dim.
  static constexpr int blocks = HeadDim / 16, warp_blocks = (blocks + columns - 1) / columns;
  static constexpr int dq_blocks = (blocks + tile.dq_columns - 1) / tile.dq_columns;
  /// Fragments of 16 queries whose dq a warp computes.
  static constexpr int dq_fragments = query_rows / 16 / (tile.warps / tile.dq_columns);
  static_assert(dq_fragments * 16 * (tile.warps / tile.dq_columns) == query_rows);
  static_assert(columns == 1 || warp_queries == 16 || warp_queries == 32 || warp_queries == 64);

  using QueryTile = RowTile<query_rows, HeadDim, threads>;
  using KeyTile = RowTile<key_rows, HeadDim, threads>;
  static constexpr int query_panel = QueryTile::panel, key_panel = KeyTile::panel;  ///< bytes
  static constexpr int score_bytes = (query_rows + 63) / 64 * key_panel;

  /// What a stage knows of its queries: what is added to their scores to make weights of them, -delta, and
  /// bits that say which ask for care.
  struct Stats {
    float offset[query_rows], minus_delta[query_rows];
    std::uint32_t odd[4];  ///< two are used
  };
  static_assert(query_rows <= 64 && sizeof(Stats) == query_rows * 8 + 16);

  /// The thread block's shared memory, 128-byte aligned.
  struct Memory {
    std::uint8_t k[KeyTile::bytes], v[KeyTile::bytes];
    std::uint8_t q[2][QueryTile::bytes], d_o[tile.d_o_stages][QueryTile::bytes];
    /// The scores' gradients, with a key in each row of 128 bytes, and likewise, where warps share them, the
    /// weights.
    std::uint8_t scores[columns > 1 ? 2 : 1][score_bytes];
    Stats stats[2];
    float largest[query_rows];  ///< scores, for queries that ask for care
  };
  /// From the beginning of Memory: addresses are sums that begin with `shared`, to which instructions add
  /// these.
  static constexpr int v_offset = offsetof(Memory, v), q_offset = offsetof(Memory, q);
  static constexpr int d_o_offset = offsetof(Memory, d_o);
  static constexpr int ds_offset = offsetof(Memory, scores), p_offset = ds_offset + score_bytes;
  static constexpr int stats_offset = offsetof(Memory, stats), largest_offset = offsetof(Memory, largest);
  static constexpr int shared_bytes = static_cast<int>(sizeof(Memory));
  static_assert(shared_bytes <= (Large ? 162 : 98) * 1024,
                "lightseq: the backward tile does not fit in shared memory");

  using Launch = BackwardLaunch<T, KeyGrad, M>;
  using Semaphore = DqSemaphore<query_rows, key_rows, M>;
  using Walk = QueryTileIterator<query_rows, M>;

  Launch const& launch;
  std::uint32_t const shared;  ///< address of Memory

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
    std::uint32_t const to = stats_at(stage);
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

  /// The address of a stage's Stats.
  __device__ __forceinline__ std::uint32_t stats_at(int stage) const {
    return shared + stats_offset + stage * static_cast<int>(sizeof(Stats));
  }

  /// Where 16 columns begin in a row of panels whose first chunk, swapped, is at `address`.
  template <int Panel>
  __device__ __forceinline__ static std::uint32_t block_at(std::uint32_t address, int block) {
    return (address ^ block % 4 * 32) + block / 4 * Panel;
  }
};

template <class>
inline constexpr bool is_backward_shared = false;
template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic, bool Large>
inline constexpr bool is_backward_shared<BackwardShared<HeadDim, T, KeyGrad, M, Deterministic, Large>> = true;

/// A BackwardShared, whatever its parameters.
template <class Block>
concept BackwardBlock = is_backward_shared<Block>;

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
