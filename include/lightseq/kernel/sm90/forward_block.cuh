// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/compiled.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/forward_compute.cuh"
#include "lightseq/kernel/sm90/forward_load.cuh"
#include "lightseq/kernel/sm90/forward_shared.cuh"
#include "lightseq/mask/mask.hpp"

/// What a thread block of the forward kernel does. One warp loads queries and keys, one values, and one moves
/// outputs, through TMA; each other warpgroup holds 64 queries and, while the tensor cores
/// multiply weights and values of one tile, makes the softmax of the next. Thread blocks stay and take query
/// tiles from a counter.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// Gives a thread block's warps their parts.
template <ForwardBlock Block>
__device__ __forceinline__ void run_forward(Block const& block) {
  if (threadIdx.x == 0) block.init_barriers();
  __syncthreads();
  int const warpgroup = ptx::uniform(static_cast<int>(threadIdx.x) / 128);
  if (warpgroup == 0) {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Block::tile.load_registers));
    int const warp = ptx::uniform(static_cast<int>(threadIdx.x) / 32);
    ForwardLoad<Block> const loads{block};
    if (warp == 0) loads.load_keys();
    if (warp == 1) loads.load_values();
    if constexpr (Block::stages_o)
      if (warp == 2) loads.move_outputs();
  } else {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Block::tile.compute_registers));
    ForwardCompute<Block>(block, warpgroup - 1).run();
  }
}

template <int HeadDim, class T, ForwardResult Result, Mask M, int KeySegments>
__global__ void __launch_bounds__(ForwardShared<HeadDim, T, Result, M, KeySegments>::threads, 1)
    forward_kernel(__grid_constant__ ForwardLaunch<T, Result, M, KeySegments> const launch) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  using Block = ForwardShared<HeadDim, T, Result, M, KeySegments>;
  extern __shared__ __align__(1024) std::uint8_t shared[];
  run_forward(Block{launch, *reinterpret_cast<typename Block::Memory*>(shared)});
#else
  refuse_hopper_kernel();
#endif
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
