// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE(
    "scores and scales of any size give the sm_90 forward kernel the oracle's result, at once and in parts") {
  REQUIRE(compute_capability() == 90);
  check_scales<sm90::ForwardKernel, 64, float16>(90000);
  check_scales<sm90::ForwardKernel, 128, bfloat16>(91000);
  check_scales<sm90::ForwardKernel, 256, bfloat16>(92000);
}
