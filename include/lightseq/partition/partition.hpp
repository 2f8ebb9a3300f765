// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <tuple>
#include <utility>
#include <vector>

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

/// a * b modulo m, of numbers below m < 2^63.
constexpr std::uint64_t product_modulo(std::uint64_t a, std::uint64_t b, std::uint64_t m) {
  std::uint64_t product = 0;
  for (; b > 0; b /= 2, a = (a + a) % m)
    if (b % 2 == 1) product = (product + a) % m;
  return product;
}

/// The number below m whose product with a is 1 modulo m, by Euclid; a and m have no common factor.
constexpr std::int64_t inverse_modulo(std::int64_t a, std::int64_t m) {
  std::int64_t rest = m, next_rest = a % m, factor = 0, next_factor = 1;
  while (next_rest != 0) {
    std::int64_t const quotient = rest / next_rest;
    rest = std::exchange(next_rest, rest - quotient * next_rest);
    factor = std::exchange(next_factor, factor - quotient * next_factor);
  }
  return factor < 0 ? factor + m : factor;
}

/// The first token that two segments have in common, or -1; both have rows and lie within a sequence.
constexpr std::int64_t common_token(Segment a, Segment b) {
  if (a.begin < b.begin) std::swap(a, b);
  std::int64_t const last = std::min(a.position(a.rows - 1), b.position(b.rows - 1));
  std::int64_t const factor = std::gcd(a.stride, b.stride), gap = a.begin - b.begin;
  if (last < a.begin || gap % factor != 0) return -1;
  // Row i of a is in b where i * a.stride = -gap modulo b.stride.
  std::int64_t const m = b.stride / factor, wanted = (m - gap / factor % m) % m;
  auto const row = static_cast<std::int64_t>(product_modulo(
      static_cast<std::uint64_t>(wanted), static_cast<std::uint64_t>(inverse_modulo(a.stride / factor, m)),
      static_cast<std::uint64_t>(m)));
  return row <= (last - a.begin) / a.stride ? a.position(row) : -1;
}

/// A segment and who owns it.
struct OwnedSegment {
  int rank = 0;
  Segment segment;
};

/// Throws Error where two segments have a token in common, with the token and the ranks. O(n log n) where all
/// strides are equal, else O(n^2). Sorts the list.
inline void check_apart(std::vector<OwnedSegment>& list, int world) {
  auto const key = [](OwnedSegment const& owned) {
    Segment const& s = owned.segment;
    return std::tuple(s.stride, s.begin % s.stride, s.begin);
  };
  std::sort(list.begin(), list.end(),
            [&](OwnedSegment const& a, OwnedSegment const& b) { return key(a) < key(b); });
  auto const check = [&](OwnedSegment const& a, OwnedSegment const& b) {
    if (std::int64_t const token = common_token(a.segment, b.segment); token >= 0)
      fail("the partition gives token ", token, " to rank ", std::min(a.rank, b.rank), " and to rank ",
           std::max(a.rank, b.rank), " of ", world);
  };
  for (std::size_t i = 1; i < list.size(); ++i) check(list[i - 1], list[i]);
  if (list.empty() || list.front().segment.stride == list.back().segment.stride) return;
  for (std::size_t i = 0; i < list.size(); ++i)
    for (std::size_t j = i + 1; j < list.size(); ++j) check(list[i], list[j]);
}

/// As max_shard_rows(), of a partition that anybody may have written. Throws Error, with the numbers, where a
/// segment has negative rows, a stride below 1 or tokens outside of the sequence, and where not every token
/// belongs to exactly one rank.
template <Partition P>
std::int64_t checked_max_shard_rows(int world, std::int64_t seqlen) {
  std::int64_t most = 0, rows = 0;
  std::vector<OwnedSegment> owned;
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
      owned.push_back({rank, s});
    }
    most = std::max(most, shard.rows());
  }
  if (rows < seqlen) fail("the partition gives ", world, " ranks ", rows, " of ", seqlen, " tokens");
  check_apart(owned, world);  // then so many are all
  return most;
}

}  // namespace lightseq
