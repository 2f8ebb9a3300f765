// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <optional>
#include <string>

#include "lightseq/schedule/planner.hpp"
#include "lightseq/schedule/text.hpp"

namespace lightseq {

/// What the marks in a grid mean.
inline constexpr char const* grid_legend =
    "q.kv own queries   q*kv another rank's queries, result sent back   ^ upper, _ lower half of the queries "
    "  - idle";

/// A table of who computes what, a line for each rank and a column for each step, as in the comments of the
/// schedules' headers. `work(rank, step)` gives std::optional<Work>.
template <class WorkAt>
std::string grid(int world, int steps, WorkAt const& work) {
  auto const padded = [](std::string text, std::size_t width) {
    return text.append(width > text.size() ? width - text.size() : 0, ' ');
  };
  auto const cell = [&](int rank, int step) -> std::string {
    std::optional<Work> const w = work(rank, step);
    if (!w) return "  -";
    return std::string("  ").append(mark(*w, rank).view());
  };
  std::size_t width = sizeof("step 0") - 1;
  for (int step = 0; step < steps; ++step) {
    width = std::max(width, sizeof("step ") - 1 + std::to_string(step).size());
    for (int rank = 0; rank < world; ++rank) width = std::max(width, cell(rank, step).size());
  }
  std::string text;
  for (int rank = -1; rank < world; ++rank) {
    std::string line = rank < 0 ? "world " + std::to_string(world) : "rank " + std::to_string(rank);
    line = padded(line, sizeof("world ") - 1 + std::to_string(world).size() + 4);
    for (int step = 0; step < steps; ++step)
      line += padded(rank < 0 ? "step " + std::to_string(step) : cell(rank, step), width + 3);
    text += line.substr(0, line.find_last_not_of(' ') + 1) + '\n';
  }
  return text;
}

/// All that a schedule asks for.
template <Schedule S>
std::string grid(S const& schedule, int world) {
  return grid(world, schedule.steps(world),
              [&](int rank, int step) -> std::optional<Work> { return schedule.at(rank, step, world); });
}

/// What is left of it under the planner's mask and lengths.
template <Schedule S, Mask M>
std::string grid(Planner<S, M> const& planner) {
  return grid(planner.world(), planner.schedule_steps(),
              [&](int rank, int step) { return planner.work(rank, step); });
}

}  // namespace lightseq
