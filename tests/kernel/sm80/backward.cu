// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/backward.cuh"

#include "kernel/sm80/little_shared_memory.cuh"
#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE(
    "the portable backward kernel equals the oracle for any mask, lengths, heads, strides and positions") {
  REQUIRE(compute_capability() >= 80);
  SUBCASE("head dim 64") { check_gradients_of_masks<sm80::BackwardKernel, 64, false>(10000); }
  SUBCASE("head dim 128") { check_gradients_of_masks<sm80::BackwardKernel, 128, false>(20000); }
  SUBCASE("head dim 128 in little shared memory") {
    check_gradients_of_masks<LittleSharedMemory, 128, false>(25000);
  }
}
