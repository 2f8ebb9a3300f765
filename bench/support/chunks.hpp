// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <queue>
#include <random>
#include <tuple>
#include <vector>

#include "bench/support/packs.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/documents.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/intervals.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "lightseq/partition/chunk_table.hpp"
#include "lightseq/partition/pieces.hpp"

/// Who owns which chunks of a sequence by other rules than the library's, and what any rule costs.
namespace lightseq::bench {

/// The chunks of each rank.
using ChunkLists = std::vector<std::vector<std::int32_t>>;

inline ChunkLists contiguous_chunks(ChunkTable const& table, int world) {
  ChunkLists lists(static_cast<std::size_t>(world));
  for (std::int64_t chunk = 0; chunk < table.count(); ++chunk)
    lists[static_cast<std::size_t>(chunk * world / table.count())].push_back(
        static_cast<std::int32_t>(chunk));
  return lists;
}

/// Of an even number of chunks a rank.
inline ChunkLists zigzag_chunks(ChunkTable const& table, int world) {
  ChunkLists lists(static_cast<std::size_t>(world));
  for (std::int64_t chunk = 0; chunk < table.count(); ++chunk) {
    std::int64_t const half = chunk * 2 * world / table.count();
    lists[static_cast<std::size_t>(std::min(half, 2 * world - 1 - half))].push_back(
        static_cast<std::int32_t>(chunk));
  }
  return lists;
}

/// The costliest chunk first to the rank with the least cost that still takes some, as MagiAttention's
/// min-heap does.
inline ChunkLists min_heap_chunks(ChunkTable const& table, int world) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(table.count()));
  std::iota(order.begin(), order.end(), 0);
  std::ranges::stable_sort(order, std::greater(), [&](std::int32_t chunk) { return table.cost(chunk); });
  using Load = std::pair<std::int64_t, std::size_t>;  // cost and rank
  std::priority_queue<Load, std::vector<Load>, std::greater<Load>> ranks;
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(world); ++rank) ranks.push({0, rank});
  ChunkLists lists(static_cast<std::size_t>(world));
  for (std::int32_t const chunk : order) {
    auto const [cost, rank] = ranks.top();
    ranks.pop();
    lists[rank].push_back(chunk);
    if (std::ssize(lists[rank]) * world < table.count()) ranks.push({cost + table.cost(chunk), rank});
  }
  return lists;
}

/// What `pieces` of the same chunks give the ranks.
inline ChunkLists chunks_of(ChunkTable const& table, Pieces const& pieces) {
  ChunkLists lists(static_cast<std::size_t>(pieces.world()));
  for (std::int64_t chunk = 0; chunk < table.count(); ++chunk)
    if (Range const tokens = table.tokens_of(chunk); !tokens.empty())
      lists[static_cast<std::size_t>(pieces.place(tokens.begin).rank)].push_back(
          static_cast<std::int32_t>(chunk));
  return lists;
}

/// What ranks have to do.
struct ChunkFigures {
  double max_over_mean = 0;  ///< cost of the costliest rank
  double received = 0;       ///< rows of other ranks, in mean shards, mean over ranks
  double most_received = 0;
  double pieces = 0;  ///< chunks or neighbouring ones together, mean over ranks
};

inline ChunkFigures figures(ChunkTable const& table, ChunkLists lists) {
  ChunkFigures result;
  double const world = static_cast<double>(lists.size()), shard = static_cast<double>(table.tokens()) / world;
  double most = 0, sum = 0;
  for (std::vector<std::int32_t>& chunks : lists) {
    std::sort(chunks.begin(), chunks.end());
    double cost = 0;
    for (std::size_t i = 0; i < chunks.size(); ++i) {
      cost += static_cast<double>(table.cost(chunks[i]));
      result.pieces += i == 0 || chunks[i] > chunks[i - 1] + 1 ? 1 / world : 0;
    }
    double const received = static_cast<double>(rows_received(table, chunks)) / shard;
    result.received += received / world;
    result.most_received = std::max(result.most_received, received);
    most = std::max(most, cost), sum += cost;
  }
  result.max_over_mean = sum > 0 ? most * world / sum : 1;
  return result;
}

/// Calls `f(name, mask)` with the masks that chunks are dealt out for: of the catalogue, of packed documents
/// and of Intervals.
template <class Random, class F>
void for_each_chunked_mask(std::int64_t tokens, int world, Random& random, F const& f) {
  f("Causal", Causal{});
  f("Full", Full{});
  f("window of 4096", SlidingWindow{4095, 0});
  f("window of a quarter", SlidingWindow{tokens / 4, 0});
  f("block-causal, 20 blocks", Intervals::block_causal(std::max<std::int64_t>(1, tokens / 20), tokens));
  for (char const* const kind : {"magi", "web", "long_tail", "sft"})
    f(kind, Documents<Causal>(pack(kind, tokens, world, random)));
  std::vector<std::int64_t> const few = {tokens / 4, tokens / 2, tokens * 5 / 8, tokens * 6 / 8, tokens};
  f("shared prefix, 4 answers", Intervals::shared_prefix(few));
  for (char const* const kind : {"web", "magi"})
    f(kind == std::string_view("web") ? "shared prefix, web" : "shared prefix, magi",
      Intervals::shared_prefix(pack(kind, tokens, world, random)));
  f("prefix-LM, a quarter",
    Intervals::prefix_lm(std::vector{tokens}, std::vector{static_cast<std::int32_t>(tokens / 4)}));
  std::vector<std::int64_t> const ends = pack("magi", tokens, world, random);
  std::vector<std::int32_t> prefixes;
  for (std::int64_t d = 0; d < DocumentEnds(ends).count(); ++d)
    prefixes.push_back(static_cast<std::int32_t>(DocumentEnds(ends).length(d) / 3));
  f("prefix-LM, magi", Intervals::prefix_lm(ends, prefixes));
  std::vector<std::int64_t> dust{tokens / 8};
  while (dust.back() < tokens) dust.push_back(std::min(tokens, dust.back() + 512));
  f("an eighth + dust", Documents<Causal>(dust));
}

}  // namespace lightseq::bench
