// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn_cuda.cuh"

#include <cstdint>
#include <memory>
#include <random>
#include <stdexcept>
#include <vector>

#include "transport/local_cuda_harness.cuh"

using namespace lightseq;
using namespace lightseq::test;

namespace {

using StepByStep = DistAttn<64, Causal, Balanced, DeterministicCuda>;
using OneLaunch = DistAttn<64, Causal, ZigzagRing, OneLaunchCuda>;
Problem const problem{.batch = 1, .seqlen = 900, .heads = 4, .kv_heads = 2};

/// Calls `enqueue(attn, part, compute stream)` on each of `ranks` ranks, and puts the results of each
/// together once the device is through.
template <class Attn, class Enqueue>
testing::Sequence<bfloat16> run(int ranks, testing::Sequence<bfloat16> whole, Enqueue const& enqueue) {
  Streams const exchange(ranks), compute(ranks);
  CudaLocalWorld world(exchange);
  std::vector<std::unique_ptr<testing::DevicePart<Attn>>> parts(static_cast<std::size_t>(ranks));
  run_ranks(world, [&](CudaLocal& comm) {
    Attn attn(comm, problem);
    auto& part = parts[static_cast<std::size_t>(comm.rank())];
    part = std::make_unique<testing::DevicePart<Attn>>(attn, whole);
    check_cuda(cudaDeviceSynchronize());
    enqueue(attn, *part, compute[comm.rank()], exchange[comm.rank()]);
    check_cuda(cudaStreamSynchronize(compute[comm.rank()]));
  });
  for (auto const& part : parts) part->put_back(whole);
  return whole;
}

/// Forward, and backward where there is one.
template <class Attn>
void attend(Attn& attn, testing::DevicePart<Attn>& part, cudaStream_t stream) {
  Status status = attn.forward(part.inputs(), part.outputs(), part.workspace.span(), {.compute = stream});
  if constexpr (Attn::has_backward)
    if (status.ok())
      status =
          attn.backward(part.backward_inputs(), part.gradients(), part.workspace.span(), {.compute = stream});
  if (!status.ok()) throw std::runtime_error(status.message());
}

/// The same bits in all results.
bool same(testing::Sequence<bfloat16> const& a, testing::Sequence<bfloat16> const& b, bool gradients) {
  return same_bits(a.o, b.o) && same_bits(a.lse, b.lse) &&
         (!gradients || (same_bits(a.dq, b.dq) && same_bits(a.dk, b.dk) && same_bits(a.dv, b.dv)));
}

}  // namespace

TEST_CASE_TEMPLATE(
    "calls on a GPU return before the device has begun, and delays on the streams change no bit", Attn,
    StepByStep, OneLaunch) {
  auto const fresh = testing::random_sequence<bfloat16>(problem, 64, stream_seed(1));
  for (int const ranks : {1, 2, 5, 8}) {
    CAPTURE(ranks);
    auto const want = run<Attn>(ranks, fresh, [](Attn& attn, auto& part, cudaStream_t compute, cudaStream_t) {
      attend(attn, part, compute);
    });
    std::vector<int> early(static_cast<std::size_t>(ranks));
    auto const got = run<Attn>(ranks, fresh, [&](Attn& attn, auto& part, cudaStream_t compute, cudaStream_t) {
      auto const rank = static_cast<std::size_t>(attn.plan(Pass::forward).rank);
      // Long enough for a call to be over on the host, and different for each rank.
      keep_busy(compute, 300'000'000u + 7'000'000u * static_cast<unsigned>(rank));
      attend(attn, part, compute);
      early[rank] = cudaStreamQuery(compute) == cudaErrorNotReady;
    });
    CHECK(early == std::vector<int>(static_cast<std::size_t>(ranks), 1));
    for (std::uint64_t repeat = 0; repeat < 5; ++repeat) {
      auto const shaken =
          run<Attn>(ranks, fresh, [&](Attn& attn, auto& part, cudaStream_t compute, cudaStream_t exchange) {
            std::minstd_rand random(static_cast<unsigned>(stream_seed(repeat)) +
                                    static_cast<unsigned>(attn.plan(Pass::forward).rank));
            for (int i = 0; i < 3; ++i) {
              delay(random, 2'000'000, compute);
              delay(random, 2'000'000, exchange);
              attend(attn, part, compute);
            }
          });
      CHECK(same(shaken, want, Attn::has_backward));
    }
    CHECK(same(got, want, Attn::has_backward));
  }
}

TEST_CASE_TEMPLATE("the calls of all ranks can be captured in one CUDA graph and replayed on fresh inputs",
                   Attn, StepByStep, OneLaunch) {
  for (int const ranks : {1, 3, 4}) {
    CAPTURE(ranks);
    Streams const exchange(ranks), compute(ranks), main(1);
    CudaLocalWorld world(exchange);
    auto sequence = testing::random_sequence<bfloat16>(problem, 64, stream_seed(2));
    std::vector<std::unique_ptr<Attn>> attns(static_cast<std::size_t>(ranks));
    std::vector<std::unique_ptr<testing::DevicePart<Attn>>> parts(static_cast<std::size_t>(ranks));
    for (int rank = 0; rank < ranks; ++rank) {
      auto const r = static_cast<std::size_t>(rank);
      attns[r] = std::make_unique<Attn>(world[rank], problem);
      parts[r] = std::make_unique<testing::DevicePart<Attn>>(*attns[r], sequence);
    }
    Event const begin = make_event();
    std::vector<Event> ends;
    for (int rank = 0; rank < ranks; ++rank) ends.push_back(make_event());
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    check_cuda(cudaStreamBeginCapture(main[0], cudaStreamCaptureModeRelaxed));
    check_cuda(cudaEventRecord(begin.get(), main[0]));
    for (int rank = 0; rank < ranks; ++rank) check_cuda(cudaStreamWaitEvent(compute[rank], begin.get(), 0));
    run_ranks(world, [&](CudaLocal& comm) {
      auto const r = static_cast<std::size_t>(comm.rank());
      attend(*attns[r], *parts[r], compute[comm.rank()]);
      check_cuda(cudaEventRecord(ends[r].get(), compute[comm.rank()]));
    });
    for (Event const& end : ends) check_cuda(cudaStreamWaitEvent(main[0], end.get(), 0));
    check_cuda(cudaStreamEndCapture(main[0], &graph));
    check_cuda(cudaGraphInstantiate(&replay, graph, 0));

    for (std::uint64_t repeat = 0; repeat < 4; ++repeat) {
      auto fresh = testing::random_sequence<bfloat16>(problem, 64, stream_seed(10 + repeat));
      for (auto const& part : parts) {
        auto const other = testing::part_of(fresh, part->positions);
        auto const upload = [](auto const& from, auto const& to) {
          check_cuda(cudaMemcpy(to.data(), from.data(), from.size() * sizeof(from[0]), cudaMemcpyDefault));
        };
        upload(other.q, part->q), upload(other.k, part->k), upload(other.v, part->v);
        upload(other.d_o, part->d_o);
        part->o.fill(0xff), part->lse.fill(0xff), part->workspace.fill(0xff);
        part->dq.fill(0xff), part->dk.fill(0xff), part->dv.fill(0xff);
      }
      check_cuda(cudaDeviceSynchronize());
      check_cuda(cudaGraphLaunch(replay, main[0]));
      check_cuda(cudaStreamSynchronize(main[0]));
      for (auto const& part : parts) part->put_back(fresh);
      testing::Dense const want = testing::dense<64>(fresh, Causal{}, 0, Attn::has_backward);
      CHECK(testing::relative_error(fresh.o, want.o) < 5e-3);
      CHECK(testing::lse_error(fresh.lse, want.lse) < 1e-5);
      if constexpr (Attn::has_backward) {
        CHECK(testing::relative_error(fresh.dq, want.dq) < 1e-2);
        CHECK(testing::relative_error(fresh.dk, want.dk) < 1e-2);
        CHECK(testing::relative_error(fresh.dv, want.dv) < 1e-2);
      }
    }
    check_cuda(cudaGraphExecDestroy(replay));
    check_cuda(cudaGraphDestroy(graph));
  }
}

TEST_CASE("what the GPU cannot serve is named before any message is sent") {
  Streams const streams(2);
  CudaLocalWorld world(streams);
  using Attn = StepByStep;
  Attn attn(world[0], problem);
  auto const sequence = testing::random_sequence<bfloat16>(problem, 64, stream_seed(3));
  testing::DevicePart<Attn> part(attn, sequence);
  auto const message = [&](auto const& change) {
    auto in = part.inputs();
    auto out = part.outputs();
    change(in, out);
    return attn.forward(in, out, part.workspace.span(), {.compute = streams[0]}).message();
  };
  CHECK(message([](auto& in, auto&) { in.q.data += 1; }) ==
        "the address of q is 2, which is not a multiple of 16");
  CHECK(message([](auto& in, auto&) {
          in.k.strides = {0, 130, 64};
        }) == "the token stride of k is 130, which is not a multiple of 8");
  CHECK(message([](auto& in, auto&) { in.v.data = nullptr; }) == "v is a null pointer");
  CHECK(world.failed_rank() == -1);
  Problem const endless{.seqlen = std::int64_t{1} << 40, .heads = 1};
  CHECK_THROWS_WITH_AS(Attn(world[0], endless),
                       "lightseq: rank 0: seqlen is 1099511627776, the GPU kernels serve at most 1073741823",
                       Error);
}
