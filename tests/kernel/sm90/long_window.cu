// SPDX-License-Identifier: Apache-2.0
#include "laws/long_window.cuh"
#include "lightseq/kernel/sm90/backward.cuh"
#include "lightseq/kernel/sm90/forward.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_90 kernels are right for a window over a long sequence") {
  REQUIRE(compute_capability() == 90);
  check_long_windows<sm90::ForwardKernel, sm90::BackwardKernel, 128>(500000);
}
