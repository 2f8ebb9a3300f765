// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "examples/apps/simulate/cases.hpp"
#include "lightseq/predict/advise_fastest.hpp"

namespace lightseq::simulator {

/// Schedules that are asked for, in order, each with the routes to try.
struct Wanted {
  std::string schedule;
  std::vector<Route> routes;
  std::string asked = {};  ///< as it was asked for, "ZigzagRing:neighbour"
};

/// The library's schedules, and those of other systems.
using AllSchedules = decltype(std::tuple_cat(std::declval<Schedules>(), std::declval<Baselines>()));

/// What --schedule all means.
inline std::vector<std::string> all_schedules() {
  std::vector<std::string> all;
  for_each_type<AllSchedules>([&]<class S>() { all.emplace_back(S::name); });
  all.emplace_back(PackedRing::name);
  return all;
}

/// One name of --schedule: "ZigzagRing", or "ZigzagRing:neighbour".
inline Wanted wanted(Options const& options, std::string const& name) {
  using Routes = std::vector<Route>;
  Routes routes = options.choice<Routes>("--route", {{"owner", {Route::owner}},
                                                     {"neighbour", {Route::neighbour}},
                                                     {"best", {Route::owner, Route::neighbour}}});
  std::string const schedule = name.substr(0, name.find(':'));
  auto const all = all_schedules();
  if (std::find(all.begin(), all.end(), schedule) == all.end())
    fail("--schedule: there is no ", schedule, "; there are ", names_of<AllSchedules>(), ", ",
         PackedRing::name);
  if (schedule.starts_with("TwoLevel")) routes = {Route::neighbour};
  if (std::string const route = name.substr(schedule.size()); route == ":owner")
    routes = {Route::owner};
  else if (route == ":neighbour" && schedule != PackedRing::name)
    routes = {Route::neighbour};
  else if (!route.empty())
    fail("--schedule: ", schedule, " has no route ", route.substr(1));
  if (schedule == PackedRing::name) routes = {Route::owner};
  return {schedule, routes, name};
}

inline std::vector<Wanted> wanted_ways(Options const& options) {
  std::vector<Wanted> ways;
  for (std::string const& name :
       each_once(options.text("--schedule") == "all" ? all_schedules() : options.list("--schedule")))
    ways.push_back(wanted(options, name));
  return ways;
}

/// Calls visit(described, simulate) for each way that is wanted and serves the mask: `described` is an Advice
/// without a simulation, `simulate(pass, timeline)` simulates it.
template <Mask M, class Visit>
void for_each_way(Case const& c, M const& mask, Wanted const& wanted, Visit visit) {
  for_each_schedule<AllSchedules>(c.world, c.topology.ranks_per_node, [&]<class S>(S const& schedule) {
    if (wanted.schedule != S::name || !serves_mask(Planner(schedule, mask, c.world, c.problem.seqlen)))
      return;
    for (Route const route : wanted.routes) {
      Planner const planner(schedule, mask, c.world, c.problem.seqlen, route);
      visit(described(planner, c.extents, c.with_backward()), [&](Pass pass, TimelineOf timeline) {
        return simulate(planner, pass, c.extents, c.topology, c.compute, c.execution, timeline);
      });
    }
  });
  if (c.ends.empty() || wanted.schedule != PackedRing::name) return;
  auto const plans = packed_plans(c.ends, c.problem.seqlen, c.world);
  visit(described(plans, Causal{}, c.extents, c.with_backward()), [&](Pass pass, TimelineOf timeline) {
    return simulate(plans, Causal{}, pass, c.extents, c.topology, c.compute, timeline);
  });
}

/// How many ways of a list serve the mask; to find out takes time proportional to world^2.
template <Mask M>
int count_ways(Case const& c, M const& mask, std::vector<Wanted> const& ways) {
  int count = 0;
  for (Wanted const& way : ways) for_each_way(c, mask, way, [&](Advice const&, auto const&) { ++count; });
  return count;
}

/// What the fastest of a schedule's routes costs in the passes that were asked for; nothing where it does not
/// serve the mask.
template <Mask M>
std::optional<Advice> fastest(Case const& c, M const& mask, Wanted const& way) {
  std::optional<Advice> best;
  for_each_way(c, mask, way, [&](Advice advice, auto const& simulate) {
    for (Pass const pass : c.passes) add_pass(simulate(pass, false), advice);
    if (!best || advice.seconds() < best->seconds()) best = advice;
  });
  return best;
}

/// The ranking of all schedules, the fastest first. With `c.fastest` those that cannot be the fastest have
/// lower bounds alone.
template <Mask M>
std::vector<Advice> ranking(Case const& c, M const& mask,
                            std::function<void(Advice const&)> const& heard = {}) {
  auto const ask = [&](auto const& advise) {
    return advise(c.problem, c.head_dim(), c.extents.element_bytes, mask, c.world, c.topology, c.compute,
                  c.with_backward(), heard, c.execution);
  };
  if constexpr (std::is_same_v<M, Documents<Causal>>)
    return ask([](auto const&... asked) { return advise_packed<AllSchedules>(asked...); });
  else if (c.fastest)
    return ask([](auto const&... asked) { return advise_fastest<AllSchedules>(asked...); });
  else
    return ask([](auto const&... asked) { return advise<AllSchedules>(asked...); });
}

}  // namespace lightseq::simulator
