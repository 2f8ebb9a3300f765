// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("head dim 128: what is no number reaches the rows that see it, with the portable forward kernel") {
  REQUIRE(compute_capability() >= 80);
  check_poison<sm80::ForwardKernel, 128>(70000 + 128);
}
