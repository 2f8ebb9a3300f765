// SPDX-License-Identifier: Apache-2.0
#include "laws/nonfinite_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("what is not finite stays where it is seen, on a GPU under a causal mask") {
  nonfinite_holds_on_gpu<64, ZigzagRing, CudaTraits>(Causal{});
  nonfinite_holds_on_gpu<128, Balanced, CudaTraits>(Causal{});
}
