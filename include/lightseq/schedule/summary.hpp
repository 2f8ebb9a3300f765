// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "lightseq/schedule/planner.hpp"

/// What a schedule costs, counted from its plans: how evenly the work falls and how many bytes travel.
namespace lightseq {

/// How many pairs of a query and a key, of segments with one stride, have the key at most `reach` positions
/// behind the query; before it if that is negative.
constexpr std::int64_t pairs_in_reach(Segment const& queries, Segment const& keys, std::int64_t reach) {
  // Row i sees clamp(i + first, 0, keys.rows) keys, so this is a difference of two sums over all lower rows.
  std::int64_t const distance = queries.begin - keys.begin + reach;
  std::int64_t const stride = queries.stride;
  std::int64_t const nearest = (distance >= 0 ? distance / stride : -((stride - 1 - distance) / stride)) + 1;
  std::int64_t const first = std::clamp(nearest, -queries.rows, keys.rows);  // beyond, rows see none or all
  auto const sum_up_to = [&](std::int64_t row) {
    if (row <= 0) return std::int64_t{0};
    std::int64_t const ramp = std::min(row, keys.rows);
    return ramp * (ramp + 1) / 2 + (row - ramp) * keys.rows;
  };
  return sum_up_to(queries.rows - 1 + first) - sum_up_to(first - 1);
}

/// How many (query, key) pairs of two segments are visible. For the library's masks in O(1), for others in as
/// many steps as the mask has an edge.
template <Mask M>
constexpr std::int64_t visible_pairs(M const& mask, Segment const& queries, Segment const& keys) {
  if (queries.rows == 0 || keys.rows == 0) return 0;
  Cover const cover = mask.cover(queries.hull(), keys.hull());
  if (cover == Cover::none) return 0;
  if (cover == Cover::full) return queries.rows * keys.rows;
  if (queries.stride == keys.stride) {
    if constexpr (std::is_same_v<M, Causal>) return pairs_in_reach(queries, keys, 0);
    if constexpr (std::is_same_v<M, SlidingWindow>) {
      constexpr std::int64_t far = std::int64_t{1} << 61;  // beyond any token, and far from overflow
      return pairs_in_reach(queries, keys, std::min(mask.right, far)) -
             pairs_in_reach(queries, keys, -std::min(mask.left, far) - 1);
    }
  }
  if (queries.rows == 1 && keys.rows == 1) return mask.visible(queries.begin, keys.begin) ? 1 : 0;
  if (queries.rows >= keys.rows) {
    std::int64_t const half = queries.rows / 2;
    return visible_pairs(mask, queries.slice(0, half), keys) +
           visible_pairs(mask, queries.slice(half, queries.rows - half), keys);
  }
  std::int64_t const half = keys.rows / 2;
  return visible_pairs(mask, queries, keys.slice(0, half)) +
         visible_pairs(mask, queries, keys.slice(half, keys.rows - half));
}

/// How many visible pairs a work computes.
template <Schedule S, Mask M>
std::int64_t visible_pairs(Planner<S, M> const& planner, Work const& work) {
  Positions const shard = planner.shard(work.q);
  RowSpan const span = row_span(work.rows, shard.rows());
  std::int64_t pairs = 0;
  for (Segment const& q : shard.slice(span.first, span.count).segments)
    for (Segment const& k : planner.shard(work.kv).segments) pairs += visible_pairs(planner.mask(), q, k);
  return pairs;
}

/// The share of all ranks' time that is spent waiting, if every step takes as long as its busiest rank and
/// time is proportional to visible pairs: 0 is perfect.
template <Schedule S, Mask M>
double idle_fraction(Planner<S, M> const& planner) {
  double busy = 0, span = 0;
  for (int step = 0; step < planner.schedule_steps(); ++step) {
    std::int64_t longest = 0;
    for (int rank = 0; rank < planner.world(); ++rank) {
      std::optional<Work> const work = planner.work(rank, step);
      std::int64_t const pairs = work ? visible_pairs(planner, *work) : 0;
      busy += static_cast<double>(pairs);
      longest = std::max(longest, pairs);
    }
    span += static_cast<double>(longest);
  }
  return span > 0 ? 1 - busy / (span * planner.world()) : 0;
}

/// Bytes that a rank sends in one pass; `rows(shard)` gives a shard's rows.
template <class ShardRows>
std::int64_t bytes_sent(Plan const& plan, Extents const& extents, ShardRows rows) {
  std::int64_t bytes = 0;
  for (Step const& step : plan.steps)
    for (Transfer const& t : step.sends)
      bytes += extents.message_bytes(t.payload, plan.pass, row_span(t.rows, rows(t.shard)).count);
  return bytes;
}

}  // namespace lightseq
