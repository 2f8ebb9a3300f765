// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/error.hpp"
#include "lightseq/schedule/balanced.hpp"
#include "lightseq/schedule/planner.hpp"
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

/// Whether a schedule serves a mask in this world: whether every rank can plan. Balanced does not where a
/// query may see a later shard.
template <Schedule S, Mask M>
bool serves_mask(Planner<S, M> const& planner) try {
  for (int rank = 0; rank < planner.world(); ++rank) planner.check(rank);
  return true;
} catch (Error const&) {
  return false;
}

}  // namespace lightseq
