// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the portable backward kernel leaves multiprocessors to others") {
  REQUIRE(compute_capability() >= 80);
  check_gradient_margin<sm80::BackwardKernel>(80000);
}

TEST_CASE("the portable backward kernel says which stride it does not take") {
  REQUIRE(compute_capability() >= 80);
  check_gradient_refusals<sm80::BackwardKernel>();
}

TEST_CASE("a captured portable backward gives the same bits when replayed") {
  REQUIRE(compute_capability() >= 80);
  check_gradient_replay<sm80::BackwardKernel>(90000);
}

TEST_CASE("the portable backward kernel addresses tensors of more than 2^31 elements") {
  REQUIRE(compute_capability() >= 80);
  check_large_gradient_strides<sm80::BackwardKernel>(95000);
}
