// SPDX-License-Identifier: Apache-2.0
#include "support/main.hpp"

#include <cstdio>

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

int main(int argc, char** argv) {
  if (!lightseq::testing::has_gpu()) {
    std::printf("skipped: there is no GPU\n");
    return lightseq::testing::skipped;
  }
  return lightseq::test::run_tests(argc, argv);
}
