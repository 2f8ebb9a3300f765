// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/compiled.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/backward_load.cuh"
#include "lightseq/kernel/sm90/backward_shared.cuh"
#include "lightseq/kernel/sm90/backward_split_dims.cuh"
#include "lightseq/kernel/sm90/backward_split_keys.cuh"
#include "lightseq/kernel/sm90/backward_store.cuh"
#include "lightseq/mask/mask.hpp"

/// What a thread block of the backward kernel does. It takes a tile of keys and values from a counter, keeps
/// their gradients in registers, and steps through the tiles of queries that see them, in every head that
/// shares the keys. One warp loads, two add gradients of queries to memory, and two warpgroups compute.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// A thread block's warps, each with its part.
template <BackwardBlock Block>
struct Backward {
  Block const& block;

  __device__ __forceinline__ void run() const {
    if (threadIdx.x == 0) block.init_barriers();
    __syncthreads();
    int const warpgroup = ptx::uniform(static_cast<int>(threadIdx.x) / 128);
    if (warpgroup == 0) {
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Block::tile.move_registers));
      int const warp = ptx::uniform(static_cast<int>(threadIdx.x) / 32);
      if (warp == 0) BackwardLoad<Block>{block}.run();
      if (warp == 1 || warp == 2) BackwardAddDq<Block>{block, warp - 1}.run();
      if (warp == 3) zero_and_round<1>();
    } else {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Block::tile.compute_registers));
      if constexpr (Block::splits_dims) {
        SplitDims<Block>(block, warpgroup - 1).run();
      } else {
        SplitKeys<Block>(block, warpgroup - 1).run();
      }
      if (threadIdx.x % 128 == 0) wait_stores();
      __syncwarp();
      zero_and_round<4>();
    }
  }

 private:
  /// Zeroes gradients of queries before parts are added to them, and rounds them afterwards.
  template <int Loads>
  __device__ __forceinline__ void zero_and_round() const {
    auto const& launch = block.launch;
    launch.sums.template zero_and_round<Loads>(launch.order, launch.counter, [&](int segment, int first) {
      // In turns, the first part is written: what is left are queries that no key of this launch sees.
      return !Block::deterministic || block.semaphore().last_before(block.query_hull(segment, first),
                                                                    launch.order.key_tiles, false) < 0;
    });
  }
};

template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
__global__ void __launch_bounds__(BackwardShared<HeadDim, T, KeyGrad, M, Deterministic>::threads, 1)
    backward_kernel(__grid_constant__ BackwardLaunch<HeadDim, T, M> const launch) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Block = BackwardShared<HeadDim, T, KeyGrad, M, Deterministic>;
  extern __shared__ __align__(1024) std::uint8_t shared[];
  Block const block{launch, *reinterpret_cast<typename Block::Memory*>(shared)};
  Backward<Block>{block}.run();
#else
  refuse_hopper_kernel();
#endif
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
