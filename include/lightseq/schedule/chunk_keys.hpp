// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "lightseq/core/range.hpp"
#include "lightseq/partition/chunk_table.hpp"
#include "lightseq/schedule/needed_rows.hpp"

namespace lightseq {

/// What queries of neighbouring chunks see, chunk by chunk: any number of ranges.
class ChunkSight {
 public:
  /// Of queries at these positions, which are not none.
  ChunkSight(ChunkTable const& table, Range const& queries)
      : table_(&table),
        queries_(queries),
        chunks_{table.chunk_of(queries.begin), table.chunk_of(queries.end - 1) + 1} {}

  /// Whether the queries see some of these keys.
  bool touches(Range const& keys) const {
    for (std::int64_t chunk = chunks_.begin; chunk < chunks_.end; ++chunk)
      if (sees(chunk, keys)) return true;
    return false;
  }

  /// Calls `visit(range)` with each range of each chunk that has some of these keys.
  template <class Visit>
  void for_each_within(Range const& keys, Visit visit) const {
    for (std::int64_t chunk = chunks_.begin; chunk < chunks_.end; ++chunk) {
      auto const seen = table_->keys(chunk);
      for (std::size_t i = first_after(seen, keys.begin); i < seen.size() && seen[i].begin < keys.end; ++i)
        visit(seen[i]);
    }
  }

  /// How many tiles of queries see some of these keys, where each chunk has its own.
  std::int64_t tiles_seeing(Range const& keys, std::int64_t tile_rows) const {
    std::int64_t tiles = 0;
    for (std::int64_t chunk = chunks_.begin; chunk < chunks_.end; ++chunk)
      if (sees(chunk, keys)) tiles += tiles_of(rows_of(chunk), tile_rows);
    return tiles;
  }

  /// Calls `visit(rows, keys)` for each chunk, with how many of its queries these are, and what they see.
  template <class Visit>
  void for_each_chunk(Visit visit) const {
    for (std::int64_t chunk = chunks_.begin; chunk < chunks_.end; ++chunk)
      visit(rows_of(chunk), table_->keys(chunk));
  }

 private:
  static std::size_t first_after(std::span<Range const> seen, std::int64_t position) {
    auto const at = std::partition_point(seen.begin(), seen.end(),
                                         [=](Range const& range) { return range.end <= position; });
    return static_cast<std::size_t>(at - seen.begin());
  }

  bool sees(std::int64_t chunk, Range const& keys) const {
    auto const seen = table_->keys(chunk);
    std::size_t const i = first_after(seen, keys.begin);
    return i < seen.size() && seen[i].touches(keys);
  }

  std::int64_t rows_of(std::int64_t chunk) const {
    Range const own = table_->tokens_of(chunk);
    return std::min(own.end, queries_.end) - std::max(own.begin, queries_.begin);
  }

  ChunkTable const* table_;
  Range queries_, chunks_;
};
static_assert(SightInParts<ChunkSight>);

/// As CausalKeys, of a sequence that is one document, by a table of its chunks, which it does not own.
class ChunkKeys {
 public:
  explicit ChunkKeys(ChunkTable const& table) : table_(&table) {}

  ChunkSight operator()(Range const& queries) const { return {*table_, queries}; }

 private:
  ChunkTable const* table_;
};

}  // namespace lightseq
