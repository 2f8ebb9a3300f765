// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "lightseq/predict/compute_model.hpp"
#include "lightseq/predict/simulation.hpp"
#include "lightseq/predict/topology.hpp"
#include "support/data.hpp"

/// Clusters to simulate.
namespace lightseq::test {

/// A cluster and a model of random numbers, some of them free of charge.
struct RandomCost {
  std::mt19937_64 random{run_seed()};

  double number(double least, double most) {
    return std::exp(std::uniform_real_distribution<double>(std::log(least), std::log(most))(random));
  }
  bool coin() { return random() % 2 == 0; }
  int divisor(int world) {
    std::vector<int> found;
    for (int d = 1; d <= world; ++d)
      if (world % d == 0) found.push_back(d);
    return found[random() % found.size()];
  }
  Link link() { return {number(1, 1e4), coin() ? number(1e-3, 1e2) : 0}; }
  Topology topology(int world, Sharing sharing) {
    return {.ranks_per_node = divisor(world),
            .inside = link(),
            .between = link(),
            .sharing = sharing,
            .exchange_units = static_cast<int>(random() % 6)};
  }
  PairWeights weights() {
    return coin() ? PairWeights{} : PairWeights{number(0.5, 5), number(0.5, 2), number(0.1, 10)};
  }
  ComputeModel compute() {
    return {.forward_flops = number(1, 1e5),
            .backward_flops = number(1, 1e5),
            .carry_bytes = coin() ? number(10, 1e5) : std::numeric_limits<double>::infinity(),
            .memory_bytes = coin() ? number(10, 1e5) : std::numeric_limits<double>::infinity(),
            .launch = coin() ? number(1e-3, 1) : 0,
            .units = coin() ? 7 : 0,
            .tile = 2,
            .forward_weights = weights(),
            .backward_weights = weights()};
  }
};

inline constexpr Sharing every_sharing[] = {Sharing::none, Sharing::rank, Sharing::node};

/// No simulation, with its timeline, is faster than its busiest rank and its busiest port, or slower than all
/// works, merges and messages one after another.
inline void check_serial_bounds(Simulation const& s, Topology const& cluster) {
  double serial = 0;
  for (RankCost const& rank : s.ranks) {
    CHECK(s.makespan >= (rank.work + rank.merge) * (1 - 1e-12));
    serial += rank.work + rank.merge;
  }
  for (auto const* list : {&s.inside, &s.between})
    for (Traffic const& port : *list) {
      Link const& link = list == &s.inside ? cluster.inside : cluster.between;
      double const busiest = static_cast<double>(std::max(port.out, port.in)) / link.bytes_per_second;
      if (cluster.sharing != Sharing::none) CHECK(s.makespan >= busiest * (1 - 1e-12));
      serial += static_cast<double>(port.out) / link.bytes_per_second;
    }
  double const latency = std::max(cluster.inside.latency, cluster.between.latency);
  for (Span const& span : s.timeline) serial += span.activity == Activity::send ? latency : 0;
  CHECK(s.makespan <= serial * (1 + 1e-12));
}

}  // namespace lightseq::test
