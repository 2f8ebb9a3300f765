// SPDX-License-Identifier: Apache-2.0
#include "lightseq/predict/presets.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "lightseq/mask/causal.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/schedule/ring.hpp"

using namespace lightseq;

TEST_CASE("every preset can be simulated, stays below its peak, and comes near it where sequences are long") {
  Extents const extents{1, 32, 8, 128, 2};
  for (Pass const pass : {Pass::forward, Pass::backward})
    for (std::int64_t const tokens : {1 << 13, 1 << 16, 1 << 20})
      for (int const world : {1, 2, 8, 16}) {
        for (Preset const& preset : presets()) {
          INFO(std::string(preset.name), ", ", tokens, " tokens, world ", world);
          Topology nodes = preset.nodes;
          nodes.ranks_per_node = std::min(nodes.ranks_per_node, world);
          Simulation const s =
              simulate(Planner(ZigzagRing{}, Causal{}, world, tokens), pass, extents, nodes, preset.compute);
          double const efficiency = s.efficiency(preset.compute.peak_flops);
          CHECK(efficiency < 0.75);
          CHECK(efficiency > (tokens == 1 << 20 && world <= 8 ? 0.5 : 0.0));
        }
      }
}
