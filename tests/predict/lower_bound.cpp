// SPDX-License-Identifier: Apache-2.0
#include "lightseq/predict/lower_bound.hpp"

#include <doctest/doctest.h>

#include <random>

#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "lightseq/predict/presets.hpp"
#include "lightseq/schedule/catalogue.hpp"
#include "support/data.hpp"
#include "support/predict.hpp"
#include "support/schedules.hpp"

using namespace lightseq;

namespace {

constexpr Extents extents{1, 4, 2, 32, 2};

}  // namespace

TEST_CASE(
    "no simulation ends below the bound, on random clusters, by random schedules and by the library's") {
  std::mt19937_64 random(test::run_seed());
  test::RandomCost costs;
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int world = 1; world <= 24; ++world)
    for (Pass const pass : {Pass::forward, Pass::backward})
      for (Sharing const sharing : test::every_sharing) {
        Topology const cluster = costs.topology(world, sharing);
        ComputeModel const compute = costs.compute();
        Execution const execution{
            .fused_carry = costs.coin(), .overlapped = costs.coin(), .synchronous = costs.coin()};
        auto const check = [&](auto const& planner) {
          double const least = lower_bound(planner, pass, extents, cluster, compute, execution);
          CHECK(least <=
                simulate(planner, pass, extents, cluster, compute, execution).makespan * (1 + 1e-12));
        };
        INFO("world ", world);
        std::int64_t const tokens = 1 + static_cast<std::int64_t>(random() % 100);
        check(Planner(test::random_table<Zigzag>(world, true, random), Causal{}, world, tokens));
        check(Planner(Balanced{}, Causal{}, world, tokens));
        check(Planner(Ring{}, SlidingWindow{9, 0}, world, tokens));
        check(Planner(ZigzagRing{}, Full{}, world, tokens, Route::neighbour));
      }
}

TEST_CASE("the bound is near where ranks do alike: 0.9 of the simulation for rings on presets") {
  for (Preset const& preset : presets())
    for (int const world : {1, 2, 8, 64, 128})
      for (std::int64_t const tokens : {1 << 16, 1 << 20, 1 << 23})
        for (Pass const pass : {Pass::forward, Pass::backward}) {
          Topology nodes = preset.nodes;
          nodes.ranks_per_node = std::min(nodes.ranks_per_node, world);
          nodes.sharing = Sharing::rank;
          nodes.exchange_units = 0;
          auto const near = [&](auto const& schedule, auto const& mask) {
            Planner const planner(schedule, mask, world, tokens);
            Extents const sizes{1, 32, 8, 128, 2};
            return lower_bound(planner, pass, sizes, nodes, preset.compute) /
                   simulate(planner, pass, sizes, nodes, preset.compute).makespan;
          };
          CHECK(near(Ring{}, Full{}) > 0.9);
          CHECK(near(ZigzagRing{}, Causal{}) > 0.9);
          CHECK(near(StripedRing{}, Causal{}) > 0.9);
        }
}
