// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 backward kernel leaves multiprocessors to others") {
  REQUIRE(compute_capability() == 90);
  check_gradient_margin<sm90::BackwardKernel>(80000);
}

TEST_CASE("the sm_90 backward kernel says which stride it does not take") {
  REQUIRE(compute_capability() == 90);
  check_gradient_refusals<sm90::BackwardKernel>();
}

TEST_CASE("a captured sm_90 backward gives the same bits when replayed") {
  REQUIRE(compute_capability() == 90);
  check_gradient_replay<sm90::BackwardKernel>(90000);
}

TEST_CASE("the sm_90 backward kernel addresses tensors of more than 2^31 elements") {
  REQUIRE(compute_capability() == 90);
  check_large_gradient_strides<sm90::BackwardKernel>(95000);
}
