// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <future>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/core/problem.hpp"
#include "lightseq/predict/advise.hpp"
#include "lightseq/predict/lower_bound.hpp"

namespace lightseq {

/// A way to run a problem that need not be simulated.
struct Candidate {
  Advice advice;                           ///< with lower bounds of its seconds
  std::function<Advice()> simulated = {};  ///< with its numbers
};

/// A planner's schedule by its route, as a candidate.
template <Schedule S, Mask M>
Candidate candidate(Planner<S, M> const& planner, Extents const& extents, Topology const& cluster,
                    ComputeModel const& compute, bool with_backward, Execution const& execution) {
  Candidate way{described(planner, extents, with_backward)};
  way.advice.at_least = true;
  auto const bound = [&](Pass pass) {
    return lower_bound(planner, pass, extents, cluster, compute, execution);
  };
  way.advice.forward_seconds = bound(Pass::forward);
  if (with_backward) way.advice.backward_seconds = bound(Pass::backward);
  way.simulated = [=] {
    Advice advice = described(planner, extents, with_backward);
    auto const pass_of = [&](Pass pass) {
      return simulate(planner, pass, extents, cluster, compute, execution);
    };
    std::future<Simulation> backward;
    if (with_backward) backward = std::async(std::launch::async, pass_of, Pass::backward);
    add_pass(pass_of(Pass::forward), advice);
    if (with_backward) add_pass(backward.get(), advice);
    return advice;
  };
  return way;
}

/// advise() for thousands of ranks: the fastest way, and how much slower the others are at least. Ways are
/// simulated in the order of their lower bounds, both passes side by side, until no other can be faster than
/// the fastest by more than a thousandth: its bound says so. So the first advice is simulated, and is within
/// a thousandth of advise()'s; those that are not simulated are `at_least`. The bounds cost O(world) for each
/// way, a simulation O(world^2). Throws Error as advise() does.
template <class List = Schedules, Mask M>
std::vector<Advice> advise_fastest(Problem const& asked, int head_dim, std::int64_t element_bytes,
                                   M const& mask, int world, Topology const& topology,
                                   ComputeModel const& compute, bool with_backward = true,
                                   std::function<void(Advice const&)> const& simulated = {},
                                   Execution const& execution = {}) {
  Problem const problem = validated(asked, head_dim);
  Topology const cluster = validated(topology, world);
  Extents const extents{problem.batch, problem.heads, problem.kv_heads, head_dim, element_bytes};
  std::vector<Candidate> ways;
  for_each_planner<List>(mask, world, problem.seqlen, cluster, [&](auto const& planner) {
    ways.push_back(candidate(planner, extents, cluster, compute, with_backward, execution));
  });
  std::stable_sort(ways.begin(), ways.end(), [](Candidate const& a, Candidate const& b) {
    return a.advice.seconds() < b.advice.seconds();
  });
  std::vector<Advice> ranking, others;
  double best = std::numeric_limits<double>::infinity();
  for (Candidate const& way : ways) {
    if (!ranking.empty() && way.advice.seconds() >= best * (1 - 1e-3)) {
      others.push_back(way.advice);
      continue;
    }
    ranking.push_back(way.simulated());
    best = std::min(best, ranking.back().seconds());
    if (simulated) simulated(ranking.back());
  }
  rank_advices(ranking, extents);
  for (Advice& other : others) {
    double const ratio = other.seconds() / best;
    // NaN where nothing takes time, or it takes for ever.
    other.why = ratio >= 1.0005
                    ? sentence(other.name(), " takes at least ", rounded(ratio), " times as long as ")
                : ratio < 1 ? sentence(other.name(), " takes at least 0.999 times as long as ")
                            : sentence(other.name(), " takes at least as long as ");
    other.why += ranking.front().name();
  }
  ranking.insert(ranking.end(), others.begin(), others.end());
  return ranking;
}

}  // namespace lightseq
