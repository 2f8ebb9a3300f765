// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("head dim 128: what is no number reaches the rows that see it, with the sm_90 forward kernel") {
  REQUIRE(compute_capability() == 90);
  check_poison<sm90::ForwardKernel, 128>(70000 + 128);
}
