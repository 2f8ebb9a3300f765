// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <cstddef>
#include <functional>
#include <vector>

#include "bench/support/cuda.cuh"

namespace lightseq::bench {

inline double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// Mean milliseconds of what each of the functions enqueues, called alternately for some seconds after a
/// warm-up, so that all of them meet the same power limit.
inline std::vector<double> measure(std::vector<std::function<void(cudaStream_t)>> const& functions,
                                   cudaStream_t stream) {
  constexpr double warm_up = 0.7, measured = 1.5;
  cudaEvent_t begin, end;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<double> sums(functions.size());
  int rounds = 0;
  for (double const start = now(); rounds == 0 || now() - start < warm_up + measured;) {
    bool const counts = now() - start > warm_up;
    rounds += counts;
    for (std::size_t i = 0; i < functions.size(); ++i) {
      float milliseconds = 0;
      check(cudaEventRecord(begin, stream));
      functions[i](stream);
      check(cudaEventRecord(end, stream));
      check(cudaEventSynchronize(end));
      check(cudaEventElapsedTime(&milliseconds, begin, end));
      if (counts) sums[i] += milliseconds;
    }
  }
  for (double& sum : sums) sum /= rounds;
  check(cudaEventDestroy(begin));
  check(cudaEventDestroy(end));
  return sums;
}

}  // namespace lightseq::bench
