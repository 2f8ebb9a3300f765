// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>

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

}  // namespace lightseq
