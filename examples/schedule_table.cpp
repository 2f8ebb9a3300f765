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
    {"--ranks-per-node", "4", "of schedules in two levels"},
    {"--seqlen", "65536", "tokens of the whole sequence"},
    {"--mask", "Causal", names_of<Masks>()},
    {"--window", "4096", "keys that a query sees, of masks such as SlidingWindow"},
    {"--heads", "32", "query heads"},
    {"--kv-heads", "8", "key/value heads, a divisor of the query heads"},
    {"--dim", "128", "head dim"},
    {"--schedule", "all", "all, or one of " + names_of<Schedules>()},
});

std::int64_t number(char const* option, int most = 1 << 24) { return options.whole(option, 1, most); }

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
    if (options.text("--schedule") != S::name && options.text("--schedule") != "all") return;
    print(Planner(schedule, mask, world, tokens), {1, heads, kv_heads, dim, sizeof(bfloat16)});
    found = true;
  });
  return found;
}

int run() {
  bool mask = false, schedule = false;
  for_each_type<Masks>([&]<class M>() {
    if (options.text("--mask") != M::name) return;
    mask = true, schedule = print_all(mask_seeing<M>(number("--window")));
  });
  if (!mask) fail("there is no mask ", options.text("--mask"), "; there are ", names_of<Masks>());
  if (!schedule)
    fail("there is no schedule ", options.text("--schedule"), "; there are ", names_of<Schedules>());
  return 0;
}

int main(int argc, char** argv) { return support::run_main(argc, argv, options, run); }
