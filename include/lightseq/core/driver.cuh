// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include "lightseq/core/cuda_error.cuh"
#include "lightseq/core/status.hpp"

namespace lightseq {

/// A driver's error as one of the runtime, which has the same numbers.
constexpr cudaError_t runtime_error(CUresult result) noexcept { return static_cast<cudaError_t>(result); }

/// `ok`, or that the driver refused `what`, a literal.
inline Status cuda_status(char const* what, CUresult result) noexcept {
  return cuda_status(what, runtime_error(result));
}

/// Looks up the driver's function `name`, a literal, as CUDA 12.0 declares it; not ok where the driver has
/// none. A program linked with libcuda instead would not start where there is no driver.
template <class Function>
Status find_driver_function(char const* name, Function*& to) noexcept {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found = cudaDriverEntryPointSymbolNotFound;
  cudaError_t const error =
      cudaGetDriverEntryPointByVersion(name, &function, 12000, cudaEnableDefault, &found);
  if (error != cudaSuccess) return cuda_status(name, error);
  if (found != cudaDriverEntryPointSuccess) return cuda_status(name, cudaErrorSymbolNotFound);
  to = reinterpret_cast<Function*>(function);
  return {};
}

}  // namespace lightseq
