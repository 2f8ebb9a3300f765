// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/published_balanced.hpp"

#include <doctest/doctest.h>

#include "laws/schedule.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/schedule/balanced.hpp"

using namespace lightseq;

TEST_CASE("the plans of the published schedule keep every law") {
  test::check_schedule<PublishedBalanced>(true, [](int world) { return world <= 24; });
}

TEST_CASE("half the ranks of an even world idle in its last step, nobody in an odd one") {
  // Of one batch and head nothing is rounded up: a block of n rows takes n * n pairs, a diagonal half of it.
  Extents const extents{1, 1, 1, 32, 4};
  ComputeModel const compute{.forward_flops = 1, .backward_flops = 1};
  for (int world = 1; world <= 40; ++world)
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      CAPTURE(world);
      std::int64_t const n = 64;
      auto const seconds = [&](auto const& schedule) {
        return simulate(Planner(schedule, Causal{}, world, n * world), pass, extents, {}, compute).makespan;
      };
      double const pairs = static_cast<double>(n * (n + 1) / 2 + n * n * (world / 2));
      CHECK(seconds(PublishedBalanced{}) == doctest::Approx(pairs * ComputeModel::pair_flops(extents, pass)));
      // What sharing the last pairs gains: half a block of world / 2 + 1 / 2 blocks.
      double const half = world % 2 == 0 ? static_cast<double>(n * n) / 2 : 0;
      CHECK(seconds(Balanced{}) / seconds(PublishedBalanced{}) == doctest::Approx((pairs - half) / pairs));
      for (int rank = 0; rank < world; ++rank)
        for (int step = 0; world % 2 == 1 && step < Balanced::steps(world); ++step)
          CHECK(PublishedBalanced::at(rank, step, world) == Balanced::at(rank, step, world));
    }
}
