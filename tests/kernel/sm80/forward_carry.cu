// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE(
    "attention in parts, each continuing from the last, equals attention at once, with the portable kernel") {
  REQUIRE(compute_capability() >= 80);
  check_parts<sm80::ForwardKernel>(60000);
}
