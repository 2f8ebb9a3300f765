// SPDX-License-Identifier: Apache-2.0
#include "laws/long_window.cuh"
#include "lightseq/kernel/sm80/backward.cuh"
#include "lightseq/kernel/sm80/forward.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("the sm_80 kernels are right for a window over a long sequence") {
  check_long_windows<sm80::ForwardKernel, sm80::BackwardKernel, 128>(500000);
}
