// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("causal attention with the portable kernels on virtual ranks of a GPU equals dense attention") {
  equals_dense_on_gpu<128, Balanced, PortableCuda>(Causal{});
  equals_dense_on_gpu<128, ZigzagRing, PortableCuda>(Causal{});
}
