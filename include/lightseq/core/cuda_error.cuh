// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include "lightseq/core/error.hpp"
#include "lightseq/core/status.hpp"

namespace lightseq {

/// `ok`, or that the device refused `what`, a literal, under CUDA's own name for the error.
inline Status cuda_status(char const* what, cudaError_t error) noexcept {
  if (error == cudaSuccess) return {};
  return {.code = Code::device_failed, .subject = what, .other = cudaGetErrorName(error), .native = error};
}

/// Throws Error with CUDA's name, number and words, unless `error` is none. `what` says what was asked for.
inline void check_cuda(char const* what, cudaError_t error) {
  if (error != cudaSuccess)
    fail("the device refused ", what, ": ", cudaGetErrorName(error), " (", static_cast<int>(error), "), ",
         cudaGetErrorString(error));
}

}  // namespace lightseq
