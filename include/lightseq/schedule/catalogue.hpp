// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/schedule/balanced.hpp"
#include "lightseq/schedule/cost.hpp"
#include "lightseq/schedule/ring.hpp"
#include "lightseq/schedule/two_level_ring.hpp"

namespace lightseq {

/// Calls `visit(name, partition, schedule)` for every schedule of the library, those of two levels with so
/// many ranks in a node; these are left out where a node holds one rank or all. A new schedule is named here.
template <class Visit>
void for_each_schedule(int world, int ranks_per_node, Visit visit) {
  visit("Balanced", "contiguous", Balanced{});
  visit("Ring", "contiguous", Ring{});
  visit("ZigzagRing", "zigzag", ZigzagRing{});
  visit("StripedRing", "striped", StripedRing{});
  if (ranks_per_node <= 1 || ranks_per_node >= world) return;
  visit("TwoLevelRing", "contiguous", TwoLevelRing{ranks_per_node});
  visit("TwoLevelZigzagRing", "zigzag", TwoLevelZigzagRing{ranks_per_node});
  visit("TwoLevelStripedRing", "striped", TwoLevelStripedRing{ranks_per_node});
}

/// Whether the works of a simulated pass hold as many visible pairs as the mask shows: those of a schedule
/// that does not serve the mask, as Balanced where a query sees later shards, do not.
template <Schedule S, Mask M>
bool serves_mask(Planner<S, M> const& planner, Simulation const& simulation) {
  Segment const all{0, planner.seqlen()};
  return simulation.pairs == visible_pairs(planner.mask(), all, all);
}

}  // namespace lightseq
