// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include "lightseq/core/status.hpp"

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

/// Normal numbers: zeros run faster than any data does.
template <class T>
__global__ void fill(T* to, std::int64_t size, unsigned seed) {
  std::int64_t const step = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += step) {
    auto word = (static_cast<std::uint64_t>(i) + 1 + (std::uint64_t{seed} << 40)) * 0x9e3779b97f4a7c15u;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    word ^= word >> 31;
    float const u = (static_cast<float>(word >> 40) + 1.0f) * 0x1p-24f;
    float const angle = static_cast<float>(word & 0xffffffu) * 0x1p-23f;
    to[i] = T(sqrtf(-2.0f * logf(u)) * cospif(angle));
  }
}

/// `size` elements of device memory; never freed.
template <class T>
T* allocated(std::int64_t size) {
  T* data = nullptr;
  check(cudaMalloc(&data, static_cast<std::size_t>(size) * sizeof(T)));
  return data;
}

template <class T>
T* filled(std::int64_t size, unsigned seed) {
  T* const data = allocated<T>(size);
  fill<<<1024, 256>>>(data, size, seed);
  return data;
}

}  // namespace lightseq::bench
