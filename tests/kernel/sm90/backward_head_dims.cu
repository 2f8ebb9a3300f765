// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 backward kernel serves every head dim that is a multiple of 16") {
  REQUIRE(compute_capability() == 90);
  check_gradient_head_dims<sm90::BackwardKernel, bfloat16, bfloat16>(std::make_integer_sequence<int, 16>{});
  check_gradient_head_dims<sm90::BackwardKernel, bfloat16, float>(std::integer_sequence<int, 4, 8, 11, 15>{});
  check_gradient_head_dims<sm90::BackwardKernel, float16, float16>(std::integer_sequence<int, 5, 15>{});
}
