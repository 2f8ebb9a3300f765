// SPDX-License-Identifier: Apache-2.0
#include <curand_kernel.h>
#include <thrust/system/cuda/execution_policy.h>
#include <thrust/tabulate.h>

#include "bench/support/cuda.cuh"
#include "lightseq/core/element.hpp"

namespace lightseq::bench {

namespace {

/// A normal number for each index.
template <class T>
struct Normal {
  unsigned seed;

  __device__ T operator()(std::int64_t i) const {
    curandStatePhilox4_32_10_t state;
    curand_init(seed, static_cast<unsigned long long>(i), 0, &state);
    return T(curand_normal(&state));
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
