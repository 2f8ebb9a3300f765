// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm80/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the portable forward kernel serves every head dim that is a multiple of 16") {
  REQUIRE(compute_capability() >= 80);
  check_head_dims<sm80::ForwardKernel, bfloat16>(std::make_integer_sequence<int, 16>{});
  check_head_dims<sm80::ForwardKernel, float16>(std::integer_sequence<int, 5, 15>{});
}
