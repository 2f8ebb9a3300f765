// SPDX-License-Identifier: Apache-2.0
// What the GPU's events tell of a call.
#include "lightseq/trace/cuda_trace.cuh"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "laws/dist_attn_cuda.cuh"
#include "lightseq/trace/chrome_trace.hpp"
#include "transport/local_cuda_harness.cuh"

using namespace lightseq;
using namespace lightseq::test;

namespace {

constexpr int head_dim = 64;
Problem const problem{.batch = 1, .seqlen = 900, .heads = 4, .kv_heads = 2};

/// One rank's call and where its trace goes.
template <class Attn>
struct TracedRank {
  TracedRank(CudaLocal& comm, testing::Sequence<bfloat16> const& whole, std::size_t room)
      : attn(comm, problem), part(attn, whole), memory(room), events(make_timers(2 * room)) {}

  Status run(Pass pass, cudaStream_t stream, auto& trace) {
    std::span<std::byte> const workspace = part.workspace.span();
    if (pass == Pass::forward)
      return attn.forward(part.inputs(), part.outputs(), workspace, {.compute = stream}, trace);
    if constexpr (Attn::has_backward)
      return attn.backward(part.backward_inputs(), part.gradients(), workspace, {.compute = stream}, trace);
    return {};
  }

  Attn attn;
  testing::DevicePart<Attn> part;
  std::vector<Span> memory;
  std::vector<Event> events;
};

/// What all ranks' calls of a pass leave behind.
struct Seen {
  testing::Sequence<bfloat16> results;
  std::vector<Plan> plans;
  std::vector<Timeline> timelines;  // of each rank
  std::vector<std::string> failures;
  std::vector<bool> complete;
  double seconds = 0;  // of all of it, as events around it see it
};

/// A forward and, if that is asked for, a backward; the trace is of the last.
template <class Attn>
Seen run(int ranks, Pass pass, testing::Sequence<bfloat16> const& whole, std::size_t room) {
  Streams const exchange(ranks), compute(ranks);
  CudaLocalWorld world(exchange);
  Seen seen{whole, {}, {}, {}, {}, 0};
  std::vector<Event> const bounds = make_timers(2);
  std::vector<std::unique_ptr<TracedRank<Attn>>> all;
  for (int rank = 0; rank < ranks; ++rank)
    all.push_back(std::make_unique<TracedRank<Attn>>(world[rank], whole, room));
  std::vector<Status> statuses(all.size());
  auto const call = [&](Pass which, auto const& trace_of) {
    run_ranks(world, [&](CudaLocal& comm) {
      auto const rank = static_cast<std::size_t>(comm.rank());
      if (statuses[rank].ok()) statuses[rank] = all[rank]->run(which, compute[comm.rank()], trace_of(rank));
    });
    check_cuda(cudaDeviceSynchronize());
  };
  if (pass == Pass::backward) call(Pass::forward, [](std::size_t) -> NoTrace const& { return no_trace; });
  check_cuda(cudaEventRecord(bounds[0].get(), compute[0]));
  check_cuda(cudaDeviceSynchronize());
  std::vector<CudaTrace> traces;
  for (auto const& rank : all) traces.emplace_back(rank->memory, rank->events, bounds[0].get());
  call(pass, [&](std::size_t rank) -> CudaTrace& { return traces[rank]; });
  check_cuda(cudaEventRecord(bounds[1].get(), compute[0]));
  check_cuda(cudaDeviceSynchronize());
  float milliseconds = 0;
  check_cuda(cudaEventElapsedTime(&milliseconds, bounds[0].get(), bounds[1].get()));
  seen.seconds = 1e-3 * static_cast<double>(milliseconds);
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    Status const read = traces[rank].read();
    seen.failures.push_back(statuses[rank].ok() ? read.message() : statuses[rank].message());
    seen.timelines.emplace_back(traces[rank].spans().begin(), traces[rank].spans().end());
    seen.complete.push_back(traces[rank].complete());
    seen.plans.push_back(all[rank]->attn.plan(pass));
    all[rank]->part.put_back(seen.results);
  }
  return seen;
}

/// What a trace of a plan's steps, or of its one launch, must hold, in the order in which it is enqueued.
Timeline expected(Plan const& plan, bool one_launch) {
  Timeline spans;
  for (int step = 0; step < static_cast<int>(plan.steps.size()); ++step) {
    Step const& s = plan.steps[static_cast<std::size_t>(step)];
    if (!s.sends.empty() || !s.recvs.empty())
      spans.push_back({Activity::exchange, plan.rank, step, 0, 0, {}, {}});
    if (s.work && !one_launch) spans.push_back({Activity::work, plan.rank, step, 0, 0, *s.work, {}});
    if (std::any_of(s.recvs.begin(), s.recvs.end(), [](Transfer const& t) { return is_result(t.payload); }))
      spans.push_back({Activity::merge, plan.rank, step, 0, 0, {}, {}});
  }
  if (one_launch) spans.push_back({Activity::work, plan.rank, 0, 0, 0, {plan.rank, plan.rank}, {}});
  return spans;
}

bool same_results(testing::Sequence<bfloat16> const& a, testing::Sequence<bfloat16> const& b) {
  return same_bits(a.o, b.o) && same_bits(a.lse, b.lse) && same_bits(a.dq, b.dq) && same_bits(a.dk, b.dk) &&
         same_bits(a.dv, b.dv);
}

template <class S, class Traits>
void is_traced() {
  using Attn = DistAttn<head_dim, Causal, S, Traits>;
  constexpr double tick = 2e-6;  // of the events' clock, and what it takes to note one
  auto const fresh = testing::random_sequence<bfloat16>(problem, head_dim, stream_seed(40));
  for (int ranks = 1; ranks <= 4; ++ranks)
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      if (pass == Pass::backward && !Attn::has_backward) continue;
      CAPTURE(ranks);
      CAPTURE(static_cast<int>(pass));
      auto untraced = fresh;
      {
        Streams const streams(ranks);
        CudaLocalWorld world(streams);
        REQUIRE(testing::run_world<Attn>(world, problem, Causal{}, S{}, untraced) == "");
      }
      Seen const seen = run<Attn>(ranks, pass, fresh, 3 * 5);
      if (pass == Pass::forward) {
        CHECK(same_bits(seen.results.o, untraced.o));
        CHECK(same_bits(seen.results.lse, untraced.lse));
      } else {
        CHECK(same_results(seen.results, untraced));
      }
      for (std::size_t rank = 0; rank < seen.plans.size(); ++rank) {
        CHECK(seen.failures[rank] == "ok");
        CHECK(seen.complete[rank]);
        Timeline const want = expected(seen.plans[rank], Traits::one_launch);
        Timeline const& got = seen.timelines[rank];
        REQUIRE(got.size() == want.size());
        double busy_until[2] = {};  // the exchange's stream, the compute stream
        for (std::size_t i = 0; i < got.size(); ++i) {
          CHECK(got[i].activity == want[i].activity);
          CHECK(got[i].rank == want[i].rank);
          CHECK(got[i].step == want[i].step);
          CHECK(got[i].work == want[i].work);
          bool const computes = got[i].activity != Activity::exchange;
          CHECK(got[i].begin >= busy_until[computes] - tick);
          CHECK(got[i].end >= got[i].begin);
          if (computes) CHECK(got[i].end > got[i].begin);
          CHECK(got[i].end <= seen.seconds + tick);
          if (got[i].activity == Activity::merge) CHECK(got[i].begin >= busy_until[0] - tick);
          busy_until[computes] = got[i].end;
        }
        CHECK(chrome_trace(got).find("\"work\"") != std::string::npos);
      }
      for (std::size_t const room : {std::size_t{0}, std::size_t{1}}) {
        Seen const little = run<Attn>(ranks, pass, fresh, room);
        for (std::size_t rank = 0; rank < little.plans.size(); ++rank) {
          CHECK(little.failures[rank] == "ok");
          CHECK(little.timelines[rank].size() == room);
          CHECK(little.complete[rank] == (room == expected(little.plans[rank], Traits::one_launch).size()));
        }
      }
    }
}

}  // namespace

TEST_CASE("a trace on a GPU holds every work, exchange and merge once and in order, and changes no bit") {
  is_traced<Ring, DeterministicCuda>();
  is_traced<ZigzagRing, DeterministicCuda>();
  is_traced<Balanced, DeterministicCuda>();
  is_traced<StripedRing, OneLaunchCuda>();
}

TEST_CASE("a trace whose events have not happened, or were captured, says so") {
  using Attn = DistAttn<head_dim, Causal, Ring, DeterministicCuda>;
  Streams const exchange(1), compute(1);
  CudaLocalWorld world(exchange);
  auto const fresh = testing::random_sequence<bfloat16>(problem, head_dim, stream_seed(41));
  TracedRank<Attn> rank(world[0], fresh, 3);
  std::vector<Event> const origin = make_timers(1);
  check_cuda(cudaEventRecord(origin[0].get(), compute[0]));
  check_cuda(cudaDeviceSynchronize());

  keep_busy(compute[0], 300'000'000u);
  CudaTrace early(rank.memory, rank.events, origin[0].get());
  CHECK(rank.run(Pass::forward, compute[0], early).message() == "ok");
  Status const status = early.read();
  CHECK(status.code == Code::device_failed);
  CHECK(status.native == cudaErrorNotReady);
  check_cuda(cudaDeviceSynchronize());

  CudaTrace captured(rank.memory, rank.events, origin[0].get());
  cudaGraph_t graph = nullptr;
  check_cuda(cudaStreamBeginCapture(compute[0], cudaStreamCaptureModeRelaxed));
  CHECK(rank.run(Pass::forward, compute[0], captured).message() == "ok");
  check_cuda(cudaStreamEndCapture(compute[0], &graph));
  CHECK(captured.read().code == Code::device_failed);
  check_cuda(cudaGraphDestroy(graph));
  cudaGetLastError();

  // Events that were captured serve again.
  CudaTrace again(rank.memory, rank.events, origin[0].get());
  CHECK(rank.run(Pass::forward, compute[0], again).message() == "ok");
  check_cuda(cudaDeviceSynchronize());
  CHECK(again.read().message() == "ok");
  CHECK(again.spans().size() == 1);
}
