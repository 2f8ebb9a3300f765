// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <iterator>
#include <span>
#include <string>
#include <vector>

#include "examples/apps/simulate/cases.hpp"

namespace lightseq::simulator {

/// Rows for readers, as text or in a page: below each stand sentences on it.
struct Table {
  struct Row {
    std::vector<std::string> cells;
    std::vector<std::string> below;
  };
  std::vector<std::string> columns;
  std::vector<Row> rows;

  /// The first column to the left, the others to the right.
  std::string text() const {
    std::vector<std::size_t> widths;
    for (std::size_t i = 0; i < columns.size(); ++i) {
      widths.push_back(columns[i].size());
      for (Row const& row : rows) widths[i] = std::max(widths[i], row.cells[i].size());
    }
    auto const line = [&](std::vector<std::string> const& cells) {
      std::string text;
      for (std::size_t i = 0; i < cells.size(); ++i) {
        std::string const room(widths[i] - cells[i].size(), ' ');
        text += i == 0 ? cells[i] + room : "  " + room + cells[i];
      }
      return text + '\n';
    };
    std::string text = line(columns);
    for (Row const& row : rows) {
      text += line(row.cells);
      for (std::string const& sentence : row.below) text += "    " + sentence + '\n';
    }
    return text;
  }
};

inline std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %%", 100 * share);
  return std::isfinite(share) ? text : "-";
}

/// The efficiencies of a pass's steps.
inline std::string steps_text(char const* pass, std::vector<double> const& steps) {
  std::string text;
  for (double const step : steps)
    text += (text.empty() ? pass : "") + (' ' + std::to_string(std::lround(100 * step)));
  return text.empty() ? text : text + " %";
}

/// The same of both passes; nothing where there are too many.
inline std::string steps_text(Advice const& a) {
  if (std::max(a.forward_steps.size(), a.backward_steps.size()) > 18) return "";
  std::string const forward = steps_text("forward", a.forward_steps),
                    backward = steps_text("backward", a.backward_steps);
  return "work in each step: " + forward + (backward.empty() ? "" : ", ") + backward;
}

/// What to paste.
inline std::string type_text(Advice const& a) {
  return a.type + (a.argument.empty() ? "" : ", constructed with the schedule " + a.argument);
}

/// What a rank needs that is more than a GPU has; nothing where it fits.
inline std::string memory_text(Case const& c, Advice const& a) {
  if (c.memory_limit == 0 || a.memory_bytes() <= c.memory_limit) return "";
  return sentence(a.name(), " does not fit: it needs ", bytes_text(a.memory_bytes()), " of a GPU's ",
                  bytes_text(c.memory_limit));
}

/// Those that fit in order, then those that do not.
inline std::vector<Advice> fitting_first(Case const& c, std::vector<Advice> ranking) {
  std::stable_partition(ranking.begin(), ranking.end(),
                        [&](Advice const& a) { return memory_text(c, a).empty(); });
  return ranking;
}

/// Rows, the fastest first, in groups of those that differ by less than the margin, which fit alike.
template <class Row, class Fits>
std::vector<std::span<Row const>> tied_and_fitting(std::span<Row const> rows, double margin, Fits fits) {
  auto const split = std::find_if_not(rows.begin(), rows.end(), fits);
  auto groups = tied(std::span<Row const>(rows.begin(), split), margin);
  for (auto const group : tied(std::span<Row const>(split, rows.end()), margin)) groups.push_back(group);
  return groups;
}

/// A row for each way or, where some are about as fast, for all of these with the numbers of the first.
inline Table ranking_table(Case const& c, std::vector<Advice> const& ranking) {
  Table table{{"schedule", "forward", "backward", "both", "of peak", "messages", "peers", "sent", "workspace",
               "memory"},
              {}};
  auto const simulated =
      std::find_if(ranking.begin(), ranking.end(), [](auto const& a) { return a.at_least; });
  for (auto const group : tied_and_fitting(std::span<Advice const>(ranking.begin(), simulated), c.margin,
                                           [&](Advice const& a) { return memory_text(c, a).empty(); })) {
    Advice const& a = group[0];
    Table::Row row{
        {a.name(), seconds_text(a.forward_seconds),
         a.backward_seconds > 0 ? seconds_text(a.backward_seconds) : "-", seconds_text(a.seconds()),
         percent(a.efficiency(c.world, c.compute.peak_flops)), percent(a.message_wait / a.seconds()),
         percent(a.idle / a.seconds()), bytes_text(a.bytes_sent), bytes_text(a.workspace_bytes),
         bytes_text(a.memory_bytes()) + (memory_text(c, a).empty() ? "" : ", too much")},
        {}};
    for (std::string const& line :
         {tie_text(group, c.margin), memory_text(c, a), a.why, type_text(a), steps_text(a)})
      if (!line.empty()) row.below.push_back(line);
    table.rows.push_back(row);
  }
  for (Advice const& a : std::span<Advice const>(simulated, ranking.end())) {
    auto const bound = [](double seconds) { return seconds > 0 ? ">= " + seconds_text(seconds) : "-"; };
    table.rows.push_back({{a.name(), bound(a.forward_seconds), bound(a.backward_seconds), bound(a.seconds()),
                           "-", "-", "-", "-", "-", "-"},
                          {a.why, type_text(a)}});
  }
  return table;
}

/// What the columns of that table mean.
constexpr char const* ranking_legend =
    "messages, peers: the share of the time in which ranks wait for them; sent: by the busiest rank of each "
    "pass; memory: the most of a rank: workspace, q, k, v, o, lse and, with a backward, the gradients of q, "
    "k, v "
    "and o of its tokens";

/// The declaration that relayed types need; nothing where no row does.
inline std::string traits_text(std::vector<Advice> const& ranking) {
  for (Advice const& a : ranking)
    if (!a.traits.empty()) return a.traits;
  return "";
}

/// The lines of a calibration beside what the model predicts for them.
inline Table residual_table(std::vector<Residual> const& residuals) {
  Table table{{"calibration", "measured", "predicted", "off by"}, {}};
  for (Residual const& r : residuals) {
    Measurement const& m = r.measured;
    table.rows.push_back({{sentence(m.name(), ", ", length_text(m.seqlen), " tokens, ", m.extents.batch,
                                    " x ", m.extents.heads, " heads"),
                           seconds_text(m.seconds), seconds_text(r.predicted), percent(r.ratio() - 1)},
                          {}});
  }
  return table;
}

inline Table degree_table(Case const& c, std::vector<DegreeAdvice> const& rows) {
  Table table{{"GPUs", "batch", "one sequence", "tokens/s", "memory"}, {}};
  for (auto const group : tied_and_fitting(std::span<DegreeAdvice const>(rows), c.margin,
                                           [](DegreeAdvice const& row) { return row.fits; })) {
    DegreeAdvice const& d = group[0];
    Table::Row row{
        {d.name(), seconds_text(d.seconds()), seconds_text(d.sequence_seconds),
         count_text(d.tokens_per_second), bytes_text(d.advice.memory_bytes()) + (d.fits ? "" : ", too much")},
        {}};
    for (std::string const& line : {tie_text(group, c.margin), d.why, type_text(d.advice)})
      if (!line.empty()) row.below.push_back(line);
    table.rows.push_back(row);
  }
  return table;
}

/// What that table's first column means.
constexpr char const* degree_legend =
    "8 x 4 GPUs: 8 groups, a sequence in each; 8 tensor x 4: 8 groups share the heads of all sequences; "
    "gradients of weights, which data parallel groups add up, are left out";

}  // namespace lightseq::simulator
