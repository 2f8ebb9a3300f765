// SPDX-License-Identifier: Apache-2.0
#include <string>

#include "laws/dist_attn_cuda.cuh"

using namespace lightseq;
using namespace lightseq::test;

namespace {

struct InferenceCuda : CudaTraits {
  static constexpr bool inference = true;
};

}  // namespace

TEST_CASE("on a machine with two GPUs a call while the other one is current says both numbers") {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count));
  if (count < 2) {
    MESSAGE("there is but one GPU");
    return;
  }
  using Attn = DistAttn<64, Causal, Balanced, InferenceCuda>;
  Problem const problem{.seqlen = 100};
  check_cuda(cudaSetDevice(1));
  {
    Streams const streams(2);
    CudaLocalWorld world(std::span<cudaStream_t const>(streams).first(1));
    Attn attn(world[0], problem);
    auto whole = testing::random_sequence<bfloat16>(problem, 64, stream_seed(0));
    testing::DevicePart<Attn> part(attn, whole);
    DeviceArray<std::byte> const saved(1024);
    OffloadSlot slot(saved.span(), streams[1]);
    std::byte host[16] = {};
    check_cuda(cudaDeviceSynchronize());
    auto const forward = [&] {
      return attn.forward(part.inputs(), part.outputs(), part.workspace.span(), {.compute = streams[1]});
    };
    std::string const said = "GPU 0 is current, but the object was constructed with GPU 1";

    check_cuda(cudaSetDevice(0));
    CHECK(forward().message() == said);
    CHECK(attn.wait({.compute = streams[1]}).message() == said);
    CHECK(attn.failure().ok());
    CHECK(slot.copy(host, saved.data(), sizeof host, streams[1]).message() == said);
    CHECK(slot.wait(streams[1]).message() == said);
    check_cuda(cudaSetDevice(1));
    CHECK(forward().ok());
    CHECK(attn.wait({.compute = streams[1]}).ok());
    CHECK(slot.copy(host, saved.data(), sizeof host, streams[1]).ok());
    CHECK(slot.wait(streams[1]).ok());
    check_cuda(cudaDeviceSynchronize());

    check_cuda(cudaSetDevice(0));
    CHECK(world[0].rendezvous(streams[1]).message() == "rank 0: " + said);
    check_cuda(cudaSetDevice(1));
    CHECK(world.failed_rank() == 0);
  }
  check_cuda(cudaSetDevice(0));
}
