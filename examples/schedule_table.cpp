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
    "schedule_table [--world P] [--seqlen N] [--mask full|causal|window] [--window keys seen] [--heads H]\n"
    "               [--kv-heads G] [--dim D] [--schedule ring|zigzag|striped|balanced|all]\n";
std::map<std::string, std::string> options{{"--world", "8"},     {"--seqlen", "65536"}, {"--mask", "causal"},
                                           {"--window", "4096"}, {"--heads", "32"},     {"--kv-heads", "8"},
                                           {"--dim", "128"},     {"--schedule", "all"}};

std::int64_t number(char const* option, std::int64_t most = 1 << 24) {
  std::string const& text = options.at(option);
  std::int64_t value = 0;
  auto const [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || *end != '\0' || value < 1 || value > most)
    fail(option, " is ", text, ", it must be a number from 1 to ", most);
  return value;
}

/// Prints a schedule under a mask if both were asked for; whether they were.
template <Schedule S, Mask M>
bool print(char const* schedule, char const* mask_name, M const& mask) {
  if (options["--mask"] != mask_name) return false;
  if (options["--schedule"] != schedule && options["--schedule"] != "all") return false;
  auto const world = static_cast<int>(number("--world", 4096)), dim = static_cast<int>(number("--dim", 256));
  auto const tokens = number("--seqlen"), heads = number("--heads"), kv_heads = number("--kv-heads");
  validated({.seqlen = tokens, .heads = heads, .kv_heads = kv_heads}, dim);
  Extents const extents{1, heads, kv_heads, dim, sizeof(bfloat16)};
  Planner const planner(S{}, mask, world, tokens);
  std::printf("%s, mask %s\n%s%s\n", schedule, mask_name, grid(planner).c_str(), grid_legend);
  try {
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      double sum = 0, most = 0;
      for (int rank = 0; rank < world; ++rank) {
        auto const rows = [&](int shard) { return planner.shard(shard).rows(); };
        auto const bytes = static_cast<double>(bytes_sent(planner.plan(rank, pass), extents, rows));
        sum += bytes;
        most = std::max(most, bytes);
      }
      std::printf("%s: a rank sends %.3f MB on average, %.3f MB at most (inputs bfloat16, results float)\n",
                  name(pass), 1e-6 * sum / world, 1e-6 * most);
    }
    std::printf("idle: %.2f%% (a step takes its busiest rank's visible tiles)\n\n",
                100 * idle_fraction(planner));
  } catch (Error const& error) {
    std::printf("%s\n\n", error.what());  // this schedule does not serve this mask
  }
  return true;
}

template <Schedule S>
bool print(char const* schedule) {
  return print<S>(schedule, "full", Full{}) || print<S>(schedule, "causal", Causal{}) ||
         print<S>(schedule, "window", SlidingWindow{.left = number("--window") - 1});
}

int main(int argc, char** argv) try {
  for (int i = 1; i < argc; i += 2) {
    if (argv[i] == std::string("--help")) return std::printf("%s", usage) > 0 ? 0 : 1;
    if (options.count(argv[i]) == 0 || i + 1 == argc) fail("no such option, or no value of it: ", argv[i]);
    options[argv[i]] = argv[i + 1];
  }
  if (!std::max({print<Ring>("ring"), print<ZigzagRing>("zigzag"), print<StripedRing>("striped"),
                 print<Balanced>("balanced")}))
    fail("there is no schedule ", options["--schedule"], " or no mask ", options["--mask"]);
} catch (Error const& error) {
  std::fprintf(stderr, "%s\n%s", error.what(), usage);
  return 2;
}
