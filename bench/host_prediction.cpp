// SPDX-License-Identifier: Apache-2.0
// Prediction against measurement: two ranks that are threads, with the host kernels and links with an
// artificial delay. The rates come from one rank alone, in the same run; the best of a few runs counts. Needs
// two free cores.
#include <algorithm>
#include <chrono>
#include <span>
#include <vector>

#include "bench/support/row.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/testing/sequence.hpp"

using namespace lightseq;

namespace {

constexpr int head_dim = 64, runs = 4;
constexpr Problem problem{.seqlen = 8192, .heads = 4};
constexpr Extents extents{1, 4, 4, head_dim, sizeof(float)};
constexpr std::size_t room = 64;  // spans of a rank's pass

/// Seconds of both passes of all ranks, from the first begin to the last end: the best of the runs.
struct Measured {
  double forward = 1e9, backward = 1e9;
};

double seconds(std::vector<std::vector<Span>> const& ranks) {
  double begin = 1e9, end = 0;
  for (auto const& spans : ranks)
    for (Span const& span : spans) {
      begin = std::min(begin, span.begin);
      end = std::max(end, span.end);
    }
  return end - begin;
}

template <Schedule S>
Measured measure(int ranks, LocalOptions const& links) {
  using Attn = DistAttn<head_dim, Causal, S>;
  auto const whole = testing::random_sequence<float>(problem, head_dim, 1);
  Measured best;
  for (int i = 0; i < runs; ++i) {
    LocalWorld world(ranks, links);
    std::vector<std::vector<Span>> forward(static_cast<std::size_t>(ranks)), backward(forward);
    auto const origin = HostTrace::Clock::now();
    run_ranks(world, [&](Local& comm) {
      auto const rank = static_cast<std::size_t>(comm.rank());
      Attn attn(comm, problem);
      auto part = testing::part_of(whole, attn.positions());
      std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
      std::vector<Span> memory(2 * room);
      std::span<Span> const all(memory);
      HostTrace first(all.first(room), origin), second(all.last(room), origin);
      Status status = attn.forward(part.inputs(), part.outputs(), workspace, {}, first);
      if (status.ok())
        status = attn.backward(part.backward_inputs(), part.gradients(), workspace, {}, second);
      if (!status.ok()) fail(status.message());
      forward[rank].assign(first.spans().begin(), first.spans().end());
      backward[rank].assign(second.spans().begin(), second.spans().end());
    });
    best.forward = std::min(best.forward, seconds(forward));
    best.backward = std::min(best.backward, seconds(backward));
  }
  return best;
}

template <Schedule S>
Simulation predict(int ranks, Pass pass, Topology const& topology, ComputeModel const& compute) {
  return simulate(Planner(S{}, Causal{}, ranks, problem.seqlen), pass, extents, topology, compute);
}

template <Schedule S>
void compare(double bytes_per_second, ComputeModel const& compute) {
  int const ranks = 2;
  Measured const measured = measure<S>(
      ranks, {.link_latency = std::chrono::milliseconds(1), .link_bytes_per_second = bytes_per_second});
  Topology const topology{
      .inside = {bytes_per_second, 1e-3}, .sharing = Sharing::none, .fetched_by_receiver = true};
  for (Pass const pass : {Pass::forward, Pass::backward}) {
    Simulation const s = predict<S>(ranks, pass, topology, compute);
    double const found = pass == Pass::forward ? measured.forward : measured.backward;
    bench::Row()("schedule", name_of<S>())("pass", lightseq::name(pass))(
        "link_mb_s", 1e-6 * bytes_per_second)("predicted_ms", 1e3 * s.makespan)("measured_ms", 1e3 * found)(
        "ratio", found / s.makespan)("waits_for_messages", s.exposed_fraction())
        .print();
  }
}

}  // namespace

int main() {
  Measured const alone = measure<Ring>(1, {});
  ComputeModel compute;
  compute.forward_flops = predict<Ring>(1, Pass::forward, {}, {}).flops / alone.forward;
  compute.backward_flops = predict<Ring>(1, Pass::backward, {}, {}).flops / alone.backward;
  compute.memory_bytes = 4e9;  // of this machine's merges
  for (double const bytes_per_second : {50e6, 500e6}) {
    for_each_type<FlatSchedules>([&]<class S>() { compare<S>(bytes_per_second, compute); });
  }
}
