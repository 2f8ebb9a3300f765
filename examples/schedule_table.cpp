// SPDX-License-Identifier: Apache-2.0
// Prints who computes what under any schedule, how evenly the work falls, and what each rank sends.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <map>
#include <string>

#include "lightseq/lightseq.hpp"
#include "lightseq/schedule/grid.hpp"
#include "lightseq/schedule/summary.hpp"

using namespace lightseq;
char const usage[] =
    "schedule_table [--world P] [--ranks-per-node R] [--seqlen N] [--mask MASK] [--window keys that a query\n"
    "               sees] [--heads H] [--kv-heads G] [--dim D] [--schedule SCHEDULE|all]\n";
std::map<std::string, std::string> options{
    {"--world", "8"},     {"--ranks-per-node", "4"}, {"--seqlen", "65536"},
    {"--mask", "Causal"}, {"--window", "4096"},      {"--heads", "32"},
    {"--kv-heads", "8"},  {"--dim", "128"},          {"--schedule", "all"}};

std::int64_t number(char const* option, std::int64_t most = 1 << 24) {
  std::string const& text = options.at(option);
  std::int64_t value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || *end != '\0' || value < 1 || value > most)
    fail(option, " is ", text, ", it must be a number from 1 to ", most);
  return value;
}

/// Prints what a rank sends in a pass.
template <Schedule S, Mask M>
void print_bytes(Planner<S, M> const& planner, Pass pass, Extents const& extents) {
  double sum = 0, most = 0;
  for (int rank = 0; rank < planner.world(); ++rank) {
    auto const rows = [&](int shard) { return planner.shard(shard).rows(); };
    auto const bytes = static_cast<double>(bytes_sent(planner.plan(rank, pass), extents, rows));
    sum += bytes;
    most = std::max(most, bytes);
  }
  std::printf("%s: a rank sends %.3f MB on average, %.3f MB at most (inputs bfloat16, results float)\n",
              name(pass), 1e-6 * sum / planner.world(), 1e-6 * most);
}

/// Prints a schedule under a mask.
template <Schedule S, Mask M>
void print(Planner<S, M> const& planner, Extents const& extents) {
  std::printf("%s, mask %s\n", std::string(S::name).c_str(), std::string(M::name).c_str());
  try {
    std::printf("%s%s\n", grid(planner).c_str(), grid_legend);
    for (Pass const pass : {Pass::forward, Pass::backward}) print_bytes(planner, pass, extents);
    std::printf("idle: %.2f%% (a step takes its busiest rank's visible tiles)\n\n",
                100 * idle_fraction(planner));
  } catch (Error const& error) {
    std::printf("%s\n\n", error.what());  // this schedule does not serve this mask or world
  }
}

/// Prints the schedules that were asked for under a mask; whether there is any.
template <Mask M>
bool print_all(M const& mask) {
  auto const world = static_cast<int>(number("--world", 4096)), dim = static_cast<int>(number("--dim", 256)),
             per_node = static_cast<int>(number("--ranks-per-node", 4096));
  auto const tokens = number("--seqlen"), heads = number("--heads"), kv_heads = number("--kv-heads");
  validated({.seqlen = tokens, .heads = heads, .kv_heads = kv_heads}, dim);
  bool found = false;
  for_each_schedule(world, per_node, [&]<class S>(S const& schedule) {
    if (options["--schedule"] != S::name && options["--schedule"] != "all") return;
    print(Planner(schedule, mask, world, tokens), {1, heads, kv_heads, dim, sizeof(bfloat16)});
    found = true;
  });
  return found;
}

int main(int argc, char** argv) try {
  for (int i = 1; i < argc; i += 2) {
    if (argv[i] == std::string("--help")) return std::printf("%s", usage) > 0 ? 0 : 1;
    if (options.count(argv[i]) == 0 || i + 1 == argc) fail("no such option, or no value of it: ", argv[i]);
    options[argv[i]] = argv[i + 1];
  }
  bool found = false;
  for_each_type<Masks>([&]<class M>() {
    if (options["--mask"] == M::name) found = print_all(mask_seeing<M>(number("--window")));
  });
  if (!found)
    fail("there is no schedule ", options["--schedule"], " or no mask ", options["--mask"], "; there are ",
         names_of<Schedules>(), "; and ", names_of<Masks>());
} catch (Error const& error) {
  std::fprintf(stderr, "%s\n%s", error.what(), usage);
  return 2;
}
