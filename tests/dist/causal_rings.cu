// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("causal attention on virtual ranks of a GPU equals dense attention under the rings") {
  equals_dense_on_gpu<128, Ring>(Causal{});
  equals_dense_on_gpu<128, ZigzagRing>(Causal{});
  equals_dense_on_gpu<128, StripedRing>(Causal{});
}
