// SPDX-License-Identifier: Apache-2.0
#include "laws/nonfinite_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("what is not finite stays where it is seen, on a GPU that adds gradients in turn") {
  nonfinite_holds_on_gpu<128, StripedRing, DeterministicCuda>(Causal{});
  nonfinite_holds_on_gpu<256, Ring, DeterministicCuda>(SlidingWindow{90, 30});
}
