// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/backward_shared.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// The warp that takes key tiles, announces them and loads keys, values, queries and what belongs to them.
template <BackwardBlock Block>
struct BackwardLoad {
  using KeyTile = typename Block::KeyTile;
  using Step = typename Block::Step;
  static constexpr int key_rows = Block::key_rows, query_rows = Block::query_rows, stages = Block::stages;
  static constexpr int steps_known = Block::steps_known;

  Block const& block;

  __device__ __forceinline__ void run() const {
    auto const& launch = block.launch;
    auto& control = block.memory.control;
    bool const leads = threadIdx.x == 0;
    int number = 0;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      int index = leads ? static_cast<int>(atomicAdd(launch.counter, 1)) : 0;
      index = ptx::uniform(index);
      KeyTile& key_tile = control.key_tiles[tile_parity];
      control.tile_empty.wait(tile_parity ^ 1);
      if (leads && index < launch.order.tiles) {
        static_cast<TilePlace&>(key_tile) = launch.order.locate(index, launch.keys[0].count, key_rows);
        key_tile.unit = launch.sums.unit_of_tile(launch.order, index);
        key_tile.turn = launch.order.turn(index);
        key_tile.from_last = index < launch.order.from_last;
      }
      __syncwarp();
      typename Block::Walk::Count head{-1, 0, 0};
      if (index < launch.order.tiles) head = block.walk_queries(key_tile).count();
      bool const all_tested = index >= launch.order.tiles || launch.late_scale != 1 ||
                              launch.keys[key_tile.segment].count - key_tile.first < key_rows;
      if (leads) {
        key_tile.steps = head.tiles * launch.order.group;
        key_tile.whole = {head.tiles, head.whole_begin, all_tested ? 0 : head.whole_end};
        control.tile_full.arrive();
      }
      if (head.tiles < 0) return;
      if (leads) load_keys(key_tile, tile_parity);
      for (int i = 0; i < launch.order.group; ++i) {
        auto walk = block.walk_queries(key_tile);
        while (walk.next()) {
          if (leads) {
            bool const short_tile = launch.keys[key_tile.segment].count - key_tile.first < key_rows;
            int const tests =
                (walk.cut || short_tile ? Block::cut : 0) + (launch.late_scale != 1 ? Block::scales : 0);
            load_step({walk.segment, walk.first, key_tile.head * launch.order.group + i, tests},
                      key_tile.batch, number);
          }
          __syncwarp();
          ++number;
        }
      }
    }
  }

 private:
  __device__ __forceinline__ void load_keys(KeyTile const& at, std::uint32_t tile_parity) const {
    auto& [launch, memory] = block;
    Barrier const& full = memory.control.kv_full;
    memory.control.kv_empty.wait(tile_parity ^ 1);
    full.arrive_and_expect(2 * Block::key_bytes);
    load_panels<Block::panels>(memory.k, launch.k[at.segment], at.first, at.head, at.batch, full);
    load_panels<Block::panels>(memory.v, launch.v[at.segment], at.first, at.head, at.batch, full);
  }

  /// Loads the queries of a step, the gradients of their outputs and their statistics.
  __device__ __forceinline__ void load_step(Step const& next, int batch, int number) const {
    auto const& launch = block.launch;
    auto& memory = block.memory;
    auto& control = memory.control;
    int const s = number % stages;
    std::uint32_t const parity = number / stages & 1;
    constexpr int stats_bytes = static_cast<int>(sizeof(control.stats[s]));
    // Before any wait: each instruction after a wait delays the copies.
    Step& step = control.steps[number % steps_known];
    step = next;
    if constexpr (Block::deterministic) control.step_full[number % steps_known].arrive();
    // The gradients of outputs are needed later, but their place is free earlier.
    control.d_o_empty[s].wait(parity ^ 1);
    control.d_o_full[s].arrive_and_expect(Block::query_bytes);
    load_panels<Block::panels>(memory.d_o[s], launch.d_o[step.segment], step.first, step.head, batch,
                               control.d_o_full[s]);
    control.q_empty[s].wait(parity ^ 1);
    control.q_full[s].arrive_and_expect(Block::query_bytes + stats_bytes);
    load_panels<Block::panels>(memory.q[s], launch.q[step.segment], step.first, step.head, batch,
                               control.q_full[s]);
    std::int64_t const stats = std::int64_t{block.tile_number(step, batch)} * stats_floats<query_rows>;
    load_bytes(control.stats[s], launch.stats + stats, stats_bytes, control.q_full[s]);
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
