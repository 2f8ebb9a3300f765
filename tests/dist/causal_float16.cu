// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("causal attention in float16 on virtual ranks of a GPU equals dense attention") {
  equals_dense_on_gpu<64, Balanced, Fp16Cuda>(Causal{});
  equals_dense_on_gpu<64, ZigzagRing, Fp16Cuda>(Causal{});
}
