// SPDX-License-Identifier: Apache-2.0
// What dealing a pack of documents out to ranks costs: causal attention within documents on P virtual ranks
// of one GPU, one after another, beside one rank that has the whole pack, alternately, in one run. A rank's
// compute is all that it enqueues on its compute stream, in a call whose messages are already there.
// Prints a row a kind of pack and pass: milliseconds of both, the ratio, and the rate of the one rank in
// TFLOP/s of visible pairs. --help lists the options.
#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "bench/support/packs.hpp"
#include "bench/support/row.hpp"
#include "bench/support/timing.cuh"
#include "bench/support/virtual_ranks.cuh"
#include "examples/support/options.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/packed_attn.hpp"
#include "lightseq/testing/cuda.cuh"

namespace {

using namespace lightseq;

using Attn = DistAttn<bench::head_dim, Documents<Causal>, PackedRing, bench::VirtualTraits>;
using Ends = std::vector<std::int64_t>;
using World = bench::VirtualWorld<Attn, Ends>;

void compare(std::string const& kind, int ranks, Problem const& problem) {
  std::mt19937_64 random(42);
  Ends const ends = bench::pack(kind, problem.seqlen, ranks, random);
  testing::Streams const main(1);
  World whole(1, problem, {Pass::forward, Pass::backward}, ends),
      dealt(ranks, problem, {Pass::forward, Pass::backward}, ends);
  double pairs = 0;
  for (std::int64_t d = 0; d < DocumentEnds(ends).count(); ++d) {
    auto const length = static_cast<double>(DocumentEnds(ends).length(d));
    pairs += length * (length + 1) / 2;
  }
  std::int64_t steps = 0, received = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    steps = std::max<std::int64_t>(steps, dealt[rank].plan().steps());
    for (RowTransfer const& t : dealt[rank].plan().recvs()) received += t.rows;
  }
  for (Pass const pass : {Pass::forward, Pass::backward}) {
    auto const ms = bench::measure({[&](cudaStream_t stream) { whole.in_turn(pass, stream); },
                                    [&](cudaStream_t stream) { dealt.in_turn(pass, stream); }},
                                   main[0]);
    double const flop =
        (pass == Pass::forward ? 4 : 10) * pairs * static_cast<double>(problem.heads) * bench::head_dim;
    bench::Row()("pack", kind)("pass", name(pass))("ranks", ranks)("tokens", problem.seqlen)(
        "documents", ends.size())("heads", problem.heads)("kv_heads", problem.kv_heads)("steps", steps)(
        "received_shards", static_cast<double>(received) / static_cast<double>(problem.seqlen))(
        "whole_ms", ms[0])("whole_tflops", 1e-9 * flop / ms[0])("in_turn_ms", ms[1])("in_turn_ratio",
                                                                                     ms[1] / ms[0])
        .print();
  }
}

}  // namespace

int main(int argc, char** argv) {
  support::Options options({{"--ranks", "8", "virtual ranks"},
                            {"--shard", "8192,32768", "tokens of a rank; a list"},
                            {"--heads", "32", "query heads"},
                            {"--kv-heads", "8", "key/value heads"}});
  return support::run_main(argc, argv, options, [&] {
    if (!testing::has_gpu()) return testing::skipped;
    int const ranks = options.small("--ranks", 1, 16);
    for (std::int64_t const shard : options.whole_numbers("--shard", 1, 1 << 20))
      for (char const* const kind : {"magi", "web", "long_tail", "sft", "one document"})
        compare(kind, ranks, bench::problem_of(options, shard * ranks));
    return 0;
  });
}
