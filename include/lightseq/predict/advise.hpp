// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/core/problem.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/schedule/catalogue.hpp"

namespace lightseq {

/// One way to run a problem, and what it would cost: seconds, shares of all ranks' time, bytes.
struct Advice {
  std::string schedule;   ///< the type's name
  std::string partition;  ///< the type's name
  Route route = Route::owner;
  int ranks_per_node = 0;  ///< to give to a two-level schedule; 0 for others

  double forward_seconds = 0;
  double backward_seconds = 0;     ///< 0 if only the forward was asked for
  std::int64_t bytes_sent = 0;     ///< by the busiest rank of each pass, both passes together
  std::int64_t bytes_between = 0;  ///< the same, out of the busiest port between nodes
  double rows_received = 0;        ///< of keys and values, by a rank in a forward, on average
  std::int64_t workspace_bytes = 0;

  /// Where the ranks' time goes, on average, both passes together.
  double work = 0, merge = 0, message_wait = 0, idle = 0;

  /// The efficiency of each step, see StepCost::work_fraction().
  std::vector<double> forward_steps, backward_steps;

  std::string why;  ///< a sentence that sets it against the best

  double seconds() const { return forward_seconds + backward_seconds; }

  /// What a sentence on another one calls it.
  std::string name() const { return (route == Route::owner ? "" : "relayed ") + schedule; }
};

/// What a sentence says of a number: three digits.
inline std::string rounded(double value) {
  if (!(value > 0) || std::isinf(value)) return sentence(value);
  double const unit = std::pow(10, 2 - std::floor(std::log10(value)));
  return sentence(std::round(value * unit) / unit);
}

/// How many times the bytes of another: "0.81 of the bytes of ".
inline std::string share_of_bytes(std::int64_t bytes, std::int64_t others) {
  if (bytes == others) return "the same bytes as ";
  if (others == 0) return sentence(bytes, " bytes, against none of ");
  return rounded(static_cast<double>(bytes) / static_cast<double>(others)) + " of the bytes of ";
}

/// The sentence on one advice: the best says how it compares with the runner-up, the others what they lose
/// against the best.
inline std::string reason(Advice const& one, Advice const& best, bool is_best, Extents const& extents) {
  double const time = one.seconds();
  auto const percent_of_time = [&](double seconds) {
    double const share = seconds / time;  // NaN where nothing takes time
    return sentence(std::isnan(share) ? 0 : std::lround(100 * share), " %");
  };
  std::string bytes =
      sentence("its busiest rank sends ", share_of_bytes(one.bytes_sent, best.bytes_sent), best.name());
  if (one.bytes_between != best.bytes_between)
    bytes += sentence(", between nodes ", share_of_bytes(one.bytes_between, best.bytes_between), best.name());
  std::int64_t const group = extents.heads / extents.kv_heads;
  bytes += sentence(", at ", group, group == 1 ? " query head" : " query heads", " per kv head");
  std::string const waits =
      sentence("ranks wait ", percent_of_time(one.message_wait), " of the time for messages and ",
               percent_of_time(one.idle), " for late peers");
  std::string const name = one.schedule + (one.route == Route::owner ? "" : ", relayed");
  if (is_best) return sentence(name, ": the fastest; ", bytes, "; ", waits);
  double const ratio = time / best.seconds();
  std::string const start =
      name + (ratio >= 1.0005 ? sentence(": ", rounded(ratio), " times the fastest; ") : ": as fast; ");
  std::pair<double, std::string> const losses[] = {
      {one.message_wait - best.message_wait, sentence(waits, "; ", bytes)},
      {one.idle - best.idle, sentence(waits, ": work or messages fall unevenly")},
      {one.merge + one.work - best.merge - best.work,
       sentence("tiles, carries, merges and launches take ",
                rounded((one.merge + one.work) / (best.merge + best.work)), " times as long as those of ",
                best.name())}};
  auto const worst = std::max_element(std::begin(losses), std::end(losses),
                                      [](auto const& a, auto const& b) { return a.first < b.first; });
  if (!(worst->first > 1e-3 * best.seconds())) return start + bytes;
  return start + worst->second;
}

/// Adds what the simulation of a pass has found.
inline void add_pass(Simulation const& s, Advice& advice) {
  bool const forward = s.pass == Pass::forward;
  double const share = 1.0 / static_cast<double>(s.ranks.size());
  (forward ? advice.forward_seconds : advice.backward_seconds) = s.makespan;
  for (StepCost const& step : s.steps)
    (forward ? advice.forward_steps : advice.backward_steps).push_back(step.work_fraction());
  if (forward)
    for (RankCost const& rank : s.ranks)
      advice.rows_received += share * static_cast<double>(rank.kv_rows_received);
  double const work = share * s.sum(&RankCost::work), merge = share * s.sum(&RankCost::merge);
  double const waits = share * s.sum(&RankCost::message_wait);
  advice.work += work;
  advice.merge += merge;
  advice.message_wait += waits;
  advice.idle += std::max(0.0, s.makespan - work - merge - waits);
  advice.bytes_sent = capped_sum(advice.bytes_sent, s.most_bytes_sent());
  advice.bytes_between = capped_sum(advice.bytes_between, s.most_bytes_between());
  advice.workspace_bytes = std::max(advice.workspace_bytes, s.most_workspace_bytes());
}

/// What a planner's schedule costs by its route, in the forward or in both passes; without the sentence.
template <Schedule S, Mask M>
Advice advice_on(Planner<S, M> const& planner, Extents const& extents, Topology const& cluster,
                 ComputeModel const& compute, bool with_backward) {
  Advice advice;
  advice.schedule = name_of<S>();
  advice.partition = name_of<typename S::Partition>();
  advice.route = planner.route();
  if constexpr (HasNodes<S>) advice.ranks_per_node = planner.schedule().ranks_per_node;
  for (Pass const pass : {Pass::forward, Pass::backward})
    if (pass == Pass::forward || with_backward)
      add_pass(simulate(planner, pass, extents, cluster, compute), advice);
  return advice;
}

/// Sorts, the fastest first, and gives each its sentence.
inline void rank_advices(std::vector<Advice>& ranking, Extents const& extents) {
  std::stable_sort(ranking.begin(), ranking.end(), [](Advice const& a, Advice const& b) {
    return std::pair(a.seconds(), a.bytes_sent) < std::pair(b.seconds(), b.bytes_sent);
  });
  for (Advice& advice : ranking) {
    bool const is_best = &advice == &ranking.front();
    // The best is set against the next that is another schedule.
    auto const other = std::find_if(ranking.begin(), ranking.end(),
                                    [&](Advice const& a) { return a.schedule != advice.schedule; });
    Advice const& against = is_best && other != ranking.end() ? *other : ranking.front();
    advice.why = reason(advice, against, is_best, extents);
  }
}

/// Every schedule of a list, here the library's, that serves the mask, by each route, the fastest first, with
/// a sentence of why. Throws Error on a problem, topology or model that makes no sense. It simulates all
/// ranks: that takes time proportional to world^2, well below a second for hundreds of ranks, a minute or two
/// for 4096. `simulated`, where it is given, hears of each way once its numbers are there, in no order.
template <class List = Schedules, Mask M>
std::vector<Advice> advise(Problem const& asked, int head_dim, std::int64_t element_bytes, M const& mask,
                           int world, Topology const& topology, ComputeModel const& compute,
                           bool with_backward = true,
                           std::function<void(Advice const&)> const& simulated = {}) {
  Problem const problem = validated(asked, head_dim);
  Topology const cluster = validated(topology, world);
  Extents const extents{problem.batch, problem.heads, problem.kv_heads, head_dim, element_bytes};
  std::vector<Advice> ranking;
  for_each_schedule<List>(world, cluster.ranks_per_node, [&](auto const& schedule) {
    if (!serves_mask(Planner(schedule, mask, world, problem.seqlen))) return;
    for (Route const route : {Route::owner, Route::neighbour}) {
      Planner const planner(schedule, mask, world, problem.seqlen, route);
      ranking.push_back(advice_on(planner, extents, cluster, compute, with_backward));
      if (simulated) simulated(ranking.back());
    }
  });
  rank_advices(ranking, extents);
  return ranking;
}

}  // namespace lightseq
