// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/arrival.cuh"
#include "lightseq/kernel/sm90/forward_shared.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// The three warps that move data: one loads queries and keys, one values, one moves outputs.
template <ForwardBlock Block>
struct ForwardLoad {
  using QueryTile = typename Block::QueryTile;
  using KeyTile = typename Block::KeyTile;
  using Out = typename Block::Out;
  using OutputStage = typename Block::OutputStage;
  static constexpr int query_rows = Block::query_rows, key_rows = Block::key_rows;
  static constexpr int warpgroups = Block::warpgroups;

  Block const& block;

  /// The warp that takes query tiles, announces them and loads queries and keys.
  __device__ __forceinline__ void load_keys() const {
    auto const& launch = block.launch;
    auto& memory = block.memory;
    auto& control = memory.control;
    bool const leads = threadIdx.x == 0;
    Ring<Block::stages> ring;
    std::uint32_t tile_parity = 0, arrived = 0;
    for (int index = static_cast<int>(blockIdx.x); index < launch.order.tiles;) {
      QueryTile query_tile{launch.order.locate(index, launch.queries[0].count, query_rows), Block::no_keys};
      int const kv_head = query_tile.head / launch.order.group;
      auto walk = block.walk_keys(query_tile);
      bool more = walk.next();
      query_tile.kind = more ? Block::some_keys : Block::no_keys;
      if (leads) announce(query_tile, tile_parity);
      if (leads && !more) {
        control.q_empty.wait(tile_parity ^ 1);
        control.q_full.arrive();
      }
      for (bool q_missing = true; more; q_missing = false) {
        int const segment = walk.segment, first = walk.first;
        LaunchSegment const& keys = launch.keys[segment];
        KeyTile key_tile{{keys.position(first), keys.stride, min(key_rows, keys.count - first)},
                         walk.tests ? Block::masked : 0};
        more = walk.next();
        if (more) key_tile.flags |= walk.tests ? Block::more_masked : Block::more_unmasked;
        if (leads) {
          int const s = ring.stage;
          control.k_empty[s].wait(ring.parity ^ 1);
          control.key_tiles[s] = key_tile;
          await(segment, arrived);
          load_rows(memory.k[s], launch.k[segment], first, kv_head, query_tile.batch, control.k_full[s]);
          if (q_missing) {
            control.q_empty.wait(tile_parity ^ 1);
            load_rows(memory.q, launch.q[query_tile.segment], query_tile.first, query_tile.head,
                      query_tile.batch, control.q_full);
          }
        }
        __syncwarp();
        ring.advance();
      }
      if (leads) index = static_cast<int>(atomicAdd(launch.counter, 1) + gridDim.x);
      index = ptx::uniform(index);
      tile_parity ^= 1;
    }
    if (leads) announce({{}, Block::no_more_tiles}, tile_parity);
  }

  /// The warp that loads values: another one, so that keys never wait for room for values.
  __device__ __forceinline__ void load_values() const {
    auto const& launch = block.launch;
    auto& control = block.memory.control;
    bool const leads = threadIdx.x % 32 == 0;
    Ring<Block::stages> ring;
    std::uint32_t arrived = 0;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      control.tile_full.wait(tile_parity);
      QueryTile const query_tile = control.query_tile;
      control.tile_empty.arrive();
      if (query_tile.kind == Block::no_more_tiles) return;
      int const kv_head = query_tile.head / launch.order.group;
      auto walk = block.walk_keys(query_tile);
      while (walk.next()) {
        int const s = ring.stage;
        if (leads) {
          control.v_empty[s].wait(ring.parity ^ 1);
          await(walk.segment, arrived);
          load_rows(block.memory.v[s], launch.v[walk.segment], walk.first, kv_head, query_tile.batch,
                    control.v_full[s]);
        }
        __syncwarp();
        ring.advance();
      }
    }
  }

  /// The warp that, before a tile's output is there, brings what it continues, and then takes it away.
  __device__ __forceinline__ void move_outputs() const {
    if (threadIdx.x % 32 != 0) return;
    auto const& launch = block.launch;
    auto& memory = block.memory;
    auto& control = memory.control;
    constexpr int panel_bytes = OutputStage::panel_bytes;
    constexpr int carried_panels = OutputStage::template panels<float>;
    constexpr int out_panels = OutputStage::template panels<Out>;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      control.tile_full.wait(tile_parity);
      QueryTile const at = control.query_tile;
      control.tile_empty.arrive();
      if (at.kind == Block::no_more_tiles) break;
      if (launch.carried.o.data == nullptr) {
        control.o_empty.arrive();
      } else {
        control.o_empty.arrive_and_expect(sizeof(memory.o));
#pragma unroll 1
        for (int i = 0; i < warpgroups * carried_panels; ++i)
          load_panel(memory.o[0] + i * panel_bytes, launch.carried_o[at.segment], i % carried_panels * 32,
                     at.first + i / carried_panels * 64, at.head, at.batch, control.o_empty);
      }
      control.o_full.wait(tile_parity);
      int const rows = launch.queries[at.segment].count - at.first;
#pragma unroll 1
      for (int i = 0; i < warpgroups && 64 * i < rows; ++i)
        for (int j = 0; j < out_panels; ++j)
          store_panel(launch.o[at.segment], j * static_cast<int>(128 / sizeof(Out)), at.first + 64 * i,
                      at.head, at.batch, ptx::shared_address(memory.o[i] + j * panel_bytes));
      commit_stores();
      wait_stores_read();
    }
    wait_stores();
  }

 private:
  __device__ __forceinline__ void announce(QueryTile const& query_tile, std::uint32_t tile_parity) const {
    auto& control = block.memory.control;
    control.tile_empty.wait(tile_parity ^ 1);
    control.query_tile = query_tile;
    control.tile_full.arrive();
  }

  /// Waits until a segment's keys and values may be read. `arrived` has a bit for each that is known to be.
  __device__ __forceinline__ void await(int segment, std::uint32_t& arrived) const {
    if constexpr (Block::awaits_keys) {
      if ((arrived >> segment & 1) != 0) return;
      if (block.launch.arrived[segment] != nullptr) wait_arrived(block.launch.arrived[segment]);
      arrived |= 1u << segment;
    }
  }

  template <int Bytes>
  __device__ __forceinline__ static void load_rows(std::uint8_t (&to)[Bytes], CUtensorMap const& map,
                                                   int first, int head, int batch, Barrier const& done) {
    done.arrive_and_expect(Bytes);
    load_panels<Block::panels>(to, map, first, head, batch, done);
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
