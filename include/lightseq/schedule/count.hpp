// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "lightseq/mask/pairs.hpp"
#include "lightseq/schedule/planner.hpp"

/// How much of the attention matrix a mask shows: pairs, and the tiles that kernels cut it into.
namespace lightseq {

/// Rows of queries against rows of keys.
struct RowRectangle {
  Segment queries, keys;
};

/// Cuts a rectangle into quarters, and again those that the mask neither hides nor shows whole, down to tiles
/// of `tile` rows, as long as at most `questions` are asked of cover(): so the time has a bound whatever the
/// mask. Calls `full(part)` and `open(part)`; open parts are larger than a tile where the questions ran out.
template <Mask M, class Full, class Open>
void for_each_part(M const& mask, Segment const& queries, Segment const& keys, std::int64_t tile,
                   std::int64_t questions, Full full, Open open) {
  std::vector<RowRectangle> parts, finer;
  auto const judge = [&](Segment const& q, Segment const& k) {
    if (q.rows == 0 || k.rows == 0) return;
    --questions;
    Cover const cover = mask.cover(q.hull(), k.hull());
    if (cover == Cover::full) full(RowRectangle{q, k});
    if (cover != Cover::partial) return;
    if (q.rows <= tile && k.rows <= tile)
      open(RowRectangle{q, k});
    else
      finer.push_back({q, k});
  };
  auto const first_half = [&](Segment const& s) {
    return std::min(s.rows, tiles_of(s.rows, 2 * tile) * tile);
  };
  judge(queries, keys);
  while (!finer.empty() && std::ssize(finer) <= questions / 4) {
    parts.swap(finer);
    finer.clear();
    for (auto const& [q, k] : parts) {
      std::int64_t const q_half = first_half(q), k_half = first_half(k);
      for (Segment const& half : {q.slice(0, q_half), q.slice(q_half, q.rows - q_half)}) {
        judge(half, k.slice(0, k_half));
        judge(half, k.slice(k_half, k.rows - k_half));
      }
    }
  }
  for (RowRectangle const& part : finer) open(part);
}

/// Questions that a count may ask of a mask, where nothing else is said.
inline constexpr std::int64_t default_questions = 1 << 16;

/// How many (query, key) pairs of two segments are visible, at most 2^63 - 1. In O(1) where the mask knows,
/// see known_pairs(). Else in at most so many questions of cover(): exact where these suffice, as many as a
/// mask's edge is long; what is open when they run out is sampled.
template <Mask M>
std::int64_t visible_pairs(M const& mask, Segment const& queries, Segment const& keys,
                           std::int64_t questions = default_questions) {
  if (queries.rows == 0 || keys.rows == 0) return 0;
  if constexpr (HasReach<M>) {  // one question is cheaper than the sums of known_pairs()
    Cover const cover = mask.cover(queries.hull(), keys.hull());
    if (cover == Cover::none) return 0;
    if (cover == Cover::full) return saturated(WideInt{queries.rows} * keys.rows);
  }
  if (std::optional<std::int64_t> const known = known_pairs(mask, queries, keys)) return *known;
  WideInt pairs = 0;
  auto const all = [](RowRectangle const& part) { return WideInt{part.queries.rows} * part.keys.rows; };
  auto const sampled = [&](RowRectangle const& part) {
    auto const& [q, k] = part;
    std::int64_t const samples = std::min<std::int64_t>(8, std::max(q.rows, k.rows));
    std::int64_t seen = 0;
    for (std::int64_t i = 0; i < samples; ++i) {
      // Rows and columns spread over the part, in an order of their own.
      std::int64_t const row = q.rows / samples * i + i % q.rows, j = (3 * i + 1) % samples;
      std::int64_t const column = k.rows / samples * j + j % k.rows;
      seen += mask.visible(q.position(std::min(row, q.rows - 1)), k.position(std::min(column, k.rows - 1)));
    }
    pairs += all(part) * seen / samples;
  };
  for_each_part(
      mask, queries, keys, 1, questions, [&](RowRectangle const& part) { pairs += all(part); }, sampled);
  return saturated(pairs);
}

/// The distances within reach that the rows of two segments of one stride can have: the largest and the
/// smallest of them bound the result. It is empty, left + right < 0, where the reach falls between two rows.
constexpr Reach reach_of_rows(Reach const& reach, Segment const& queries, Segment const& keys) {
  std::int64_t const stride = queries.stride;
  auto const modulo = [&](std::int64_t number) { return (number % stride + stride) % stride; };
  std::int64_t const offset = modulo(keys.begin - queries.begin);
  return {reach.left - modulo(offset + reach.left), reach.right - modulo(reach.right - offset)};
}

/// The mask's reach, at most so far that sums of two do not overflow.
template <HasReach M>
constexpr Reach reach_of(M const& mask) {
  constexpr std::int64_t far = std::int64_t{1} << 61;  // beyond any token
  Reach const reach = mask.reach();
  return {std::min(reach.left, far), std::min(reach.right, far)};
}

/// How many tiles of `tile` x `tile` rows, cut from the first row on, hold a pair that lies in reach. Both
/// segments have one stride.
inline double tiles_in_reach(Segment const& queries, Segment const& keys, Reach const& mask_reach,
                             std::int64_t tile) {
  Reach const reach = reach_of_rows(mask_reach, queries, keys);
  if (reach.left + reach.right < 0) return 0;
  WideInt tiles = 0;
  // All whole tiles together, and a last one that is not: then the tiles of each part are alike.
  auto const parts = [&](Segment const& s) {
    std::int64_t const whole = s.rows / tile * tile;
    return std::pair(s.slice(0, whole), s.slice(whole, s.rows - whole));
  };
  auto const [whole_q, last_q] = parts(queries);
  auto const [whole_k, last_k] = parts(keys);
  for (Segment const& q : {whole_q, last_q})
    for (Segment const& k : {whole_k, last_k}) {
      if (q.rows == 0 || k.rows == 0) continue;
      std::int64_t const step = q.stride * tile;
      std::int64_t const q_span = (std::min(q.rows, tile) - 1) * q.stride;
      std::int64_t const k_span = (std::min(k.rows, tile) - 1) * k.stride;
      std::int64_t const q_tiles = tiles_of(q.rows, tile), k_tiles = tiles_of(k.rows, tile);
      // A tile's first key is in reach of its last query, but its last key is not beyond the reach of its
      // first.
      tiles += pairs_up_to({q.begin + q_span, q_tiles, step}, {k.begin, k_tiles, step}, reach.right) -
               pairs_up_to({q.begin, q_tiles, step}, {k.begin + k_span, k_tiles, step}, -reach.left - 1);
    }
  return static_cast<double>(tiles);
}

/// How many tiles of `tile` x `tile` rows, cut from the first row of both segments on, hold a visible pair: a
/// kernel computes these, whole, however little of one is visible. Exact where the mask says its reach and
/// the strides are the same. Else by at most so many questions of cover(): a tile that it leaves open counts,
/// and so do all tiles of a part that is open when these run out.
template <Mask M>
double visible_tiles(M const& mask, Segment const& queries, Segment const& keys, std::int64_t tile,
                     std::int64_t questions = default_questions) {
  if (queries.rows == 0 || keys.rows == 0) return 0;
  tile = std::min(tile, std::max(queries.rows, keys.rows));
  double tiles = 0;
  auto const all = [&](RowRectangle const& part) {
    tiles += static_cast<double>(tiles_of(part.queries.rows, tile)) *
             static_cast<double>(tiles_of(part.keys.rows, tile));
  };
  if constexpr (HasReach<M>)
    if (queries.stride == keys.stride) {
      Cover const cover = mask.cover(queries.hull(), keys.hull());
      if (cover == Cover::full) all({queries, keys});
      return cover == Cover::partial ? tiles_in_reach(queries, keys, reach_of(mask), tile) : tiles;
    }
  for_each_part(mask, queries, keys, tile, questions, all, all);
  return tiles;
}

/// Questions for each work of a planner's world, so that all of them together are some millions at most.
template <Schedule S, Mask M>
std::int64_t questions_a_work(Planner<S, M> const& planner) {
  std::int64_t const works = std::int64_t{planner.world()} * std::max(1, planner.schedule_steps());
  return std::clamp<std::int64_t>((1 << 20) / works, 32, default_questions);
}

/// Calls `count(queries, keys)` with the segments of a work; `shards(rank)` gives a shard's positions.
template <class Shards, class Count>
void for_each_segment_pair(Work const& work, Shards const& shards, Count count) {
  Positions const& queries = shards(work.q);
  Positions const& keys = shards(work.kv);
  RowSpan const span = row_span(work.rows, queries.rows());
  for (Segment const& q : queries.slice(span.first, span.count).segments)
    for (Segment const& k : keys.segments) count(q, k);
}

/// How many visible pairs a work computes: exact or, for masks with a long edge in a large world, sampled.
/// `shards(rank)` gives what planner.shard() does.
template <Schedule S, Mask M, class Shards>
std::int64_t visible_pairs(Planner<S, M> const& planner, Work const& work, Shards const& shards) {
  std::int64_t questions = default_questions;
  if constexpr (!HasReach<M>) questions = questions_a_work(planner);
  WideInt pairs = 0;
  for_each_segment_pair(work, shards, [&](Segment const& q, Segment const& k) {
    pairs += visible_pairs(planner.mask(), q, k, questions);
  });
  return saturated(pairs);
}
template <Schedule S, Mask M>
std::int64_t visible_pairs(Planner<S, M> const& planner, Work const& work) {
  return visible_pairs(planner, work, planner.shards());
}

/// How many tiles of `tile` x `tile` rows of a work hold a visible pair.
template <Schedule S, Mask M, class Shards>
double visible_tiles(Planner<S, M> const& planner, Work const& work, std::int64_t tile,
                     Shards const& shards) {
  std::int64_t questions = default_questions;
  if constexpr (!HasReach<M>) questions = questions_a_work(planner);
  double tiles = 0;
  for_each_segment_pair(work, shards, [&](Segment const& q, Segment const& k) {
    tiles += visible_tiles(planner.mask(), q, k, tile, questions);
  });
  return tiles;
}
template <Schedule S, Mask M>
double visible_tiles(Planner<S, M> const& planner, Work const& work, std::int64_t tile) {
  return visible_tiles(planner, work, tile, planner.shards());
}

}  // namespace lightseq
