// SPDX-License-Identifier: Apache-2.0
// What splitting a sequence costs: causal attention on P virtual ranks of one GPU beside the one dense kernel
// on the whole sequence, alternately, in one run. A rank's compute is all that it enqueues on its compute
// stream, in a call whose messages are already there: packing, attention, merges.
// Prints a row a length, pass and schedule: milliseconds of the dense kernels, the sum over the ranks one
// after another, all ranks side by side with their messages (as copies on the same GPU), and the ratios.
// --help lists the options.
#include <cstdint>
#include <memory>
#include <vector>

#include "bench/support/cuda.cuh"
#include "bench/support/muted.cuh"
#include "bench/support/row.hpp"
#include "bench/support/timing.cuh"
#include "examples/support/options.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"

namespace {

using namespace lightseq;
using bench::check;

constexpr int head_dim = 128;

using Muted = bench::Muted<CudaLocal>;

template <bool OneLaunch>
struct MutedTraits : CudaTraits {
  using Transport = Muted;
  static constexpr bool one_launch = OneLaunch;
  static constexpr bool inference = OneLaunch;
};

struct Case {
  int ranks = 8;
  Problem problem = {.batch = 1, .seqlen = 1 << 16, .heads = 32, .kv_heads = 8};
};

/// One rank with all its memory.
template <class S, bool OneLaunch>
struct Rank {
  using Attn = DistAttn<head_dim, Causal, S, MutedTraits<OneLaunch>>;

  Rank(CudaLocal& local, Problem const& problem)
      : transport(local),
        attn(transport, problem),
        workspace_bytes(static_cast<std::size_t>(attn.workspace_bytes())),
        workspace(memory.take<std::byte>(attn.workspace_bytes())) {
    auto const seed = static_cast<unsigned>(4 * local.rank());
    std::int64_t const q_size = attn.tokens() * problem.heads * head_dim;
    std::int64_t const kv_size = attn.tokens() * problem.kv_heads * head_dim;
    in = {memory.take_filled<bfloat16>(q_size, seed), memory.take_filled<bfloat16>(kv_size, seed + 1),
          memory.take_filled<bfloat16>(kv_size, seed + 2)};
    out = {memory.take<bfloat16>(q_size), memory.take<float>(attn.tokens() * problem.heads)};
    if constexpr (!Attn::has_backward) return;
    d_o = memory.take_filled<bfloat16>(q_size, seed + 3);
    gradients = {memory.take<bfloat16>(q_size), memory.take<bfloat16>(kv_size),
                 memory.take<bfloat16>(kv_size)};
  }
  Rank(Rank const&) = delete;

  void run(Pass pass, cudaStream_t stream) {
    if (pass == Pass::forward)
      check(attn.forward(in, out, {workspace, workspace_bytes}, {.compute = stream}));
    else if constexpr (Attn::has_backward)
      check(attn.backward({in.q, in.k, in.v, out.o, out.lse, d_o}, gradients, {workspace, workspace_bytes},
                          {.compute = stream}));
  }

  Muted transport;
  Attn attn;
  std::size_t workspace_bytes;
  bench::Memory memory;
  std::byte* workspace;
  Inputs<bfloat16> in;
  Outputs<bfloat16> out;
  Tensor<bfloat16 const> d_o;
  Gradients<bfloat16> gradients;
};

/// A world of ranks, each with two streams.
template <class S, bool OneLaunch>
class World {
 public:
  World(int ranks, Problem const& problem, Pass pass)
      : exchange_(ranks), compute_(ranks), world_(exchange_), pass_(pass) {
    for (int rank = 0; rank < ranks; ++rank) {
      ranks_.push_back(std::make_unique<Rank<S, OneLaunch>>(world_[rank], problem));
      ends_.push_back(make_event());
    }
    check(cudaDeviceSynchronize());
    pass_ = Pass::forward;
    side_by_side(compute_[0]);
    pass_ = pass;
    side_by_side(compute_[0]);  // now every workspace holds what its rank receives
    check(cudaDeviceSynchronize());
  }

  /// Enqueues the ranks' compute one after another.
  void in_turn(cudaStream_t stream) {
    for (auto const& rank : ranks_) {
      rank->transport.mute(true);
      rank->run(pass_, stream);
      rank->transport.mute(false);
    }
  }

  /// Enqueues everything on all ranks' streams, between two points of `stream`.
  void side_by_side(cudaStream_t stream) {
    check(cudaEventRecord(begin_.get(), stream));
    for (int rank = 0; rank < world_.world(); ++rank)
      check(cudaStreamWaitEvent(compute_[rank], begin_.get(), 0));
    run_ranks(world_, [&](CudaLocal& local) {
      auto const rank = static_cast<std::size_t>(local.rank());
      ranks_[rank]->run(pass_, compute_[local.rank()]);
      check(cudaEventRecord(ends_[rank].get(), compute_[local.rank()]));
    });
    for (Event const& end : ends_) check(cudaStreamWaitEvent(stream, end.get(), 0));
  }

 private:
  testing::Streams exchange_, compute_;
  CudaLocalWorld world_;
  Pass pass_;
  std::vector<std::unique_ptr<Rank<S, OneLaunch>>> ranks_;
  Event begin_ = make_event();
  std::vector<Event> ends_;
};

template <class S, bool OneLaunch>
void compare(Case const& c, Pass pass) {
  testing::Streams const main(1);
  World<S, false> dense(1, c.problem, pass);
  World<S, OneLaunch> split(c.ranks, c.problem, pass);
  auto const ms = bench::measure({[&](cudaStream_t stream) { dense.in_turn(stream); },
                                  [&](cudaStream_t stream) { split.in_turn(stream); },
                                  [&](cudaStream_t stream) { split.side_by_side(stream); }},
                                 main[0]);
  auto const tokens = static_cast<double>(c.problem.seqlen);
  double const products = pass == Pass::forward ? 2 : 5;
  double const flop = products * tokens * tokens * static_cast<double>(c.problem.heads) * head_dim;
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
      Case const c{options.small("--ranks", 1, 16),
                   {.batch = 1,
                    .seqlen = seqlen,
                    .heads = options.whole("--heads", 1, 1024),
                    .kv_heads = options.whole("--kv-heads", 1, 1024)}};
      compare<ZigzagRing, true>(c, Pass::forward);
      for (Pass const pass : {Pass::forward, Pass::backward}) {
        compare<Balanced, false>(c, pass);
        compare<ZigzagRing, false>(c, pass);
      }
    }
    return 0;
  });
}
