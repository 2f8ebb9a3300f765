// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"

#include <optional>
#include <string>
#include <vector>

using namespace lightseq;
using namespace lightseq::test;

namespace {

template <class S>
using Attn = DistAttn<64, Causal, S, OneLaunchCuda>;

/// Whether a rank attends its own queries alone, all of them in every step.
template <class S>
constexpr bool keeps_queries(int world) {
  bool own = true;
  for (int step = 0; step < S::steps(world); ++step) {
    std::optional<Work> const work = S::at(0, step, world);
    own = own && (!work || (work->q == 0 && work->rows == Rows::all));
  }
  return own;
}

template <class S>
bool takes_one_launch(int ranks) {
  Streams const streams(ranks);
  CudaLocalWorld world(streams);
  return Attn<S>(world[0], {.seqlen = 1000, .heads = 2}).one_launch();
}

}  // namespace

TEST_CASE("rings in up to 16 steps are one launch, other plans are not") {
  for (int const ranks : {1, 2, 3, 8, 16}) {
    CAPTURE(ranks);
    CHECK(takes_one_launch<Ring>(ranks));
    CHECK(takes_one_launch<Balanced>(ranks) == (ranks == 1));
    for_each_type<FlatSchedules>([&]<class S>() {
      INFO("schedule ", std::string(name_of<S>()));
      CHECK(takes_one_launch<S>(ranks) == keeps_queries<S>(ranks));
    });
  }
  CHECK(!takes_one_launch<ZigzagRing>(17));
}

TEST_CASE("attention in one launch on virtual ranks of a GPU equals dense attention") {
  for_each_type<FlatSchedules>([&]<class S>() {
    INFO("schedule ", std::string(name_of<S>()));
    if constexpr (keeps_queries<S>(3)) equals_dense_on_gpu<64, S, OneLaunchCuda>(Causal{});
  });
}

TEST_CASE("when a rank fails nobody launches what would wait for it for ever") {
  Problem const problem{.seqlen = 500, .heads = 2};
  constexpr int ranks = 3;
  auto const sequence = testing::random_sequence<bfloat16>(problem, 64, stream_seed(1));
  for (int failing = 0; failing < ranks; ++failing)
    for (int start = 0; start < 2; ++start) {
      Streams const streams(ranks), compute(ranks);
      CudaLocalWorld world(streams, {.failing_rank = failing, .failing_start = start});
      std::vector<Status> statuses(ranks);
      run_ranks(world, [&](CudaLocal& comm) {
        Attn<ZigzagRing> attn(comm, problem);
        testing::DevicePart<Attn<ZigzagRing>> part(attn, sequence);
        check_cuda(cudaDeviceSynchronize());
        cudaStream_t const stream = compute[comm.rank()];
        statuses[static_cast<std::size_t>(comm.rank())] =
            attn.forward(part.inputs(), part.outputs(), part.workspace.span(), {.compute = stream});
        check_cuda(cudaStreamSynchronize(stream));
        check_cuda(cudaStreamSynchronize(comm.stream()));
      });
      for (int rank = 0; rank < ranks; ++rank) {
        Code const code = statuses[static_cast<std::size_t>(rank)].code;
        CHECK(code == (rank == failing ? Code::transport_failed : Code::peer_failed));
      }
    }
}
