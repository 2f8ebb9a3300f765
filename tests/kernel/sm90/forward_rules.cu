// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 forward kernel equals the oracle where rules make the scores") {
  REQUIRE(compute_capability() == 90);
  SUBCASE("head dim 64") { check_rules<sm90::ForwardKernel, 64>(10000); }
  SUBCASE("head dim 128") { check_rules<sm90::ForwardKernel, 128>(20000); }
  SUBCASE("head dim 256") { check_rules<sm90::ForwardKernel, 256>(30000); }
}

TEST_CASE("so does the sm_90 forward kernel of other types and masks") {
  REQUIRE(compute_capability() == 90);
  check_more_rules<sm90::ForwardKernel>(40000);
}
