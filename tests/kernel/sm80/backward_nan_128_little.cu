// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/backward.cuh"

#include "kernel/sm80/little_shared_memory.cuh"
#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE(
    "NaN and infinities reach the gradients of what sees them alone, in the portable backward of little "
    "shared memory") {
  REQUIRE(compute_capability() >= 80);
  check_gradients_beside_nan<LittleSharedMemory, 128, bfloat16, bfloat16, false>(520000);
}
