// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>

#include "lightseq/core/error.hpp"
#include "lightseq/core/range.hpp"

namespace lightseq {

/// Which tokens each rank owns: `shard(rank, world, seqlen)` gives the positions of its rows. Every token of
/// the sequence belongs to exactly one rank. Shards may be empty.
template <class P>
concept Partition = requires(int rank, int world, std::int64_t seqlen) {
  { P::shard(rank, world, seqlen) } -> std::same_as<Positions>;
};

/// Chunk `index` of `seqlen` tokens cut into `chunks` as evenly as can be, the longer ones first.
constexpr Segment even_chunk(std::int64_t index, std::int64_t chunks, std::int64_t seqlen) {
  std::int64_t const rows = seqlen / chunks;
  std::int64_t const longer = seqlen % chunks;
  return {index * rows + (index < longer ? index : longer), rows + (index < longer ? 1 : 0)};
}

/// Rows of the largest shard: what a buffer for anybody's shard must hold.
template <Partition P>
constexpr std::int64_t max_shard_rows(int world, std::int64_t seqlen) {
  std::int64_t most = 0;
  for (int rank = 0; rank < world; ++rank) most = std::max(most, P::shard(rank, world, seqlen).rows());
  return most;
}

/// What tells positions from others whose number is the same: their sum and that of their squares, modulo
/// 2^64.
struct PositionSums {
  std::uint64_t positions = 0, squares = 0;

  constexpr void add(Segment const& segment) {
    auto const begin = static_cast<std::uint64_t>(segment.begin),
               n = static_cast<std::uint64_t>(segment.rows),
               stride = static_cast<std::uint64_t>(segment.stride);
    if (n == 0) return;
    // 0 + 1 + ... + (n - 1), and the same of squares: divided before a product may be cut.
    std::uint64_t a = n, b = n - 1, c = 2 * n - 1;
    (a % 2 == 0 ? a : b) /= 2;
    std::uint64_t const rows = a * b;
    (a % 3 == 0 ? a : b % 3 == 0 ? b : c) /= 3;
    std::uint64_t const rows_squared = a * b * c;
    positions += n * begin + stride * rows;
    squares += n * begin * begin + 2 * begin * stride * rows + stride * stride * rows_squared;
  }
  friend constexpr bool operator==(PositionSums const&, PositionSums const&) = default;
};

/// As max_shard_rows(), of a partition that anybody may have written. Throws Error, with the numbers, where a
/// segment has negative rows, a stride below 1 or tokens outside of the sequence, and where not every token
/// belongs to exactly one rank; that is judged by how many there are and by PositionSums.
template <Partition P>
std::int64_t checked_max_shard_rows(int world, std::int64_t seqlen) {
  std::int64_t most = 0, rows = 0;
  PositionSums sums, all;
  all.add({0, seqlen});
  for (int rank = 0; rank < world; ++rank) {
    Positions const shard = P::shard(rank, world, seqlen);
    for (Segment const& s : shard.segments) {
      if (s.rows == 0) continue;
      if (s.rows < 0 || s.stride < 1 || s.begin < 0 || s.begin >= seqlen ||
          s.rows - 1 > (seqlen - 1 - s.begin) / s.stride)
        fail("the partition gives rank ", rank, " of ", world, " ", s.rows, " tokens from ", s.begin,
             " on with stride ", s.stride, "; the sequence has ", seqlen, " tokens");
      rows = s.rows > seqlen - rows ? seqlen + 1 : rows + s.rows;
      if (rows > seqlen)
        fail("the partition gives ", world, " ranks more than the ", seqlen, " tokens that there are");
      sums.add(s);
    }
    most = std::max(most, shard.rows());
  }
  if (rows < seqlen) fail("the partition gives ", world, " ranks ", rows, " of ", seqlen, " tokens");
  if (!(sums == all))
    fail("the partition gives some of ", seqlen, " tokens to several of ", world, " ranks, others to none");
  return most;
}

}  // namespace lightseq
