// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "lightseq/predict/event_engine.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/predict/topology.hpp"

namespace lightseq {

/// Ranks whose turns tell most of a world: the first and last ranks of the first node, the last one, and
/// seven between. `topology` is validated().
inline std::vector<int> telling_ranks(int world, Topology const& topology) {
  int const ranks_per_node = topology.ranks_per_node;
  constexpr int places = 8;
  std::vector<int> ranks;
  for (int i = 0; i <= places; ++i) {
    int const node = static_cast<int>(std::int64_t{i} * (world / ranks_per_node - 1) / places);
    for (int const rank : {node * ranks_per_node, node * ranks_per_node + ranks_per_node - 1})
      ranks.push_back(rank);
  }
  std::sort(ranks.begin(), ranks.end());
  ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
  return ranks;
}

/// Seconds that a turn's messages take where no peer is late: no port passes its bytes sooner, and a latency
/// follows.
inline double message_bound(int rank, Turn const& turn, Topology const& topology) {
  struct Way {
    double seconds = 0, latency = 0;
  };
  Way ways[2][2];  // inside or between nodes, received or sent
  for (TurnMessage const& m : turn.messages) {
    bool const between = m.what.peer / topology.ranks_per_node != rank / topology.ranks_per_node;
    Link const& link = between ? topology.between : topology.inside;
    double const seconds = static_cast<double>(m.bytes) / link.bytes_per_second;
    Way& way = ways[between][m.sent];
    way.seconds = topology.sharing == Sharing::none ? std::max(way.seconds, seconds) : way.seconds + seconds;
    way.latency = link.latency;
  }
  double bound = 0;
  for (auto const& both : ways)
    for (Way const& way : both) bound = std::max(bound, way.seconds + way.latency);
  return bound;
}

/// Seconds below which no simulation of these turns ends: those in which one of `ranks` would be done if no
/// peer were ever late and no message slowed work down. In O(turns) of these ranks, which is why it is asked
/// before all are simulated. `topology` is validated().
template <TurnList Turns>
double lower_bound(Turns& turns, Topology const& topology, std::vector<int> const& ranks) {
  double most = 0;
  Turn turn;
  for (int const rank : ranks) {
    double end = 0, work = 0, messages = 0;
    for (std::int64_t i = 0; turns.fill(rank, i, turn); ++i) {
      if (turn.empty()) continue;
      if (turn.work) work += turn.work_seconds;
      messages += message_bound(rank, turn, topology);
      if (!turn.ends_step) continue;
      end += std::max(work, messages) + turn.merge_seconds;
      work = messages = 0;
    }
    most = std::max(most, end);
  }
  return most;
}

/// The same of a planner's pass, from some of its ranks: at most simulate().makespan, and mostly near it.
/// Throws Error as simulate() does.
template <Schedule S, Mask M>
double lower_bound(Planner<S, M> const& planner, Pass pass, Extents const& extents, Topology const& topology,
                   ComputeModel const& compute, Execution const& execution = {}) {
  Topology const cluster = validated(topology, planner.world());
  PlannedSteps<S, M> const steps{planner, pass};
  Simulator turns(steps, extents, cluster, compute, execution);
  return lower_bound(turns, cluster, telling_ranks(planner.world(), cluster));
}

}  // namespace lightseq
