// SPDX-License-Identifier: Apache-2.0
#include "laws/nonfinite_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("what is not finite stays where it is seen, on a GPU under masks that hide a shard's own keys") {
  nonfinite_holds_on_gpu<64, Ring, CudaTraits>(FarBack{40});
  nonfinite_holds_on_gpu<64, Balanced, CudaTraits>(Within{{30, 250}, {9, 200}, 1});
}

TEST_CASE("what nobody sees may hold anything, on a GPU") {
  unseen_holds_on_gpu<64, Balanced, CudaTraits>(Within{{30, 250}, {9, 200}, 1});
  unseen_holds_on_gpu<64, Ring, CudaTraits>(FarBack{40});
}
