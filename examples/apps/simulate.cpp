// SPDX-License-Identifier: Apache-2.0
// Predicts what attention over a split sequence costs on a cluster that need not exist: ranks schedules,
// draws their timelines, and fills tables over worlds and lengths. `simulate --help` lists the options.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "examples/support/options.hpp"
#include "examples/support/packs.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/mask/documents.hpp"
#include "lightseq/predict/advise.hpp"
#include "lightseq/predict/advise_packed.hpp"
#include "lightseq/predict/calibration.hpp"
#include "lightseq/trace/chrome_trace.hpp"
#include "lightseq/trace/gantt.hpp"

using namespace lightseq;

std::string names_of_packs() {
  std::string names;
  for (char const* const name : support::random_packs) names.append(names.empty() ? "" : ", ").append(name);
  return names;
}

support::Options options({
    {"--world", "8", "GPUs; a list such as 8,64 gives a table"},
    {"--seqlen", "65536", "tokens of the whole sequence; or a list"},
    {"--heads", "32", "query heads"},
    {"--kv-heads", "8", "key/value heads, a divisor of the query heads; or a list"},
    {"--dim", "128", "head dim"},
    {"--batch", "1", "sequences"},
    {"--mask", "Causal", names_of<Masks>()},
    {"--window", "4096", "keys that a query sees, of masks such as SlidingWindow"},
    {"--documents", "",
     "packs documents, causal within: a kind of random packs, which are " + names_of_packs() +
         "; or a list of lengths, taken again and again until the sequence is full"},
    {"--pass", "both", "forward, backward or both"},
    {"--schedule", "Ring,Balanced,ZigzagRing,PackedRing",
     "which to draw or to tabulate: all, or a list of " + names_of<Schedules>() +
         "; PackedRing serves --documents alone"},
    {"--route", "owner", "owner, neighbour (relays) or, in tables, best; two-level rings always relay"},
    {"--ranks-per-node", "8", "GPUs of a node; a world of fewer is one node"},
    {"--inside-gbs", "370", "GB/s each way inside a node"},
    {"--inside-us", "5", "latency there, in microseconds"},
    {"--between-gbs", "45", "GB/s each way between nodes (400 Gb/s less its overhead)"},
    {"--between-us", "10", "latency there, in microseconds"},
    {"--sharing", "rank", "none, rank (a port each) or node (one port for all between nodes)"},
    {"--exchange-sms", "4", "multiprocessors that the exchange takes from attention"},
    {"--forward-tflops", "654", "of one GPU's attention"},
    {"--backward-tflops", "570", "the same of the backward"},
    {"--launch-us", "5", "of each kernel"},
    {"--peak-tflops", "989", "what efficiency refers to"},
    {"--calibration", "", "a file with rows of bench_cuda_kernel, in place of these rates"},
    {"--svg", "", "writes a Gantt chart of the schedules"},
    {"--trace", "", "writes a Chrome trace of the first schedule, for ui.perfetto.dev"},
    {"--html", "", "writes a report of one page"},
});
constexpr char const* none_serves = "none of the schedules serves this mask in this world";
constexpr double most_ranks = 1 << 16, most_tokens = max_simulated_seqlen, most_heads = 1e6;

/// One question: everything but the schedule.
struct Case {
  int world = 1;
  Problem problem = {};
  Extents extents = {};
  Topology topology = {};
  ComputeModel compute = {};
  std::vector<Pass> passes;
  std::vector<std::int64_t> ends;  ///< of documents; none: the sequence is not packed
};

/// The ends of the documents that were asked for: of random packs always the same ones.
std::vector<std::int64_t> document_ends(std::int64_t seqlen, int world) {
  std::string const& text = options.text("--documents");
  if (text.empty()) return {};
  options.whole_numbers("--seqlen", 1, largest<std::int32_t>);  // a pack has no more tokens
  std::mt19937_64 random(42);
  auto const& kinds = support::random_packs;
  if (std::find(kinds.begin(), kinds.end(), text) != kinds.end())
    return support::pack(text, seqlen, world, random);
  if (text.find_first_not_of("0123456789,") != text.npos)
    fail("--documents is '", text, "', it must be a list of lengths or one of ", names_of_packs());
  auto const lengths = options.whole_numbers("--documents", 1, most_tokens);
  return support::ends_of(seqlen,
                          [&, next = std::size_t{0}]() mutable { return lengths[next++ % lengths.size()]; });
}

Case make_case(std::int64_t world, std::int64_t seqlen, std::int64_t kv_heads) {
  Case c;
  int const dim = static_cast<int>(options.whole("--dim", 1, 256));
  if (!Host::serves_head_dim(dim)) fail("--dim is ", dim, ", it must be a multiple of 8");
  c.world = static_cast<int>(world);
  c.problem = validated({.batch = options.whole("--batch", 1, 1e6),
                         .seqlen = seqlen,
                         .heads = options.whole("--heads", 1, 1e6),
                         .kv_heads = kv_heads},
                        dim);
  c.extents = {c.problem.batch, c.problem.heads, c.problem.kv_heads, dim, sizeof(bfloat16)};
  auto const per_node = static_cast<int>(options.whole("--ranks-per-node", 1, 1e9));
  c.topology = {
      .ranks_per_node = per_node > c.world ? c.world : per_node,
      .inside = {1e9 * options.number("--inside-gbs", 1e-9), 1e-6 * options.number("--inside-us", 0)},
      .between = {1e9 * options.number("--between-gbs", 1e-9), 1e-6 * options.number("--between-us", 0)},
      .sharing = options.choice<Sharing>(
          "--sharing", {{"none", Sharing::none}, {"rank", Sharing::rank}, {"node", Sharing::node}}),
      .exchange_units = static_cast<int>(options.whole("--exchange-sms", 0, 1e6))};
  c.topology = validated(c.topology, c.world);
  c.compute = h100();
  c.compute.forward_flops = 1e12 * options.number("--forward-tflops", 1e-9);
  c.compute.backward_flops = 1e12 * options.number("--backward-tflops", 1e-9);
  c.compute.launch = 1e-6 * options.number("--launch-us", 0);
  c.compute.peak_flops = 1e12 * options.number("--peak-tflops", 1e-9);
  if (std::string const& path = options.text("--calibration"); !path.empty()) {
    std::ifstream file(path);
    std::string text;
    for (std::string line; std::getline(file, line);) text += line + '\n';
    if (!file.eof()) fail("--calibration: cannot read ", path);
    c.compute = calibrated(c.compute, text, dim);
  }
  c.compute.check(c.topology.exchange_units);
  c.passes = options.choice<std::vector<Pass>>("--pass", {{"forward", {Pass::forward}},
                                                          {"backward", {Pass::backward}},
                                                          {"both", {Pass::forward, Pass::backward}}});
  c.ends = document_ends(seqlen, c.world);
  return c;
}

/// Calls f(mask) with the mask that was asked for.
template <class F>
void with_mask(Case const& c, F f) {
  auto const window = options.whole("--window", 1, most_tokens);
  if (!c.ends.empty()) {
    if (options.text("--mask") != Causal::name)
      fail("--mask is ", options.text("--mask"), ", but --documents are causal within");
    return f(Documents<Causal>(c.ends));
  }
  std::map<std::string, std::function<void()>> masks;
  for_each_type<Masks>([&]<class M>() { masks[std::string(M::name)] = [&] { f(mask_seeing<M>(window)); }; });
  options.choice("--mask", masks)();
}

/// The schedules that were asked for.
std::set<std::string> chosen_schedules() {
  std::set<std::string> all, chosen;
  for_each_type<Schedules>([&]<class S>() { all.insert(std::string(S::name)); });
  all.insert(PackedRing::name);
  if (options.text("--schedule") == "all") return all;
  for (std::string const& name : options.list("--schedule")) {
    if (all.count(name) == 0) {
      fail("--schedule: there is no ", name, "; there are ", names_of<Schedules>(), ", ", PackedRing::name);
    }
    chosen.insert(name);
  }
  return chosen;
}

std::vector<Route> routes(bool relays_always) {
  auto const asked =
      options.choice<std::vector<Route>>("--route", {{"owner", {Route::owner}},
                                                     {"neighbour", {Route::neighbour}},
                                                     {"best", {Route::owner, Route::neighbour}}});
  return relays_always ? std::vector<Route>{Route::neighbour} : asked;
}

/// Calls visit(name, simulate) for each of these schedules that serves the mask, by each route that was asked
/// for; `simulate(pass, with_timeline)` simulates it.
template <Mask M, class Visit>
void for_each_way(Case const& c, M const& mask, std::set<std::string> const& chosen, Visit visit) {
  for_each_schedule(c.world, c.topology.ranks_per_node, [&]<class S>(S const& schedule) {
    std::string const name(S::name);
    if (chosen.count(name) == 0) return;
    for (Route const route : routes(HasNodes<S>)) {
      Planner const planner(schedule, mask, c.world, c.problem.seqlen, route);
      if (!serves_mask(planner)) return;
      visit(name, [&](Pass pass, bool with_timeline) {
        return simulate(planner, pass, c.extents, c.topology, c.compute, with_timeline);
      });
    }
  });
  if (c.ends.empty() || chosen.count(PackedRing::name) == 0) return;
  auto const plans = packed_plans(c.ends, c.problem.seqlen, c.world);
  visit(PackedRing::name, [&](Pass pass, bool with_timeline) {
    return simulate(plans, Causal{}, pass, c.extents, c.topology, c.compute, with_timeline);
  });
}

/// Calls visit(name, simulation) for each schedule that was asked for and serves the mask, in the order
/// asked.
template <Mask M, class Visit>
void for_each_timeline(Case const& c, M const& mask, Pass pass, Visit visit) {
  std::map<std::string, Simulation> done;
  for_each_way(c, mask, chosen_schedules(), [&](std::string const& name, auto const& simulate) {
    if (done.count(name) == 0) done.emplace(name, simulate(pass, true));
  });
  if (options.text("--schedule") != "all")
    for (std::string const& name : options.list("--schedule"))
      if (auto const found = done.find(name); found != done.end()) visit(name, found->second);
  if (options.text("--schedule") == "all")
    for (auto const& [name, s] : done) visit(name, s);
}

std::string percent(double share) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %%", 100 * share);
  return text;
}

/// The efficiencies of a pass's steps.
std::string steps_text(char const* pass, std::vector<double> const& steps) {
  std::string text;
  for (double const step : steps)
    text += (text.empty() ? pass : "") + (' ' + std::to_string(std::lround(100 * step)));
  return text.empty() ? text : text + " %";
}

/// The same of both passes.
std::string steps_text(Advice const& a) {
  std::string const forward = steps_text("forward", a.forward_steps),
                    backward = steps_text("backward", a.backward_steps);
  return "work in each step: " + forward + (backward.empty() ? "" : ", ") + backward;
}

std::string milliseconds(double seconds) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g ms", 1e3 * seconds);
  return text;
}

template <Mask M>
std::string picture(Case const& c, M const& mask, Pass pass) {
  std::vector<GanttChart> charts;
  for_each_timeline(c, mask, pass, [&](std::string const& name, Simulation const& s) {
    charts.push_back({name + ", " + (pass == Pass::forward ? "forward: " : "backward: ") +
                          milliseconds(s.makespan) + ", idle " + percent(s.idle_fraction()),
                      c.world, s.timeline});
  });
  if (charts.empty()) fail(none_serves);
  return Gantt::svg(charts);
}

void write(char const* option, std::string const& text) {
  std::ofstream file(options.text(option));
  if (!(file << text).flush()) fail(option, ": cannot write ", options.text(option));
}

/// What the pack is, in words.
std::string documents_text(Case const& c) {
  DocumentEnds const documents(c.ends);
  std::int64_t longest = 0;
  for (std::int64_t d = 0; d < documents.count(); ++d) longest = std::max(longest, documents.length(d));
  return sentence(documents.count(), " documents of up to ", longest, " tokens");
}

template <Mask M>
std::string report(Case const& c, M const& mask, std::vector<Advice> const& ranking) {
  std::ostringstream html;
  html << "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<title>Attention over a split sequence</title>\n<style>\n"
          ":root{color-scheme:light dark}\n"
          "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 auto;padding:1rem;"
          "background:#fff;color:#1f2328}\n"
          "h1{font-size:1.5rem}h2{font-size:1.2rem}\n.wide{overflow-x:auto}.wide svg{min-width:34rem}\n"
          "table{border-collapse:collapse}td,th{padding:.3rem .6rem;text-align:right;"
          "border-bottom:1px solid #8886}td{white-space:nowrap}th{vertical-align:bottom}\n"
          "td:first-child,th:first-child{text-align:left}summary{cursor:pointer}\n"
          "@media(max-width:40rem){table{font-size:.85rem}td,th{padding:.3rem}ul{padding-left:1rem}}\n"
          "@media(prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}}\n"
          "</style>\n</head>\n<body>\n<h1>Attention over a split sequence</h1>\n<p>"
       << c.problem.seqlen << " tokens on " << c.world << " GPUs, " << c.topology.ranks_per_node
       << " in a node; " << c.problem.heads << " query and " << c.problem.kv_heads
       << " key/value heads of dim " << c.extents.head_dim << ", "
       << (c.ends.empty() ? "mask " + options.text("--mask") : documents_text(c)) << ". "
       << options.text("--inside-gbs") << " GB/s inside nodes, " << options.text("--between-gbs")
       << " GB/s between them. Simulated.</p>\n<h2>Ranking</h2>\n<div class=\"wide\"><table>\n"
          "<tr><th>schedule</th><th>route</th><th>forward</th><th>backward</th><th>waits for messages</th>"
          "<th>waits for peers</th><th>sent</th><th>workspace</th></tr>\n";
  for (Advice const& a : ranking) {
    html << "<tr><td>" << a.schedule << "</td><td>" << (a.route == Route::owner ? "owner" : "neighbour")
         << "</td><td>" << milliseconds(a.forward_seconds) << "</td><td>" << milliseconds(a.backward_seconds)
         << "</td><td>" << percent(a.message_wait / a.seconds()) << "</td><td>"
         << percent(a.idle / a.seconds()) << "</td><td>" << a.bytes_sent / 1000000 << " MB</td><td>"
         << a.workspace_bytes / 1000000 << " MB</td></tr>\n";
  }
  html << "</table></div>\n<p>" << ranking.front().why
       << ".</p>\n<details><summary>And the others</summary>\n<ul>\n";
  for (Advice const& a : ranking)
    if (&a != &ranking.front()) html << "<li>" << a.why << "</li>\n";
  html << "</ul></details>\n<details><summary>And their steps: how much of the ranks' time is "
          "work</summary>\n<ul>\n";
  for (Advice const& a : ranking) html << "<li>" << a.name() << ": " << steps_text(a) << "</li>\n";
  html << "</ul></details>\n";
  for (Pass const pass : c.passes)
    html << "<h2>" << (pass == Pass::forward ? "Forward" : "Backward") << "</h2>\n<div class=\"wide\">\n"
         << picture(c, mask, pass) << "</div>\n";
  html << "</body>\n</html>\n";
  return html.str();
}

/// The ranking of one case, and the files that were asked for.
template <Mask M>
void show(Case const& c, M const& mask) {
  bool const backward = c.passes.back() == Pass::backward;
  static_cast<void>(chosen_schedules());  // which refuse what there is not
  static_cast<void>(routes(false));
  int ways = 0;
  auto const progress = [&](Advice const& a) {
    if (c.world >= 256) std::fprintf(stderr, "\r%d ways simulated, %-30s", ++ways, a.name().c_str());
  };
  auto const ask = [&](auto const& advise) {
    return advise(c.problem, static_cast<int>(c.extents.head_dim), c.extents.element_bytes, mask, c.world,
                  c.topology, c.compute, backward, progress);
  };
  std::vector<Advice> ranking;
  if constexpr (std::is_same_v<M, Documents<Causal>>) {
    ranking = ask([](auto const&... given) { return advise_packed(given...); });
    std::printf("%s\n", documents_text(c).c_str());
  } else {
    ranking = ask([](auto const&... given) { return advise(given...); });
  }
  if (ways > 0) std::fprintf(stderr, "\n");
  std::printf("%-20s %-10s %12s %12s %10s %12s\n", "schedule", "route", "forward", "backward", "sent",
              "workspace");
  for (Advice const& a : ranking) {
    std::printf("%-20s %-10s %12s %12s %7lld MB %9lld MB\n    %s\n", a.schedule.c_str(),
                a.route == Route::owner ? "owner" : "neighbour", milliseconds(a.forward_seconds).c_str(),
                milliseconds(a.backward_seconds).c_str(), static_cast<long long>(a.bytes_sent / 1000000),
                static_cast<long long>(a.workspace_bytes / 1000000), a.why.c_str());
    if (std::max(a.forward_steps.size(), a.backward_steps.size()) <= 18)
      std::printf("    %s\n", steps_text(a).c_str());
  }
  if (!options.text("--svg").empty()) write("--svg", picture(c, mask, c.passes.front()));
  if (!options.text("--html").empty()) write("--html", report(c, mask, ranking));
  if (!options.text("--trace").empty()) {
    std::string trace;
    for_each_timeline(c, mask, c.passes.front(), [&](std::string const&, Simulation const& s) {
      if (trace.empty()) trace = chrome_trace(s.timeline);
    });
    if (trace.empty()) fail(none_serves);
    write("--trace", trace);
  }
}

/// The efficiency of a schedule over the passes, with the best of the routes; -1 if it does not serve the
/// mask.
template <Mask M>
double efficiency(Case const& c, std::string const& schedule, M const& mask) {
  double best = -1;
  for_each_way(c, mask, {schedule}, [&](std::string const&, auto const& simulate) {
    double flops = 0, seconds = 0;
    for (Pass const pass : c.passes) {
      Simulation const s = simulate(pass, false);
      flops += s.flops;
      seconds += s.makespan;
    }
    best = std::max(best, flops / (seconds * c.world * c.compute.peak_flops));
  });
  return best;
}

/// A Markdown table of efficiencies in percent: a row for each world and schedule, a column for each length,
/// in it one number for each number of key/value heads.
void tabulate() {
  auto const worlds = options.whole_numbers("--world", 1, most_ranks),
             lengths = options.whole_numbers("--seqlen", 1, most_tokens),
             kv_heads = options.whole_numbers("--kv-heads", 1, most_heads);
  auto const chosen = chosen_schedules();
  std::string header = "| GPUs | schedule |", rule = "|---|---|";
  for (std::int64_t const length : lengths) {
    header +=
        ' ' + (length % 1024 == 0 ? std::to_string(length / 1024) + 'k' : std::to_string(length)) + " |";
    rule += "---|";
  }
  std::printf("%s\n%s\n", header.c_str(), rule.c_str());
  std::size_t const cells = worlds.size() * chosen.size() * lengths.size() * kv_heads.size();
  std::size_t cell = 0;
  for (std::int64_t const world : worlds) {
    std::map<std::string, std::string> rows;
    std::set<std::string> served;
    for (std::string const& name : chosen)
      for (std::int64_t const length : lengths) {
        std::string text;
        for (std::int64_t const heads : kv_heads) {
          Case const c = make_case(world, length, heads);
          double value = -1;
          std::fprintf(stderr, "\r%zu of %zu: %d GPUs, %lld tokens, %-20s", ++cell, cells, c.world,
                       static_cast<long long>(length), name.c_str());
          with_mask(c, [&](auto const& mask) { value = efficiency(c, name, mask); });
          char number_text[16] = "-";
          if (value >= 0) served.insert(name);
          if (value >= 0) std::snprintf(number_text, sizeof number_text, "%.1f", 100 * value);
          text += (text.empty() ? "" : " / ") + std::string(number_text);
        }
        rows[name] += ' ' + text + " |";
      }
    for (auto const& [name, row] : rows)
      if (served.count(name) > 0)
        std::printf("| %lld | %s |%s\n", static_cast<long long>(world), name.c_str(), row.c_str());
    std::fflush(stdout);
  }
  std::fprintf(stderr, "\n");
}

/// What the options ask for: a table, or one case.
int run() {
  std::size_t cases = 1;
  for (auto const& [option, most] :
       {std::pair{"--world", most_ranks}, {"--seqlen", most_tokens}, {"--kv-heads", most_heads}})
    cases *= options.whole_numbers(option, 1, most).size();
  if (cases > 1) {
    for (char const* const option : {"--svg", "--trace", "--html"})
      if (!options.text(option).empty()) fail(option, " draws one case, not a table of ", cases);
    tabulate();
  } else {
    Case const c = make_case(options.whole_numbers("--world", 1, most_ranks).front(),
                             options.whole_numbers("--seqlen", 1, most_tokens).front(),
                             options.whole_numbers("--kv-heads", 1, most_heads).front());
    with_mask(c, [&](auto const& mask) { show(c, mask); });
  }
  return 0;
}

int main(int argc, char** argv) { return support::run_main(argc, argv, options, run); }
