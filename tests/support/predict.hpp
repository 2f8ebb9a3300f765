// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "lightseq/predict/compute_model.hpp"
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
  ComputeModel compute() {
    return {.forward_flops = number(1, 1e5),
            .backward_flops = number(1, 1e5),
            .carry_bytes = coin() ? number(10, 1e5) : std::numeric_limits<double>::infinity(),
            .memory_bytes = coin() ? number(10, 1e5) : std::numeric_limits<double>::infinity(),
            .launch = coin() ? number(1e-3, 1) : 0,
            .units = coin() ? 7 : 0,
            .tile = 2};
  }
};

inline constexpr Sharing every_sharing[] = {Sharing::none, Sharing::rank, Sharing::node};

}  // namespace lightseq::test
