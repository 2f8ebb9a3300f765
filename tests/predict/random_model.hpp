// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <vector>

#include "lightseq/predict/model.hpp"
#include "support/data.hpp"

namespace lightseq::test {

inline doctest::Approx about(double value) { return doctest::Approx(value).epsilon(1e-9).scale(1e-20); }

/// Layers, rates and clusters of random numbers.
struct RandomModel {
  std::mt19937_64 random{run_seed()};

  double number(double least, double most) {
    return std::exp(std::uniform_real_distribution<double>(std::log(least), std::log(most))(random));
  }
  std::int64_t whole(std::int64_t least, std::int64_t most) {
    return std::uniform_int_distribution<std::int64_t>(least, most)(random);
  }
  bool coin() { return random() % 2 == 0; }
  int divisor(int of) {
    std::vector<int> found;
    for (int d = 1; d <= of; ++d)
      if (of % d == 0) found.push_back(d);
    return found[random() % found.size()];
  }
  Link link() { return {number(1e9, 1e12), number(1e-7, 1e-4)}; }
  Topology topology(int ranks) {
    return {.ranks_per_node = divisor(ranks),
            .inside = link(),
            .between = link(),
            .sharing = coin() ? Sharing::rank : Sharing::node};
  }
  LayerShape layer() {
    std::int64_t const kv = whole(1, 8);
    return {whole(1, 4096), whole(1, 8192), kv * whole(1, 8), kv, 8 * whole(1, 16), coin()};
  }
  LayerRates rates() { return {number(1e12, 1e15), number(1e11, 1e13), number(1e9, 1e11), number(0.1, 10)}; }
  AttentionCost attention() {
    auto const pass = [&] { return AttentionPass{number(1e-6, 1), number(1e-6, 1), number(1, 1e9)}; };
    return {pass(), pass()};
  }
};

}  // namespace lightseq::test
