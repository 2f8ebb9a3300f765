// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Loads a kernel on the current device and says whether there is anything in it: a program that was compiled
/// for other architectures has kernels that do nothing, and CUDA launches these without a word. `name` is
/// what an error calls the kernel, and `architecture` what it needs, "sm_90a".
inline Status check_compiled(void const* kernel, char const* name, char const* architecture) {
  cudaFuncAttributes attributes = {};
  cudaError_t const error = cudaFuncGetAttributes(&attributes, kernel);
  if (error == cudaErrorNoKernelImageForDevice || error == cudaErrorInvalidDeviceFunction ||
      error == cudaErrorInvalidPtx ||
      (error == cudaSuccess && attributes.numRegs < 24))  // the least that attention takes is over 100
    return {.code = Code::not_compiled, .subject = name, .other = architecture};
  if (error != cudaSuccess) return {.code = Code::device_failed, .subject = name, .native = error};
  return {};
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
