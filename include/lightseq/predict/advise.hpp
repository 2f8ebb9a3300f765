// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <future>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/core/problem.hpp"
#include "lightseq/predict/advice.hpp"
#include "lightseq/predict/execution.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/predict/units.hpp"
#include "lightseq/schedule/catalogue.hpp"

namespace lightseq {

/// How many times the bytes of another: "0.81 of the bytes of ".
inline std::string share_of_bytes(std::int64_t bytes, std::int64_t others) {
  if (bytes == others) return "the same bytes as ";
  if (others == 0) return sentence(bytes_text(bytes), ", against none of ");
  return rounded(static_cast<double>(bytes) / static_cast<double>(others)) + " of the bytes of ";
}

/// How the bytes of one compare with another's.
inline std::string bytes_reason(Advice const& one, Advice const& other, Extents const& extents) {
  if (one.bytes_sent == 0 && other.bytes_sent == 0) return "no bytes are sent";
  std::string text =
      sentence("its busiest rank sends ", share_of_bytes(one.bytes_sent, other.bytes_sent), other.name());
  if (one.bytes_between != other.bytes_between)
    text +=
        sentence(", between nodes ", share_of_bytes(one.bytes_between, other.bytes_between), other.name());
  std::int64_t const group = extents.heads / extents.kv_heads;
  return sentence(text, ", at ", group, group == 1 ? " query head" : " query heads", " per kv head");
}

/// A share of an advice's time: "12 %".
inline std::string percent_of_time(Advice const& advice, double seconds) {
  double const share = seconds / advice.seconds();  // NaN where nothing takes time
  return sentence(std::isnan(share) ? 0 : std::lround(100 * share), " %");
}

/// The sentence on one advice: the best says how it compares with the runner-up, the others what they lose
/// against the best.
inline std::string reason(Advice const& one, Advice const& best, bool is_best, Extents const& extents) {
  std::string const bytes = bytes_reason(one, best, extents);
  std::string const waits =
      sentence("ranks wait ", percent_of_time(one, one.message_wait), " of the time for messages and ",
               percent_of_time(one, one.idle), " for late peers");
  if (is_best)
    return sentence(one.name(), " is the fastest: ", one.name() == best.name() ? "" : bytes + "; ", waits);
  double const ratio = one.seconds() / best.seconds();
  std::string const start = ratio >= 1.0005 ? sentence(one.name(), " takes ", rounded(ratio),
                                                       " times as long as ", best.name(), ": ")
                                            : sentence(one.name(), " is as fast as ", best.name(), ": ");
  std::pair<double, std::string> const losses[] = {
      {one.message_wait - best.message_wait, sentence(waits, "; ", bytes)},
      {one.idle - best.idle, sentence(waits, ", as work or messages fall unevenly")},
      {one.merge + one.work - best.merge - best.work,
       sentence("tiles, carries, merges and launches take ",
                rounded((one.merge + one.work) / (best.merge + best.work)), " times as long as those of ",
                best.name())}};
  auto const worst = std::max_element(std::begin(losses), std::end(losses),
                                      [](auto const& a, auto const& b) { return a.first < b.first; });
  if (!(worst->first > 1e-3 * best.seconds())) return start + bytes;
  return start + worst->second;
}

/// All that is known of a way without a simulation.
template <Schedule S, Mask M>
Advice described(Planner<S, M> const& planner, Extents const& extents, bool with_backward) {
  Advice advice;
  advice.schedule = name_of<S>();
  advice.partition = name_of<typename S::Partition>();
  advice.route = planner.route();
  if constexpr (HasNodes<S>) advice.ranks_per_node = planner.schedule().ranks_per_node;
  std::int64_t rows = 0;
  for (int rank = 0; rank < planner.world(); ++rank) rows = std::max(rows, planner.shard(rank).rows());
  advice.tensor_bytes = shard_tensor_bytes(extents, rows, with_backward);
  write_type<S, M>(extents, advice);
  return advice;
}

/// What a planner's schedule costs by its route, in the forward or in both passes; without the sentence.
template <Schedule S, Mask M>
Advice advice_on(Planner<S, M> const& planner, Extents const& extents, Topology const& cluster,
                 ComputeModel const& compute, bool with_backward, Execution const& execution = {}) {
  Advice advice = described(planner, extents, with_backward);
  for (Pass const pass : {Pass::forward, Pass::backward})
    if (pass == Pass::forward || with_backward)
      add_pass(simulate(planner, pass, extents, cluster, compute, execution), advice);
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

/// Calls visit(planner) for each schedule of a list that serves the mask, by each route. Which ones serve it
/// takes time proportional to world^2, so that for large worlds all are asked side by side.
template <class List, Mask M, class Visit>
void for_each_planner(M const& mask, int world, std::int64_t seqlen, Topology const& cluster, Visit visit) {
  std::vector<std::future<bool>> serve;
  for_each_schedule<List>(world, cluster.ranks_per_node, [&](auto const& schedule) {
    serve.push_back(std::async(world < 256 ? std::launch::deferred : std::launch::async,
                               [=] { return serves_mask(Planner(schedule, mask, world, seqlen)); }));
  });
  auto next = serve.begin();
  for_each_schedule<List>(world, cluster.ranks_per_node, [&](auto const& schedule) {
    if (!(next++)->get()) return;
    for (Route const route : {Route::owner, Route::neighbour})
      visit(Planner(schedule, mask, world, seqlen, route));
  });
}

/// Every schedule of a list, here the library's, that serves the mask, by each route, the fastest first, with
/// a sentence of why. Throws Error on a problem, topology or model that makes no sense. It simulates all
/// ranks: that takes time proportional to world^2, well below a second for hundreds of ranks, a minute or two
/// for 4096. `simulated`, where it is given, hears of each way once its numbers are there, in no order.
/// `execution` says how a step is run, where it is not as this library does.
template <class List = Schedules, Mask M>
std::vector<Advice> advise(Problem const& asked, int head_dim, std::int64_t element_bytes, M const& mask,
                           int world, Topology const& topology, ComputeModel const& compute,
                           bool with_backward = true,
                           std::function<void(Advice const&)> const& simulated = {},
                           Execution const& execution = {}) {
  Problem const problem = validated(asked, head_dim);
  Topology const cluster = validated(topology, world);
  Extents const extents{problem.batch, problem.heads, problem.kv_heads, head_dim, element_bytes};
  std::vector<Advice> ranking;
  for_each_planner<List>(mask, world, problem.seqlen, cluster, [&](auto const& planner) {
    ranking.push_back(advice_on(planner, extents, cluster, compute, with_backward, execution));
    if (simulated) simulated(ranking.back());
  });
  rank_advices(ranking, extents);
  return ranking;
}

}  // namespace lightseq
