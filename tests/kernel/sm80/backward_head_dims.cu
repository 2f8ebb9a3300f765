// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/backward.cuh"

#include "kernel/sm80/little_shared_memory.cuh"
#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the portable backward kernel serves every head dim that is a multiple of 16") {
  REQUIRE(compute_capability() >= 80);
  check_gradient_head_dims<sm80::BackwardKernel, bfloat16, bfloat16>(std::make_integer_sequence<int, 16>{});
  check_gradient_head_dims<sm80::BackwardKernel, bfloat16, float>(std::integer_sequence<int, 4, 8, 11, 15>{});
  check_gradient_head_dims<LittleSharedMemory, bfloat16, bfloat16>(
      std::integer_sequence<int, 4, 5, 6, 7, 8, 11, 12, 15>{});
  check_gradient_head_dims<sm80::BackwardKernel, float16, float16>(std::integer_sequence<int, 5, 15>{});
}
