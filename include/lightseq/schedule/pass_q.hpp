// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/partition/zigzag.hpp"
#include "lightseq/schedule/schedule.hpp"

namespace lightseq {

/// A ring in which keys and values stay and queries travel (ring pass-Q of arXiv 2411.01783); partial results
/// return to the owners of the queries. It pays where queries and results are fewer bytes than keys and
/// values. Serves every mask; the zigzag partition keeps the ranks evenly busy under a causal one.
///
///   world 4    step 0   step 1   step 2   step 3
///   rank 0       0.0      3*0      2*0      1*0        q.kv   own queries
///   rank 1       1.1      0*1      3*1      2*1        q*kv   another rank's queries, result sent back
///   rank 2       2.2      1*2      0*2      3*2
///   rank 3       3.3      2*3      1*3      0*3
struct PassQ {
  static constexpr char const* name = "PassQ";
  using Partition = Zigzag;
  static constexpr int steps(int world) { return world; }
  static constexpr Work at(int rank, int step, int world) { return {wrap(rank - step, world), rank}; }
  static constexpr int reader(int shard, int step, int world) { return wrap(shard + step, world); }
};
static_assert(HasReader<PassQ>);

}  // namespace lightseq
