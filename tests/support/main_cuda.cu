// SPDX-License-Identifier: Apache-2.0
#include "support/main.hpp"

#include <cstdio>

#include "support/device.cuh"
#include "support/keep_busy.cuh"

int main(int argc, char** argv) {
  if (!lightseq::testing::has_gpu()) {
    std::printf("skipped: there is no GPU\n");
    return lightseq::testing::skipped;
  }
  return lightseq::test::run_tests(argc, argv);
}
