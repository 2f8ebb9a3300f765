// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 backward kernel equals the oracle for any mask, lengths, heads, strides and positions") {
  REQUIRE(compute_capability() == 90);
  SUBCASE("head dim 64") { check_gradients_of_masks<sm90::BackwardKernel, 64, false>(10000); }
  SUBCASE("head dim 128") { check_gradients_of_masks<sm90::BackwardKernel, 128, false>(20000); }
}
