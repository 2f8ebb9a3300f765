// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/backward.cuh"

#include "kernel/sm80/little_shared_memory.cuh"
#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the deterministic portable backward kernel equals the oracle for any mask") {
  REQUIRE(compute_capability() >= 80);
  SUBCASE("head dim 64") { check_gradients_of_masks<sm80::BackwardKernel, 64, true>(30000); }
  SUBCASE("head dim 128") { check_gradients_of_masks<sm80::BackwardKernel, 128, true>(40000); }
}

TEST_CASE("the deterministic portable backward kernel gives the same bits in every run") {
  REQUIRE(compute_capability() >= 80);
  check_gradient_bits<sm80::BackwardKernel, 64>(Causal{}, 50000);
  check_gradient_bits<sm80::BackwardKernel, 128>(Causal{}, 51000);
  check_gradient_bits<sm80::BackwardKernel, 128>(Full{}, 52000);
  check_gradient_bits<sm80::BackwardKernel, 128>(EqualDocuments{90}, 53000);
  check_gradient_bits<sm80::BackwardKernel, 256>(Causal{}, 54000);
  check_gradient_bits<LittleSharedMemory, 128>(Causal{}, 55000);
  check_gradient_bits<LittleSharedMemory, 256>(Causal{}, 56000);
  check_gradient_bits<sm80::BackwardKernel, 128>(LazyWindow{100}, 58000);
}
