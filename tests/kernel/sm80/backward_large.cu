// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the portable backward is right for large logits, or at least finite") {
  REQUIRE(compute_capability() >= 80);
  check_gradients_of_large_logits<sm80::BackwardKernel, 128, bfloat16>(530000);
  check_gradients_of_large_logits<sm80::BackwardKernel, 64, float16>(530100);
}

TEST_CASE("the portable backward serves every finite scale") {
  REQUIRE(compute_capability() >= 80);
  check_gradients_of_scales<sm80::BackwardKernel, 128>(530200);
}
