// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/launcher.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Arguments of write_words: as many words as kernels take on every GPU.
struct WordsToWrite {
  std::uint32_t* to = nullptr;
  int count = 0;
  std::uint32_t words[1000] = {};
};

/// Writes them, in one thread block.
template <int Threads>
__global__ void __launch_bounds__(Threads) write_words(__grid_constant__ WordsToWrite const launch) {
  for (int i = static_cast<int>(threadIdx.x); i < launch.count; i += Threads) launch.to[i] = launch.words[i];
}
constexpr int write_threads = 256;

/// Writes bytes of the host to `to`, device memory that is aligned and padded to 4 bytes. The launches carry
/// them: they are read before this returns, no copy waits for pageable memory, and a CUDA graph keeps them.
inline cudaError_t write_bytes(std::span<std::byte const> bytes, std::byte* to, cudaStream_t stream) {
  WordsToWrite launch;
  while (!bytes.empty()) {
    std::size_t const size = std::min(bytes.size(), sizeof(launch.words));
    std::memcpy(launch.words, bytes.data(), size);
    launch.to = reinterpret_cast<std::uint32_t*>(to);
    launch.count = static_cast<int>((size + 3) / 4);
    if (cudaError_t const error =
            launch_kernel(&write_words<write_threads>, {1, write_threads}, stream, launch);
        error != cudaSuccess)
      return error;
    bytes = bytes.subspan(size), to += size;
  }
  return cudaSuccess;
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
