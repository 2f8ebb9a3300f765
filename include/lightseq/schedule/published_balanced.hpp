// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>

#include "lightseq/partition/contiguous.hpp"
#include "lightseq/schedule/schedule.hpp"

namespace lightseq {

/// LightSeq's schedule as it was published (DistFlashAttn, arXiv 2310.03294, section 3.2), to compare with:
/// helpers take whole shards of queries. In the last step of an even world the pairs that are left have one
/// rank each, so that the other half of the ranks idles; Balanced shares them. For odd worlds both are the
/// same.
///
///   world 4    step 0   step 1   step 2
///   rank 0       0.0      3*0      -
///   rank 1       1.1      1.0      -                   q.kv   own queries
///   rank 2       2.2      2.1      2.0                 q*kv   a later rank's queries, result sent back
///   rank 3       3.3      3.2      3.1
struct PublishedBalanced {
  static constexpr char const* name = "PublishedBalanced";
  using Partition = Contiguous;
  static constexpr int steps(int world) { return world / 2 + 1; }
  static constexpr std::optional<Work> at(int rank, int step, int world) {
    if (rank >= step) return Work{rank, rank - step};
    if (2 * step == world) return std::nullopt;
    return Work{rank - step + world, rank};
  }
  static constexpr int reader(int shard, int step, int world) { return wrap(shard + step, world); }
};
static_assert(HasReader<PublishedBalanced>);

}  // namespace lightseq
