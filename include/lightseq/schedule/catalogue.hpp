// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <tuple>
#include <type_traits>

#include "lightseq/core/catalogue.hpp"
#include "lightseq/schedule/balanced.hpp"
#include "lightseq/schedule/pass_q.hpp"
#include "lightseq/schedule/published_balanced.hpp"
#include "lightseq/schedule/ring.hpp"
#include "lightseq/schedule/two_level_ring.hpp"

namespace lightseq {

/// The schedules of the library: tests, benches and tools go through this list, so that a new schedule is a
/// header and its name here.
using Schedules = std::tuple<Balanced, Ring, ZigzagRing, StripedRing, TwoLevelRing, TwoLevelZigzagRing,
                             TwoLevelStripedRing, PassQ>;

/// Schedules as others have published them, to compare the library's with.
using Baselines = std::tuple<PublishedBalanced>;

/// A list without the schedules that know nodes, given and returned by a pointer that is null.
template <class... S>
auto without_nodes(std::tuple<S...>*)
    -> decltype(std::tuple_cat(std::conditional_t<HasNodes<S>, std::tuple<>, std::tuple<S>>()...));

/// The schedules for ranks of one node.
using FlatSchedules = decltype(without_nodes(static_cast<Schedules*>(nullptr)));

/// Calls `visit(schedule)` for every schedule of a list. Those of two levels have `ranks_per_node` ranks in a
/// node, and are left out where a node holds one rank or all of a world.
template <class List = Schedules, class Visit>
void for_each_schedule(int world, int ranks_per_node, Visit visit) {
  for_each_type<List>([&]<class S>() {
    S schedule{};
    if constexpr (HasNodes<S>) {
      if (ranks_per_node <= 1 || ranks_per_node >= world) return;
      schedule.ranks_per_node = ranks_per_node;
    }
    visit(schedule);
  });
}

}  // namespace lightseq
