// SPDX-License-Identifier: Apache-2.0
// What travels, counted from the plans of all ranks and held against closed formulas.
#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <vector>

#include "laws/schedule.hpp"
#include "lightseq/schedule/balanced.hpp"
#include "lightseq/schedule/ring.hpp"
#include "lightseq/schedule/summary.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

/// Rows that travel, counted once for each tensor of a width that travels with them.
struct Volume {
  int64_t per_q_head = 0, per_kv_head = 0, stats = 0;
  friend bool operator==(Volume const&, Volume const&) = default;
};

template <Schedule S, Mask M>
Volume sent_by(Planner<S, M> const& planner, Plan const& plan) {
  Volume volume;
  for (Step const& step : plan.steps)
    for (Transfer const& t : step.sends) {
      int64_t const rows = row_span(t.rows, planner.shard(t.shard).rows()).count;
      Parts const p = parts(t.payload, plan.pass);
      volume.per_q_head += p.per_q_head * rows;
      volume.per_kv_head += p.per_kv_head * rows;
      volume.stats += p.stats * rows;
    }
  return volume;
}

/// What all ranks send together.
template <Schedule S, Mask M>
Volume sent_by_all(Planner<S, M> const& planner, Pass pass) {
  Volume sum;
  for (int rank = 0; rank < planner.world(); ++rank) {
    Volume const volume = sent_by(planner, planner.plan(rank, pass));
    sum.per_q_head += volume.per_q_head;
    sum.per_kv_head += volume.per_kv_head;
    sum.stats += volume.stats;
  }
  return sum;
}

/// A forward in which `kv` rows of keys go out to others' queries and `q` rows of queries to others' keys:
/// there go K and V, or Q; back come O, top and sum for the queries. The backward: K and V, or Q, dO, LSE and
/// delta; back come dK and dV, or dQ.
Volume traffic(Pass pass, int64_t kv, int64_t q) {
  return pass == Pass::forward ? Volume{2 * q, 2 * kv, 2 * q} : Volume{3 * q, 4 * kv, 2 * q};
}

/// Checks all ranks' traffic, for shards of n rows, both passes and routes; `expected(world)` gives the
/// shards of keys and of queries that travel, times 8.
template <class S, class M, class Expected>
void check_traffic(Expected expected) {
  for (int64_t const n : {2, 6})
    for (int world = 1; world <= 64; ++world)
      for (Pass const pass : {Pass::forward, Pass::backward})
        for (Route const route : {Route::owner, Route::neighbour}) {
          auto const [kv, q] = expected(world);
          CHECK(sent_by_all(Planner(S{}, M{}, world, n * world, route), pass) ==
                traffic(pass, kv * n / 8, q * n / 8));
        }
}

using Shards = std::array<int64_t, 2>;

}  // namespace

TEST_CASE(
    "Balanced: step t sends the keys of world - t ranks and the queries of t, halved in an even world's "
    "last") {
  check_traffic<Balanced, Causal>([](int64_t world) {
    return world % 2 == 0 ? Shards{world * (3 * world - 2), world * world}
                          : Shards{(3 * world - 1) * (world - 1), world * world - 1};
  });
}

TEST_CASE("the rings send every shard's keys to all others, but for those that the mask hides") {
  auto const to_all = [](int64_t world) { return Shards{8 * world * (world - 1), 0}; };
  auto const to_later = [](int64_t world) { return Shards{4 * world * (world - 1), 0}; };
  check_traffic<Ring, Full>(to_all);
  check_traffic<Ring, Causal>(to_later);
  check_traffic<ZigzagRing, Full>(to_all);
  check_traffic<ZigzagRing, Causal>(to_all);
  check_traffic<StripedRing, Full>(to_all);
  check_traffic<StripedRing, Causal>(to_all);
}

TEST_CASE("Balanced: what each rank sends") {
  // Rank r sends its keys to the later ranks in reach and its queries to as many helpers as there are steps
  // left; it helps at the steps above r.
  for (int world = 1; world <= 64; ++world)
    for (int rank = 0; rank < world; ++rank) {
      int64_t const n = 4, full_steps = (world - 1) / 2,
                    later = std::min<int64_t>(full_steps, world - 1 - rank);
      int64_t kv = later * n, q = (full_steps - later) * n, out = std::max<int64_t>(full_steps - rank, 0) * n;
      if (world % 2 == 0 && rank < world / 2) kv += n, out += n / 2;
      if (world % 2 == 0 && rank >= world / 2) q += n / 2;
      Planner const planner(Balanced{}, Causal{}, world, n * world);
      CHECK(sent_by(planner, planner.plan(rank, Pass::forward)) == Volume{q + out, 2 * kv, 2 * out});
    }
}

TEST_CASE("the formulas tend to those of design: elements per rank for N tokens, large worlds") {
  // In units of N: {Dkv, Dq} elements, statistics left out.
  auto const check = [](auto schedule, auto mask, Pass pass, double kv, double q) {
    int const world = 256;
    int64_t const seqlen = 4 * world;
    Volume const volume = sent_by_all(Planner(schedule, mask, world, seqlen), pass);
    double const whole = static_cast<double>(world) * static_cast<double>(seqlen);
    CHECK(static_cast<double>(volume.per_kv_head) / whole == doctest::Approx(kv).epsilon(2.0 / world));
    CHECK(static_cast<double>(volume.per_q_head) / whole == doctest::Approx(q).epsilon(2.0 / world));
  };
  check(Balanced{}, Causal{}, Pass::forward, 0.75, 0.25);
  check(Balanced{}, Causal{}, Pass::backward, 1.5, 0.375);
  check(Ring{}, Full{}, Pass::forward, 2, 0);
  check(Ring{}, Full{}, Pass::backward, 4, 0);
  check(Ring{}, Causal{}, Pass::forward, 1, 0);
  check(Ring{}, Causal{}, Pass::backward, 2, 0);
  check(ZigzagRing{}, Causal{}, Pass::forward, 2, 0);
  check(ZigzagRing{}, Causal{}, Pass::backward, 4, 0);
  check(StripedRing{}, Causal{}, Pass::forward, 2, 0);
  check(StripedRing{}, Causal{}, Pass::backward, 4, 0);
}

TEST_CASE("a message's bytes are those of its tensors, each rounded up to the alignment") {
  auto const rounded = [](int64_t bytes) { return (bytes + 127) / 128 * 128; };
  for (int64_t const batch : {1, 3})
    for (int64_t const rows : {0, 1, 5, 64})
      for (int64_t const element : {2, 4}) {
        Extents const extents{batch, 6, 2, 24, element};
        int64_t const tokens = batch * rows, q = tokens * 6 * 24, kv = tokens * 2 * 24,
                      stats = rounded(tokens * 6 * 4);
        auto const bytes = [&](Payload payload, Pass pass) {
          return extents.message_bytes(payload, pass, rows);
        };
        for (Pass const pass : {Pass::forward, Pass::backward})
          CHECK(bytes(Payload::kv, pass) == 2 * rounded(kv * element));
        CHECK(bytes(Payload::q, Pass::forward) == rounded(q * element));
        CHECK(bytes(Payload::out, Pass::forward) == rounded(q * 4) + 2 * stats);
        CHECK(bytes(Payload::q, Pass::backward) == 2 * rounded(q * element) + 2 * stats);
        CHECK(bytes(Payload::dq, Pass::backward) == rounded(q * 4));
        CHECK(bytes(Payload::dkv, Pass::backward) == 2 * rounded(kv * 4));
      }
}

TEST_CASE("bytes_sent() adds up a plan's messages") {
  Extents const extents{1, 8, 2, 64, 2};
  for (int world = 1; world <= 12; ++world)
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      int64_t const n = 64;  // so that nothing is rounded up
      Planner const planner(Balanced{}, Causal{}, world, n * world);
      for (Plan const& plan : test::all_plans(planner, pass)) {
        int64_t inputs = 0, results = 0;
        for (Step const& step : plan.steps)
          for (Transfer const& t : step.sends) {
            Parts const p = parts(t.payload, pass);
            int64_t const rows = t.rows == Rows::all ? n : n / 2;
            int64_t const wide = rows * 64 * (p.per_q_head * 8 + p.per_kv_head * 2);
            (is_result(t.payload) ? results : inputs) +=
                wide * (is_result(t.payload) ? 4 : 2) + rows * 8 * 4 * p.stats;
          }
        CHECK(bytes_sent(plan, extents, [&](int shard) { return planner.shard(shard).rows(); }) ==
              inputs + results);
        CHECK(planner.shard(plan.rank).rows() == n);
      }
    }
}
