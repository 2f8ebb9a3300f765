// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE(
    "attention in parts, each continuing from the last, equals attention at once, with the sm_90 kernel") {
  REQUIRE(compute_capability() == 90);
  check_parts<sm90::ForwardKernel>(60000);
}
