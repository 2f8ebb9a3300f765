// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>

#include "lightseq/core/error.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/schedule/count.hpp"
#include "lightseq/schedule/planner.hpp"

/// What a schedule does, counted from its plans: which masks it serves, how evenly the work falls and how
/// many bytes travel.
namespace lightseq {

/// Whether a schedule serves a mask in the planner's world: whether every rank can plan. Balanced does not
/// where a query may see a later shard.
template <Schedule S, Mask M>
bool serves_mask(Planner<S, M> const& planner) try {
  for (int rank = 0; rank < planner.world(); ++rank) planner.check(rank);
  return true;
} catch (Error const&) {
  return false;
}

/// The share of all ranks' time that is spent waiting, if every step takes as long as its busiest rank and
/// time is proportional to visible tiles, see visible_tiles(): 0 is perfect. It says how evenly the work
/// falls, not how much of it is in vain, where tiles are visible in part.
template <Schedule S, Mask M>
double idle_fraction(Planner<S, M> const& planner, std::int64_t tile = 128) {
  double busy = 0, span = 0;
  for (int step = 0; step < planner.schedule_steps(); ++step) {
    double longest = 0;
    for (int rank = 0; rank < planner.world(); ++rank) {
      std::optional<Work> const work = planner.work(rank, step);
      double const tiles = work ? visible_tiles(planner, *work, tile) : 0;
      busy += tiles;
      longest = std::max(longest, tiles);
    }
    span += longest;
  }
  return span > 0 ? 1 - busy / (span * planner.world()) : 0;
}

/// Bytes that a rank sends in one pass, at most 2^63 - 1; `rows(shard)` gives a shard's rows.
template <class ShardRows>
std::int64_t bytes_sent(Plan const& plan, Extents const& extents, ShardRows rows) {
  std::int64_t bytes = 0;
  for (Step const& step : plan.steps)
    for (Transfer const& t : step.sends)
      bytes = capped_sum(bytes,
                         extents.message_bytes(t.payload, plan.pass, row_span(t.rows, rows(t.shard)).count));
  return bytes;
}

}  // namespace lightseq
