// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything of lightseq.hpp, and the CUDA device.
#include "lightseq/checkpoint/offload.cuh"
#include "lightseq/core/abi.hpp"
#include "lightseq/exec/ampere.cuh"
#include "lightseq/exec/hopper.cuh"
#include "lightseq/lightseq.hpp"
#include "lightseq/trace/cuda_trace.cuh"
#include "lightseq/transport/cuda_local.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Attention on Hopper GPUs in bfloat16, with ranks as threads of one process. Derive from it and name what
/// differs.
struct CudaTraits : CommonTraits {
  using Element = bfloat16;
  using Device = Cuda<Hopper>;
  using Transport = CudaLocal;
};
static_assert(Device<Cuda<Hopper>, 64, Full, CudaTraits>);

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
