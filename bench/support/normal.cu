// SPDX-License-Identifier: Apache-2.0
#include <thrust/system/cuda/execution_policy.h>
#include <thrust/tabulate.h>

#include "bench/support/cuda.cuh"
#include "lightseq/core/element.hpp"

namespace lightseq::bench {

namespace {

/// A normal number by Box and Muller's method, from a hash of its index.
template <class T>
struct Normal {
  unsigned seed;

  __device__ T operator()(std::int64_t i) const {
    auto word = (static_cast<std::uint64_t>(i) + 1 + (std::uint64_t{seed} << 40)) * 0x9e3779b97f4a7c15u;
    word = (word ^ (word >> 30)) * 0xbf58476d1ce4e5b9u;
    word = (word ^ (word >> 27)) * 0x94d049bb133111ebu;
    word ^= word >> 31;
    float const u = (static_cast<float>(word >> 40) + 1.0f) * 0x1p-24f;
    float const angle = static_cast<float>(word & 0xffffffu) * 0x1p-23f;
    return T(sqrtf(-2.0f * logf(u)) * cospif(angle));
  }
};

}  // namespace

template <class T>
void fill(T* to, std::int64_t size, unsigned seed, cudaStream_t stream) {
  thrust::tabulate(thrust::cuda::par_nosync.on(stream), to, to + size, Normal<T>{seed});
}

template void fill(float*, std::int64_t, unsigned, cudaStream_t);
template void fill(bfloat16*, std::int64_t, unsigned, cudaStream_t);
template void fill(float16*, std::int64_t, unsigned, cudaStream_t);

}  // namespace lightseq::bench
