// SPDX-License-Identifier: Apache-2.0
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "laws/dist_attn_cuda.cuh"
#include "lightseq/testing/packed.hpp"
#include "support/packs.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// O, LSE and the gradients of packs equal dense attention in double in every world, one pack after another
/// with the same objects and nobody waiting in between; a second run gives the same bits, those of gradients
/// where the traits ask for it.
template <int HeadDim, class Traits = CudaTraits, Mask Inner = Causal>
void packs_equal_dense_on_gpu(Problem const& problem, std::vector<std::vector<std::int64_t>> const& packs,
                              Inner const& inner = {}) {
  using T = typename Traits::Element;
  using Attn = DistAttn<HeadDim, Documents<Inner>, PackedRing, Traits>;
  using Part = testing::DevicePart<Attn, testing::OwnTokens>;
  INFO("LIGHTSEQ_SEED=", run_seed(), ", head dim ", HeadDim, ", seqlen ", problem.seqlen);
  std::vector<testing::Sequence<T>> fresh;
  std::vector<testing::Dense> want;
  for (auto const& ends : packs) {
    Problem part = problem;
    part.seqlen = ends.back();
    fresh.push_back(testing::random_sequence<T>(part, HeadDim, stream_seed(300 + fresh.size())));
    want.push_back(testing::dense<HeadDim>(fresh.back(), Documents<Inner>(ends, inner), problem.scale));
  }
  for (int const ranks : {1, 2, 3, 5, 8}) {
    CAPTURE(ranks);
    std::vector<testing::Sequence<T>> runs[2] = {fresh, fresh};
    for (auto& got : runs) {
      Streams const streams(ranks), compute(ranks);
      CudaLocalWorld world(streams);
      std::vector<std::string> faults(static_cast<std::size_t>(ranks));
      run_ranks(world, [&](CudaLocal& comm) {
        std::string& fault = faults[static_cast<std::size_t>(comm.rank())];
        Attn attn(comm, problem, inner);
        std::vector<PackedBatch> batches;
        std::vector<std::unique_ptr<Part>> parts;
        for (std::size_t i = 0; i < packs.size(); ++i) {
          batches.push_back(attn.batch());
          if (Text const text = attn.plan(packs[i], batches[i]); !text.empty())
            fault = std::string(text.view());
        }
        for (std::size_t i = 0; i < packs.size(); ++i)
          parts.push_back(
              std::make_unique<Part>(attn, testing::OwnTokens{batches[i].pieces(), comm.rank()}, got[i]));
        check_cuda(cudaDeviceSynchronize());
        typename Attn::Stream const stream{.compute = compute[comm.rank()]};
        // All packs' calls share the first one's workspace.
        auto const workspace = parts[0]->workspace.span();
        for (std::size_t i = 0; i < packs.size() && fault.empty(); ++i) {
          Status status =
              attn.forward(parts[i]->inputs(), parts[i]->outputs(), workspace, batches[i], stream);
          if (status.ok())
            status = attn.backward(parts[i]->backward_inputs(), parts[i]->gradients(), workspace, batches[i],
                                   stream);
          if (!status.ok()) fault = status.message();
        }
        check_cuda(cudaStreamSynchronize(stream.compute));
        for (std::size_t i = 0; i < packs.size() && fault.empty(); ++i) parts[i]->put_back(got[i]);
      });
      for (std::string const& fault : faults) REQUIRE(fault == "");
    }
    for (std::size_t i = 0; i < packs.size(); ++i) {
      INFO("pack ", i, " of ", packs[i].size(), " documents");
      auto const &got = runs[0][i], &again = runs[1][i];
      CHECK(testing::relative_error(got.o, want[i].o) < 5e-3);
      CHECK(testing::lse_error(got.lse, want[i].lse) < 1e-5);
      CHECK(testing::relative_error(got.dq, want[i].dq) < 1e-2);
      CHECK(testing::relative_error(got.dk, want[i].dk) < 1e-2);
      CHECK(testing::relative_error(got.dv, want[i].dv) < 1e-2);
      CHECK(same_bits(again.o, got.o));
      CHECK(same_bits(again.lse, got.lse));
      if constexpr (Traits::deterministic) {
        CHECK(same_bits(again.dq, got.dq));
        CHECK(same_bits(again.dk, got.dk));
        CHECK(same_bits(again.dv, got.dv));
      }
    }
  }
}

}  // namespace

TEST_CASE("packs of documents equal dense attention on a GPU") {
  std::mt19937_64 random(stream_seed(1));
  packs_equal_dense_on_gpu<64>({.seqlen = 2000, .heads = 4, .kv_heads = 2},
                               {random_ends(random, 2000, 900), random_ends(random, 1500, 60), {2000}});
}

TEST_CASE("packs of documents equal dense attention on a GPU under a window, deterministic, in batches") {
  std::mt19937_64 random(stream_seed(2));
  packs_equal_dense_on_gpu<128, DeterministicCuda, SlidingWindow>(
      {.batch = 2, .seqlen = 1100, .heads = 2}, {random_ends(random, 1100, 500), {300, 1100}}, {170, 5});
}

TEST_CASE("packs of documents equal dense attention on a GPU under the portable kernels") {
  std::mt19937_64 random(stream_seed(3));
  packs_equal_dense_on_gpu<64, PortableCuda>({.seqlen = 1201, .heads = 2},
                                             {random_ends(random, 1201, 700), random_ends(random, 900, 200)});
}
