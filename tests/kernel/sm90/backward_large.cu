// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 backward is right for large logits, or at least finite") {
  REQUIRE(compute_capability() == 90);
  check_gradients_of_large_logits<sm90::BackwardKernel, 128, bfloat16>(460000);
  check_gradients_of_large_logits<sm90::BackwardKernel, 64, float16>(460100);
}

TEST_CASE("the sm_90 backward serves every finite scale") {
  REQUIRE(compute_capability() == 90);
  check_gradients_of_scales<sm90::BackwardKernel, 128>(460200);
}
