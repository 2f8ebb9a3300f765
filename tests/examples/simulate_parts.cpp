// SPDX-License-Identifier: Apache-2.0
// The parts of the program simulate; refusals.sh gives the whole program wrong values.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "examples/apps/simulate/outputs.hpp"
#include "examples/apps/simulate/pictures.hpp"
#include "examples/apps/simulate/records.hpp"
#include "examples/apps/simulate/report.hpp"
#include "examples/apps/simulate/tables.hpp"
#include "examples/apps/simulate/ways.hpp"
#include "support/data.hpp"

using namespace lightseq;
using namespace lightseq::simulator;

namespace {

Options given(std::vector<std::string> const& words) {
  Options options = known_options();
  options.read(words);
  return options;
}

Advice advice(std::string const& schedule, Route route, double seconds = 1) {
  Advice a;
  a.schedule = schedule;
  a.route = route;
  a.forward_seconds = seconds;
  return a;
}

/// The cells of a CSV text, line by line.
std::vector<std::vector<std::string>> cells_of(std::string const& csv) {
  std::vector<std::vector<std::string>> lines{{""}};
  bool quoted = false;
  for (std::size_t i = 0; i < csv.size(); ++i) {
    std::string& cell = lines.back().back();
    if (csv[i] == '"' && quoted && i + 1 < csv.size() && csv[i + 1] == '"')
      cell += csv[i++];
    else if (csv[i] == '"')
      quoted = !quoted;
    else if (csv[i] == ',' && !quoted)
      lines.back().emplace_back();
    else if (csv[i] == '\n' && !quoted && i + 1 < csv.size())
      lines.push_back({""});
    else if (csv[i] != '\n' || quoted)
      cell += csv[i];
  }
  return lines;
}

}  // namespace

TEST_CASE("what tables call a way is what --schedule takes, and means that way") {
  Options const options = given({"--route", "best"});
  for (std::string const& schedule : all_schedules())
    for (Route const route : {Route::owner, Route::neighbour}) {
      std::string const name = advice(schedule, route).name();
      if (schedule == PackedRing::name && route == Route::neighbour) {
        CHECK_THROWS_AS(wanted(options, name), Error);
        continue;
      }
      bool const two_levels = schedule.starts_with("TwoLevel");
      Wanted const way = wanted(options, route == Route::owner ? schedule + ":owner" : name);
      CHECK(way.schedule == schedule);
      CHECK(way.routes == std::vector<Route>{route});
      if (route == Route::owner && schedule != PackedRing::name)
        CHECK(wanted(options, name).routes.size() == (two_levels ? 1 : 2));
    }
  CHECK(wanted_ways(given({"--schedule", "all"})).size() == all_schedules().size());
  CHECK(wanted_ways(given({"--schedule", "Ring,Ring:neighbour"})).size() == 2);
}

TEST_CASE("what stands in a list again is asked once, and routes of a schedule are told apart") {
  auto const ways = wanted_ways(given(
      {"--schedule", "Ring,ZigzagRing:owner,ZigzagRing:neighbour,Ring,ZigzagRing:owner", "--route", "best"}));
  std::string names;
  for (Wanted const& way : ways) names += way.asked + ' ';
  CHECK(names == "Ring ZigzagRing:owner ZigzagRing:neighbour ");
  auto const cases =
      make_cases(given({"--world", "8,4,8", "--seqlen", "4096,4096", "--kv-heads", "8,32,32"}));
  std::set<std::pair<int, std::int64_t>> asked;
  for (Case const& c : cases) asked.insert({c.world, c.problem.kv_heads});
  CHECK(cases.size() == 4);
  CHECK(asked.size() == 4);
}

TEST_CASE("no two options have one file, whatever they call it, and no pipe is read twice") {
  std::string const name = "outputs_" + std::to_string(test::run_seed());
  std::ofstream{name} << "kept";
  for (char const* const first : {"--json", "--calibration"})
    for (std::string const& other : {name, "./" + name, ".//./" + name}) {
      CHECK_THROWS_AS(simulator::Outputs(given({first, name, "--csv", other})), Error);
      CHECK(file_text(name) == "kept\n");
    }
  simulator::Outputs(given({"--json", name, "--csv", name + ".csv"}));
  std::remove(name.c_str());
  std::remove((name + ".csv").c_str());
  CHECK_THROWS_AS(file_text("/dev/null"), Error);
}

TEST_CASE("the fastest is drawn with its route, once, after those that were asked for") {
  auto const asked = wanted_ways(given({"--schedule", "Ring,Balanced"}));
  for (Route const route : {Route::owner, Route::neighbour})
    for (char const* const best : {"Ring", "Balanced", "ZigzagRing"}) {
      auto const drawn = drawn_ways(asked, advice(best, route));
      bool const new_one = std::string(best) == "ZigzagRing" || route == Route::neighbour;
      REQUIRE(drawn.size() == (new_one ? 3 : 2));
      std::set<std::pair<std::string, Route>> ways;
      for (Wanted const& way : drawn) ways.insert({way.schedule, way.routes.front()});
      CHECK(ways.size() == drawn.size());
      CHECK(ways.count({best, route}) == 1);
      CHECK(drawn[0].schedule == "Ring");
    }
}

TEST_CASE("the fastest of a schedule's routes is the simulation's, in the passes that were asked for") {
  for (char const* const pass : {"forward", "backward", "both"}) {
    Options const options = given({"--pass", pass, "--seqlen", "8192", "--route", "best", "--world", "4"});
    Case const c = make_cases(options).front();
    auto const best = fastest(c, Causal{}, wanted(options, "ZigzagRing"));
    REQUIRE(best);
    double least = 1e9;
    for (Route const route : {Route::owner, Route::neighbour}) {
      Planner const planner(ZigzagRing{}, Causal{}, 4, 8192, route);
      double seconds = 0;
      for (Pass const p : c.passes)
        seconds += simulate(planner, p, c.extents, c.topology, c.compute).makespan;
      least = std::min(least, seconds);
    }
    CHECK(best->seconds() == doctest::Approx(least));
    CHECK(!fastest(c, Full{}, wanted(options, "Balanced")));
  }
}

TEST_CASE("other systems' schedules are ranked too") {
  Options const options = given({"--schedule", "PublishedBalanced", "--seqlen=8192", "--world=4"});
  Case const c = make_cases(options).front();
  CHECK(wanted_ways(options).front().schedule == "PublishedBalanced");
  CHECK(fastest(c, Causal{}, wanted_ways(options).front()));
  auto const all = ranking(c, Causal{});
  CHECK(
      std::any_of(all.begin(), all.end(), [](Advice const& a) { return a.schedule == "PublishedBalanced"; }));
}

TEST_CASE("presets, measured rates and options stand above each other") {
  CHECK(compute_of(given({}), 128).forward_flops == h100().forward_flops);
  for (Preset const& preset : presets()) {
    Options const options = given({"--preset", preset.name});
    ComputeModel const gpu = compute_of(options, 128);
    CHECK(gpu.forward_flops == preset.compute.forward_flops);
    CHECK(gpu.units == preset.compute.units);
    Topology const nodes = topology_of(options, 16, gpu, 128);
    CHECK(nodes.inside.bytes_per_second == preset.nodes.inside.bytes_per_second);
    CHECK(nodes.between.bytes_per_second == preset.nodes.between.bytes_per_second);
    CHECK(nodes.sharing == preset.nodes.sharing);
    CHECK(nodes.ranks_per_node == 8);
    CHECK(topology_of(options, 4, gpu, 128).ranks_per_node == 4);
  }
  Topology const nodes =
      topology_of(given({"--ranks-per-node=2", "--inside-gbs=1", "--inside-us=2", "--between-gbs=3",
                         "--between-us=4", "--sharing=none", "--exchange-sms=5"}),
                  16, h100(), 128);
  CHECK(nodes.ranks_per_node == 2);
  CHECK(nodes.inside.bytes_per_second == 1e9);
  CHECK(nodes.inside.latency == doctest::Approx(2e-6));
  CHECK(nodes.between.bytes_per_second == 3e9);
  CHECK(nodes.between.latency == doctest::Approx(4e-6));
  CHECK(nodes.sharing == Sharing::none);
  CHECK(nodes.exchange_units == 5);
  ComputeModel const set =
      compute_of(given({"--forward-tflops=1", "--backward-tflops=2", "--carry-tbs=3", "--memory-tbs=4",
                        "--launch-us=5", "--peak-tflops=6", "--sms=7", "--tile=8", "--forward-hidden=9",
                        "--backward-hidden=10", "--backward-launch-us=11", "--forward-partial=12",
                        "--backward-partial=13", "--forward-row=14", "--backward-row=15"}),
                 128);
  CHECK(set.forward_flops == 1e12);
  CHECK(set.backward_flops == 2e12);
  CHECK(set.carry_bytes == 3e12);
  CHECK(set.memory_bytes == 4e12);
  CHECK(set.launch == doctest::Approx(5e-6));
  CHECK(set.peak_flops == 6e12);
  CHECK(set.units == 7);
  CHECK(set.tile == 8);
  CHECK(set.forward_weights.hidden == 9);
  CHECK(set.backward_weights.hidden == 10);
  CHECK(set.forward_weights.partial == 12);
  CHECK(set.backward_weights.partial == 13);
  CHECK(set.forward_weights.row == 14);
  CHECK(set.backward_weights.row == 15);
  CHECK(set.backward_launch == doctest::Approx(11e-6));
}

TEST_CASE("a calibration's lines are given back beside what the model predicts") {
  std::string const path = "calibration_" + std::to_string(test::run_seed()) + ".json";
  ComputeModel const gpu = h100();
  {
    std::ofstream file(path);
    for (int const seqlen : {1024, 4096, 16384})
      for (bool const exchange : {false, true})
        for (char const* const mask : {"full", "causal"}) {
          Measurement m{.seqlen = seqlen, .extents = {1, 32, 8, 128}, .exchange = exchange};
          m.causal = std::string(mask) == "causal";
          double const flops = m.size(0).pairs * ComputeModel::pair_flops(m.extents, Pass::forward);
          file << JsonObject()
                      .add("mask", mask)
                      .add("dim", 128)
                      .add("batch", 1)
                      .add("seqlen", seqlen)
                      .add("heads", 32)
                      .add("kv_heads", 8)
                      .add("carry", false)
                      .add("exchange", exchange)
                      .add("sustained", flops / m.predicted(gpu, 20) / 1e12)
                      .text()
               << '\n';
        }
  }
  Options const options = given({"--calibration", path});
  Case const c = make_cases(options).front();
  Topology const overridden = topology_of(given({"--calibration", path, "--exchange-sms=3"}), 8, gpu, 128);
  auto const list = residuals_of(options, c);
  Table const table = residual_table(list);
  std::remove(path.c_str());
  REQUIRE(list.size() == 12);
  CHECK(c.topology.exchange_units == 20);
  CHECK(overridden.exchange_units == 3);
  CHECK(c.compute.forward_flops == doctest::Approx(gpu.forward_flops).epsilon(0.01));
  for (Residual const& residual : list) CHECK(residual.ratio() == doctest::Approx(1).epsilon(0.001));
  CHECK(table.rows[7].cells[0] == "forward causal beside messages, 4k tokens, 1 x 32 heads");
  CHECK(table.rows[7].cells[1] == table.rows[7].cells[2]);
  CHECK(residuals_of(given({}), c).empty());
}

TEST_CASE("how a step is run reaches tables, rankings and pictures alike") {
  std::vector<std::string> const asked{"--seqlen=65536", "--heads=8", "--world=4"};
  double const usual =
      fastest(make_cases(given(asked)).front(), Causal{}, wanted(given(asked), "Balanced"))->seconds();
  for (char const* const word :
       {"--carry=merged", "--kernels-per-work=3", "--result-bytes=2", "--no-overlap", "--synchronous"}) {
    auto words = asked;
    words.emplace_back(word);
    Options const options = given(words);
    Case const c = make_cases(options).front();
    CAPTURE(word);
    double const seconds = fastest(c, Causal{}, wanted(options, "Balanced"))->seconds();
    CHECK((std::string(word) == "--result-bytes=2" ? seconds < usual : seconds > usual));
    auto const all = ranking(c, Causal{});
    CHECK(std::any_of(all.begin(), all.end(), [&](Advice const& a) {
      return a.name() == "Balanced" && a.seconds() == doctest::Approx(seconds);
    }));
    Advice const best = advice("Balanced", Route::owner);
    Progress progress(0);
    double drawn = 0;
    for (Pass const pass : c.passes)
      for (GanttChart const& chart :
           charts(c, Causal{}, pass, {{"Balanced", {Route::owner}}}, best, progress)) {
        double end = 0;
        for (Span const& span : chart.timeline) end = std::max(end, span.end);
        drawn += end;
      }
    CHECK(drawn == doctest::Approx(seconds));
    CHECK(degree_question(options, c).execution.synchronous == c.execution.synchronous);
  }
}

TEST_CASE("CSV and JSON hold every option and every number, whatever the texts") {
  std::mt19937_64 random(test::stream_seed(3));
  std::string const letters = "a,\"\n\\x ;";
  auto const text = [&] {
    std::string some;
    for (auto n = random() % 8; n > 0; --n) some += letters[random() % letters.size()];
    return some;
  };
  for (int repeat = 0; repeat < 20; ++repeat) {
    std::string const path = text();
    Options const options = given({"--svg=" + path, "--kv-heads=8,4", "--seqlen=4096"});
    Records records(options);
    std::vector<Advice> added;
    for (Case const& c : make_cases(options)) {
      Advice a = advice("Ring", Route::neighbour, static_cast<double>(random()) * 1e-19);
      a.why = text();
      a.forward_steps = {0.5, 0.25};
      a.bytes_sent = static_cast<std::int64_t>(random() >> 1);
      added.push_back(a);
      records.add("way", c, a);
    }
    DegreeAdvice degree;
    degree.why = text();
    records.add("degree", make_cases(options).front(), degree);

    auto const lines = cells_of(records.csv_text());
    REQUIRE(lines.size() == 4);
    std::string const json = records.json_text();
    for (std::size_t row = 1; row < lines.size(); ++row) {
      REQUIRE(lines[row].size() == lines[0].size());
      std::map<std::string, std::string> cells;
      for (std::size_t i = 0; i < lines[0].size(); ++i) cells[lines[0][i]] = lines[row][i];
      CHECK(cells.size() == lines[0].size());
      for (support::Option const& option : options.known()) {
        CHECK(cells.at(option.name) == options.text(option.name));
        CHECK(json.find(json_text(option.name) + ": " + json_text(options.text(option.name))) != json.npos);
      }
      if (row == 3) {
        CHECK(cells.at("kind") == "degree");
        CHECK(cells.at("why") == degree.why);
        continue;
      }
      Advice const& a = added[row - 1];
      CHECK(cells.at("why") == a.why);
      CHECK(cells.at("kv_heads") == (row == 1 ? "8" : "4"));
      CHECK(cells.at("bytes_sent") == std::to_string(a.bytes_sent));
      CHECK(std::stod(cells.at("seconds")) == doctest::Approx(a.seconds()).epsilon(1e-14));
      CHECK(cells.at("forward_steps") == "0.5 0.25");
      CHECK(cells.at("groups").empty());
      for (char const* const number : {"seconds", "bytes_sent", "kv_heads"})
        CHECK(json.find(json_text(number) + ": " + cells.at(number)) != json.npos);
    }
  }
}

TEST_CASE("a table's columns stand below each other") {
  Table const table{{"name", "time"}, {{{"a", "1 ms"}, {"why"}}, {{"long name", "100.5 ms"}, {}}}};
  CHECK(table.text() ==
        "name           time\n"
        "a              1 ms\n"
        "    why\n"
        "long name  100.5 ms\n");
}

TEST_CASE("ways that need more memory than there is stand last and are tied to none that fits") {
  Case c = make_cases(given({"--memory-gb", "1"})).front();
  std::vector<Advice> ranking{advice("A", Route::owner, 1), advice("B", Route::owner, 1.001),
                              advice("C", Route::owner, 1.002), advice("D", Route::owner, 5)};
  ranking[0].workspace_bytes = 1'500'000'000;
  ranking[2].tensor_bytes = 1'000'000'001;
  auto const sorted = fitting_first(c, ranking);
  std::string names;
  for (Advice const& a : sorted) names += a.name();
  CHECK(names == "BDAC");
  Table const table = ranking_table(c, sorted);
  REQUIRE(table.rows.size() == 3);
  CHECK(table.rows[2].below[0] == "A and C are within 1 %");
  CHECK(table.rows[2].below[1] == "A does not fit: it needs 1.5 GB of a GPU's 1 GB");
  CHECK(table.rows[2].cells.back() == "1.5 GB, too much");
}

TEST_CASE("a page escapes what means something to it, and says that what is wide scrolls") {
  std::string const page = html_table({{"<a>"}, {{{"b & c"}, {"d:e"}}}}, "legend");
  CHECK(page.find("<th>&lt;a&gt;</th>") != page.npos);
  CHECK(page.find("<td>b &amp; c</td>") != page.npos);
  CHECK(page.find("<li>d:<wbr>e</li>") != page.npos);
  CHECK(page.find("Scroll sideways to see all of the table.") < page.find("<div class=\"wide\">"));
}

TEST_CASE("progress is silent where nobody looks") {
  std::FILE* const file = std::tmpfile();
  REQUIRE(file != nullptr);
  {
    Progress progress(3, file);
    progress.next("one");
    progress.show(2, 3, "two");
  }
  CHECK(std::ftell(file) == 0);
  std::fclose(file);
}
