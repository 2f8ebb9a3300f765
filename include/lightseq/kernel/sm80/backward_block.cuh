// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/compiled.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm80/backward_attend.cuh"
#include "lightseq/kernel/sm80/backward_finite.cuh"
#include "lightseq/kernel/sm80/backward_shared.cuh"
#include "lightseq/mask/mask.hpp"

/// What a thread block of the portable backward kernel does. It keeps a tile of keys and values, brings the
/// query tiles that see it past them, and has the gradients of its keys and values in registers. Scores are
/// held transposed, keys down and queries across: as they lie they are the left operands of those gradients.
/// The gradients of queries are sums over all keys, so each thread block adds its part to global memory.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm80 {

/// Attends one key tile with care. It is called and not inlined: what care takes of registers would
/// otherwise make the loop without care spill.
template <BackwardBlock Block>
__noinline__ __device__ void attend_with_care(typename Block::Launch const& launch, std::uint32_t shared,
                                              typename Block::Work work, int turn) {
  Block const block{launch, shared};
  BackwardWarp<Block, true>(block, work, turn).run();
}

/// Takes key tiles until there are no more.
template <BackwardBlock Block>
__device__ __forceinline__ void run_backward(Block const& block) {
  auto const& launch = block.launch;
  __shared__ int taken;
  while (true) {
    __syncthreads();  // nobody is in the tile before any more
    // A tile is attended as soon as it is taken: others may wait for it.
    if (threadIdx.x == 0) taken = static_cast<int>(atomicAdd(launch.counter, 1));
    __syncthreads();
    int const index = taken;
    if (index >= launch.order.tiles) return;
    typename Block::Work const work =
        block.begin(launch.order.locate(index, launch.keys[0].count, Block::key_rows));
    if (work.more && BackwardFinite<Block>{block}.needs_care(work)) {
      attend_with_care<Block>(launch, block.shared, work, launch.order.turn(index));
    } else {
      BackwardWarp<Block, false>(block, work, launch.order.turn(index)).run();
    }
  }
}

template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic, bool Large>
__global__ void __launch_bounds__(BackwardShared<HeadDim, T, KeyGrad, M, Deterministic, Large>::threads,
                                  backward_tile(HeadDim, Large).blocks)
    backward_kernel(__grid_constant__ BackwardLaunch<T, KeyGrad, M> const launch) {
#if __CUDA_ARCH__ >= 800
  using Block = BackwardShared<HeadDim, T, KeyGrad, M, Deterministic, Large>;
  extern __shared__ __align__(128) std::uint8_t shared[];
  run_backward(Block{launch, ptx::shared_address(shared)});
#else
  refuse_portable_kernel<HeadDim>();
#endif
}

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
