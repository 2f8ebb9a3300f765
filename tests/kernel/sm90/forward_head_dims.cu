// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/forward.cuh"

#include "laws/forward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 forward kernel serves every head dim that is a multiple of 16") {
  REQUIRE(compute_capability() == 90);
  check_head_dims<sm90::ForwardKernel, bfloat16>(std::make_integer_sequence<int, 16>{});
  check_head_dims<sm90::ForwardKernel, float16>(std::integer_sequence<int, 5, 15>{});
}
