// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/dq_semaphore.cuh"
#include "lightseq/kernel/gpu/follow_rule.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/key_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/gpu/whole_steps.hpp"
#include "lightseq/kernel/sm90/backward_fragment.cuh"
#include "lightseq/kernel/sm90/barrier.cuh"
#include "lightseq/kernel/sm90/dq_zero_round.cuh"
#include "lightseq/kernel/sm90/output_stage.cuh"
#include "lightseq/kernel/sm90/tile.hpp"
#include "lightseq/kernel/sm90/tma.cuh"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/mask/score.hpp"

/// What the warps of a thread block of the backward kernel share: the launch, the shared memory, its
/// barriers, and which tiles meet.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// All that a launch is told. The elements of an array belong to the segments; a segment's maps begin at its
/// first row: then TMA itself keeps to the segment.
template <int HeadDim, class T, Mask M>
struct BackwardLaunch {
  M mask;
  CUtensorMap q[2] = {}, d_o[2] = {}, dq[2] = {};
  CUtensorMap k[2] = {}, v[2] = {}, dk[2] = {}, dv[2] = {};
  LaunchSegment queries[2] = {}, keys[2] = {};
  KeyTileScheduler order = {};
  int query_tiles = 0;  ///< of one batch and head
  float scale = 0;
  float late_scale = 1;          ///< the factor that weights lack where they should carry `scale`
  float value_scale = 1;         ///< the factor that frees the gradients of values from what weights carry
  bool dkv_zero = false;         ///< as BackwardCall's
  float const* stats = nullptr;  ///< what backward_stats writes
  unsigned* counter = nullptr;   ///< of key tiles that have been taken
  /// For each batch, head and query tile: the turn, plus 1, of the key tile that has added its part last.
  unsigned* semaphores = nullptr;
  DqZeroRound<HeadDim, T, backward_tile(HeadDim, HasRule<M>).query_rows> sums = {};
  NearProductsOf<M> near = {};
};

/// What the parts of the kernel work on.
template <int HeadDim, class Element, class KeyGradient, Mask MaskType, bool InTurns>
struct BackwardShared {
  using T = Element;
  using KeyGrad = KeyGradient;
  using M = MaskType;
  static constexpr int head_dim = HeadDim;
  static constexpr bool deterministic = InTurns;

  static constexpr BackwardTile tile = backward_tile(HeadDim, HasRule<M>);
  static constexpr int query_rows = tile.query_rows, key_rows = tile.key_rows, stages = tile.stages;
  static constexpr int threads = 384;
  static constexpr int panels = (HeadDim + 63) / 64;
  static constexpr int query_panel = query_rows * 128, key_panel = key_rows * 128;  ///< bytes
  static constexpr int query_bytes = panels * query_panel, key_bytes = panels * key_panel;
  static constexpr int ds_bytes = key_rows / 64 * query_panel;

  /// The dims are too many for one warpgroup's registers: each has half of them.
  static constexpr bool splits_dims = HeadDim > 128;
  /// The gradients of queries come as [64 dims of the group, queries]: more tiles of queries fit so.
  static constexpr bool dq_transposed = HeadDim > 64 && !splits_dims;
  /// The gradients of queries of a step are computed in the next one: the warpgroups need not meet in each
  /// step. Where they leave in turn and the turns come late, this only delays them.
  static constexpr bool dq_late =
      HeadDim <= 64 || (dq_transposed && (!deterministic || std::is_same_v<M, Full>));

  /// How a warpgroup's sums of 64 rows pass through shared memory.
  using Stage = OutputStage<splits_dims ? 128 : HeadDim, T>;
  static constexpr int dq_rows = dq_transposed ? query_rows : 64;  ///< of a panel of 32 dims
  static constexpr int dq_panels = dq_transposed ? 2 : Stage::template panels<float>;
  static constexpr int dq_bytes = dq_panels * dq_rows * 128;  ///< of a warpgroup

  /// Named barriers of the thread block; 0 is __syncthreads().
  enum NamedBarrier : int {
    both_warpgroups = 1,  ///< the two warpgroups that compute meet
    one_warpgroup = 2     ///< the threads of one of them meet; 3: those of the other one
  };
  __device__ __forceinline__ static void sync_both_warpgroups() { ptx::barrier_sync(both_warpgroups, 256); }
  __device__ __forceinline__ static void sync_warpgroup(int group) {
    ptx::barrier_sync(one_warpgroup + group, 128);
  }

  /// A key tile as the loading warp announces it. It stays where it is until the next one has been taken: the
  /// warps that move data have few registers, and read of it what they need when they need it.
  struct KeyTile : TilePlace {
    int unit, turn;  ///< unit of DqZeroRound
    bool from_last;  ///< whether later keys were taken earlier; if not, its queries are taken backwards
    int steps;       ///< query tiles of all heads; negative: no more key tiles
    WholeSteps whole;
  };
  /// A query tile.
  struct Step {
    int segment, first, head;
    int tests;  ///< the sum of those below that hold
  };
  static constexpr int cut = 1;          ///< pairs must be tested
  static constexpr int scales = 2;       ///< weights do not carry the factor that they should carry
  static constexpr int steps_known = 8;  ///< a step is forgotten when its sums have long left

  struct Control {
    Barrier tile_full, tile_empty, kv_full, kv_empty, k_finite;
    Barrier q_full[stages], q_empty[stages], d_o_full[stages], d_o_empty[stages];
    Barrier ds_full[2], ds_empty[2];
    Barrier dq_full[2][2], dq_empty[2];  ///< [even or odd step][warpgroup], and [warpgroup]
    alignas(16) float stats[stages][stats_floats<query_rows>];  ///< as backward_stats writes them
    alignas(16) Step steps[steps_known];
    Barrier step_full[steps_known];  ///< only where gradients of queries leave in turn
    KeyTile key_tiles[2];
  };

  /// The thread block's shared memory, 1024-byte aligned: tiles of elements in panels of 64 dims, 128 bytes a
  /// row.
  struct Memory {
    std::uint8_t k[key_bytes], v[key_bytes];
    std::uint8_t q[stages][query_bytes], d_o[stages][query_bytes];
    std::uint8_t ds[2][ds_bytes];  ///< of two steps; with split dims the weights and their gradients
    std::uint8_t dq[2][dq_bytes];  ///< of each warpgroup, floats
    Control control;
  };
  static constexpr int shared_bytes = static_cast<int>(sizeof(Memory));
  static_assert(shared_bytes <= 232448, "lightseq: the backward tile does not fit in shared memory");
  static_assert(query_panel % 1024 == 0 && key_panel % 1024 == 0 && dq_bytes % 1024 == 0);
  static_assert(gpu_serves_head_dim(HeadDim),
                "lightseq: the head dim must be a multiple of 16, from 16 to 256");

  BackwardLaunch<HeadDim, T, M> const& launch;
  Memory& memory;

  __device__ __forceinline__ void init_barriers() const {
    Control& control = memory.control;
    control.tile_full.init(1);
    control.tile_empty.init(8 + 2);
    control.kv_full.init(1);
    control.kv_empty.init(2 + 2);
    control.k_finite.init(2);
    for (int i = 0; i < stages; ++i) {
      control.q_full[i].init(1);
      control.q_empty[i].init(256);  // each thread has read the step and its statistics by itself
      control.d_o_full[i].init(1);
      control.d_o_empty[i].init(2);
    }
    for (int i = 0; i < 2; ++i) {
      control.ds_full[i].init(8);
      control.ds_empty[i].init(2);
      control.dq_full[i][0].init(4);
      control.dq_full[i][1].init(4);
      control.dq_empty[i].init(1);
    }
    for (Barrier& full : control.step_full) full.init(1);
    fence_barrier_init();
  }

  /// The positions of a key tile's keys.
  struct KeyHull {
    BackwardShared const& block;
    KeyTile const& tile;
    __device__ __forceinline__ operator Range() const { return block.key_hull(tile); }
  };
  using Walk = QueryTileIterator<query_rows, M, KeyHull>;
  using Semaphore = DqSemaphore<query_rows, key_rows, M>;

  /// The query tiles that see a key tile.
  __device__ __forceinline__ Walk walk_queries(KeyTile const& key_tile) const {
    return {launch.mask, launch.queries, {*this, key_tile}, deterministic && !key_tile.from_last};
  }
  __device__ __forceinline__ Range key_hull(TilePlace const& at) const {
    LaunchSegment const& keys = launch.keys[at.segment];
    return keys.hull(at.first, min(key_rows, keys.count - at.first));
  }
  __device__ __forceinline__ Range query_hull(int segment, int first) const {
    LaunchSegment const& queries = launch.queries[segment];
    return queries.hull(first, min(query_rows, queries.count - first));
  }
  __device__ __forceinline__ Semaphore semaphore() const {
    return {launch.mask, launch.order, launch.queries, launch.keys, launch.semaphores};
  }

  /// The number of a query tile among the tiles of all batches and heads; 31 bits hold more tiles than memory
  /// does.
  __device__ __forceinline__ int tile_number(Step const& step, int batch) const {
    int const in_first = (launch.queries[0].count + query_rows - 1) / query_rows;
    int const head = batch * launch.order.kv_heads * launch.order.group + step.head;
    return head * launch.query_tiles + step.segment * in_first + step.first / query_rows;
  }

  /// The next key tile and how many steps it takes; `parity` is the parity of its number. A warp that
  /// computes calls it.
  __device__ __forceinline__ KeyTile const& take_tile(std::uint32_t parity, int& steps) const {
    memory.control.tile_full.wait(parity);
    KeyTile const& key_tile = memory.control.key_tiles[parity];
    steps = ptx::uniform(key_tile.steps);
    __syncwarp();
    memory.control.tile_empty.arrive_if(threadIdx.x % 32 == 0);
    return key_tile;
  }
};

template <class>
inline constexpr bool is_backward_shared = false;
template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
inline constexpr bool is_backward_shared<BackwardShared<HeadDim, T, KeyGrad, M, Deterministic>> = true;

/// A BackwardShared, whatever its parameters.
template <class Block>
concept BackwardBlock = is_backward_shared<Block>;

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
