// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include "lightseq/core/cuda_error.cuh"
#include "lightseq/core/status.hpp"

namespace lightseq {

/// The GPU that was current when this was constructed: the one of its owner's events and kernels.
class OwnDevice {
 public:
  /// Throws Error, with CUDA's words, if there is none.
  OwnDevice() { check_cuda("to say which GPU is current", cudaGetDevice(&number_)); }

  int number() const noexcept { return number_; }

  /// Not ok, with both numbers, while another one is current.
  Status check() const noexcept {
    int current = 0;
    if (cudaError_t const error = cudaGetDevice(&current); error != cudaSuccess)
      return cuda_status("to say which GPU is current", error);
    if (current != number_) return {.code = Code::wrong_device, .have = current, .need = number_};
    return {};
  }

 private:
  int number_ = 0;
};

}  // namespace lightseq
