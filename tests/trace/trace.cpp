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
#include "lightseq/predict/simulate_packed.hpp"
#include "lightseq/testing/packed.hpp"
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

/// Runs `pass_of(comm, trace)`, which gives a Status, on all ranks.
template <class PassOf>
Run run_all(LocalWorld& world, std::size_t room, PassOf const& pass_of) {
  auto const ranks = static_cast<std::size_t>(world.world());
  std::vector<Span> memory(ranks * room);
  std::vector<std::span<Span const>> noted(ranks);
  std::vector<std::string> failures(ranks);
  Run result;
  result.complete.resize(ranks);
  std::vector<char> complete(ranks);
  auto const origin = HostTrace::Clock::now();
  run_ranks(world, [&](Local& comm) {
    auto const rank = static_cast<std::size_t>(comm.rank());
    std::span<Span> const all(memory);
    HostTrace trace(all.subspan(rank * room, room), origin);
    Status const status = pass_of(comm, trace);
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

/// A pass of one rank on its part of a sequence; `batch` is nothing, or what is planned for the batch.
template <class Attn, class Part, class... Batch>
Status run_pass(Attn& attn, Pass pass, Part& part, HostTrace& trace, Batch const&... batch) {
  std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
  return pass == Pass::forward
             ? attn.forward(part.inputs(), part.outputs(), workspace, batch..., {}, trace)
             : attn.backward(part.backward_inputs(), part.gradients(), workspace, batch..., {}, trace);
}

template <class Attn, Schedule S>
Run run(LocalWorld& world, Problem const& problem, S const& schedule, Pass pass, std::size_t room) {
  auto const whole = testing::random_sequence<float>(problem, head_dim, test::stream_seed(3));
  return run_all(world, room, [&](Local& comm, HostTrace& trace) {
    Attn attn(comm, problem, {}, schedule);
    auto part = testing::part_of(whole, attn.positions());
    return run_pass(attn, pass, part, trace);
  });
}

/// The same of a pack.
Run run_packed(LocalWorld& world, Problem const& problem, DocumentEnds const& documents, Pass pass) {
  auto const whole = testing::random_sequence<float>(problem, head_dim, test::stream_seed(3));
  return run_all(world, 64, [&](Local& comm, HostTrace& trace) {
    DistAttn<head_dim, Documents<Causal>, PackedRing, SleeperTraits> attn(comm, problem);
    PackedBatch batch = attn.batch();
    CHECK(attn.plan(documents, batch).empty());
    auto part = testing::part_of(whole, testing::OwnTokens{batch.pieces(), comm.rank()});
    return run_pass(attn, pass, part, trace, batch);
  });
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

namespace {

/// Whether the best of some runs takes as long as its simulation, and each rank comes to each of its works
/// when it should. A work without pairs is in no simulation.
template <class RunOnce>
void compare(std::string const& name, Simulation const& simulated, RunOnce const& run_once) {
  Run seen;
  for (int attempt = 0; attempt < 5 && (attempt == 0 || seen.seconds > 1.1 * simulated.makespan); ++attempt)
    if (Run next = run_once(); attempt == 0 || next.seconds < seen.seconds) seen = std::move(next);
  double const best = seen.seconds;
  MESSAGE(sentence(name, simulated.ranks.size(), " ranks, ", lightseq::name(simulated.pass), ": predicted ",
                   1e3 * simulated.makespan, " ms, measured ", 1e3 * best, " ms, waits for messages ",
                   100 * simulated.exposed_fraction(), " %"));
  CHECK(best >= 0.999 * simulated.makespan);
  std::map<std::pair<int, int>, double> begins;
  for (Span const& span : simulated.timeline)
    if (span.activity == Activity::work) begins[{span.rank, span.step}] = span.begin;
  double begin = 1e9, earliest = 0, latest = 0;
  std::size_t works = 0;
  for (Span const& span : seen.timeline) begin = std::min(begin, span.begin);
  for (Span const& span : seen.timeline) {
    if (span.activity != Activity::work || !begins.contains({span.rank, span.step})) continue;
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
}

constexpr Extents one_head{1, 1, 1, head_dim, sizeof(float)};

}  // namespace

TEST_CASE("runs over links with a delay take as long as their simulation says") {
  Problem const problem{.seqlen = 192, .heads = 1};
  auto const check = [&]<class Traits, Schedule S>(char const* name, Traits, S const& schedule, int ranks,
                                                   Pass pass, double rate) {
    Planner const planner(schedule, Causal{}, ranks, problem.seqlen, Traits::route);
    LocalWorld world(ranks, links(rate));
    compare(name, simulate(planner, pass, one_head, topology(rate), sleeper(), true),
            [&] { return run<DistAttn<head_dim, Causal, S, Traits>>(world, problem, schedule, pass, 64); });
  };
  check("Ring, ", SleeperTraits{}, Ring{}, 6, Pass::forward, fast);
  check("ZigzagRing, relayed, ", RelayedSleeperTraits{}, ZigzagRing{}, 6, Pass::forward, fast);
  check("StripedRing, ", SleeperTraits{}, StripedRing{}, 4, Pass::backward, fast);
  check("TwoLevelZigzagRing, relayed, ", RelayedSleeperTraits{}, TwoLevelZigzagRing{2}, 6, Pass::forward,
        fast);
  check("Balanced, ", SleeperTraits{}, Balanced{}, 5, Pass::backward, fast);
  check("Balanced, ", SleeperTraits{}, Balanced{}, 6, Pass::forward, fast);
  check("Balanced, slow links, ", SleeperTraits{}, Balanced{}, 6, Pass::forward, slow);
  check("ZigzagRing, slow links, ", SleeperTraits{}, ZigzagRing{}, 6, Pass::forward, slow);
}

TEST_CASE("packs over links with a delay take as long as their simulation says") {
  Problem const problem{.seqlen = 240, .heads = 1};
  std::vector<std::int64_t> const mixed{110, 118, 170, 171, 215, 240}, one{120};
  auto const check = [&](char const* name, DocumentEnds const& documents, int ranks, Pass pass, double rate) {
    auto const plans = packed_plans(documents, problem.seqlen, ranks);
    LocalWorld world(ranks, links(rate));
    compare(name, simulate(plans, Causal{}, pass, one_head, topology(rate), sleeper(), true),
            [&] { return run_packed(world, problem, documents, pass); });
  };
  check("mixed documents, ", mixed, 6, Pass::forward, fast);
  check("mixed documents, slow links, ", mixed, 6, Pass::forward, slow);
  check("mixed documents, ", mixed, 5, Pass::backward, fast);
  check("one document, ", one, 4, Pass::backward, fast);
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
