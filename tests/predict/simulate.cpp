// SPDX-License-Identifier: Apache-2.0
// The simulation of plans: closed forms, laws over random schedules and clusters, and what it counts.
#include "lightseq/predict/simulate.hpp"

#include <chrono>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "laws/schedule.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/schedule/two_level_ring.hpp"
#include "support/predict.hpp"
#include "support/schedules.hpp"

using namespace lightseq;
using std::int64_t;
using test::every_sharing, test::RandomCost;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// One batch, one head of dim 32 of float: tensors of 128 bytes a row, so that nothing is rounded up.
constexpr Extents simple{1, 1, 1, 32, 4};

/// Seconds of a visible pair in the forward where 1 FLOP takes 1 s.
constexpr double pair_seconds = 4 * 32;

ComputeModel flop_a_second() { return {.forward_flops = 1, .backward_flops = 1}; }

constexpr double kv_bytes(int64_t rows) { return 2.0 * 128 * static_cast<double>(rows); }
constexpr double q_bytes(int64_t rows) { return 128.0 * static_cast<double>(rows); }
double out_bytes(int64_t rows) {
  return static_cast<double>(simple.message_bytes(Payload::out, Pass::forward, rows));
}

doctest::Approx about(double value) { return doctest::Approx(value).epsilon(1e-12); }

/// Calls `check(planner, pass)` with random schedules, and with the library's, in worlds up to 12.
template <class Check>
void for_some_planners(Check check) {
  std::mt19937_64 random(test::run_seed());
  for (int world = 1; world <= 12; ++world)
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      int64_t const seqlen = std::uniform_int_distribution<int64_t>(1, 6 * world)(random);
      INFO("world ", world, ", seqlen ", seqlen, ", pass ", static_cast<int>(pass));
      check(Planner(test::random_table<Zigzag>(world, true, random), Causal{}, world, seqlen), pass);
      check(Planner(test::random_table<Striped>(world, true, random), Full{}, world, seqlen), pass);
      check(Planner(Balanced{}, Causal{}, world, seqlen), pass);
      check(Planner(Ring{}, SlidingWindow{9, 0}, world, seqlen), pass);
      check(Planner(ZigzagRing{}, Causal{}, world, seqlen, Route::neighbour), pass);
    }
}

template <class T>
struct OfElement : DefaultTraits {
  using Element = T;
};

/// A world of ranks whose first step holds the given messages and nothing else.
struct Messages {
  int ranks = 2;
  struct Message {
    int from, to;
  };
  std::vector<Message> list;
  int world() const { return ranks; }
  int steps() const { return 1; }
  Pass pass() const { return Pass::forward; }
  int64_t rows(int) const { return 1; }
  int64_t pairs(Work const&) const { return 0; }
  double tiles(Work const&, int64_t) const { return 0; }
  void fill(int rank, int, Step& out) const {
    out = {};
    for (auto const& m : list) {
      if (m.from == rank) out.sends.push_back({Payload::kv, rank, Rows::all, m.to});
      if (m.to == rank) out.recvs.push_back({Payload::kv, m.from, Rows::all, m.from});
    }
  }
};

}  // namespace

TEST_CASE("causal Ring on free links: the last rank has no rest, half of the others' time is lost") {
  for (int world = 1; world <= 40; ++world)
    for (int64_t const n : {1, 2, 6}) {
      Simulation const s =
          simulate(Planner(Ring{}, Causal{}, world, n * world), Pass::forward, simple, {}, flop_a_second());
      auto const pairs = static_cast<double>((world - 1) * n * n + n * (n + 1) / 2);
      auto const all = static_cast<double>(n * world * (n * world + 1) / 2);
      CHECK(s.makespan == about(pairs * pair_seconds));
      CHECK(s.flops == all * pair_seconds);
      CHECK(s.efficiency(1) == about(all / (pairs * world)));
      CHECK(s.idle_fraction() == doctest::Approx(1 - all / (pairs * world)).epsilon(1e-9));
      CHECK(s.exposed_fraction() == 0);
    }
}

TEST_CASE("causal Balanced on free links: every rank has its share of the pairs and no rest") {
  for (int world = 1; world <= 40; ++world)
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      int64_t const seqlen = 6 * world;
      Simulation const s =
          simulate(Planner(Balanced{}, Causal{}, world, seqlen), pass, simple, {}, flop_a_second());
      double const pairs = static_cast<double>(seqlen * (seqlen + 1) / 2) / world;
      CHECK(s.makespan == about(pairs * pair_seconds * (pass == Pass::forward ? 1 : 2.5)));
      CHECK(s.idle_fraction() == doctest::Approx(0).epsilon(1e-9));
    }
}

TEST_CASE("a ring takes its first step, then the longer of work and message for each but the last work") {
  for (int world = 2; world <= 16; ++world)
    for (Route const route : {Route::owner, Route::neighbour})
      for (double const seconds : {0.0, 100.0, 2047.0, 2048.0, 2049.0, 5000.0}) {
        int64_t const n = 4;
        double const work = static_cast<double>(n * n) * pair_seconds;  // 2048
        Link const link{kv_bytes(n) / seconds, 0};
        Topology const flat{.inside = link, .between = link};
        Simulation const s = simulate(Planner(Ring{}, Full{}, world, n * world, route), Pass::forward, simple,
                                      seconds > 0 ? flat : Topology{}, flop_a_second());
        double const expected = (world - 1) * std::max(work, seconds) + work;
        CHECK(s.makespan == about(expected));
        CHECK(s.exposed_fraction() ==
              doctest::Approx((world - 1) * std::max(0.0, seconds - work) / expected).epsilon(1e-9));
      }
}

TEST_CASE("without compute a ring is its messages one behind the other") {
  for (int world = 1; world <= 16; ++world) {
    Topology const flat{.inside = {10, 3}, .between = {1, 1}};
    Simulation const s = simulate(Planner(Ring{}, Full{}, world, 2 * world, Route::neighbour), Pass::forward,
                                  simple, flat, {});
    CHECK(s.makespan == about((world - 1) * (3 + kv_bytes(2) / 10)));
    CHECK(s.idle_fraction() == about(world > 1 ? 1 : 0));
    CHECK(s.exposed_fraction() == about(world > 1 ? 1 : 0));
  }
}

TEST_CASE("one link: keys one way and queries the other, then the helper's result") {
  Topology const flat{.inside = {16, 5}, .between = {1, 1}};
  for (int64_t const n : {2, 6, 100}) {
    Planner const planner(Balanced{}, Causal{}, 2, 2 * n);
    Simulation const free = simulate(planner, Pass::forward, simple, flat, {});
    CHECK(free.makespan == about(5 + std::max(kv_bytes(n), q_bytes(n / 2)) / 16 + 5 + out_bytes(n / 2) / 16));
    CHECK(free.inside[0].out == static_cast<int64_t>(kv_bytes(n) + out_bytes(n / 2)));
    CHECK(free.inside[1].out == static_cast<int64_t>(q_bytes(n / 2)));
    CHECK(free.inside[0].in == free.inside[1].out);
    CHECK(free.between[0].out + free.between[1].out == 0);
    Simulation const busy = simulate(planner, Pass::forward, simple, flat, flop_a_second());
    double const diagonal = static_cast<double>(n * (n + 1) / 2) * pair_seconds;
    double const half = static_cast<double>(n * (n / 2)) * pair_seconds;
    CHECK(busy.makespan ==
          about(std::max(diagonal, 5 + kv_bytes(n) / 16) + half + 5 + out_bytes(n / 2) / 16));
  }
}

TEST_CASE(
    "a two-level ring crosses nodes once in a node's ranks, on all ports at once; the flat one always") {
  for (int const per_node : {1, 2, 4, 8})
    for (int const nodes : {1, 2, 3, 8}) {
      int const world = per_node * nodes;
      Link const inside{100, 0}, between{10, 0};
      Topology const cluster{.ranks_per_node = per_node, .inside = inside, .between = between};
      auto const makespan = [&](auto schedule) {
        Planner const planner(schedule, Full{}, world, 2 * world, Route::neighbour);
        return simulate(planner, Pass::forward, simple, cluster, {}).makespan;
      };
      double const near = kv_bytes(2) / 100, far = kv_bytes(2) / 10;
      CHECK(makespan(TwoLevelRing{per_node}) == about((nodes - 1) * far + nodes * (per_node - 1) * near));
      if (nodes > 1 && per_node > 1) {
        // Every message waits for the slow one of the step before only where it depends on it: the ring as a
        // whole is as slow as the keys that cross most nodes, and no slower than crossing at every step.
        CHECK(makespan(Ring{}) <= (world - 1) * far * (1 + 1e-12));
        CHECK(makespan(Ring{}) > makespan(TwoLevelRing{per_node}));
      }
    }
}

TEST_CASE("messages share ports as the topology says") {
  double const c = kv_bytes(1) / 10;  // seconds of a message
  auto const makespan = [](Messages const& messages, int per_node, Sharing sharing) {
    Topology const cluster{
        .ranks_per_node = per_node, .inside = {1000, 0}, .between = {10, 2}, .sharing = sharing};
    return Simulator(messages, simple, cluster, ComputeModel{}).run().makespan;
  };
  Messages const fan_out{3, {{0, 1}, {0, 2}}}, fan_in{3, {{1, 0}, {2, 0}}}, swap{2, {{0, 1}, {1, 0}}};
  for (Messages const& fan : {fan_out, fan_in}) {
    CHECK(makespan(fan, 1, Sharing::none) == about(c + 2));
    CHECK(makespan(fan, 1, Sharing::rank) == about(2 * c + 2));
    CHECK(makespan(fan, 1, Sharing::node) == about(2 * c + 2));
  }
  for (Sharing const sharing : every_sharing) CHECK(makespan(swap, 1, sharing) == about(c + 2));
  Messages const side_by_side{4, {{0, 2}, {1, 3}}};  // nodes {0, 1} and {2, 3}
  CHECK(makespan(side_by_side, 2, Sharing::none) == about(c + 2));
  CHECK(makespan(side_by_side, 2, Sharing::rank) == about(c + 2));
  CHECK(makespan(side_by_side, 2, Sharing::node) == about(2 * c + 2));
  CHECK(makespan(side_by_side, 4, Sharing::node) == about(c / 100));
}

TEST_CASE("small launches leave multiprocessors without a tile") {
  ComputeModel compute = flop_a_second();
  compute.units = 10;
  compute.tile = 2;
  compute.launch = 3;
  auto const makespan = [&](int world, int64_t rows) {
    return simulate(Planner(Ring{}, Full{}, world, rows * world), Pass::forward, simple, {}, compute)
        .makespan;
  };
  CHECK(makespan(1, 20) == about(3 + 400 * pair_seconds));
  CHECK(makespan(1, 6) == about(3 + 36 * pair_seconds * 10 / 3));  // 3 tiles on 10 multiprocessors
  CHECK(makespan(2, 20) == about(6 + 800 * pair_seconds));
}

TEST_CASE("while messages travel they take multiprocessors from the work, and no longer") {
  ComputeModel compute = flop_a_second();
  compute.units = 10;
  compute.tile = 2;
  int64_t const n = 20;
  double const work = static_cast<double>(n * n) * pair_seconds;
  for (int const world : {1, 2, 3, 8})
    for (int const taken : {0, 1, 5, 9})
      for (double const share : {0.0, 0.1, 0.5, 0.99, 1.0, 1.5, 2.5, 12.0}) {
        INFO("world ", world, ", taken ", taken, ", share ", share);
        double const seconds = share * work, slowdown = 10.0 / (10 - taken);
        double const rate = share > 0 ? kv_bytes(n) / seconds : infinity;
        Topology const flat{.inside = {rate, 0}, .between = {1, 1}, .exchange_units = taken};
        Simulation const s =
            simulate(Planner(Ring{}, Full{}, world, n * world), Pass::forward, simple, flat, compute, true);
        double const slowed =
            work * slowdown <= seconds ? work * slowdown : seconds + work - seconds / slowdown;
        CHECK(s.makespan == about((world - 1) * std::max(slowed, seconds) + work));
        CHECK(s.ranks[0].work == about((world - 1) * slowed + work));
        double spans = 0;
        for (Span const& span : s.timeline)
          if (span.activity == Activity::work) spans += span.end - span.begin;
        CHECK(spans == about(world * s.ranks[0].work));
      }
}

TEST_CASE(
    "messages slow no work down by more than the multiprocessors that they take, and speed nothing up") {
  ComputeModel compute = flop_a_second();
  compute.units = 4;
  compute.tile = 1;
  Topology cluster{.inside = {1, 0}, .exchange_units = 2};
  RandomCost costs;
  for (int round = 0; round < 200; ++round) {
    cluster.inside.bytes_per_second = costs.number(1e-3, 1e3);
    int const world = 2 + round % 7;
    Planner const planner(Balanced{}, Causal{}, world, 5 * world);
    Simulation const slowed = simulate(planner, Pass::backward, simple, cluster, compute);
    Topology quiet = cluster;
    quiet.exchange_units = 0;
    Simulation const free = simulate(planner, Pass::backward, simple, quiet, compute);
    for (std::size_t rank = 0; rank < slowed.ranks.size(); ++rank) {
      CHECK(slowed.ranks[rank].work >= free.ranks[rank].work * (1 - 1e-12));
      CHECK(slowed.ranks[rank].work <= 2 * free.ranks[rank].work * (1 + 1e-12));
    }
    CHECK(slowed.makespan >= free.makespan * (1 - 1e-12));
    CHECK(slowed.makespan <= 2 * free.makespan * (1 + 1e-12));
  }
}

TEST_CASE("how other systems run a step: without overlap, with merges, more launches, and all together") {
  int64_t const n = 6;
  ComputeModel compute = flop_a_second();
  compute.launch = 7, compute.carry_bytes = 5, compute.memory_bytes = 11;
  double const work = static_cast<double>(n * n) * pair_seconds + 7, carry = 2 * q_bytes(n) / 5;
  for (int const world : {1, 2, 5})
    for (double const seconds : {1.0, 3000.0, 20000.0}) {
      Topology const flat{.inside = {kv_bytes(n) / seconds, 0}};
      Planner const planner(Ring{}, Full{}, world, n * world);
      auto const makespan = [&](Execution const& execution) {
        return simulate(planner, Pass::forward, simple, flat, compute, execution).makespan;
      };
      double const first = std::max(work, seconds), later = std::max(work + carry, seconds);
      double const last = world > 1 ? work + carry : 0;
      auto const all = [&](double begin, double middle, double end) {
        return world == 1 ? work : begin + (world - 2) * middle + end;
      };
      CHECK(makespan({}) == about(all(first, later, last)));
      CHECK(makespan({.overlapped = false}) == about(world * work + (world - 1) * (carry + seconds)));
      double const merge = 7 + 3 * q_bytes(n) / 11;
      CHECK(makespan({.fused_carry = false}) == about(all(first, first + merge, work + merge)));
      if (world > 1 && seconds > 1e4)
        CHECK(makespan({.kernels_per_work = 2}) == about(makespan({}) + 7));  // others are hidden
      if (seconds < 2) CHECK(makespan({.kernels_per_work = 3}) == about(makespan({}) + world * 2 * 7));
      CHECK(makespan({.synchronous = true}) == about(makespan({})));  // all ranks do the same
    }
}

TEST_CASE("synchronous ranks take the longest work of each step") {
  std::mt19937_64 random(test::run_seed());
  for (int world = 1; world <= 12; ++world) {
    Planner const planner(test::random_table<Zigzag>(world, true, random), Causal{}, world, 4 * world);
    std::vector<double> longest(static_cast<std::size_t>(planner.schedule_steps()) + 1);
    for (int rank = 0; rank < world; ++rank) {
      auto const plan = planner.plan(rank, Pass::forward);
      for (std::size_t step = 0; step < plan.steps.size(); ++step)
        if (auto const& work = plan.steps[step].work)
          longest[step] =
              std::max(longest[step], pair_seconds * static_cast<double>(visible_pairs(planner, *work)));
    }
    double sum = 0;
    for (double const seconds : longest) sum += seconds;
    Simulation const s = simulate(planner, Pass::forward, simple, {}, flop_a_second(), {.synchronous = true});
    CHECK(s.makespan == about(sum));
    for (RankCost const& rank : s.ranks) CHECK(rank.end == s.makespan);
    CHECK(s.makespan >= simulate(planner, Pass::forward, simple, {}, flop_a_second()).makespan * (1 - 1e-12));
  }
}

TEST_CASE("synchronous ranks wait for all at the end of a step, and not between its work and its messages") {
  std::mt19937_64 random(test::run_seed());
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  double const rate = 1e-3, latency = 50;
  Topology const free_ports{.inside = {rate, latency}, .sharing = Sharing::none};
  for (Pass const pass : {Pass::forward, Pass::backward})
    for (int world = 1; world <= 12; ++world) {
      Planner const planner(test::random_table<Zigzag>(world, true, random), Causal{}, world, 4 * world);
      auto const compute = flop_a_second();
      PlannedSteps steps(planner, pass);
      Step at;
      auto const work_of = [&](int rank, int step) {
        steps.fill(rank, step, at);
        ComputeModel::WorkSize size;
        if (at.work) size.pairs = static_cast<double>(visible_pairs(planner, *at.work));
        return compute.work_seconds(size, simple, pass, 0);
      };
      double sum = 0;
      for (int step = 0; step < steps.steps(); ++step) {
        double longest = 0;
        for (int rank = 0; rank < world; ++rank) {
          longest = std::max(longest, work_of(rank, step));
          for (Transfer const& t : std::vector(at.sends)) {
            int64_t const rows = row_span(t.rows, planner.shard(t.shard).rows()).count;
            double const seconds = static_cast<double>(simple.message_bytes(t.payload, pass, rows)) / rate;
            longest =
                std::max(longest, std::max(work_of(rank, step), work_of(t.peer, step)) + seconds + latency);
          }
        }
        sum += longest;
      }
      Simulation const s =
          simulate(planner, pass, simple, free_ports, compute, {.overlapped = false, .synchronous = true});
      CHECK(s.makespan == about(sum));
    }
}

TEST_CASE("results may have half as many bytes on their way; queries, keys and statistics have as many") {
  for (int const world : {2, 4, 8})
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      Planner const planner(Balanced{}, Causal{}, world, 64 * world);
      auto const rows = [&](int shard) { return planner.shard(shard).rows(); };
      int64_t saved = 0;
      for (int rank = 0; rank < world; ++rank)
        for (Step const& step : planner.plan(rank, pass).steps)
          for (Transfer const& t : step.sends)
            if (is_result(t.payload)) {
              Parts const part = parts(t.payload, pass);
              saved += (part.per_q_head + part.per_kv_head) * 64 * row_span(t.rows, rows(t.shard)).count;
            }
      auto const sent = [&](Execution const& execution) {
        int64_t sum = 0;
        for (auto const& rank : simulate(planner, pass, simple, {}, {}, execution).ranks)
          sum += rank.bytes_sent;
        return sum;
      };
      CHECK(saved > 0);
      CHECK(sent({}) - sent({.result_bytes = 2}) == saved);
    }
}

TEST_CASE("carries and merges are paid for") {
  ComputeModel compute{.carry_bytes = 2, .memory_bytes = 4, .launch = 1};
  Simulation const ring = simulate(Planner(Ring{}, Full{}, 3, 6), Pass::forward, simple, Topology{}, compute);
  CHECK(ring.makespan == about(3 + 2 * 2 * q_bytes(2) / 2));
  Simulation const pair =
      simulate(Planner(Balanced{}, Causal{}, 2, 8), Pass::forward, simple, Topology{}, compute);
  CHECK(pair.ranks[1].work == about(2 + 2 * q_bytes(2) / 2));
  CHECK(pair.ranks[0].work == about(2));
  CHECK(pair.ranks[1].merge == about(1 + 3 * q_bytes(2) / 4));
  CHECK(pair.ranks[0].merge == 0);
}

TEST_CASE("where receivers fetch, a message ends with their work") {
  Planner const planner(Ring{}, Causal{}, 2, 8);
  Topology cluster{.inside = {1e3, 1}};
  double const own = 10 * pair_seconds, other = 16 * pair_seconds, message = 1 + kv_bytes(4) / 1e3;
  Simulation const device = simulate(planner, Pass::forward, simple, cluster, flop_a_second());
  CHECK(device.ranks[0].end == about(std::max(own, message)));
  cluster.fetched_by_receiver = true;
  Simulation const host = simulate(planner, Pass::forward, simple, cluster, flop_a_second());
  CHECK(host.makespan == about(own + other));
  CHECK(simulate(planner, Pass::forward, simple, cluster, {}).makespan == about(message));

  // Of three ranks the first one sends its keys to the last one while that works and itself does not.
  Planner const three(Ring{}, Causal{}, 3, 12);
  CHECK(simulate(three, Pass::forward, simple, cluster, flop_a_second()).ranks[0].end == about(own + other));
  cluster.fetched_by_receiver = false;
  CHECK(simulate(three, Pass::forward, simple, cluster, flop_a_second()).ranks[0].end ==
        about(own + message));
}

TEST_CASE("nothing is lost: every rank's time, bytes and spans add up") {
  RandomCost costs;
  for_some_planners([&](auto const& planner, Pass pass) {
    int const world = planner.world();
    for (Sharing const sharing : every_sharing) {
      Simulation const s =
          simulate(planner, pass, simple, costs.topology(world, sharing), costs.compute(), true);
      std::vector<double> seen(static_cast<std::size_t>(world), 0);
      bool ordered = true;
      for (Span const& span : s.timeline) {
        ordered = ordered && span.begin <= span.end && span.end <= s.makespan;
        if (span.activity == Activity::work || span.activity == Activity::merge ||
            span.activity == Activity::wait)
          seen[static_cast<std::size_t>(span.rank)] += span.end - span.begin;
      }
      CHECK(ordered);
      int64_t out = 0, in = 0, sent = 0;
      int64_t pairs = 0;
      for (auto const* list : {&s.inside, &s.between})
        for (Traffic const& port : *list) out += port.out, in += port.in;
      for (int rank = 0; rank < world; ++rank) {
        RankCost const& r = s.ranks[static_cast<std::size_t>(rank)];
        CHECK(r.work + r.merge + r.peer_wait + r.message_wait == doctest::Approx(r.end));
        CHECK(seen[static_cast<std::size_t>(rank)] == doctest::Approx(r.end));
        auto const rows = [&](int shard) { return planner.shard(shard).rows(); };
        CHECK(r.bytes_sent == bytes_sent(planner.plan(rank, pass), simple, rows));
        CHECK(r.end <= s.makespan);
        sent += r.bytes_sent;
        pairs += r.pairs;
      }
      double in_steps = 0, work_in_steps = 0;
      for (StepCost const& step : s.steps) in_steps += step.seconds, work_in_steps += step.work;
      CHECK(in_steps == doctest::Approx(s.makespan));
      CHECK(work_in_steps == doctest::Approx(s.work_fraction() * s.makespan));
      CHECK(out == sent);
      CHECK(in == sent);
      Segment const all{0, planner.seqlen()};
      CHECK(pairs == s.pairs);
      CHECK(pairs == visible_pairs(planner.mask(), all, all));
    }
  });
}

TEST_CASE("steps made on demand and finished plans give the same") {
  RandomCost costs;
  for_some_planners([&](auto const& planner, Pass pass) {
    Topology const cluster = costs.topology(planner.world(), Sharing::rank);
    ComputeModel const compute = costs.compute();
    Simulation const a = simulate(planner, pass, simple, cluster, compute);
    Simulation const b = simulate(planner, test::all_plans(planner, pass), simple, cluster, compute);
    CHECK(a.makespan == b.makespan);
    for (std::size_t rank = 0; rank < a.ranks.size(); ++rank) CHECK(a.ranks[rank].end == b.ranks[rank].end);
  });
}

TEST_CASE(
    "no cluster is faster than its busiest rank and its busiest port, none slower than one after the other") {
  RandomCost costs;
  for_some_planners([&](auto const& planner, Pass pass) {
    for (Sharing const sharing : {Sharing::rank, Sharing::node}) {
      Topology const cluster = costs.topology(planner.world(), sharing);
      Simulation const s = simulate(planner, pass, simple, cluster, costs.compute(), true);
      test::check_serial_bounds(s, cluster);
    }
  });
}

TEST_CASE("without contention nothing that gets slower makes the whole faster; contention never helps") {
  RandomCost costs;
  for_some_planners([&](auto const& planner, Pass pass) {
    Topology const cluster = costs.topology(planner.world(), Sharing::none);
    ComputeModel const compute = costs.compute();
    double const makespan = simulate(planner, pass, simple, cluster, compute).makespan;
    auto const not_faster = [&](auto change) {
      Topology slower = cluster;
      ComputeModel slower_compute = compute;
      change(slower, slower_compute);
      CHECK(simulate(planner, pass, simple, slower, slower_compute).makespan >= makespan * (1 - 1e-12));
    };
    double const factor = costs.number(1, 20);
    not_faster([&](Topology& t, ComputeModel&) { t.inside.bytes_per_second /= factor; });
    not_faster([&](Topology& t, ComputeModel&) { t.between.bytes_per_second /= factor; });
    not_faster([&](Topology& t, ComputeModel&) { t.inside.latency += factor; });
    not_faster([&](Topology& t, ComputeModel&) { t.between.latency += factor; });
    // Messages that are fetched take no multiprocessors.
    if (cluster.exchange_units == 0)
      not_faster([&](Topology& t, ComputeModel&) { t.fetched_by_receiver = true; });
    not_faster([&](Topology& t, ComputeModel&) { t.sharing = Sharing::rank; });
    not_faster([&](Topology& t, ComputeModel&) { t.sharing = Sharing::node; });
    not_faster([&](Topology&, ComputeModel& c) { c.forward_flops /= factor; });
    not_faster([&](Topology&, ComputeModel& c) { c.backward_flops /= factor; });
    not_faster([&](Topology&, ComputeModel& c) { c.carry_bytes /= factor; });
    not_faster([&](Topology&, ComputeModel& c) { c.memory_bytes /= factor; });
    not_faster([&](Topology&, ComputeModel& c) { c.launch += factor; });
    for (double PairWeights::*const weight : {&PairWeights::hidden, &PairWeights::partial, &PairWeights::row})
      not_faster([&](Topology&, ComputeModel& c) {
        c.forward_weights.*weight += 1, c.backward_weights.*weight += 1;
      });
  });
}

TEST_CASE("a cluster on which everything takes four times as long takes four times as long") {
  RandomCost costs;
  for_some_planners([&](auto const& planner, Pass pass) {
    for (Sharing const sharing : every_sharing) {
      Topology cluster = costs.topology(planner.world(), sharing);
      ComputeModel compute = costs.compute();
      double const makespan = simulate(planner, pass, simple, cluster, compute).makespan;
      for (Link* const link : {&cluster.inside, &cluster.between})
        link->bytes_per_second /= 4, link->latency *= 4;
      for (double* const rate :
           {&compute.forward_flops, &compute.backward_flops, &compute.carry_bytes, &compute.memory_bytes})
        *rate /= 4;
      compute.launch *= 4;
      CHECK(simulate(planner, pass, simple, cluster, compute).makespan == 4 * makespan);
    }
  });
}

TEST_CASE("4096 ranks and a hundred million tokens take seconds, and no memory to speak of") {
#ifdef LIGHTSEQ_SANITIZED
  int const world = 256;
#else
  int const world = 4096;
#endif
  int64_t const seqlen = 24576 * int64_t{world};
  auto const begin = std::chrono::steady_clock::now();
  Simulation const s = simulate(Planner(Balanced{}, Causal{}, world, seqlen), Pass::forward, simple, {},
                                {.forward_flops = 1e15, .backward_flops = 1e15});
  std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - begin;
  double const pairs = static_cast<double>(seqlen) * static_cast<double>(seqlen + 1) / 2;
  CHECK(s.makespan == doctest::Approx(pairs / world * pair_seconds * 1e-15).epsilon(1e-9));
  CHECK(s.idle_fraction() == doctest::Approx(0).epsilon(1e-9));
  CHECK(seconds.count() < 10);
}

TEST_CASE("sizes up to those that fit in 63 bits have an answer, larger ones an Error") {
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  int64_t const rows = max_simulated_seqlen / 64, batch = most / (rows * 8 * 128 * most_bytes_an_element);
  Topology const nodes{
      .ranks_per_node = 32, .inside = {1e9, 0}, .between = {1e9, 0}, .sharing = Sharing::node};
  auto const check = [&]<Schedule S>(S const& schedule, int64_t seqlen, Extents const& extents) {
    Planner const planner(schedule, Causal{}, 64, seqlen);
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      Simulation const s = simulate(planner, pass, extents, nodes, h100());
      CHECK(std::isfinite(s.makespan));
      CHECK(s.makespan > 0);
      for (RankCost const& rank : s.ranks) {
        CHECK(rank.bytes_sent >= 0);
        CHECK(rank.workspace_bytes >= 0);
      }
      for (auto const* list : {&s.inside, &s.between})
        for (Traffic const& port : *list) CHECK((port.in >= 0 && port.out >= 0));
      auto const of = [&](int shard) { return planner.shard(shard).rows(); };
      CHECK(bytes_sent(planner.plan(63, pass), extents, of) == s.ranks[63].bytes_sent);
    }
  };
  for (int64_t const element_bytes : {2, 4}) {
    check(Balanced{}, max_simulated_seqlen, {batch, 8, 8, 128, element_bytes});
    check(Ring{}, max_simulated_seqlen, {batch, 8, 8, 128, element_bytes});
    check(StripedRing{}, 64, {batch * rows, 8, 2, 128, element_bytes});
    check(ZigzagRing{}, 1, {batch * rows, 8, 8, 128, element_bytes});
  }
  Planner const planner(Ring{}, Causal{}, 64, max_simulated_seqlen);
  CHECK_THROWS_AS(simulate(planner, Pass::forward, {batch + 1, 8, 8, 128, 2}, nodes, h100()), Error);
  CHECK_THROWS_AS(simulate(planner, Pass::forward, {1, most, 8, 128, 2}, nodes, h100()), Error);
  CHECK_THROWS_AS(simulate(planner, Pass::forward, {1, 8, most / 2, 128, 2}, nodes, h100()), Error);
  ComputeModel huge = h100();
  huge.tile = most;
  CHECK(std::isfinite(simulate(planner, Pass::forward, simple, nodes, huge).makespan));
}

TEST_CASE("with multiprocessors a work takes the time of its tiles, visible in whole or in part") {
  ComputeModel compute = flop_a_second();
  compute.units = 1, compute.tile = 4;
  auto const seconds = [&](auto const& mask, int64_t tokens) {
    return simulate(Planner(Ring{}, mask, 1, tokens), Pass::forward, simple, {}, compute).makespan;
  };
  CHECK(seconds(Full{}, 8) == about(4 * 16 * pair_seconds));
  CHECK(seconds(Causal{}, 8) == about(3 * 16 * pair_seconds));
  CHECK(seconds(SlidingWindow{0, 0}, 8) == about(2 * 16 * pair_seconds));
  CHECK(seconds(Causal{}, 9) == about(6 * 16 * pair_seconds));
  CHECK(seconds(test::EqualDocuments{2, true}, 8) == about(2 * 16 * pair_seconds));

  // Hidden pairs of tiles that the mask cuts may take longer than visible ones; rows that fill up a tile of a
  // full mask do not.
  compute.forward_weights.hidden = 3;
  CHECK(seconds(Full{}, 9) == about(9 * 16 * pair_seconds));
  CHECK(seconds(Causal{}, 8) == about((36 + 3 * 12) * pair_seconds));
  CHECK(seconds(SlidingWindow{0, 0}, 8) == about((8 + 3 * 24) * pair_seconds));
}

TEST_CASE_TEMPLATE("the workspace is DistAttn's, less the kernels' scratch", T, float, bfloat16) {
  auto const check = [&]<Schedule S>(S const& schedule) {
    for (int const ranks : {1, 2, 3, 4, 7, 8}) {
      LocalWorld world(ranks);
      Problem const problem{.batch = 2, .seqlen = 5 * ranks + 1, .heads = 4, .kv_heads = 2};
      Planner const planner(schedule, Causal{}, ranks, problem.seqlen);
      for (Pass const pass : {Pass::forward, Pass::backward}) {
        Simulation const s = simulate(planner, pass, {2, 4, 2, 16, sizeof(T)}, {}, {});
        for (int rank = 0; rank < ranks; ++rank) {
          DistAttn<16, Causal, S, OfElement<T>> const attn(world[rank], problem, {}, schedule);
          Arena scratch;
          scratch.take(pass == Pass::forward ? host::forward_scratch_bytes<16>()
                                             : host::backward_scratch_bytes<16>());
          CHECK(s.ranks[static_cast<std::size_t>(rank)].workspace_bytes + scratch.bytes() ==
                attn.workspace_bytes(pass));
        }
      }
    }
  };
  check(Balanced{});
  check(Ring{});
  check(ZigzagRing{});
}

TEST_CASE("of the first ranks the timeline is that of all ranks without the others") {
  Planner const planner(Balanced{}, Causal{}, 9, 9000);
  auto const timeline = [&](TimelineOf of) {
    return simulate(planner, Pass::backward, {1, 4, 2, 64, 2}, {.inside = {1e10, 1e-6}}, h100(), of).timeline;
  };
  Timeline const all = timeline(true);
  CHECK(timeline(false).empty());
  for (int const ranks : {0, 1, 4, 9, 20}) {
    Timeline const some = timeline(TimelineOf::first(ranks));
    std::size_t next = 0;
    for (Span const& span : all) {
      if (span.rank >= ranks) continue;
      REQUIRE(next < some.size());
      CHECK(some[next].rank == span.rank);
      CHECK(some[next].begin == span.begin);
      CHECK(some[next].activity == span.activity);
      ++next;
    }
    CHECK(next == some.size());
  }
}

TEST_CASE("impossible clusters and models are refused, with the numbers") {
  double const nan = std::nan("");
  auto const refused = [](Topology const& topology, ComputeModel const& compute, char const* sentence) {
    Planner const planner(Ring{}, Full{}, 12, 24);
    CHECK_THROWS_WITH_AS(simulate(planner, Pass::forward, simple, topology, compute), sentence, Error);
  };
  auto const bad = [&](Topology const& topology, char const* sentence) { refused(topology, {}, sentence); };
  bad({.ranks_per_node = 5}, "lightseq: there are 5 ranks in a node, which do not divide a world of 12");
  bad({.ranks_per_node = -1}, "lightseq: there are -1 ranks in a node, which do not divide a world of 12");
  bad({.ranks_per_node = 24}, "lightseq: there are 24 ranks in a node, which do not divide a world of 12");
  bad({.inside = {0, 0}}, "lightseq: the bandwidth inside nodes is 0 bytes/s, it must be positive");
  bad({.between = {-2, 0}}, "lightseq: the bandwidth between nodes is -2 bytes/s, it must be positive");
  bad({.between = {nan, 0}}, "lightseq: the bandwidth between nodes is nan bytes/s, it must be positive");
  bad({.inside = {1, -1}}, "lightseq: the latency inside nodes is -1 s, it must be finite and not negative");
  bad({.between = {1, infinity}},
      "lightseq: the latency between nodes is inf s, it must be finite and not negative");
  bad({.exchange_units = -1},
      "lightseq: the exchange takes -1 multiprocessors, it must not be less than none");
  refused({}, {.forward_flops = 0}, "lightseq: the forward rate is 0 FLOP/s, it must be positive");
  refused({}, {.backward_flops = -1}, "lightseq: the backward rate is -1 FLOP/s, it must be positive");
  refused({}, {.carry_bytes = nan}, "lightseq: the carry rate is nan bytes/s, it must be positive");
  refused({}, {.memory_bytes = 0}, "lightseq: the memory rate is 0 bytes/s, it must be positive");
  refused({}, {.launch = -1}, "lightseq: a launch takes -1 s, it must be finite and not negative");
  refused({}, {.launch = infinity}, "lightseq: a launch takes inf s, it must be finite and not negative");
  refused({}, {.forward_weights = {.hidden = -1}},
          "lightseq: a hidden pair takes -1 times a visible one, it must be finite and not negative");
  refused({}, {.units = -1}, "lightseq: there are -1 multiprocessors and tiles of 128 rows");
  refused({.exchange_units = 4}, {.units = 4},
          "lightseq: the exchange takes 4 of 4 multiprocessors, which leaves none");

  Planner const planner(Ring{}, Full{}, 12, 24);
  auto const executed = [&](Execution const& execution) {
    static_cast<void>(simulate(planner, Pass::forward, simple, {}, {}, execution));
  };
  CHECK_THROWS_WITH_AS(executed({.kernels_per_work = 0}),
                       "lightseq: a work has 0 kernels, it must have at least 1", Error);
  CHECK_THROWS_WITH_AS(executed({.result_bytes = 1}),
                       "lightseq: an element of a result has 1 bytes on its way, it must have 2 or 4", Error);
  for (Extents const& sizes : {Extents{0, 1, 1, 8, 4}, {1, 0, 1, 8, 4}, {1, 1, -1, 8, 4}, {1, 1, 1, 0, 4}})
    CHECK_THROWS_AS(simulate(planner, Pass::forward, sizes, {}, {}), Error);
  CHECK_THROWS_WITH_AS(simulate(planner, Pass::forward, {1, 1, 1, 8, -4}, {}, {}),
                       "lightseq: bytes of an element: -4, must be at least 1", Error);
}
