// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "lightseq/schedule/plan_laws.hpp"
#include "support/data.hpp"
#include "support/masks.hpp"

namespace lightseq::test {

/// The plans of all ranks.
template <Schedule S, Mask M>
std::vector<Plan> all_plans(Planner<S, M> const& planner, Pass pass) {
  std::vector<Plan> plans;
  for (int rank = 0; rank < planner.world(); ++rank) plans.push_back(planner.plan(rank, pass));
  return plans;
}

/// Whether the works of the plans compute each visible pair of a query and a key once, pair by pair.
template <Schedule S, Mask M>
bool pairs_computed_once(Planner<S, M> const& planner, M const& mask, std::vector<Plan> const& plans) {
  std::int64_t const seqlen = planner.seqlen();
  std::vector<std::uint8_t> wanted, computed(static_cast<std::size_t>(seqlen * seqlen), 0);
  for (std::int64_t q = 0; q < seqlen; ++q)
    for (std::int64_t k = 0; k < seqlen; ++k) wanted.push_back(mask.visible(q, k) ? 1 : 0);
  for (Plan const& plan : plans)
    for (Step const& step : plan.steps) {
      if (!step.work) continue;
      Positions const queries = S::Partition::shard(step.work->q, planner.world(), seqlen);
      Positions const keys = S::Partition::shard(step.work->kv, planner.world(), seqlen);
      RowSpan const rows = row_span(step.work->rows, queries.rows());
      for (std::int64_t i = rows.first; i < rows.first + rows.count; ++i)
        for (std::int64_t j = 0; j < keys.rows(); ++j) {
          auto const pair = static_cast<std::size_t>(queries.position(i) * seqlen + keys.position(j));
          computed[pair] = static_cast<std::uint8_t>(computed[pair] + wanted[pair]);
        }
    }
  return computed == wanted;
}

/// Whether two passes or routes give every rank the same works in the same steps.
inline bool same_works(std::vector<Plan> const& a, std::vector<Plan> const& b) {
  for (std::size_t rank = 0; rank < a.size(); ++rank)
    for (int step = 0; step < static_cast<int>(a[rank].steps.size() + b[rank].steps.size()); ++step)
      if (laws::step_of(a[rank], step).work != laws::step_of(b[rank], step).work) return false;
  return true;
}

/// All laws of a schedule's plans for one world, length and mask: both passes, both routes.
template <Schedule S, Mask M>
void check_plans(S const& schedule, M const& mask, int world, std::int64_t seqlen,
                 std::vector<Route> const& routes = {Route::owner, Route::neighbour}) {
  std::vector<Plan> first;
  for (Route const route : routes)
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      INFO("world ", world, ", seqlen ", seqlen, ", route ", static_cast<int>(route), ", pass ",
           static_cast<int>(pass));
      Planner<S, M> const planner(schedule, mask, world, seqlen, route);
      std::vector<Plan> const plans = all_plans(planner, pass);
      CHECK(laws::first_fault(planner, plans) == "");
      if (first.empty()) {
        CHECK(pairs_computed_once(planner, mask, plans));
        first = plans;
      }
      CHECK(same_works(first, plans));
    }
}

/// Lengths that divide evenly among ranks, halves and chunks, and lengths that do not; some ranks without
/// tokens.
inline std::vector<std::int64_t> ragged_lengths(int world) {
  std::vector<std::int64_t> lengths;
  for (std::int64_t const length :
       {1, world - 1, world, world + 1, 2 * world - 1, 2 * world, 3 * world + 1, 4 * world})
    if (length > 0) lengths.push_back(length);
  return lengths;
}

/// The step from one world above 8 to the next. A sanitizer judges code, not plans: for it some even and odd
/// worlds are enough, and the small ones.
#ifdef LIGHTSEQ_SANITIZED
inline constexpr int world_stride = 5;
#else
inline constexpr int world_stride = 1;
#endif

/// The schedule as it stands in a world: of one that chooses its values by the world, the one with these
/// values.
template <Schedule S>
auto in_world(S const& schedule, int world) {
  if constexpr (requires { S::in(world); })
    return S::in(world);
  else
    return schedule;
}

/// All laws for world 1 ... 64, where `tried(world)`, and every mask, or those under which no query sees a
/// later key. In small worlds every ragged length; in larger ones, for each mask, one of them and one at
/// random, and in the largest one or the other.
template <Schedule S>
void check_schedule(bool causal_only, bool (*tried)(int world) = nullptr) {
  std::mt19937_64 random(run_seed());
  for_each_mask([&]<Mask M>(M const& mask, char const* name) {
    if (causal_only && !is_causal(mask)) return;
    INFO("mask ", std::string(name));
    for (int world = 1; world <= 64; world += world < 8 ? 1 : world_stride) {
      if (tried != nullptr && !tried(world)) continue;
      std::vector<std::int64_t> lengths = ragged_lengths(world);
      if (world > 20)
        lengths = {lengths[random() % lengths.size()], 1 + static_cast<std::int64_t>(random() % 256)};
      if (world > 32) lengths = {lengths[random() % lengths.size()]};
      for (std::int64_t const seqlen : lengths) check_plans(in_world(S{}, world), mask, world, seqlen);
    }
  });
}

}  // namespace lightseq::test
