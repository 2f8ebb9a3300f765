// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "lightseq/schedule/payload.hpp"
#include "lightseq/trace/timeline.hpp"

/// What a simulation finds.
namespace lightseq {

/// Where one rank's time goes, in seconds, and what it needs.
struct RankCost {
  double end = 0;           ///< when its last step is over
  double work = 0;          ///< attention
  double merge = 0;         ///< adding up results
  double peer_wait = 0;     ///< waits for a peer that has not come to the step yet
  double message_wait = 0;  ///< waits for bytes that are on their way: communication that no work hides
  std::int64_t pairs = 0;   ///< visible pairs of its works, see visible_pairs()
  std::int64_t bytes_sent = 0;
  std::int64_t kv_rows_received = 0;  ///< of keys and values
  std::int64_t workspace_bytes = 0;   ///< messages and accumulators, without the kernels' scratch
};

/// Bytes that pass a port in a pass, at most 2^63 - 1, as all bytes here.
struct Traffic {
  std::int64_t out = 0;
  std::int64_t in = 0;
};

/// What a step costs: means over all ranks, which need not be in it at the same time.
struct StepCost {
  double work = 0;  ///< seconds of attention
  /// From the end of a rank's step before to the end of this one: works, waits and merges. A rank's last step
  /// lasts until all ranks are done, so that the steps' seconds add up to the makespan.
  double seconds = 0;

  /// The step's efficiency, 0 to 1: the ranks' mean work over their mean time in the step.
  double work_fraction() const { return seconds > 0 ? std::min(1.0, work / seconds) : 0; }
};

/// What simulate() finds.
struct Simulation {
  Pass pass = Pass::forward;
  double makespan = 0;     ///< seconds until the last rank is done
  double flops = 0;        ///< of all these pairs
  std::int64_t pairs = 0;  ///< visible, of all works
  std::vector<RankCost> ranks;
  std::vector<StepCost> steps;
  std::vector<Traffic> inside;   ///< of each rank, with ranks of its node
  std::vector<Traffic> between;  ///< of each rank or, where its ranks share, each node, with other nodes
  Timeline timeline;             ///< in no order; empty unless asked for

  /// The sum of one thing over all ranks.
  double sum(double RankCost::*what) const {
    double all = 0;
    for (RankCost const& rank : ranks) all += rank.*what;
    return all;
  }

  /// The pass's efficiency, 0 to 1: the ranks' mean work over the makespan. It is the mean of that of the
  /// steps, by their seconds.
  double work_fraction() const { return share(sum(&RankCost::work)); }

  /// The share of all ranks' time in which they neither attend nor merge.
  double idle_fraction() const {
    double const busy = sum(&RankCost::work) + sum(&RankCost::merge);
    return share(std::max(0.0, makespan_sum() - busy));
  }

  /// The share of all ranks' time in which they wait for bytes on their way.
  double exposed_fraction() const { return share(sum(&RankCost::message_wait)); }

  /// FLOPs of visible pairs over what all ranks could do in that time at `peak_flops` per second.
  double efficiency(double peak_flops) const {
    return makespan > 0 ? flops / (makespan_sum() * peak_flops) : 0;
  }

  /// Bytes that the busiest rank sends.
  std::int64_t most_bytes_sent() const {
    return most([](RankCost const& rank) { return rank.bytes_sent; });
  }

  /// Bytes that leave the busiest port between nodes.
  std::int64_t most_bytes_between() const {
    std::int64_t result = 0;
    for (Traffic const& port : between) result = std::max(result, port.out);
    return result;
  }

  /// Bytes that the neediest rank must keep besides its tensors.
  std::int64_t most_workspace_bytes() const {
    return most([](RankCost const& rank) { return rank.workspace_bytes; });
  }

 private:
  double makespan_sum() const { return makespan * static_cast<double>(ranks.size()); }
  double share(double seconds) const { return makespan > 0 ? seconds / makespan_sum() : 0; }
  template <class Of>
  std::int64_t most(Of of) const {
    std::int64_t result = 0;
    for (RankCost const& rank : ranks) result = std::max(result, of(rank));
    return result;
  }
};

}  // namespace lightseq
