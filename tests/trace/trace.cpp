// SPDX-License-Identifier: Apache-2.0
// What a trace notes of a run, and how runs over slow links compare with their simulation. The device of
// these runs sleeps for as long as its model says, so that ranks do not compete for this machine's cores.
#include "lightseq/trace/trace.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/testing/sequence.hpp"
#include "lightseq/trace/chrome_trace.hpp"
#include "support/data.hpp"

using namespace lightseq;

namespace {

constexpr int head_dim = 8;
constexpr double pair_seconds = 80e-6;

void sleep(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

/// A Host that sleeps in its kernels and attends to nothing.
struct Sleeper : Host {
  template <int HeadDim, Mask M, class Traits>
  struct Kernels : Host::Kernels<HeadDim, M, Traits> {
    using Base = Host::Kernels<HeadDim, M, Traits>;
    using Base::Base;
    struct Queue : Base::Queue {
      using Base::Queue::Queue;

      template <class Call>
      static double pairs(Call const& call, M const& mask) {
        std::int64_t sum = 0;
        for (Segment const& q : call.queries.segments)
          for (Segment const& k : call.keys.segments) sum += visible_pairs(mask, q, k);
        return static_cast<double>(sum);
      }
      static void forward(auto const& call, M const& mask, std::byte*) {
        sleep(pair_seconds * pairs(call, mask));
      }
      static void backward(auto const& call, M const& mask, std::byte*) {
        sleep(2.5 * pair_seconds * pairs(call, mask));
      }
    };
  };
};
struct SleeperTraits : DefaultTraits {
  using Device = Sleeper;
};
struct RelayedSleeperTraits : SleeperTraits {
  static constexpr Route route = Route::neighbour;
};

/// The same as a model.
ComputeModel sleeper() {
  double const flops = 4.0 * head_dim / pair_seconds;
  return {.forward_flops = flops, .backward_flops = flops};
}

/// What a run of all ranks notes, and the seconds from the first rank's begin to the last rank's end.
struct Run {
  Timeline timeline;
  std::vector<bool> complete;
  double seconds = 0;
};

template <class Attn, Schedule S>
Run run(LocalWorld& world, Problem const& problem, S const& schedule, Pass pass, std::size_t room) {
  auto const ranks = static_cast<std::size_t>(world.world());
  std::vector<Span> memory(ranks * room);
  std::vector<std::span<Span const>> noted(ranks);
  std::vector<std::string> failures(ranks);
  Run result;
  result.complete.resize(ranks);
  std::vector<char> complete(ranks);
  auto const origin = HostTrace::Clock::now();
  auto const whole = testing::random_sequence<float>(problem, head_dim, test::stream_seed(3));
  run_ranks(world, [&](Local& comm) {
    auto const rank = static_cast<std::size_t>(comm.rank());
    Attn attn(comm, problem, {}, schedule);
    auto part = testing::part_of(whole, attn.positions());
    std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
    std::span<Span> const all(memory);
    HostTrace trace(all.subspan(rank * room, room), origin);
    Status const status = pass == Pass::forward
                              ? attn.forward(part.inputs(), part.outputs(), workspace, {}, trace)
                              : attn.backward(part.backward_inputs(), part.gradients(), workspace, {}, trace);
    failures[rank] = status.ok() ? "" : status.message();
    noted[rank] = trace.spans();
    complete[rank] = trace.complete();
  });
  double begin = 1e9, end = 0;
  for (std::size_t rank = 0; rank < ranks; ++rank) {
    CHECK(failures[rank] == "");
    result.complete[rank] = complete[rank] != 0;
    for (Span const& span : noted[rank]) {
      result.timeline.push_back(span);
      begin = std::min(begin, span.begin);
      end = std::max(end, span.end);
    }
  }
  result.seconds = end - begin;
  return result;
}

constexpr double link_latency = 8e-3, fast = 6e4, slow = 1.2e4;  // seconds, bytes per second

LocalOptions links(double rate) {
  return {.link_latency = std::chrono::microseconds(8000), .link_bytes_per_second = rate};
}

Topology topology(double rate) {
  return {.inside = {rate, link_latency}, .sharing = Sharing::none, .fetched_by_receiver = true};
}

}  // namespace

TEST_CASE("a trace holds every work, exchange and merge of the plan, in order, and says so if it does not") {
  Problem const problem{.seqlen = 40, .heads = 1};
  for (int const ranks : {1, 2, 5, 6})
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      Planner const planner(Balanced{}, Causal{}, ranks, problem.seqlen);
      LocalWorld world(ranks);
      using Attn = DistAttn<head_dim, Causal, Balanced>;
      Run const seen = run<Attn>(world, problem, Balanced{}, pass, 3 * 5);
      Timeline expected;
      for (int rank = 0; rank < ranks; ++rank) {
        Plan const plan = planner.plan(rank, pass);
        for (int step = 0; step < static_cast<int>(plan.steps.size()); ++step) {
          Step const& s = plan.steps[static_cast<std::size_t>(step)];
          bool merges = false;
          for (Transfer const& t : s.recvs) merges = merges || is_result(t.payload);
          if (!s.sends.empty() || !s.recvs.empty())
            expected.push_back({Activity::exchange, rank, step, 0, 0, {}, {}});
          if (s.work) expected.push_back({Activity::work, rank, step, 0, 0, *s.work, {}});
          if (merges) expected.push_back({Activity::merge, rank, step, 0, 0, {}, {}});
        }
      }
      REQUIRE(seen.timeline.size() == expected.size());
      for (std::size_t i = 0; i < expected.size(); ++i) {
        Span const &a = seen.timeline[i], &b = expected[i];
        CHECK(a.activity == b.activity);
        CHECK(a.rank == b.rank);
        CHECK(a.step == b.step);
        CHECK(a.work == b.work);
        CHECK(a.begin <= a.end);
        if (i == 0 || expected[i - 1].rank != b.rank) continue;
        Span const& before = seen.timeline[i - 1];
        CHECK(before.begin <= a.begin);
        // A step's exchange and its work run side by side, and both are over before anything else begins.
        bool const beside = before.activity == Activity::exchange && a.activity == Activity::work;
        CHECK((beside || before.end <= a.begin));
        if (beside) CHECK(a.end <= before.end);
      }
      bool const exchanges = chrome_trace(seen.timeline).find("\"exchange\"") != std::string::npos;
      CHECK(exchanges == (ranks > 1));

      for (std::size_t const room : {std::size_t{0}, std::size_t{1}}) {
        Run const little = run<Attn>(world, problem, Balanced{}, pass, room);
        CHECK(little.timeline.size() == room * static_cast<std::size_t>(ranks));
        for (bool const complete : little.complete) CHECK(complete == (ranks == 1 && room == 1));
      }
    }
}

TEST_CASE("every span of a run that fails has an end") {
  Problem const problem{.seqlen = 40, .heads = 1};
  auto const whole = testing::random_sequence<float>(problem, head_dim, test::stream_seed(4));
  for (int const ranks : {2, 3, 5})
    for (int failing = 0; failing < ranks; ++failing)
      for (int step = 0; step < 3; ++step) {
        INFO("ranks ", ranks, ", failing ", failing, ", step ", step);
        LocalWorld world(ranks, {.failing_rank = failing, .failing_start = step});
        std::vector<Span> memory(static_cast<std::size_t>(ranks) * 30);
        std::vector<std::span<Span const>> noted(static_cast<std::size_t>(ranks));
        auto const origin = HostTrace::Clock::now() - std::chrono::seconds(1);
        run_ranks(world, [&](Local& comm) {
          auto const rank = static_cast<std::size_t>(comm.rank());
          DistAttn<head_dim, Causal, Balanced> attn(comm, problem);
          auto part = testing::part_of(whole, attn.positions());
          std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
          HostTrace trace(std::span<Span>(memory).subspan(rank * 30, 30), origin);
          static_cast<void>(attn.forward(part.inputs(), part.outputs(), workspace, {}, trace));
          noted[rank] = trace.spans();
        });
        std::size_t spans = 0;
        for (auto const& of_rank : noted)
          for (Span const& span : of_rank) {
            ++spans;
            CHECK(span.begin > 0);
            CHECK(span.begin <= span.end);
          }
        CHECK(spans > 0);
      }
}

// No trace holds nothing, so there is nothing to keep up to date either.
static_assert(std::is_empty_v<NoTrace> && std::is_empty_v<NoTrace::Token>);

TEST_CASE("runs over links with a delay take as long as their simulation says") {
  Problem const problem{.seqlen = 192, .heads = 1};
  auto const compare = [&]<class Traits, Schedule S>(char const* name, Traits, S const& schedule, int ranks,
                                                     Pass pass, double rate) {
    using Attn = DistAttn<head_dim, Causal, S, Traits>;
    Planner const planner(schedule, Causal{}, ranks, problem.seqlen, Traits::route);
    Simulation const simulated =
        simulate(planner, pass, {1, 1, 1, head_dim, sizeof(float)}, topology(rate), sleeper(), true);
    LocalWorld world(ranks, links(rate));
    Run seen;
    for (int attempt = 0; attempt < 5 && (attempt == 0 || seen.seconds > 1.1 * simulated.makespan); ++attempt)
      if (Run next = run<Attn>(world, problem, schedule, pass, 64);
          attempt == 0 || next.seconds < seen.seconds)
        seen = std::move(next);
    double const best = seen.seconds;
    MESSAGE(sentence(name, ranks, " ranks, ", pass == Pass::forward ? "forward" : "backward", ": predicted ",
                     1e3 * simulated.makespan, " ms, measured ", 1e3 * best, " ms, waits for messages ",
                     100 * simulated.exposed_fraction(), " %"));
    CHECK(best >= 0.999 * simulated.makespan);
    // Not only the whole: each rank comes to each of its works when it should.
    std::map<std::pair<int, int>, double> begins;
    for (Span const& span : simulated.timeline)
      if (span.activity == Activity::work) begins[{span.rank, span.step}] = span.begin;
    double begin = 1e9, earliest = 0, latest = 0;
    std::size_t works = 0;
    for (Span const& span : seen.timeline) begin = std::min(begin, span.begin);
    for (Span const& span : seen.timeline) {
      if (span.activity != Activity::work) continue;
      ++works;
      double const late = span.begin - begin - begins.at({span.rank, span.step});
      earliest = std::min(earliest, late);
      latest = std::max(latest, late);
    }
    CHECK(works == begins.size());
    CHECK(earliest >= -0.001 * simulated.makespan);
#ifndef LIGHTSEQ_SANITIZED
    CHECK(best <= 1.2 * simulated.makespan);
    CHECK(latest <= 0.2 * simulated.makespan);
#endif
  };
  compare("Ring, ", SleeperTraits{}, Ring{}, 6, Pass::forward, fast);
  compare("ZigzagRing, relayed, ", RelayedSleeperTraits{}, ZigzagRing{}, 6, Pass::forward, fast);
  compare("StripedRing, ", SleeperTraits{}, StripedRing{}, 4, Pass::backward, fast);
  compare("TwoLevelZigzagRing, relayed, ", RelayedSleeperTraits{}, TwoLevelZigzagRing{2}, 6, Pass::forward,
          fast);
  compare("Balanced, ", SleeperTraits{}, Balanced{}, 5, Pass::backward, fast);
  compare("Balanced, ", SleeperTraits{}, Balanced{}, 6, Pass::forward, fast);
  compare("Balanced, slow links, ", SleeperTraits{}, Balanced{}, 6, Pass::forward, slow);
  compare("ZigzagRing, slow links, ", SleeperTraits{}, ZigzagRing{}, 6, Pass::forward, slow);
}

TEST_CASE("links that go back in time, or for ever, are refused") {
  CHECK_THROWS_WITH_AS(LocalWorld(2, {.link_bytes_per_second = -1}),
                       "lightseq: the links' rate is -1 bytes/s, it must not be negative", Error);
  for (auto const latency : {std::chrono::nanoseconds(-1), std::chrono::nanoseconds::max()})
    CHECK_THROWS_WITH_AS(
        LocalWorld(2, {.link_latency = latency}),
        sentence("lightseq: the links' latency is ", latency.count(), " ns, it must be between 0 and a year")
            .c_str(),
        Error);
}
