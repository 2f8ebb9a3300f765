// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include "lightseq/testing/cuda.cuh"

namespace lightseq::test {

using testing::check_cuda;
using testing::DeviceArray;
using testing::Streams;

/// Whether the current device is of this compute capability.
inline bool device_is(int major, int minor) {
  cudaDeviceProp properties{};
  int device = 0;
  return cudaGetDevice(&device) == cudaSuccess &&
         cudaGetDeviceProperties(&properties, device) == cudaSuccess && properties.major == major &&
         properties.minor == minor;
}

}  // namespace lightseq::test
