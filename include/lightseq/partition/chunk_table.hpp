// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/partition/partition.hpp"

namespace lightseq {

/// How many chunks of at most so many rows `tokens` tokens fall into, if each rank is to have
/// equally many. Throws Error, with the numbers, where one is not positive.
inline std::int64_t chunks_for(std::int64_t tokens, int world, std::int64_t most_rows) {
  if (tokens < 1 || world < 1 || most_rows < 1)
    fail(tokens, " tokens cannot be cut into chunks of ", most_rows, " rows for ", world, " ranks");
  return world * tiles_of(tiles_of(tokens, world), most_rows);
}

/// A sequence in equal chunks, which differ by a row at most: what the queries of each cost, and which keys
/// they see. It knows nothing of ranks. chunk_table() of schedule/mask_chunks.hpp fills it by a mask.
class ChunkTable {
 public:
  /// `chunks` of `tokens`, of which add() then tells. Throws Error where a number is not positive.
  ChunkTable(std::int64_t tokens, std::int64_t chunks) : tokens_(tokens), chunks_(chunks) {
    if (tokens < 1 || chunks < 1 || chunks > largest<std::int32_t>)
      fail(tokens, " tokens cannot be cut into ", chunks, " chunks");
    costs_.reserve(static_cast<std::size_t>(chunks)), ends_.reserve(static_cast<std::size_t>(chunks));
  }

  /// Tells of the next chunk: its cost, in tiles, and the keys, in ranges that are not empty and rise. Throws
  /// Error, with the numbers, where they do not or are not of the sequence.
  void add(std::int64_t cost, std::span<Range const> keys) {
    std::int64_t end = 0;
    for (Range const& range : keys) {
      if (range.empty() || range.begin < end || range.end > tokens_)
        fail("chunk ", costs_.size(), " sees keys ", range.begin, " to ", range.end, " of ", tokens_,
             ", after those to ", end);
      end = range.end;
    }
    costs_.push_back(cost);
    keys_.insert(keys_.end(), keys.begin(), keys.end());
    ends_.push_back(keys_.size());
  }

  /// Of the whole sequence.
  std::int64_t tokens() const { return tokens_; }

  /// How many chunks there are, whether told of or not.
  std::int64_t count() const { return chunks_; }

  /// Whether add() has told of each chunk.
  bool complete() const { return std::ssize(costs_) == chunks_; }

  /// The tokens of a chunk; there may be none.
  Range tokens_of(std::int64_t chunk) const { return even_chunk(chunk, chunks_, tokens_).hull(); }

  /// The chunk of a token.
  std::int64_t chunk_of(std::int64_t token) const {
    std::int64_t const rows = tokens_ / chunks_, longer = tokens_ % chunks_;
    std::int64_t const in_longer = longer * (rows + 1);
    return token < in_longer ? token / (rows + 1) : longer + (token - in_longer) / rows;
  }

  /// What the queries of a chunk cost, in tiles.
  std::int64_t cost(std::int64_t chunk) const { return costs_[static_cast<std::size_t>(chunk)]; }

  /// The keys that the queries of a chunk see.
  std::span<Range const> keys(std::int64_t chunk) const {
    auto const i = static_cast<std::size_t>(chunk);
    std::size_t const begin = i > 0 ? ends_[i - 1] : 0;
    return std::span(keys_).subspan(begin, ends_[i] - begin);
  }

 private:
  std::int64_t tokens_, chunks_;
  std::vector<std::int64_t> costs_;
  std::vector<Range> keys_;
  std::vector<std::size_t> ends_;
};

/// The next keys that the queries of some chunks see, at `position` or later, as far as one chunk alone tells
/// where they end; an empty range if there are none.
inline Range next_keys(ChunkTable const& table, std::span<std::int32_t const> chunks, std::int64_t position) {
  Range next;
  for (std::int32_t const chunk : chunks) {
    auto const keys = table.keys(chunk);
    auto const at = std::partition_point(keys.begin(), keys.end(),
                                         [=](Range const& range) { return range.end <= position; });
    if (at == keys.end()) continue;
    Range const seen{std::max(at->begin, position), at->end};
    if (next.empty() || seen.begin < next.begin || (seen.begin == next.begin && seen.end > next.end))
      next = seen;
  }
  return next;
}

/// How many rows a rank receives that owns these chunks: those of the keys that they see and it lacks.
/// O(chunks log ranges) for each range of keys.
inline std::int64_t rows_received(ChunkTable const& table, std::span<std::int32_t const> chunks) {
  std::int64_t rows = 0;
  for (Range keys = next_keys(table, chunks, 0); !keys.empty(); keys = next_keys(table, chunks, keys.end)) {
    rows += keys.size();
    for (std::int32_t const chunk : chunks) {
      Range const own = table.tokens_of(chunk);
      rows -= std::max<std::int64_t>(0, std::min(own.end, keys.end) - std::max(own.begin, keys.begin));
    }
  }
  return rows;
}

}  // namespace lightseq
