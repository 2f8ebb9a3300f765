// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/partition/partition.hpp"

namespace lightseq {

/// The sequence is cut into 2 * world chunks and rank r owns the r-th from either end, so that under a causal
/// mask all ranks have the same work.
///
///   world 4    0 0 1 1 2 2 3 3 3 3 2 2 1 1 0 0
struct Zigzag {
  static constexpr char const* name = "Zigzag";

  static constexpr Positions shard(int rank, int world, std::int64_t seqlen) {
    std::int64_t const chunks = 2 * std::int64_t{world};
    return {{even_chunk(rank, chunks, seqlen), even_chunk(chunks - 1 - rank, chunks, seqlen)}};
  }
};
static_assert(Partition<Zigzag>);

}  // namespace lightseq
