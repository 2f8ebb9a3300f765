// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/follow_rule.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/key_tile_iterator.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/gpu/query_tile_scheduler.cuh"
#include "lightseq/kernel/sm90/barrier.cuh"
#include "lightseq/kernel/sm90/output_stage.cuh"
#include "lightseq/kernel/sm90/tile.hpp"
#include "lightseq/kernel/sm90/tma.cuh"
#include "lightseq/mask/mask.hpp"

/// What the warps of a thread block of the forward kernel share: the launch, the shared memory, its barriers,
/// and which tiles meet.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// All that a launch is told. The elements of an array belong to the segments of the queries or, in the order
/// in which they are attended, to those of the keys. A segment's maps begin at its first row: then TMA itself
/// keeps to the segment.
template <class T, ForwardResult Result, Mask M, int KeySegments>
struct ForwardLaunch {
  M mask;
  CUtensorMap q[2] = {}, o[2] = {}, carried_o[2] = {};
  CUtensorMap k[KeySegments] = {}, v[KeySegments] = {};
  LaunchSegment queries[2] = {}, keys[KeySegments] = {};
  std::uint32_t const* arrived[KeySegments] = {};  ///< as KeyChunk::arrived
  int key_segments = 0;                            ///< how many there are
  Partial<float const> carried = {};
  Result out = {};
  QueryTileScheduler order = {};
  float scale = 0;  ///< a product_scale()
  unsigned* counter = nullptr;

  // What the maps describe, for VisiblePairs: all queries, and each segment's keys and values.
  Tensor<T const> queries_at = {}, keys_at[KeySegments] = {}, values_at[KeySegments] = {};
  NearProductsOf<M> near = {};
};

/// What the parts of the kernel work on. KeySegments is the most that a launch can have; beyond the two of a
/// shard, they may arrive meanwhile.
template <int HeadDim, class Element, ForwardResult ResultType, Mask MaskType, int KeySegments>
struct ForwardShared {
  using T = Element;
  using Result = ResultType;
  using M = MaskType;
  using Out = OutputOf<Result>;
  static constexpr int head_dim = HeadDim;
  static constexpr bool awaits_keys = KeySegments > Positions::max_segments;
  static_assert(KeySegments <= 32, "lightseq: a word has a bit for each segment that has arrived");
  static constexpr ForwardTile tile = forward_tile(HeadDim);
  static constexpr int query_rows = tile.query_rows, key_rows = tile.key_rows, stages = tile.stages;
  static constexpr int warpgroups = query_rows / 64;
  static constexpr int threads = 128 * (warpgroups + 1);
  static constexpr int panels = (HeadDim + 63) / 64;
  static constexpr int query_panel = query_rows * 128, key_panel = key_rows * 128;  ///< bytes
  static constexpr int query_bytes = panels * query_panel, key_bytes = panels * key_panel;

  /// Whether outputs have shared memory of their own. Where it is too short for that, elements leave in place
  /// of the warpgroup's queries, and floats come to and leave from the registers.
  static constexpr bool stages_o = HeadDim <= 128;
  static constexpr bool o_over_q = !stages_o && is_finished<Result>;
  using OutputStage = sm90::OutputStage<HeadDim, T>;

  /// Named barriers of the thread block, of warpgroup 0; the other warpgroups' follow. 0 is __syncthreads().
  enum NamedBarrier : int {
    turn_to_multiply = 1,  ///< a warpgroup waits for the one before, where they take turns
    one_warpgroup = 8      ///< the threads of a warpgroup meet
  };
  static_assert(turn_to_multiply + warpgroups <= one_warpgroup && one_warpgroup + warpgroups <= 16);
  __device__ __forceinline__ static void wait_turn(int warpgroup) {
    if constexpr (tile.takes_turns) ptx::barrier_sync(turn_to_multiply + warpgroup, 256);
  }
  __device__ __forceinline__ static void give_turn(int warpgroup) {
    if constexpr (tile.takes_turns) ptx::barrier_arrive(turn_to_multiply + warpgroup, 256);
  }
  __device__ __forceinline__ static void sync_warpgroup(int warpgroup) {
    ptx::barrier_sync(one_warpgroup + warpgroup, 128);
  }

  /// A query tile as the loading warp announces it.
  struct QueryTile : TilePlace {
    int kind;
  };
  enum : int { no_keys, some_keys, no_more_tiles };  ///< QueryTile::kind

  /// A key tile as it lies in its stage.
  struct KeyTile : LaunchSegment {
    int flags;
  };
  /// KeyTile::flags. The key tile that follows is described here too: which code it needs must be known
  /// early.
  enum : int { masked = 1, more_masked = 2, more_unmasked = 4 };

  struct Control {
    Barrier q_full, q_empty, tile_full, tile_empty, o_full, o_empty;
    Barrier k_full[stages], k_empty[stages], v_full[stages], v_empty[stages];
    alignas(16) KeyTile key_tiles[stages];
    QueryTile query_tile;
  };

  /// The thread block's shared memory, 1024-byte aligned: tiles of elements in panels of 64 dims, 128 bytes a
  /// row.
  struct Operands {
    std::uint8_t q[query_bytes];
    std::uint8_t k[stages][key_bytes], v[stages][key_bytes];
  };
  struct StagedOutputs : Operands {
    std::uint8_t o[warpgroups][OutputStage::bytes];
  };
  struct Memory : std::conditional_t<stages_o, StagedOutputs, Operands> {
    Control control;
  };
  static constexpr int shared_bytes = static_cast<int>(sizeof(Memory));
  static_assert(shared_bytes <= 232448, "lightseq: the forward tile does not fit in shared memory");
  static_assert(query_panel % 1024 == 0 && key_panel % 1024 == 0 && OutputStage::bytes % 1024 == 0);
  static_assert(gpu_serves_head_dim(HeadDim),
                "lightseq: the head dim must be a multiple of 16, from 16 to 256");

  using Launch = ForwardLaunch<T, Result, M, KeySegments>;

  Launch const& launch;
  Memory& memory;

  __device__ __forceinline__ void init_barriers() const {
    Control& control = memory.control;
    control.q_full.init(1);
    control.q_empty.init(o_over_q ? warpgroups : 4 * warpgroups);
    control.tile_full.init(1);
    control.tile_empty.init(128 * warpgroups + 32 + (stages_o ? 1 : 0));
    control.o_full.init(4 * warpgroups);
    control.o_empty.init(1);
    for (int i = 0; i < stages; ++i) {
      control.k_full[i].init(1);
      control.k_empty[i].init(4 * warpgroups);  // each warp may have to read the keys again
      control.v_full[i].init(1);
      control.v_empty[i].init(warpgroups);
    }
    fence_barrier_init();
  }

  using Walk = KeyTileIterator<key_rows, M>;

  /// The key tiles that a query tile's queries see, in the order of the segments.
  __device__ __forceinline__ Walk walk_keys(QueryTile const& query_tile) const {
    return walk_keys(launch.queries[query_tile.segment], query_tile.first);
  }
  __device__ __forceinline__ Walk walk_keys(LaunchSegment const& queries, int first) const {
    int const rows = min(query_rows, queries.count - first);
    return {launch.mask, launch.keys, queries.hull(first, rows), -1, launch.key_segments - 1, 1};
  }
};

template <class>
inline constexpr bool is_forward_shared = false;
template <int HeadDim, class T, ForwardResult Result, Mask M, int KeySegments>
inline constexpr bool is_forward_shared<ForwardShared<HeadDim, T, Result, M, KeySegments>> = true;

/// A ForwardShared, whatever its parameters.
template <class Block>
concept ForwardBlock = is_forward_shared<Block>;

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
