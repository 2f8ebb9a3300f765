// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"
#include "support/rules.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("sinks on virtual ranks of a GPU equal dense attention") {
  equals_dense_on_gpu<64, Balanced, SinkCuda>(Causal{});
  equals_dense_on_gpu<128, ZigzagRing, SinkCuda>(Causal{});
  equals_dense_on_gpu<256, Ring, SinkCuda>(Causal{});
  equals_dense_on_gpu<128, ZigzagRing, PortableSinkCuda>(Causal{});
  equals_dense_on_gpu<128, ZigzagRing, OneLaunchSinkCuda>(Causal{});
}

TEST_CASE("soft caps and sinks on virtual ranks of a GPU equal dense attention") {
  equals_dense_on_gpu<128, Balanced, SinkCuda>(Scored{Causal{}, SoftCap{2}});
  equals_dense_on_gpu<64, Ring, PortableSinkCuda>(Scored{Full{}, SoftCap{2}});
}

TEST_CASE("ALiBi on virtual ranks of a GPU equals dense attention") {
  // The oracle reads the slopes on the host, the kernels on the GPU.
  std::vector<float> const slopes = alibi_slopes(8);
  float* managed = nullptr;
  REQUIRE(cudaMallocManaged(&managed, slopes.size() * sizeof(float)) == cudaSuccess);
  std::copy(slopes.begin(), slopes.end(), managed);
  equals_dense_on_gpu<128, ZigzagRing>(Scored{Causal{}, Alibi{managed}});
  cudaFree(managed);
}
