// SPDX-License-Identifier: Apache-2.0
// A schedule of one's own: keys arrive from both sides, the nearest first, so that on a line or a torus of
// machines most messages are short and both directions of a link are used. One function says who meets whom;
// messages, buffers and both passes follow from it. To run it, run_world() of lightseq::testing does on every
// rank what quickstart.cpp does.
#include <cstdio>
#include <random>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/schedule/grid.hpp"
#include "lightseq/schedule/plan_laws.hpp"
#include "lightseq/testing/sequence.hpp"

struct BothSides {
  using Partition = lightseq::Zigzag;
  static constexpr int steps(int world) { return world; }
  static constexpr lightseq::Work at(int rank, int step, int world) {
    return {rank, lightseq::wrap(rank - distance(step), world)};
  }

  /// Who reads a shard at a step: not needed, but with it a plan costs as much as it has steps.
  static constexpr int reader(int shard, int step, int world) {
    return lightseq::wrap(shard + distance(step), world);
  }

  /// 0, 1, -1, 2, -2, ...
  static constexpr int distance(int step) { return step % 2 == 1 ? (step + 1) / 2 : -step / 2; }
};

// DistAttn asserts these, so a schedule that misses a pair does not compile.
static_assert(lightseq::laws::proved_complete<BothSides, lightseq::Causal>());
static_assert(lightseq::laws::proved_local<BothSides>() && lightseq::laws::proved_readers<BothSides>());

int main() {
  constexpr int ranks = 6, head_dim = 32;
  lightseq::Problem const problem{.batch = 1, .seqlen = 500, .heads = 4, .kv_heads = 2};
  std::printf("%s%s\n", lightseq::grid(BothSides{}, ranks).c_str(), lightseq::grid_legend);

  // The laws of finished plans, for this world and length: what a test of a schedule asks.
  lightseq::Planner const planner(BothSides{}, lightseq::Causal{}, ranks, problem.seqlen);
  for (auto const pass : {lightseq::Pass::forward, lightseq::Pass::backward}) {
    std::vector<lightseq::Plan> plans;
    for (int rank = 0; rank < ranks; ++rank) plans.push_back(planner.plan(rank, pass));
    std::string const fault = lightseq::laws::first_fault(planner, plans);
    std::printf("%s: %s\n", lightseq::name(pass), fault.empty() ? "every law holds" : fault.c_str());
    if (!fault.empty()) return 1;
  }

  auto sequence = lightseq::testing::random_sequence<float>(problem, head_dim, std::random_device{}());
  lightseq::LocalWorld world(ranks);
  using Attn = lightseq::DistAttn<head_dim, lightseq::Causal, BothSides>;
  auto const fault =
      lightseq::testing::run_world<Attn>(world, problem, lightseq::Causal{}, BothSides{}, sequence);
  if (!fault.empty()) {
    std::printf("%s\n", fault.c_str());
    return 1;
  }
  double const error = lightseq::testing::dense_errors<head_dim>(sequence, lightseq::Causal{}).worst();
  std::printf("on %d ranks: worst relative error against dense attention %.1e\n", ranks, error);
  return error < 1e-5 ? 0 : 1;
}
