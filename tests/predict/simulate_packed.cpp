// SPDX-License-Identifier: Apache-2.0
// The simulation of plans for packs: closed forms, and laws over random packs, tables and clusters.
#include "lightseq/predict/simulate_packed.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/mask/documents.hpp"
#include "lightseq/packed_attn.hpp"
#include "lightseq/trace/chrome_trace.hpp"
#include "lightseq/trace/gantt.hpp"
#include "support/data.hpp"
#include "support/predict.hpp"
#include "support/random_pieces.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

/// Keys and values of 64 bytes a row in the forward; their gradients have 128.
constexpr Extents sizes{1, 2, 1, 16, 2};

/// FLOPs of a visible pair in the forward.
constexpr double pair_flops = 4 * 2 * 16;

doctest::Approx about(double value) { return doctest::Approx(value).epsilon(1e-9); }

std::size_t index(int64_t i) { return static_cast<std::size_t>(i); }

std::vector<PackedPlan> plans_of(Pieces const& pieces) {
  std::vector<PackedPlan> plans;
  for (int rank = 0; rank < pieces.world(); ++rank) {
    plans.emplace_back(rank, pieces.world(), pieces.max_pieces(), pieces.max_rows());
    plans.back().assign(pieces);
  }
  return plans;
}

/// A pack with a cluster and a model.
struct Case {
  std::vector<int64_t> ends;
  std::vector<PackedPlan> plans;
  Pass pass;
  Topology topology;
  ComputeModel compute;

  int world() const { return static_cast<int>(plans.size()); }
  Simulation run(Topology const& on, ComputeModel const& with) const {
    return simulate(plans, Causal{}, pass, sizes, on, with, true);
  }
  Simulation run() const { return run(topology, compute); }
};

/// Calls `check(case)` with random packs in worlds of 1 to 8, dealt out evenly and at random.
template <class Check>
void for_some_packs(Check check) {
  std::mt19937_64 random(test::run_seed());
  auto const number = [&](double least, double most) {
    return std::exp(std::uniform_real_distribution<double>(std::log(least), std::log(most))(random));
  };
  for (int world = 1; world <= 8; ++world)
    for (int round = 0; round < 14; ++round) {
      test::RandomPieces const pack(round, world, 1500, random);
      Link const inside{number(1e2, 1e5), number(1e-3, 10)}, between{number(1e2, 1e5), number(1e-3, 10)};
      Case const one{.ends = pack.ends,
                     .plans = plans_of(pack.pieces),
                     .pass = round / 2 % 2 == 0 ? Pass::forward : Pass::backward,
                     .topology = {.ranks_per_node = world % 2 == 0 ? world / 2 : world,
                                  .inside = inside,
                                  .between = between,
                                  .sharing = static_cast<Sharing>(random() % 3),
                                  .fetched_by_receiver = random() % 4 == 0},
                     .compute = {.forward_flops = number(1e4, 1e7),
                                 .backward_flops = number(1e4, 1e7),
                                 .carry_bytes = number(1e3, 1e6),
                                 .memory_bytes = number(1e3, 1e6),
                                 .launch = number(1e-3, 1),
                                 .units = static_cast<int>(random() % 2),
                                 .tile = 16}};
      INFO("world ", world, ", round ", round);
      check(one);
    }
}

/// Calls `visit(step, number)` for the steps of a plan that have work, and for its whole documents.
template <class Visit>
void for_each_work(PackedPlan const& plan, Visit visit) {
  if (!plan.whole().empty()) visit(plan.whole(), 0);
  for (int step = 0; step < plan.steps(); ++step)
    if (!plan[step].empty()) visit(plan[step], step);
}

/// Calls `visit(queries, keys)`, rows both, for the pairs of a step that are visible.
template <class Visit>
void for_each_pair(PackedStep const& step, Visit visit) {
  for (RowRun const& q : step.queries)
    for (RowRun const& k : step.keys.subspan(index(q.first), index(q.end - q.first)))
      for (int64_t i = 0; i < q.rows; ++i)
        for (int64_t j = 0; j < k.rows && k.position + j <= q.position + i; ++j) visit(q.row + i, k.row + j);
}

}  // namespace

TEST_CASE("ranks are busy with the visible pairs or tiles of their steps, launches and carries, no more") {
  for_some_packs([](Case const& c) {
    bool const forward = c.pass == Pass::forward;
    Simulation const s = c.run();
    int64_t all_pairs = 0;
    for (int rank = 0; rank < c.world(); ++rank) {
      PackedPlan const& plan = c.plans[index(rank)];
      double seconds = 0;
      int last = 0;
      for_each_work(plan, [&](PackedStep const&, int step) { last = std::max(last, step); });
      for_each_work(plan, [&](PackedStep const& what, int step) {
        std::vector<std::pair<int64_t, int64_t>> tiles;
        int64_t pairs = 0;
        bool const all = step == 0 || (forward && step == last);
        bool const whole = what.queries.data() == plan.whole().queries.data();
        int64_t const first = whole ? plan.shared_rows() : all ? 0 : what.query_rows().begin;
        int64_t const rows = whole ? plan.rows() - first : all ? plan.shared_rows() : what.query_rows().rows;
        for_each_pair(what, [&](int64_t q, int64_t k) {
          ++pairs;
          std::pair const tile((q - first) / 16, (k - what.key_rows.begin) / 16);
          if (tiles.empty() || tiles.back() != tile) tiles.push_back(tile);
        });
        all_pairs += pairs;
        std::sort(tiles.begin(), tiles.end());
        tiles.erase(std::unique(tiles.begin(), tiles.end()), tiles.end());
        double const counted =
            c.compute.units > 0 ? 256 * static_cast<double>(tiles.size()) : static_cast<double>(pairs);
        double const carried = 4.0 * 32 * 2 * static_cast<double>(rows);
        double const zeroed = 4.0 * 16 * 2 * static_cast<double>(what.key_rows.rows);
        seconds += c.compute.launch + (forward ? counted * pair_flops / c.compute.forward_flops
                                               : 2.5 * counted * pair_flops / c.compute.backward_flops);
        if (step > 0) seconds += forward ? carried / c.compute.carry_bytes : zeroed / c.compute.memory_bytes;
      });
      CHECK(s.ranks[index(rank)].work == about(seconds));
    }
    int64_t visible = 0;
    for (int64_t begin = 0; int64_t const end : c.ends)
      visible += (end - begin) * (end - begin + 1) / 2, begin = end;
    CHECK(all_pairs == visible);
    CHECK(s.pairs == visible);
    CHECK(s.flops == static_cast<double>(visible) * pair_flops * (forward ? 1 : 2.5));
  });
}

TEST_CASE("the rows of the plans travel, there and back") {
  for_some_packs([](Case const& c) {
    bool const forward = c.pass == Pass::forward;
    Simulation const s = c.run();
    int64_t out = 0, in = 0, sent = 0;
    for (auto const* ports : {&s.inside, &s.between})
      for (Traffic const& port : *ports) out += port.out, in += port.in;
    std::size_t messages = 0, seen = 0;
    for (int rank = 0; rank < c.world(); ++rank) {
      PackedPlan const& plan = c.plans[index(rank)];
      int64_t rows_sent = 0, rows_received = 0;
      for (RowTransfer const& t : plan.sends()) rows_sent += t.rows;
      for (RowTransfer const& t : plan.recvs()) rows_received += t.rows;
      messages += (plan.sends().size() + plan.recvs().size()) * (forward ? 1 : 2);
      CHECK(s.ranks[index(rank)].bytes_sent == 64 * rows_sent + (forward ? 0 : 128 * rows_received));
      CHECK(s.ranks[index(rank)].kv_rows_received == rows_received);
      sent += s.ranks[index(rank)].bytes_sent;
    }
    for (Span const& span : s.timeline)
      seen += span.activity == Activity::send || span.activity == Activity::receive;
    CHECK(seen == messages);
    CHECK(out == sent);
    CHECK(in == sent);
  });
}

TEST_CASE("all gradients are added, in parts where the inbox is too small for them") {
  int parts = 0;
  for_some_packs([&](Case const& c) {
    Simulation const s = c.run();
    std::map<std::pair<int, int>, int> merges;
    for (Span const& span : s.timeline)
      if (span.activity == Activity::merge) parts += merges[{span.rank, span.step}]++ > 0;
    for (int rank = 0; rank < c.world(); ++rank) {
      double seconds = 0;
      if (c.pass == Pass::backward)
        for (RowTransfer const& t : c.plans[index(rank)].sends())
          seconds += c.compute.launch + 3 * 4 * 2 * 16 * static_cast<double>(t.rows) / c.compute.memory_bytes;
      CHECK(s.ranks[index(rank)].merge == about(seconds));
    }
  });
  CHECK(parts > 0);
}

TEST_CASE("nothing is lost: every rank's time, spans and steps add up, and again the same") {
  for_some_packs([](Case const& c) {
    Simulation const s = c.run();
    std::vector<double> seen(index(c.world()), 0);
    double in_steps = 0, work_in_steps = 0;
    for (Span const& span : s.timeline) {
      CHECK((span.begin <= span.end && span.end <= s.makespan));
      if (span.activity == Activity::work || span.activity == Activity::merge ||
          span.activity == Activity::wait)
        seen[index(span.rank)] += span.end - span.begin;
    }
    for (int rank = 0; rank < c.world(); ++rank) {
      RankCost const& r = s.ranks[index(rank)];
      CHECK(r.work + r.merge + r.peer_wait + r.message_wait == about(r.end));
      CHECK(seen[index(rank)] == about(r.end));
    }
    for (StepCost const& step : s.steps) {
      in_steps += step.seconds, work_in_steps += step.work;
      CHECK((0 <= step.work_fraction() && step.work_fraction() <= 1));
    }
    CHECK(in_steps == about(s.makespan));
    CHECK(work_in_steps == about(s.work_fraction() * s.makespan));
    CHECK(std::ssize(s.steps) <= c.plans[0].steps() + (c.pass == Pass::backward ? 1 : 0));

    Simulation const again = c.run();
    CHECK(again.makespan == s.makespan);
    REQUIRE(again.timeline.size() == s.timeline.size());
    auto const numbers = [](Span const& span) {
      return std::tuple(span.activity, span.rank, span.step, span.begin, span.end, span.message.peer);
    };
    CHECK(std::equal(s.timeline.begin(), s.timeline.end(), again.timeline.begin(),
                     [&](Span const& a, Span const& b) { return numbers(a) == numbers(b); }));
  });
}

TEST_CASE("no cluster is faster than its busiest rank and port, none slower than one after the other") {
  for_some_packs([](Case const& c) {
    Simulation const s = c.run();
    test::check_serial_bounds(s, c.topology);
  });
}

TEST_CASE("without contention nothing that gets slower makes the whole faster; contention never helps") {
  for_some_packs([](Case const& c) {
    Topology free = c.topology;
    free.sharing = Sharing::none;
    free.fetched_by_receiver = false;
    double const makespan = c.run(free, c.compute).makespan;
    auto const not_faster = [&](auto change) {
      Topology slower = free;
      ComputeModel slower_compute = c.compute;
      change(slower, slower_compute);
      CHECK(c.run(slower, slower_compute).makespan >= makespan * (1 - 1e-12));
    };
    not_faster([](Topology& t, ComputeModel&) { t.inside.bytes_per_second /= 3; });
    not_faster([](Topology& t, ComputeModel&) { t.between.latency += 3; });
    not_faster([](Topology& t, ComputeModel&) { t.fetched_by_receiver = true; });
    not_faster([](Topology& t, ComputeModel&) { t.sharing = Sharing::rank; });
    not_faster([](Topology& t, ComputeModel&) { t.sharing = Sharing::node; });
    not_faster([](Topology&, ComputeModel& m) { m.forward_flops /= 3, m.backward_flops /= 3; });
    not_faster([](Topology&, ComputeModel& m) { m.memory_bytes /= 3, m.carry_bytes /= 3; });
    not_faster([](Topology&, ComputeModel& m) { m.launch *= 3; });
  });
}

TEST_CASE("where receivers fetch, the work of a round begins with its last group") {
  int before = 0;
  for_some_packs([&](Case const& c) {
    if (c.pass == Pass::backward) return;  // what returns after the work has groups of its own
    Topology topology = c.topology;
    topology.fetched_by_receiver = true;
    Simulation const s = c.run(topology, c.compute);
    std::map<std::pair<int, int>, double> works;
    std::map<std::pair<int, int>, std::size_t> beside;
    for (Span const& span : s.timeline)
      if (span.activity == Activity::work) works[{span.rank, span.step}] = span.begin;
    for (Span const& span : s.timeline) {
      if (span.activity != Activity::send || !works.contains({span.rank, span.step})) continue;
      bool const is_beside = span.end > works.at({span.rank, span.step});
      before += !is_beside;
      beside[{span.rank, span.step}] += is_beside;
    }
    for (auto const& [work, messages] : beside) CHECK(messages <= RowGroup::max_messages);
  });
  CHECK(before > 0);
}

TEST_CASE("two ranks of one document: own keys beside the messages, then the other's, then gradients") {
  // Of four chunks of 128 rows rank 0 has the first and the last, which see 256 foreign keys and are seen by
  // 256 foreign queries; rank 1 needs 128 rows, in a group with those.
  std::vector<int64_t> const ends{512};
  auto const plans = packed_plans(ends, 512, 2);
  double const square = 128 * 128 * pair_flops, triangle = 128 * 129 / 2 * pair_flops;
  double const own_0 = 2 * triangle + square, other_0 = 2 * square, other_1 = 2 * square;
  for (double const latency : {0.0, 1e6, 1e7}) {
    Topology topology{.inside = {1e-2, latency}};
    double const keys = 256 * 64 / 1e-2 + latency, gradients = 256 * 128 / 1e-2 + latency;
    auto const run = [&](Pass pass, ComputeModel const& compute) {
      return simulate(plans, Causal{}, pass, sizes, topology, compute);
    };
    ComputeModel const second{.forward_flops = 1, .backward_flops = 2.5};
    CHECK(run(Pass::forward, second).makespan == about(std::max(own_0, keys) + other_0));
    CHECK(run(Pass::backward, second).makespan == about(std::max(own_0, keys) + other_0 + gradients));
    // Rank 1 adds 256 rows of gradients, rank 0 the other 128.
    ComputeModel const memory{.memory_bytes = 1e-3};
    Simulation const s = run(Pass::backward, memory);
    double const zeros_0 = 256 * 128 / 1e-3, zeros_1 = 128 * 128 / 1e-3;
    CHECK(s.ranks[0].work == about(zeros_0));
    CHECK(s.ranks[1].work == about(zeros_1));
    CHECK(s.ranks[1].merge == about(3 * 256 * 128 / 1e-3));
    CHECK(s.makespan == about(keys + zeros_0 + gradients + 3 * 256 * 128 / 1e-3));
    // A host's receivers copy after their work, of which nothing begins before its last group.
    topology.fetched_by_receiver = true;
    CHECK(run(Pass::forward, second).makespan == about(std::max(own_0, keys) + std::max(other_0, other_1)));
  }
}

TEST_CASE("one document takes as long as with ZigzagRing, documents of a rank each nothing but their work") {
  Extents const extents{1, 32, 8, 128, 2};
  for (int const world : {1, 2, 3, 5, 8})
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      int64_t const tokens = 16384 * int64_t{world};
      std::vector<int64_t> const one{tokens};
      Topology const node{.inside = h100_nodes().inside, .exchange_units = 4};
      Simulation const packed =
          simulate(packed_plans(one, tokens, world), Causal{}, pass, extents, node, h100(), false);
      Simulation const ring =
          simulate(Planner(ZigzagRing{}, Causal{}, world, tokens), pass, extents, node, h100());
      CHECK(packed.makespan == doctest::Approx(ring.makespan).epsilon(0.01));
      CHECK(packed.pairs == ring.pairs);
      CHECK(packed.ranks[0].kv_rows_received == ring.ranks[0].kv_rows_received);

      std::vector<int64_t> each;
      for (int rank = 1; rank <= world; ++rank) each.push_back(16384 * rank);
      Simulation const apart =
          simulate(packed_plans(each, tokens, world), Causal{}, pass, extents, node, h100());
      CHECK(apart.ranks[0].bytes_sent == 0);
      CHECK(apart.idle_fraction() == doctest::Approx(0));
      CHECK(apart.work_fraction() == doctest::Approx(1));
      CHECK(apart.steps.size() == 1);
    }
}

TEST_CASE("it is drawn as other plans are") {
  std::mt19937_64 random(1);
  auto const ends = bench::pack("web", 65536, 4, random);
  Simulation const s = simulate(packed_plans(ends, 65536, 4), Causal{}, Pass::backward, sizes,
                                {.inside = h100_nodes().inside}, h100(), true);
  std::string const svg = Gantt::svg({{"PackedRing", 4, s.timeline}}), trace = chrome_trace(s.timeline);
  for (char const* const text : {"q 3 x kv 3", "kv of shard 1 to rank 2", "dkv of shard 1 from rank 2"}) {
    CHECK(svg.find(text) != svg.npos);
    CHECK(trace.find(text) != trace.npos);
  }
}

namespace {

template <class T>
struct OfElement : DefaultTraits {
  using Element = T;
};

}  // namespace

TEST_CASE_TEMPLATE("the workspace is DistAttn's, less the kernels' scratch", T, float, bfloat16) {
  std::vector<int64_t> const ends{30, 77, 101};
  for (int const ranks : {1, 2, 3, 4, 7}) {
    LocalWorld world(ranks);
    auto const plans = packed_plans(ends, 120, ranks);
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      Simulation const s = simulate(plans, Causal{}, pass, {2, 4, 2, 16, sizeof(T)}, {}, {});
      for (int rank = 0; rank < ranks; ++rank) {
        DistAttn<16, Documents<Causal>, PackedRing, OfElement<T>> const attn(
            world[rank], {.batch = 2, .seqlen = 120, .heads = 4, .kv_heads = 2});
        Arena scratch;
        scratch.take(pass == Pass::forward ? host::forward_scratch_bytes<16>()
                                           : host::backward_scratch_bytes<16>());
        CHECK(s.ranks[index(rank)].workspace_bytes + scratch.bytes() == attn.workspace_bytes(pass));
      }
    }
  }
}

TEST_CASE("documents, clusters and sizes that cannot be served are refused, with the numbers") {
  using Ends = std::vector<int64_t>;
  CHECK_THROWS_WITH_AS(packed_plans(Ends{}, 50, 2), "lightseq: the list of documents is empty", Error);
  CHECK_THROWS_WITH_AS(packed_plans(Ends{5, 5}, 50, 2),
                       "lightseq: document 1 ends at token 5, but begins at token 5", Error);
  CHECK_THROWS_WITH_AS(packed_plans(Ends{5, 51}, 50, 2),
                       "lightseq: document 1 ends at token 51, but the sequence has 50 tokens", Error);
  CHECK_THROWS_AS(packed_plans(Ends{5}, 50, 0), Error);
  CHECK_THROWS_WITH_AS(packed_plans(Ends{40}, 50, 2, Causal{}, {.max_rows = 10}),
                       "lightseq: a rank owns 20 tokens, and there is room for 10", Error);
  auto const plans = packed_plans(Ends{5, 50}, 50, 2);
  auto const refused = [&](Extents const& extents, Topology const& topology, ComputeModel const& compute) {
    CHECK_THROWS_AS(simulate(plans, Causal{}, Pass::forward, extents, topology, compute), Error);
  };
  refused({1, 0, 1, 8, 2}, {}, {});
  refused({int64_t{1} << 60, 1, 1, 8, 2}, {}, {});
  refused(sizes, {.ranks_per_node = 3}, {});
  refused(sizes, {.exchange_units = 4}, {.units = 4});
}
