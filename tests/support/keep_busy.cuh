// SPDX-License-Identifier: Apache-2.0
#pragma once
// keep_busy(), for the one file of a program that has its main().
#include "support/device.cuh"

namespace lightseq::test {

static __global__ void spin(unsigned nanoseconds) {
  unsigned long long begin = 0, now = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(begin));
  do {
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  } while (now - begin < nanoseconds);
}

void keep_busy(cudaStream_t stream, unsigned nanoseconds) {
  spin<<<1, 1, 0, stream>>>(nanoseconds);
  check_cuda(cudaGetLastError());
}

}  // namespace lightseq::test
