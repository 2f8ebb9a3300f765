// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/abi.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900 && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
/// What stops a compilation for sm_90: its name is what ptxas finds nowhere. A static_assert would also stop
/// nvcc -arch=sm_90a, which adds PTX for compute_90 that no Hopper GPU looks at.
extern "C" __device__ void lightseq__the_Hopper_kernels_need_the_GPU_architecture_sm_90a_and_not_sm_90();
#endif

/// All that a Hopper kernel does where it is not compiled for sm_90a: for sm_90 it must not be, and for other
/// architectures it is empty, so that a program may hold kernels for several.
__device__ __forceinline__ void refuse_hopper_kernel() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900 && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
  lightseq__the_Hopper_kernels_need_the_GPU_architecture_sm_90a_and_not_sm_90();
#endif
}

/// The same of a portable kernel below sm_80, which stops the compilation. `HeadDim` is the kernel's.
template <int HeadDim>
__device__ __forceinline__ void refuse_portable_kernel() {
#ifdef __CUDA_ARCH__
  static_assert(HeadDim < 0, "lightseq: the portable kernels need a GPU architecture of sm_80 or later");
#endif
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
