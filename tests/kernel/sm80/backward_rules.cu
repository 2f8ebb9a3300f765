// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the portable backward kernel equals the oracle where rules make the scores") {
  REQUIRE(compute_capability() >= 80);
  SUBCASE("head dim 64") { check_gradients_of_rules<sm80::BackwardKernel, 64>(10000); }
  SUBCASE("head dim 128") { check_gradients_of_rules<sm80::BackwardKernel, 128>(20000); }
  SUBCASE("head dim 256") { check_gradients_of_rules<sm80::BackwardKernel, 256>(30000); }
}

TEST_CASE("so does the portable backward kernel of other types and masks") {
  REQUIRE(compute_capability() >= 80);
  check_gradients_of_more_rules<sm80::BackwardKernel>(40000);
}
