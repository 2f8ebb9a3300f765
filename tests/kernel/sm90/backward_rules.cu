// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 backward kernel equals the oracle where rules make the scores") {
  REQUIRE(compute_capability() == 90);
  SUBCASE("head dim 64") { check_gradients_of_rules<sm90::BackwardKernel, 64>(10000); }
  SUBCASE("head dim 128") { check_gradients_of_rules<sm90::BackwardKernel, 128>(20000); }
  SUBCASE("head dim 256") { check_gradients_of_rules<sm90::BackwardKernel, 256>(30000); }
}

TEST_CASE("so does the sm_90 backward kernel of other types and masks") {
  REQUIRE(compute_capability() == 90);
  check_gradients_of_more_rules<sm90::BackwardKernel>(40000);
}
