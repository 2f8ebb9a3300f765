// SPDX-License-Identifier: Apache-2.0
// Prints who computes what under any schedule, how evenly the work falls, and what each rank sends.
#include <algorithm>
#include <cstdio>
#include <string>

#include "examples/support/options.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/schedule/grid.hpp"
#include "lightseq/schedule/summary.hpp"

using namespace lightseq;
support::Options options({
    {"--world", "8", "ranks"},
    {"--seqlen", "65536", "tokens of the whole sequence"},
    {"--mask", "causal", "full, causal or window"},
    {"--window", "4096", "keys in sight, with --mask window"},
    {"--heads", "32", "query heads"},
    {"--kv-heads", "8", "key/value heads, a divisor of the query heads"},
    {"--dim", "128", "head dim"},
    {"--schedule", "all", "ring, zigzag, striped, balanced or all"},
});

std::int64_t number(char const* option, int most = 1 << 24) { return options.whole(option, 1, most); }

/// Prints a schedule under a mask if both were asked for; whether they were.
template <Schedule S, Mask M>
bool print(char const* schedule, char const* mask_name, M const& mask) {
  if (options.text("--mask") != mask_name) return false;
  if (options.text("--schedule") != schedule && options.text("--schedule") != "all") return false;
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

int run() {
  if (!std::max({print<Ring>("ring"), print<ZigzagRing>("zigzag"), print<StripedRing>("striped"),
                 print<Balanced>("balanced")}))
    fail("there is no schedule ", options.text("--schedule"), " or no mask ", options.text("--mask"));
  return 0;
}

int main(int argc, char** argv) { return support::run_main(argc, argv, options, run); }
