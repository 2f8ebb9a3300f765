// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/partition/partition.hpp"

namespace lightseq {

/// Rank r owns the tokens r, r + world, r + 2 * world, ... (Striped Attention, arXiv 2311.09431).
///
///   world 4    0 1 2 3 0 1 2 3 0 1 2 3 0 1 2 3
struct Striped {
  static constexpr char const* name = "Striped";

  static constexpr Positions shard(int rank, int world, std::int64_t seqlen) {
    std::int64_t const rows = seqlen > rank ? (seqlen - 1 - rank) / world + 1 : 0;
    return {{{rank, rows, world}, {}}};
  }
};
static_assert(Partition<Striped>);

}  // namespace lightseq
