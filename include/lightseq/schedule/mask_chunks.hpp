// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/mask/data.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/partition/chunk_table.hpp"

namespace lightseq {

/// Fills a ChunkTable by asking a mask; see chunk_table().
template <Mask M>
class MaskChunks {
 public:
  /// Of a sequence of so many tokens; costs are counted in tiles of `tile` x `tile`.
  MaskChunks(M const& mask, std::int64_t tokens, std::int64_t tile)
      : mask_(mask), tokens_(tokens), tile_(std::min(tile, tokens)) {}

  /// Asks about the queries of the next chunk, and tells the table.
  void add(ChunkTable& table, Range const& queries) {
    cost_ = 0;
    keys_.clear();
    if (!queries.empty()) {
      queries_ = queries;
      query_tiles_ = tiles_of(queries.size(), tile_);
      auto const [first, second] = key_ranges_within(mask_, queries);
      visit_within(first, 0);
      visit_within(second, first.empty() ? 0 : tiles_of(std::max<std::int64_t>(first.end, 0), tile_));
      trim(first, second);
    }
    table.add(cost_, keys_);
  }

 private:
  /// The tiles of keys that a range touches, from tile `least` on.
  void visit_within(Range const& keys, std::int64_t least) {
    Range const seen{std::max<std::int64_t>(keys.begin, 0), std::min(keys.end, tokens_)};
    if (seen.empty()) return;
    std::int64_t const begin = std::max(seen.begin / tile_, least), end = tiles_of(seen.end, tile_);
    if (begin < end) visit(begin, end);
  }

  /// Asks about tiles of keys, and again about both halves where the mask leaves open what it shows.
  void visit(std::int64_t begin, std::int64_t end) {
    Range const keys{begin * tile_, std::min(tokens_, end * tile_)};
    Cover const cover = cover_within(mask_, queries_, keys);
    if (cover == Cover::none) return;
    if (cover == Cover::full) return see(keys, query_tiles_ * (end - begin));
    if (end - begin == 1) {
      if (std::int64_t const tiles = visible_tiles(keys); tiles > 0) see(keys, tiles);
      return;
    }
    std::int64_t const middle = begin + (end - begin) / 2;
    visit(begin, middle), visit(middle, end);
  }

  /// How many tiles of the queries see some of these keys.
  std::int64_t visible_tiles(Range const& keys) const {
    std::int64_t tiles = 0;
    for (std::int64_t begin = queries_.begin; begin < queries_.end; begin += tile_) {
      Range const queries{begin, std::min(queries_.end, begin + tile_)};
      tiles += cover_within(mask_, queries, keys) != Cover::none ? 1 : 0;
    }
    return tiles;
  }

  void see(Range const& keys, std::int64_t tiles) {
    cost_ += tiles;
    if (!keys_.empty() && keys_.back().end == keys.begin)
      keys_.back().end = keys.end;
    else
      keys_.push_back(keys);
  }

  /// Leaves of the tiles what lies within the bounds, of which the second is empty or comes later.
  void trim(Range const& first, Range const& second) {
    trimmed_.clear();
    for (Range const& keys : keys_)
      for (Range const& bound : {first, second}) {
        Range const part{std::max(keys.begin, bound.begin), std::min(keys.end, bound.end)};
        if (!part.empty()) trimmed_.push_back(part);
      }
    keys_.swap(trimmed_);
  }

  M mask_;
  std::int64_t tokens_, tile_;
  Range queries_;
  std::int64_t query_tiles_ = 0, cost_ = 0;
  std::vector<Range> keys_, trimmed_;
};

/// What equal chunks of a sequence cost under a mask, in tiles of `tile` x `tile` that are not hidden, and
/// which keys they see: as closely as the mask's bounds tell, and tiles that its cover() calls none left out.
/// Throws Error where a number is not positive. The more its cover() leaves open the longer it takes: a
/// question for each such tile, and of what is full or none one for each power of two.
template <Mask M>
ChunkTable chunk_table(M const& mask, std::int64_t tokens, std::int64_t chunks, std::int64_t tile = 128) {
  if (tile < 1) fail("a tile of ", tile, " rows has none");
  ChunkTable table(tokens, chunks);
  MaskChunks of_mask(view_of(mask, data_of(mask).data()), tokens, tile);
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) of_mask.add(table, table.tokens_of(chunk));
  return table;
}

}  // namespace lightseq
