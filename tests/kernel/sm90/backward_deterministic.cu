// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the deterministic sm_90 backward kernel equals the oracle for any mask") {
  REQUIRE(compute_capability() == 90);
  SUBCASE("head dim 64") { check_gradients_of_masks<sm90::BackwardKernel, 64, true>(30000); }
  SUBCASE("head dim 128") { check_gradients_of_masks<sm90::BackwardKernel, 128, true>(40000); }
}

TEST_CASE("the deterministic sm_90 backward kernel gives the same bits in every run") {
  REQUIRE(compute_capability() == 90);
  check_gradient_bits<sm90::BackwardKernel, 64>(Causal{}, 50000);
  check_gradient_bits<sm90::BackwardKernel, 128>(Causal{}, 51000);
  check_gradient_bits<sm90::BackwardKernel, 128>(Full{}, 52000);
  check_gradient_bits<sm90::BackwardKernel, 128>(EqualDocuments{90}, 53000);
  check_gradient_bits<sm90::BackwardKernel, 256>(Causal{}, 54000);
  check_gradient_bits<sm90::BackwardKernel, 64>(Full{}, 55000, true);
  check_gradient_bits<sm90::BackwardKernel, 128>(Causal{}, 56000, true);
  check_gradient_bits<sm90::BackwardKernel, 128>(EqualDocuments{90}, 57000, true);
  check_gradient_bits<sm90::BackwardKernel, 128>(LazyWindow{100}, 58000);
}
