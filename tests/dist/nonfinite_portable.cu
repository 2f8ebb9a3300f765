// SPDX-License-Identifier: Apache-2.0
#include "laws/nonfinite_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("what is not finite stays where it is seen, with the portable kernels") {
  nonfinite_holds_on_gpu<64, Balanced, PortableCuda>(Causal{});
  nonfinite_holds_on_gpu<64, Ring, PortableCuda>(FarBack{40});
}

TEST_CASE("what nobody sees may hold anything, with the portable kernels") {
  unseen_holds_on_gpu<64, Ring, PortableCuda>(FarBack{40});
}
