// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/abi.hpp"
#include "lightseq/exec/cuda.cuh"
#include "lightseq/kernel/sm90/backward.cuh"
#include "lightseq/kernel/sm90/forward.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// The kernels for Hopper GPUs (compute capability 9.0), in translation units compiled for sm_90a.
struct Hopper {
  static constexpr char const* name = "Hopper";
  static constexpr bool serves(int major, int minor) { return major == 9 && minor == 0; }
  template <int HeadDim, class T, class Result, Mask M>
  using Forward = sm90::ForwardKernel<HeadDim, T, Result, M>;
  template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
  using Backward = sm90::BackwardKernel<HeadDim, T, KeyGrad, M, Deterministic>;
};
static_assert(Architecture<Hopper>);

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
