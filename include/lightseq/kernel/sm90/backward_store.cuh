// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/backward_care.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/backward_shared.cuh"

/// How gradients leave a thread block of the backward kernel: the computing warpgroups stage theirs in shared
/// memory, and TMA adds or writes them to global memory.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// A warp that makes half of a tile's keys finite, if pairs of it are hidden, and adds gradients of queries
/// to memory: the part of one warpgroup or, in turn, the odd or the even steps. One warp would be too slow
/// for that: it waits until they have arrived.
template <BackwardBlock Block>
struct BackwardAddDq {
  using T = typename Block::T;
  using KeyTile = typename Block::KeyTile;
  using Step = typename Block::Step;
  static constexpr int steps_known = Block::steps_known;

  Block const& block;
  int which;  ///< 0 or 1

  __device__ __forceinline__ void run() const {
    auto const& launch = block.launch;
    auto& control = block.memory.control;
    std::uint32_t const leads = threadIdx.x % 32 == 0;
    int number = 0;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      control.tile_full.wait(tile_parity);
      KeyTile const& key_tile = control.key_tiles[tile_parity];
      int const steps = key_tile.steps;
      bool const hides = !key_tile.whole.all();
      __syncwarp();
      control.tile_empty.arrive_if(leads);
      if (steps < 0) break;
      control.kv_full.wait(tile_parity);
      if (hides) {
        constexpr int half = Block::key_bytes / 2;
        make_finite<T, half>(ptx::shared_address(block.memory.k) + which * half);
        fence_shared_writes();
        __syncwarp();
      }
      control.k_finite.arrive_if(leads);
      control.kv_empty.arrive_if(leads);
      if constexpr (!Block::deterministic) {
        if (leads) launch.sums.wait_zeroed(launch.order, key_tile.unit);
        __syncwarp();
      }
      for (int const end = number + steps; number < end; ++number) {
        if constexpr (Block::deterministic) {
          if ((number & 1) == which) add_in_turn(key_tile, number);
        } else {
          control.dq_full[number & 1][which].wait(number >> 1 & 1);
          if (leads) {
            add_panels(which, control.steps[number % steps_known], key_tile.batch, true);
            commit_stores();
            wait_stores_read();
            control.dq_empty[which].arrive();
          }
          __syncwarp();
        }
      }
      if (leads && launch.sums.rounded.data != nullptr) {
        wait_stores();
        launch.sums.added(key_tile.unit);
      }
      __syncwarp();
    }
    wait_stores();
  }

 private:
  /// Adds a step's gradients of queries after all earlier key tiles have added theirs.
  __device__ __forceinline__ void add_in_turn(KeyTile const& key_tile, int number) const {
    auto const& launch = block.launch;
    auto& control = block.memory.control;
    Barrier const* const full = control.dq_full[number & 1];
    std::uint32_t const parity = number >> 1 & 1;
    control.step_full[number % steps_known].wait(number / steps_known & 1);
    Step const& step = control.steps[number % steps_known];
    unsigned* const place = launch.semaphores + block.tile_number(step, key_tile.batch);
    bool const first = !block.semaphore().wait(place, block.query_hull(step.segment, step.first),
                                               key_tile.turn, key_tile.from_last);
    if (threadIdx.x % 32 == 0) {
      for (int group = 0; group < 2; ++group) {
        full[group].wait(parity);
        add_panels(group, step, key_tile.batch, !first || !launch.sums.zeroes);
        commit_stores();
      }
      wait_stores_read<1>();
      control.dq_empty[0].arrive();
      wait_stores_read();
      control.dq_empty[1].arrive();
      wait_stores();
      Block::Semaphore::pass(place, key_tile.turn);
    }
    __syncwarp();
  }

  /// Adds a warpgroup's gradients of queries to those in memory, or else writes them.
  __device__ __forceinline__ void add_panels(int group, Step const& step, int batch, bool adds) const {
    constexpr int dims = Block::dq_transposed ? 64 : Block::splits_dims ? 128 : 0;  // between the warpgroups
    std::uint32_t const from = ptx::shared_address(block.memory.dq[group]);
    int const first = step.first + (dims == 0 ? 64 * group : 0);
    for (int i = 0; i < Block::dq_panels; ++i)
      if (int const dim = dims * group + 32 * i; dim < Block::head_dim)
        add_or_store_panel(block.launch.dq[step.segment], dim, first, step.head, batch,
                           from + i * Block::dq_rows * 128, adds);
  }
};

/// The epilogues of a computing warpgroup, `group`.
template <BackwardBlock Block>
struct BackwardStore {
  using T = typename Block::T;
  using KeyGrad = typename Block::KeyGrad;
  using Stage = typename Block::Stage;
  static constexpr bool splits_dims = Block::splits_dims;

  Block const& block;
  int group;

  /// Lets a warpgroup's gradients of queries, the `number`-th of this thread block, go to memory.
  template <int Size>
  __device__ __forceinline__ void stage_dq(float (&dq)[Size], int number) const {
    auto& control = block.memory.control;
    std::uint8_t* const to = block.memory.dq[0] + group * Block::dq_bytes;
    if constexpr (!scales_weights<T>) {
#pragma unroll
      for (int i = 0; i < Size; ++i) dq[i] *= block.launch.scale;
    }
    control.dq_empty[group].wait((number & 1) ^ 1);
    if constexpr (Block::dq_transposed) {
      write_across(to, dq);
    } else {
      Stage{to}.write(dq, 0.0f);
    }
    fence_shared_writes();
    __syncwarp();
    control.dq_full[number & 1][group].arrive_if(threadIdx.x % 32 == 0);
  }

  /// Writes, or adds, a tile's gradients of keys and values; `puts` counts the gradients of queries staged
  /// before.
  template <int Size>
  __device__ __forceinline__ void store_dkv(typename Block::KeyTile const& at, int puts, float (&dk)[Size],
                                            float (&dv)[Size]) const {
    constexpr bool floats = std::is_same_v<KeyGrad, float>;
    constexpr int out_panels = Stage::template panels<KeyGrad>;
    auto const& launch = block.launch;
    auto& control = block.memory.control;
    // Where ds and dq are, and not where the keys are: the next ones come meanwhile.
    constexpr int bytes = 2 * Stage::template panels<T> * Stage::panel_bytes;
    static_assert(bytes >= Stage::bytes && bytes <= Block::ds_bytes + Block::dq_bytes);
    std::uint8_t* const to = reinterpret_cast<std::uint8_t*>(&control) - (2 - group) * bytes;
    bool const leads = threadIdx.x % 128 == 0;
#pragma unroll
    for (int i = 0; i < Size; ++i) {
      if constexpr (scales_weights<T>) {
        dv[i] *= launch.value_scale;
      } else {
        dk[i] *= launch.scale;
      }
    }
    // Floats need the place twice.
    std::uint8_t* const second = to + (floats ? 0 : out_panels * Stage::panel_bytes);
    Block::sync_both_warpgroups();  // nobody reads ds any more
    if (leads) control.kv_empty.arrive();
    control.dq_empty[0].wait((puts & 1) ^ 1);
    control.dq_empty[1].wait((puts & 1) ^ 1);
    Stage{to}.write(dv, KeyGrad{});
    if constexpr (floats) {
      fence_shared_writes();
      Block::sync_warpgroup(group);
      if (leads) {
        leave(launch.dv[at.segment], at, to);
        wait_stores_read();
      }
      Block::sync_warpgroup(group);
    }
    Stage{second}.write(dk, KeyGrad{});
    fence_shared_writes();
    Block::sync_warpgroup(group);
    if (leads) {
      if constexpr (!floats) leave(launch.dv[at.segment], at, to);
      leave(launch.dk[at.segment], at, second);
      wait_stores_read();
    }
    Block::sync_both_warpgroups();
  }

 private:
  /// Lets TMA take a warpgroup's gradients of keys or values from where they are staged.
  __device__ __forceinline__ void leave(CUtensorMap const& map, typename Block::KeyTile const& at,
                                        std::uint8_t const* from) const {
    constexpr bool floats = std::is_same_v<KeyGrad, float>;
    constexpr int dims = 128 / static_cast<int>(sizeof(KeyGrad));
    for (int i = 0; i < Stage::template panels<KeyGrad>; ++i) {
      int const dim = (splits_dims ? 128 * group : 0) + i * dims;
      int const row = at.first + (splits_dims ? 0 : 64 * group);
      std::uint32_t const panel = ptx::shared_address(from + i * Stage::panel_bytes);
      if (dim >= Block::head_dim) break;
      add_or_store_panel(map, dim, row, at.head, at.batch, panel, floats && !block.launch.dkv_zero);
    }
    commit_stores();
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
