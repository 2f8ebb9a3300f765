// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/kernel/sm80/backward.cuh"

namespace lightseq::test {

/// The portable backward kernel as it is on GPUs that give a thread block no more than 99 KB.
template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
struct LittleSharedMemory : sm80::BackwardKernel<HeadDim, T, KeyGrad, M, Deterministic> {
  Status prepare() { return sm80::BackwardKernel<HeadDim, T, KeyGrad, M, Deterministic>::prepare(99 * 1024); }
};

}  // namespace lightseq::test
