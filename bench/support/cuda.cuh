// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "lightseq/core/status.hpp"
#include "lightseq/testing/cuda.cuh"

/// What the benchmarks on a GPU share.
namespace lightseq::bench {

inline void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(error));
  std::exit(1);
}

inline void check(Status const& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "%s\n", status.message().c_str());
  std::exit(1);
}

/// Enqueues the writing of `size` normal numbers, the same for the same seed: zeros run faster than any data
/// does. T is float, bfloat16 or float16; normal.cu has it.
template <class T>
void fill(T* to, std::int64_t size, unsigned seed, cudaStream_t stream = nullptr);

/// An array of normal numbers.
template <class T>
testing::DeviceArray<T> filled(std::int64_t size, unsigned seed) {
  testing::DeviceArray<T> array(size);
  fill(array.data(), size, seed);
  return array;
}

/// Device memory of several arrays, which end with it.
class Memory {
 public:
  template <class T>
  T* take(std::int64_t size) {
    blocks_.emplace_back(size * static_cast<std::int64_t>(sizeof(T)));
    return reinterpret_cast<T*>(blocks_.back().data());
  }

  /// Normal numbers.
  template <class T>
  T* take_filled(std::int64_t size, unsigned seed) {
    T* const data = take<T>(size);
    fill(data, size, seed);
    return data;
  }

 private:
  std::vector<testing::DeviceArray<std::byte>> blocks_;
};

}  // namespace lightseq::bench
