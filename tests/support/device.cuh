// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include "lightseq/testing/cuda.cuh"

namespace lightseq::test {

using testing::check_cuda;
using testing::DeviceArray;
using testing::Streams;

/// The current device's compute capability, 10 times major plus minor; 0 if there is none.
inline int compute_capability() {
  cudaDeviceProp properties{};
  int device = 0;
  bool const known =
      cudaGetDevice(&device) == cudaSuccess && cudaGetDeviceProperties(&properties, device) == cudaSuccess;
  return known ? 10 * properties.major + properties.minor : 0;
}

/// Enqueues a kernel that keeps a stream busy for about this many nanoseconds; main_cuda.cu has it.
void keep_busy(cudaStream_t stream, unsigned nanoseconds);

}  // namespace lightseq::test
