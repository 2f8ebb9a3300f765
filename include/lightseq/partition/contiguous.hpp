// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/partition/partition.hpp"

namespace lightseq {

/// Rank r owns the r-th of `world` equal pieces: tokens keep their order.
///
///   world 4    0 0 0 0 1 1 1 1 2 2 2 2 3 3 3 3
struct Contiguous {
  static constexpr char const* name = "Contiguous";

  static constexpr Positions shard(int rank, int world, std::int64_t seqlen) {
    return {{even_chunk(rank, world, seqlen), {}}};
  }
};
static_assert(Partition<Contiguous>);

}  // namespace lightseq
