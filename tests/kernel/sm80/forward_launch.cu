// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the portable forward kernel says which stride it does not take") {
  REQUIRE(compute_capability() >= 80);
  check_refusals<sm80::ForwardKernel>();
}

TEST_CASE("a captured portable forward gives the same bits when replayed") {
  REQUIRE(compute_capability() >= 80);
  check_replay<sm80::ForwardKernel>();
}

TEST_CASE("the portable forward kernel addresses tensors of more than 2^31 elements") {
  REQUIRE(compute_capability() >= 80);
  check_large_strides<sm80::ForwardKernel>();
}
