// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE(
    "the portable forward kernel equals the oracle for any mask, lengths, heads, strides and positions") {
  REQUIRE(compute_capability() >= 80);
  SUBCASE("head dim 64") { check_masks<sm80::ForwardKernel, 64>(10000); }
  SUBCASE("head dim 128") { check_masks<sm80::ForwardKernel, 128>(20000); }
}
