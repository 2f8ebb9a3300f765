// SPDX-License-Identifier: Apache-2.0
// What planning costs in CPU time: a rank's plans of both passes, and a whole advise(). Causal, 1M tokens.
// Prints a row a schedule and world, then one a world that advise() judges; --help lists the options.
#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>

#include "bench/support/row.hpp"
#include "examples/support/options.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/predict/advise.hpp"
#include "lightseq/predict/advise_fastest.hpp"

using namespace lightseq;

namespace {

/// Seconds of CPU time, which other programs do not change much, of one call.
template <class F>
double seconds(F const& f) {
  auto const now = [] {
    timespec time = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
  };
  double const begin = now();
  f();
  return now() - begin;
}

/// The microseconds in which one rank plans: the mean over the ranks, the best of some rounds.
template <Schedule S>
void plan(int world, std::int64_t seqlen) {
  std::size_t steps = 0;
  double best = 1e9;
  for (int round = 0; round < 5; ++round)
    best = std::min(best, seconds([&] {
                      for (int rank = 0; rank < world; ++rank) {
                        Planner const planner(S{}, Causal{}, world, seqlen);
                        for (Pass const pass : {Pass::forward, Pass::backward})
                          steps += planner.plan(rank, pass).steps.size();
                      }
                    }));
  bench::Row()("schedule", name_of<S>())("world", world)("seqlen", seqlen)("plan_us", 1e6 * best / world)(
      "steps", steps / 10 / static_cast<std::size_t>(world))
      .print();
}

}  // namespace

int main(int argc, char** argv) {
  support::Options options(
      {{"--world", "8,64,512", "ranks; a list"}, {"--seqlen", "1048576", "tokens of the whole sequence"}});
  return support::run_main(argc, argv, options, [&] {
    auto const worlds = options.whole_numbers("--world", 1, 1 << 16);
    std::int64_t const seqlen = options.whole("--seqlen", 1, 1e9);
    for (std::int64_t const world : worlds) {
      plan<Balanced>(static_cast<int>(world), seqlen);
      plan<ZigzagRing>(static_cast<int>(world), seqlen);
    }
    for (std::int64_t const world : worlds) {
      auto const ranks = static_cast<int>(world);
      Problem const problem{.seqlen = seqlen, .heads = 32, .kv_heads = 8};
      auto const measure = [&](char const* name, auto const& ask) {
        std::size_t ways = 0;
        auto const begin = std::chrono::steady_clock::now();
        double const cpu = seconds([&] {
          ways = ask(problem, 128, sizeof(bfloat16), Causal{}, ranks, h100_nodes(), h100()).size();
        });
        std::chrono::duration<double> const time = std::chrono::steady_clock::now() - begin;
        bench::Row()("name", name)("world", world)("seqlen", seqlen)("ways", ways)("seconds", time.count())(
            "cpu_seconds", cpu)
            .print();
      };
      measure("advise_fastest", [](auto const&... asked) { return advise_fastest(asked...); });
      measure("advise", [](auto const&... asked) { return advise(asked...); });
    }
    return 0;
  });
}
