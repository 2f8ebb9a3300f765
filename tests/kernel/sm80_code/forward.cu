// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "lightseq/kernel/sm80/forward.cuh"
#include "lightseq/kernel/sm90/forward.cuh"
#include "lightseq/mask/causal.hpp"
#include "support/device.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("a program for sm_80 alone has no Hopper kernels, and they say so before the first launch") {
  REQUIRE(compute_capability() >= 80);
  sm90::ForwardKernel<64, bfloat16, Finished<bfloat16>, Causal> kernel;
  CHECK(kernel.prepare().message() ==
        "the forward kernel is empty in this program, which was not compiled for sm_90a");
  CHECK(kernel.prepare_chunks().code == Code::not_compiled);
  CHECK(sm90::ForwardKernel<128, float16, Partial<float>, Causal>().prepare().code == Code::not_compiled);
}

TEST_CASE("a program for sm_80 alone has the portable kernels") {
  REQUIRE(compute_capability() >= 80);
  CHECK(sm80::ForwardKernel<64, bfloat16, Finished<bfloat16>, Causal>().prepare().ok());
  CHECK(sm80::ForwardKernel<256, float16, Partial<float>, Causal>().prepare().ok());
}
