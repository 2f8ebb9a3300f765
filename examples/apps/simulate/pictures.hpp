// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "examples/apps/simulate/outputs.hpp"
#include "examples/apps/simulate/tables.hpp"
#include "examples/apps/simulate/ways.hpp"
#include "lightseq/trace/chrome_trace.hpp"
#include "lightseq/trace/gantt.hpp"

namespace lightseq::simulator {

/// The ways to draw, in order: those that were asked for, of each schedule the first of its routes, and the
/// fastest.
inline std::vector<Wanted> drawn_ways(std::vector<Wanted> const& asked, Advice const& best) {
  std::vector<Wanted> drawn;
  auto const add = [&](std::string const& schedule, Route route) {
    bool const there = std::any_of(drawn.begin(), drawn.end(), [&](Wanted const& way) {
      return way.schedule == schedule && way.routes.front() == route;
    });
    if (!there) drawn.push_back({schedule, {route}});
  };
  for (Wanted const& way : asked) add(way.schedule, way.routes.front());
  add(best.schedule, best.route);
  return drawn;
}

/// The charts of a pass. `best` is the fastest of the ranking.
template <Mask M>
std::vector<GanttChart> charts(Case const& c, M const& mask, Pass pass, std::vector<Wanted> const& ways,
                               Advice const& best, Progress& progress) {
  std::vector<GanttChart> charts;
  for (Wanted const& way : ways)
    for_each_way(c, mask, way, [&](Advice const& a, auto const& simulate) {
      progress.next(std::string("drawing ") + name(pass) + ", " + a.name());
      Simulation s = simulate(pass, TimelineOf::first(Gantt::most_ranks));
      charts.push_back({a.name() + ", " + name(pass) + ": " + seconds_text(s.makespan) + ", idle " +
                            percent(s.idle_fraction()) + (a.name() == best.name() ? ", the fastest" : ""),
                        c.world, std::move(s.timeline)});
    });
  return charts;
}

}  // namespace lightseq::simulator
