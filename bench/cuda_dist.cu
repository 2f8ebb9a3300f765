// SPDX-License-Identifier: Apache-2.0
// What splitting a sequence costs: causal attention on P virtual ranks of one GPU beside the one dense kernel
// on the whole sequence, alternately, in one run. A rank's compute is all that it enqueues on its compute
// stream, in a call whose messages are already there: packing, attention, merges.
// Prints a row a length, pass and schedule: milliseconds of the dense kernels, the sum over the ranks one
// after another, all ranks side by side with their messages (as copies on the same GPU), and the ratios.
// --help lists the options.
#include <cstdint>

#include "bench/support/row.hpp"
#include "bench/support/timing.cuh"
#include "bench/support/virtual_ranks.cuh"
#include "examples/support/options.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"

namespace {

using namespace lightseq;

template <bool OneLaunch>
struct Traits : bench::VirtualTraits {
  static constexpr bool one_launch = OneLaunch;
  static constexpr bool inference = OneLaunch;
};

template <class S, bool OneLaunch>
using World = bench::VirtualWorld<DistAttn<bench::head_dim, Causal, S, Traits<OneLaunch>>>;

struct Case {
  int ranks = 8;
  Problem problem;
};

template <class S, bool OneLaunch>
void compare(Case const& c, Pass pass) {
  testing::Streams const main(1);
  World<S, false> dense(1, c.problem, {Pass::forward, pass});
  World<S, OneLaunch> split(c.ranks, c.problem, {Pass::forward, pass});
  auto const ms = bench::measure({[&](cudaStream_t stream) { dense.in_turn(pass, stream); },
                                  [&](cudaStream_t stream) { split.in_turn(pass, stream); },
                                  [&](cudaStream_t stream) { split.side_by_side(pass, stream); }},
                                 main[0]);
  auto const tokens = static_cast<double>(c.problem.seqlen);
  double const products = pass == Pass::forward ? 2 : 5;
  double const flop = products * tokens * tokens * static_cast<double>(c.problem.heads) * bench::head_dim;
  bench::Row()("pass", lightseq::name(pass))(
      "schedule", sentence(name_of<S>(), OneLaunch ? " in one launch" : ""))("ranks", c.ranks)(
      "seqlen", c.problem.seqlen)("heads", c.problem.heads)("kv_heads", c.problem.kv_heads)(
      "dense_ms", ms[0])("dense_tflops", 1e-9 * flop / ms[0])("in_turn_ms", ms[1])("side_by_side_ms", ms[2])(
      "in_turn_ratio", ms[1] / ms[0])("side_by_side_ratio", ms[2] / ms[0])
      .print();
}

}  // namespace

int main(int argc, char** argv) {
  support::Options options({{"--ranks", "8", "virtual ranks"},
                            {"--seqlen", "65536,131072", "tokens of the whole sequence; a list"},
                            {"--heads", "32", "query heads"},
                            {"--kv-heads", "8", "key/value heads"}});
  return support::run_main(argc, argv, options, [&] {
    if (!testing::has_gpu()) return testing::skipped;
    for (std::int64_t const seqlen : options.whole_numbers("--seqlen", 1, 1e8)) {
      Case const c{options.small("--ranks", 1, 16), bench::problem_of(options, seqlen)};
      compare<ZigzagRing, true>(c, Pass::forward);
      for (Pass const pass : {Pass::forward, Pass::backward}) {
        compare<Balanced, false>(c, pass);
        compare<ZigzagRing, false>(c, pass);
      }
    }
    return 0;
  });
}
