// SPDX-License-Identifier: Apache-2.0
// How balanced packing deals out packs of documents: the cost of the costliest rank over the mean, the rows
// that ranks receive, how well ranks keep pace in both passes, simulated on H100s in one NVLink domain, and
// what planning takes. Prints a row a kind of pack and world; --help lists the options.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bench/support/packs.hpp"
#include "bench/support/row.hpp"
#include "examples/support/options.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/partition/balanced_packing.hpp"
#include "lightseq/predict/simulate_packed.hpp"
#include "lightseq/schedule/packed_plan.hpp"

using namespace lightseq;

namespace {

/// The best of some rounds, in milliseconds.
template <class F>
double milliseconds(F const& f) {
  double best = std::numeric_limits<double>::max();
  for (int round = 0; round < 20; ++round) {
    auto const begin = std::chrono::steady_clock::now();
    f();
    std::chrono::duration<double, std::milli> const time = std::chrono::steady_clock::now() - begin;
    best = std::min(best, time.count());
  }
  return best;
}

/// Throws what a plan has to say, if anything.
void check(Text const& fault) {
  if (!fault.empty()) fail(fault);
}

/// The storage for packs of one world.
struct Planner {
  BalancedPacking packing;
  Pieces pieces;

  Planner(std::int64_t documents, std::int64_t tokens, int world)
      : packing({documents, tokens, world}), pieces(world, BalancedPacking::max_pieces(documents, world)) {}
};

/// 32 heads that share 8 of keys, of 128 dimensions in bfloat16.
constexpr Extents extents{.batch = 1, .heads = 32, .kv_heads = 8, .head_dim = 128, .element_bytes = 2};

/// The means over some packs, and the worst balance and the longest planning.
void measure(std::string_view kind, int world, std::int64_t shard, int packs, double slack) {
  std::mt19937_64 random(42);
  std::int64_t const tokens = shard * world;
  Planner planner(tokens, tokens, world);
  PackingOptions const options{.slack = static_cast<std::int64_t>(slack * static_cast<double>(shard))};
  bench::PackFigures mean;
  double forward = 0, backward = 0, steps = 0;
  double worst = 0, longest = 0, documents = 0;
  for (int i = 0; i < packs; ++i) {
    std::vector<std::int64_t> const ends = bench::pack(kind, tokens, world, random);
    longest = std::max(
        longest, milliseconds([&] { check(planner.packing.partition(ends, planner.pieces, options)); }));
    bench::PackFigures const f = bench::figures(ends, planner.pieces);
    worst = std::max(worst, f.max_over_mean);
    documents += static_cast<double>(ends.size()) / packs;
    mean.max_over_mean += f.max_over_mean / packs, mean.received += f.received / packs;
    mean.most_received += f.most_received / packs, mean.most_sent += f.most_sent / packs;
    mean.pieces += f.pieces / packs;
    auto const plans = packed_plans(ends, tokens, world, Causal{}, {.slack = options.slack});
    auto const efficiency = [&](Pass pass) {
      return simulate(plans, Causal{}, pass, extents, {.inside = {370e9, 5e-6}}, h100()).work_fraction();
    };
    forward += efficiency(Pass::forward) / packs, backward += efficiency(Pass::backward) / packs;
    steps += static_cast<double>(plans[0].steps()) / packs;
  }
  bench::Row()("pack", std::string(kind))("world", world)("shard", shard)("slack", slack)(
      "documents", documents)("max_over_mean", mean.max_over_mean)("worst", worst)("received", mean.received)(
      "most_received", mean.most_received)("most_sent", mean.most_sent)("pieces", mean.pieces)(
      "partition_ms", longest)("forward", forward)("backward", backward)("steps", steps)
      .print();
}

/// Planning time of so many documents: of the partition, and with the plan of the rank that takes longest.
void time(std::string_view kind, std::int64_t documents, int world) {
  std::mt19937_64 random(7);
  std::vector<std::int64_t> ends = bench::pack(kind, std::int64_t{1} << 26, world, random);
  ends.resize(std::min(ends.size(), static_cast<std::size_t>(documents)));
  Planner planner(std::ssize(ends), ends.back(), world);
  double const partition = milliseconds([&] { check(planner.packing.partition(ends, planner.pieces)); });
  double longest = 0;
  int steps = 0;
  for (int const rank : {0, world / 2, world - 1}) {
    PackedPlan plan(rank, world, planner.pieces.max_pieces(), tiles_of(ends.back(), world) + 1);
    longest = std::max(longest, milliseconds([&] {
                         check(planner.packing.partition(ends, planner.pieces));
                         plan.assign(planner.pieces);
                       }));
    steps = plan.steps();
  }
  bench::Row()("pack", std::string(kind))("world", world)("documents", ends.size())(
      "partition_ms", partition)("plan_ms", longest)("steps", steps)
      .print();
}

}  // namespace

int main(int argc, char** argv) {
  support::Options options({{"--world", "8,64", "ranks; a list"},
                            {"--shard", "8192", "tokens of a rank"},
                            {"--packs", "5", "random packs of a kind; of others there is one"},
                            {"--slack", "0", "tokens that a rank may own more or fewer, of its shard"}});
  return support::run_main(argc, argv, options, [&] {
    std::int64_t const shard = options.whole("--shard", 1, 1 << 20);
    int const packs = options.small("--packs", 1, 1000);
    double const slack = options.number("--slack", 0, 1);
    for (std::int64_t const world : options.whole_numbers("--world", 1, 1024)) {
      for (char const* const kind : bench::random_packs)
        measure(kind, static_cast<int>(world), shard, packs, slack);
      for (char const* const kind : bench::fixed_packs)
        measure(kind, static_cast<int>(world), shard, 1, slack);
    }
    for (std::int64_t const world : {64, 8}) {
      std::int64_t const documents = world == 64 ? 4096 : 300;
      for (char const* const kind : bench::random_packs) time(kind, documents, static_cast<int>(world));
      for (char const* const kind : bench::fixed_packs) time(kind, documents, static_cast<int>(world));
    }
    return 0;
  });
}
