// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "laws/dist_attn_cuda.cuh"
#include "lightseq/chunk_attn.hpp"
#include "lightseq/testing/packed.hpp"
#include "support/intervals.hpp"
#include "support/masks.hpp"
#include "support/packs.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// O, LSE and the gradients of a sequence in chunks equal dense attention in double in every world; a second
/// run gives the same bits of o and lse.
template <int HeadDim, class Traits = CudaTraits, Mask M>
void chunks_equal_dense_on_gpu(Problem const& problem, M const& mask, ChunkRing const& schedule = {64, 64}) {
  using T = typename Traits::Element;
  using Attn = DistAttn<HeadDim, M, ChunkRing, Traits>;
  INFO("LIGHTSEQ_SEED=", run_seed(), ", head dim ", HeadDim, ", seqlen ", problem.seqlen);
  auto const fresh = testing::random_sequence<T>(problem, HeadDim, stream_seed(300));
  auto const want = testing::dense<HeadDim>(fresh, mask, problem.scale);
  for (int const ranks : {1, 2, 3, 5, 8}) {
    CAPTURE(ranks);
    testing::Sequence<T> runs[2] = {fresh, fresh};
    for (auto& got : runs) {
      Streams const streams(ranks), compute(ranks);
      CudaLocalWorld world(streams);
      std::vector<std::string> faults(static_cast<std::size_t>(ranks));
      run_ranks(world, [&](CudaLocal& comm) {
        Attn attn(comm, problem, mask, schedule);
        testing::DevicePart<Attn, testing::OwnTokens> part(
            attn, testing::OwnTokens{attn.pieces(), comm.rank()}, got);
        check_cuda(cudaDeviceSynchronize());
        typename Attn::Stream const stream{.compute = compute[comm.rank()]};
        auto const workspace = part.workspace.span();
        Status status = attn.forward(part.inputs(), part.outputs(), workspace, stream);
        if (status.ok()) status = attn.backward(part.backward_inputs(), part.gradients(), workspace, stream);
        if (!status.ok()) faults[static_cast<std::size_t>(comm.rank())] = status.message();
        check_cuda(cudaStreamSynchronize(stream.compute));
        if (status.ok()) part.put_back(got);
      });
      for (std::string const& fault : faults) REQUIRE(fault == "");
    }
    auto const &got = runs[0], &again = runs[1];
    CHECK(testing::relative_error(got.o, want.o) < 5e-3);
    CHECK(testing::lse_error(got.lse, want.lse) < 1e-5);
    CHECK(testing::relative_error(got.dq, want.dq) < 1e-2);
    CHECK(testing::relative_error(got.dk, want.dk) < 1e-2);
    CHECK(testing::relative_error(got.dv, want.dv) < 1e-2);
    CHECK(same_bits(again.o, got.o));
    CHECK(same_bits(again.lse, got.lse));
  }
}

}  // namespace

TEST_CASE("chunks under intervals equal dense attention on a GPU") {
  std::mt19937_64 random(stream_seed(1));
  chunks_equal_dense_on_gpu<64>({.seqlen = 2000, .heads = 4, .kv_heads = 2},
                                Intervals::shared_prefix(random_ends(random, 2000, 700)));
  chunks_equal_dense_on_gpu<64>({.seqlen = 1500, .heads = 2}, Intervals(random_rows(random, 1500, 300)));
}

TEST_CASE("chunks under a user's mask equal dense attention on a GPU under the portable kernels") {
  chunks_equal_dense_on_gpu<64, PortableCuda>({.batch = 2, .seqlen = 1201, .heads = 2}, FarBack{90});
}
