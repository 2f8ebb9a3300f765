// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("a sliding window on virtual ranks of a GPU equals dense attention") {
  for (std::int64_t const left : {0, 33, 300}) {
    equals_dense_on_gpu<64, Balanced>(SlidingWindow{left, 0});
    equals_dense_on_gpu<64, Ring>(SlidingWindow{left, 20});
    equals_dense_on_gpu<64, ZigzagRing>(SlidingWindow{left, 0});
    equals_dense_on_gpu<64, StripedRing>(SlidingWindow{left, 20});
  }
}
