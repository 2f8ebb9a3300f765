// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 forward kernel equals the oracle for any mask, lengths, heads, strides and positions") {
  REQUIRE(compute_capability() == 90);
  SUBCASE("head dim 64") { check_masks<sm90::ForwardKernel, 64>(10000); }
  SUBCASE("head dim 128") { check_masks<sm90::ForwardKernel, 128>(20000); }
}
