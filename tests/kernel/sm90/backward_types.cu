// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 backward kernel serves float16 and gradients of keys and values in float") {
  REQUIRE(compute_capability() == 90);
  check_gradient_types<sm90::BackwardKernel>(60000);
}

TEST_CASE("parts of queries and of keys add up to the sm_90 backward of the whole") {
  REQUIRE(compute_capability() == 90);
  check_gradient_parts<sm90::BackwardKernel, 64, false>(Causal{}, 70000);
  check_gradient_parts<sm90::BackwardKernel, 128, false>(Full{}, 71000);
  check_gradient_parts<sm90::BackwardKernel, 128, true>(Causal{}, 72000);
  check_gradient_parts<sm90::BackwardKernel, 192, false>(Causal{}, 73000);
  check_gradient_parts<sm90::BackwardKernel, 64, true>(EqualDocuments{90}, 74000);
}
