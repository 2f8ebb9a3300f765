// SPDX-License-Identifier: Apache-2.0
// What dealing a pack of documents out to ranks costs: causal attention within documents on P virtual ranks
// of one GPU, one after another, beside one rank that has the whole pack, alternately, in one run. A rank's
// compute is all that it enqueues on its compute stream, in a call whose messages are already there.
// Prints a row a kind of pack and pass: milliseconds of both, the ratio, and the rate of the one rank in
// TFLOP/s of visible pairs. --help lists the options.
#include <cstdint>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/support/cuda.cuh"
#include "bench/support/muted.cuh"
#include "bench/support/packs.hpp"
#include "bench/support/row.hpp"
#include "bench/support/timing.cuh"
#include "examples/support/options.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/packed_attn.hpp"
#include "lightseq/testing/cuda.cuh"

namespace {

using namespace lightseq;
using bench::check;

constexpr int head_dim = 128;

using Muted = bench::Muted<CudaLocal>;
struct MutedTraits : CudaTraits {
  using Transport = Muted;
};
using Attn = DistAttn<head_dim, Documents<Causal>, PackedRing, MutedTraits>;

/// One rank with all its memory, and a pack that it has planned.
struct Rank {
  Rank(CudaLocal& local, Problem const& problem, std::vector<std::int64_t> const& ends)
      : transport(local), attn(transport, problem), batch(attn.batch()) {
    if (Text const fault = attn.plan(ends, batch); !fault.empty()) fail(fault);
    workspace_bytes = static_cast<std::size_t>(attn.workspace_bytes());
    workspace = memory.take<std::byte>(attn.workspace_bytes());
    auto const seed = static_cast<unsigned>(4 * local.rank());
    std::int64_t const rows = attn.tokens(batch), q_size = rows * problem.heads * head_dim,
                       kv_size = rows * problem.kv_heads * head_dim;
    in = {memory.take_filled<bfloat16>(q_size, seed), memory.take_filled<bfloat16>(kv_size, seed + 1),
          memory.take_filled<bfloat16>(kv_size, seed + 2)};
    out = {memory.take<bfloat16>(q_size), memory.take<float>(rows * problem.heads)};
    d_o = memory.take_filled<bfloat16>(q_size, seed + 3);
    gradients = {memory.take<bfloat16>(q_size), memory.take<bfloat16>(kv_size),
                 memory.take<bfloat16>(kv_size)};
  }
  Rank(Rank const&) = delete;

  void run(Pass pass, cudaStream_t stream) {
    if (pass == Pass::forward)
      check(attn.forward(in, out, {workspace, workspace_bytes}, batch, {.compute = stream}));
    else
      check(attn.backward({in.q, in.k, in.v, out.o, out.lse, d_o}, gradients, {workspace, workspace_bytes},
                          batch, {.compute = stream}));
  }

  Muted transport;
  Attn attn;
  PackedBatch batch;
  bench::Memory memory;
  std::size_t workspace_bytes;
  std::byte* workspace;
  Inputs<bfloat16> in;
  Outputs<bfloat16> out;
  Tensor<bfloat16 const> d_o;
  Gradients<bfloat16> gradients;
};

/// All ranks of a pack.
class World {
 public:
  World(int ranks, Problem const& problem, std::vector<std::int64_t> const& ends)
      : streams_(ranks), compute_(ranks), world_(streams_) {
    for (int rank = 0; rank < ranks; ++rank)
      ranks_.push_back(std::make_unique<Rank>(world_[rank], problem, ends));
    check(cudaDeviceSynchronize());
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      run_ranks(world_, [&](CudaLocal& local) {
        ranks_[static_cast<std::size_t>(local.rank())]->run(pass, compute_[local.rank()]);
      });
      check(cudaDeviceSynchronize());  // every workspace holds what its rank receives
    }
  }

  /// Enqueues the ranks' compute one after another.
  void in_turn(Pass pass, cudaStream_t stream) {
    for (auto const& rank : ranks_) {
      rank->transport.mute(true);
      rank->run(pass, stream);
      rank->transport.mute(false);
    }
  }

  Rank const& operator[](int rank) const { return *ranks_[static_cast<std::size_t>(rank)]; }

 private:
  testing::Streams streams_, compute_;
  CudaLocalWorld world_;
  std::vector<std::unique_ptr<Rank>> ranks_;
};

void compare(std::string const& kind, int ranks, Problem const& problem) {
  std::mt19937_64 random(42);
  std::vector<std::int64_t> const ends = bench::pack(kind, problem.seqlen, ranks, random);
  testing::Streams const main(1);
  World whole(1, problem, ends), dealt(ranks, problem, ends);
  double pairs = 0;
  for (std::int64_t d = 0; d < DocumentEnds(ends).count(); ++d) {
    auto const length = static_cast<double>(DocumentEnds(ends).length(d));
    pairs += length * (length + 1) / 2;
  }
  std::int64_t steps = 0, received = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    steps = std::max<std::int64_t>(steps, dealt[rank].batch.plan().steps());
    for (RowTransfer const& t : dealt[rank].batch.plan().recvs()) received += t.rows;
  }
  for (Pass const pass : {Pass::forward, Pass::backward}) {
    auto const ms = bench::measure({[&](cudaStream_t stream) { whole.in_turn(pass, stream); },
                                    [&](cudaStream_t stream) { dealt.in_turn(pass, stream); }},
                                   main[0]);
    double const flop =
        (pass == Pass::forward ? 4 : 10) * pairs * static_cast<double>(problem.heads) * head_dim;
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
        compare(kind, ranks,
                {.batch = 1,
                 .seqlen = shard * ranks,
                 .heads = options.whole("--heads", 1, 1024),
                 .kv_heads = options.whole("--kv-heads", 1, 1024)});
    return 0;
  });
}
