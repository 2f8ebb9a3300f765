// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/partition/contiguous.hpp"
#include "lightseq/schedule/schedule.hpp"

namespace lightseq {

/// LightSeq's schedule (DistFlashAttn, arXiv 2310.03294, section 3.2) for masks under which no query sees a
/// later shard. A rank that has no keys left to look at helps a later rank: it takes in that rank's queries
/// and sends back a partial result. Every rank does world / 2 blocks (the diagonal is half a block) for every
/// world: where the published schedule leaves half the ranks idle in the last step of an even world, here
/// owner and helper share the rows of the last pair.
///
///   world 4    step 0   step 1   step 2
///   rank 0       0.0      3*0      2*0^                q.kv   own queries
///   rank 1       1.1      1.0      3*1^                q*kv   a later rank's queries, result sent back
///   rank 2       2.2      2.1      2.0_                ^      upper half of the queries
///   rank 3       3.3      3.2      3.1_                _      lower half of the queries
struct Balanced {
  static constexpr char const* name = "Balanced";
  using Partition = Contiguous;
  static constexpr int steps(int world) { return world / 2 + 1; }
  static constexpr Work at(int rank, int step, int world) {
    bool const shared = 2 * step == world;
    if (rank >= step) return {rank, rank - step, shared ? Rows::lower : Rows::all};
    return {rank - step + world, rank, shared ? Rows::upper : Rows::all};
  }
  static constexpr int reader(int shard, int step, int world) { return wrap(shard + step, world); }
};
static_assert(HasReader<Balanced>);

}  // namespace lightseq
