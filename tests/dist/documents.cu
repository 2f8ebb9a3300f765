// SPDX-License-Identifier: Apache-2.0
#include "lightseq/mask/documents.hpp"

#include <random>

#include "laws/dist_attn_cuda.cuh"
#include "support/packs.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("packed documents equal dense attention on a GPU") {
  std::mt19937_64 random(stream_seed(1));
  equals_dense_on_gpu<64, ZigzagRing>(Documents<>(random_ends(random, 1201, 400)));
  equals_dense_on_gpu<64, Ring, DeterministicCuda>(
      Documents<SlidingWindow>(random_ends(random, 1100, 300), {70, 5}));
}

TEST_CASE("a list of documents that is longer than a launch carries equals dense attention on a GPU") {
  std::mt19937_64 random(stream_seed(2));
  Documents<Full> const documents(random_ends(random, 2000, 2));
  REQUIRE(documents.data().size() > 2 * sizeof(WordsToWrite));
  equals_dense_on_gpu<64, Ring>(documents, {.seqlen = 2000, .heads = 2, .kv_heads = 1});
}

TEST_CASE("a captured forward keeps its documents, whatever becomes of the workspace") {
  std::mt19937_64 random(stream_seed(3));
  Problem const problem{.seqlen = 700, .heads = 2, .kv_heads = 2};
  auto sequence = testing::random_sequence<bfloat16>(problem, 64, stream_seed(4));
  Documents<> const documents(random_ends(random, 700, 150));
  Streams const exchange(1), compute(1);
  CudaLocalWorld world(exchange);
  using Attn = DistAttn<64, Documents<>, Ring, OneLaunchCuda>;
  Attn attn(world[0], problem, documents);
  testing::DevicePart<Attn> part(attn, sequence);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  check_cuda(cudaStreamBeginCapture(compute[0], cudaStreamCaptureModeRelaxed));
  CHECK(attn.forward(part.inputs(), part.outputs(), part.workspace.span(), {.compute = compute[0]}).ok());
  check_cuda(cudaStreamEndCapture(compute[0], &graph));
  check_cuda(cudaGraphInstantiate(&replay, graph, 0));
  for (int repeat = 0; repeat < 2; ++repeat) {
    part.o.fill(0xff), part.lse.fill(0xff), part.workspace.fill(0xff);
    check_cuda(cudaDeviceSynchronize());
    check_cuda(cudaGraphLaunch(replay, compute[0]));
    check_cuda(cudaStreamSynchronize(compute[0]));
    part.put_back(sequence);
    testing::Dense const want = testing::dense<64>(sequence, documents, 0, false);
    CHECK(testing::relative_error(sequence.o, want.o) < 5e-3);
    CHECK(testing::lse_error(sequence.lse, want.lse) < 1e-5);
  }
  check_cuda(cudaGraphExecDestroy(replay));
  check_cuda(cudaGraphDestroy(graph));
}
