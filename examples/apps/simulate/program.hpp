// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "examples/apps/simulate/cases.hpp"
#include "examples/apps/simulate/outputs.hpp"
#include "examples/apps/simulate/pictures.hpp"
#include "examples/apps/simulate/records.hpp"
#include "examples/apps/simulate/report.hpp"
#include "examples/apps/simulate/tables.hpp"
#include "examples/apps/simulate/ways.hpp"

namespace lightseq::simulator {

/// One case: its rankings, and the files that were asked for.
template <Mask M>
class Judgement {
 public:
  Judgement(Options const& options, Case const& c, M const& mask, Outputs const& outputs)
      : options_(options), case_(c), mask_(mask), outputs_(outputs), wanted_(wanted_ways(options)) {}

  void run() {
    std::string page = std::string(report_head) + "<p>" + html_text(case_text(case_)) + "</p>\n";
    Records records(options_);
    std::printf("%s\n", case_text(case_).c_str());
    if (auto const list = residuals_of(options_, case_); !list.empty()) {
      std::printf("%s\n", residual_table(list).text().c_str());
      for (Residual const& residual : list) records.add("calibration", case_, residual);
      page += "<h2>Calibration</h2>\n" + wide("table", html_rows(residual_table(list)));
    }
    if (options_.on("--degrees")) judge_degrees(page, records);
    std::vector<Advice> const advices = ranked();
    Table const table = ranking_table(case_, advices);
    std::string const traits = traits_text(advices);
    std::printf("%s%s.\n", table.text().c_str(), ranking_legend);
    if (!traits.empty()) std::printf("%s\n", traits.c_str());
    for (Advice const& a : advices) records.add("way", case_, a);
    page += "<h2>Schedules</h2>\n" + html_table(table, ranking_legend);
    if (!traits.empty()) page += "<p class=\"note\"><code>" + html_text(traits) + "</code></p>\n";
    write(advices.front(), page, records);
  }

 private:
  void judge_degrees(std::string& page, Records& records) {
    DegreeQuestion question = degree_question(options_, case_);
    Progress progress(0);
    question.progress = [&](int done, int of) { progress.show(done, of, "ways to share the GPUs"); };
    DegreeRanking const ranking =
        advise_degrees<AllSchedules>(case_.problem, case_.head_dim(), case_.extents.element_bytes, mask_,
                                     case_.world, case_.topology, case_.compute, question);
    Table const table = degree_table(case_, ranking.rows);
    std::printf("%s\n%s%s.\n\n", ranking.first.c_str(), table.text().c_str(), degree_legend);
    for (DegreeAdvice const& row : ranking.rows) records.add("degree", case_, row);
    page += "<h2>How many GPUs for a sequence</h2>\n<p>" + html_text(ranking.first) + "</p>\n" +
            html_table(table, degree_legend) + "<p>All GPUs share a sequence from here on.</p>\n";
  }

  std::vector<Advice> ranked() {
    std::vector<Wanted> all;
    for (std::string const& name : all_schedules()) all.push_back({name, {Route::owner, Route::neighbour}});
    Progress progress(case_.fastest ? 0 : count_ways(case_, mask_, all));  // how many it takes nobody knows
    return fitting_first(case_, ranking(case_, mask_, [&](Advice const& a) { progress.next(a.name()); }));
  }

  void write(Advice const& best, std::string page, Records const& records) {
    std::vector<Wanted> const ways = drawn_ways(wanted_, best);
    int const pictures = static_cast<int>((outputs_.wanted("--html") ? case_.passes.size() : 0) +
                                          (outputs_.wanted("--svg") ? 1 : 0));
    Progress progress((pictures > 0 ? pictures * count_ways(case_, mask_, ways) : 0) +
                      (outputs_.wanted("--trace") ? 1 : 0));
    auto const picture = [&](Pass pass) {
      return Gantt::svg(charts(case_, mask_, pass, ways, best, progress));
    };
    if (outputs_.wanted("--svg")) outputs_.write("--svg", picture(case_.passes.front()));
    if (outputs_.wanted("--html")) {
      for (Pass const pass : case_.passes)
        page += std::string("<h2>") + (pass == Pass::forward ? "Forward" : "Backward") + "</h2>\n" +
                wide("picture", picture(pass));
      outputs_.write("--html", page + "</body>\n</html>\n");
    }
    if (outputs_.wanted("--trace")) {
      auto first = charts(case_, mask_, case_.passes.front(), {ways.front()}, best, progress);
      for (std::size_t i = 1; first.empty(); ++i)
        first = charts(case_, mask_, case_.passes.front(), {ways[i]}, best, progress);
      outputs_.write("--trace", chrome_trace(std::move(first.front().timeline)));
    }
    if (outputs_.wanted("--json")) outputs_.write("--json", records.json_text());
    if (outputs_.wanted("--csv")) outputs_.write("--csv", records.csv_text());
  }

  Options const& options_;
  Case const& case_;
  M const& mask_;
  Outputs const& outputs_;
  std::vector<Wanted> wanted_;
};

/// A Markdown table of efficiencies in percent, with the times: a row for each world and way, a column
/// for each length, in it one number for each number of key/value heads.
inline void tabulate(Options const& options, std::vector<Case> const& cases, Outputs const& outputs) {
  auto const ways = wanted_ways(options);
  std::map<std::pair<int, std::string>, std::map<std::int64_t, std::string>> cells;
  std::set<std::pair<int, std::string>> served;
  std::set<std::int64_t> lengths;
  Records records(options);
  {
    Progress progress(static_cast<int>(cases.size() * ways.size()));
    for (Case const& c : cases)
      for (Wanted const& way : ways) {
        progress.next(sentence(c.world, " GPUs, ", length_text(c.problem.seqlen), " tokens, ", way.asked));
        auto const a = with_mask(c, [&](auto const& mask) { return fastest(c, mask, way); });
        std::string& cell = cells[{c.world, way.asked}][c.problem.seqlen];
        double const share = a ? a->efficiency(c.world, c.compute.peak_flops) : 0;
        cell += (cell.empty() ? "" : " / ") + (a ? percent(share) + " " + seconds_text(a->seconds()) : "-");
        lengths.insert(c.problem.seqlen);
        if (!a) continue;
        served.insert({c.world, way.asked});
        records.add("way", c, *a);
      }
  }
  if (auto const list = residuals_of(options, cases.front()); !list.empty()) {
    std::printf("%s\n", residual_table(list).text().c_str());
    for (Residual const& residual : list) records.add("calibration", cases.front(), residual);
  }
  std::string header = "| GPUs | schedule |", rule = "|---|---|";
  for (std::int64_t const length : lengths) header += ' ' + length_text(length) + " |", rule += "---|";
  std::printf("%s\n%s\n", header.c_str(), rule.c_str());
  for (auto const& [key, row] : cells) {
    if (served.count(key) == 0) continue;
    std::printf("| %d | %s |", key.first, key.second.c_str());
    for (std::int64_t const length : lengths) std::printf(" %s |", row.at(length).c_str());
    std::printf("\n");
  }
  if (outputs.wanted("--json")) outputs.write("--json", records.json_text());
  if (outputs.wanted("--csv")) outputs.write("--csv", records.csv_text());
}

/// What the options ask for: a table, or one case. All of them are read, and the files opened, before
/// anything is simulated.
inline int run(Options const& options) {
  auto const ways = wanted_ways(options);
  std::vector<Case> const cases = make_cases(options);
  static_cast<void>(degree_question(options, cases.front()));
  for (Case const& c : cases)
    if (std::none_of(ways.begin(), ways.end(), [&](Wanted const& way) {
          return with_mask(c, [&](auto const& mask) { return count_ways(c, mask, {way}); }) > 0;
        }))
      fail("--schedule: none of the schedules serves this mask in this world");
  if (cases.size() > 1) {
    for (char const* const option : {"--svg", "--trace", "--html"})
      if (!options.text(option).empty()) fail(option, " draws one case, not a table of ", cases.size());
    if (options.on("--degrees")) fail("--degrees judges one case, not a table of ", cases.size());
  }
  Outputs const outputs(options);
  if (cases.size() > 1)
    tabulate(options, cases, outputs);
  else
    with_mask(cases.front(),
              [&](auto const& mask) { Judgement(options, cases.front(), mask, outputs).run(); });
  return 0;
}

}  // namespace lightseq::simulator
