// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 forward kernel says which stride it does not take") {
  REQUIRE(compute_capability() == 90);
  check_refusals<sm90::ForwardKernel>();
}

TEST_CASE("a captured sm_90 forward gives the same bits when replayed") {
  REQUIRE(compute_capability() == 90);
  check_replay<sm90::ForwardKernel>();
}

TEST_CASE("the sm_90 forward kernel addresses tensors of more than 2^31 elements") {
  REQUIRE(compute_capability() == 90);
  check_large_strides<sm90::ForwardKernel>();
}
