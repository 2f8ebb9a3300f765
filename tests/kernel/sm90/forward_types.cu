// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 forward kernel serves float16 and outputs of float") {
  REQUIRE(compute_capability() == 90);
  check_types<sm90::ForwardKernel>(30000);
}

TEST_CASE("scores that grow from key to key leave the sm_90 forward kernel exact") {
  REQUIRE(compute_capability() == 90);
  check_growing_scores<sm90::ForwardKernel>(40000);
}

TEST_CASE("the sm_90 forward kernel gives the same bits each time, whatever multiprocessors it has") {
  REQUIRE(compute_capability() == 90);
  check_same_bits<sm90::ForwardKernel>(50000);
}
