// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/abi.hpp"
#include "lightseq/exec/cuda.cuh"
#include "lightseq/kernel/sm80/backward.cuh"
#include "lightseq/kernel/sm80/forward.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// The kernels for every GPU from compute capability 8.0 on.
struct Ampere {
  static constexpr char const* name = "Ampere and later";
  static constexpr bool serves(int major, int) { return major >= 8; }
  template <int HeadDim, class T, class Result, Mask M>
  using Forward = sm80::ForwardKernel<HeadDim, T, Result, M>;
  template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
  using Backward = sm80::BackwardKernel<HeadDim, T, KeyGrad, M, Deterministic>;
};
static_assert(Architecture<Ampere>);

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
