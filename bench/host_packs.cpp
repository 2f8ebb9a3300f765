// SPDX-License-Identifier: Apache-2.0
// What a pack of documents costs the host kernels: one rank, one thread, a head of 128 dimensions, float. A
// row has GFLOP/s of visible pairs, and "of_tiles": the time over what the tiles of the pack that are not
// hidden would take at the rate of one document's.
#include <algorithm>
#include <cstdint>
#include <ctime>
#include <random>
#include <span>
#include <vector>

#include "bench/support/row.hpp"
#include "examples/support/options.hpp"
#include "examples/support/packs.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/packed_attn.hpp"
#include "lightseq/testing/sequence.hpp"

using namespace lightseq;

namespace {

constexpr int head_dim = 128;
using Mask = Documents<Causal>;
using Attn = DistAttn<head_dim, Mask, PackedRing>;

/// Seconds of this process: the least of a few runs.
template <class F>
double cpu_seconds(int runs, F const& f) {
  double best = 1e9;
  for (int i = 0; i < runs; ++i) {
    std::clock_t const begin = std::clock();
    f();
    best = std::min(best, static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
  }
  return best;
}

/// Pairs of the kernels' tiles, of so many queries and keys, that are not all hidden.
double pairs_of_tiles(Mask const& mask, std::int64_t tokens, int queries, int keys) {
  double pairs = 0;
  for (std::int64_t q = 0; q < tokens; q += queries)
    for (std::int64_t k = 0; k < tokens; k += keys) {
      Range const rows{q, std::min(q + queries, tokens)}, columns{k, std::min(k + keys, tokens)};
      if (mask.cover(rows, columns) != Cover::none)
        pairs += static_cast<double>(rows.size() * columns.size());
    }
  return pairs;
}

/// What a pass over a pack takes.
struct PassCost {
  double seconds = 0, pairs = 0, tile_pairs = 0;
};

/// Forward and backward.
std::vector<PassCost> measure(std::vector<std::int64_t> const& ends, int runs) {
  Problem const problem{.seqlen = ends.back(), .heads = 1, .max_documents = std::ssize(ends)};
  Mask const mask(ends);
  host::Tiling const forward = host::forward_tiling(), backward = host::backward_tiling();
  Segment const all{0, problem.seqlen};
  auto const pairs = static_cast<double>(visible_pairs(mask, all, all));
  LocalWorld world(1);
  Attn attn(world[0], problem);
  PackedBatch batch = attn.batch();
  if (Text const fault = attn.plan(ends, batch); !fault.empty()) fail(fault);
  auto whole = testing::random_sequence<float>(problem, head_dim, 1);
  std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
  auto const check = [](Status const& status) {
    if (!status.ok()) fail(status.message());
  };
  return {
      {cpu_seconds(runs, [&] { check(attn.forward(whole.inputs(), whole.outputs(), workspace, batch)); }),
       pairs, pairs_of_tiles(mask, problem.seqlen, forward.stationary, forward.streaming)},
      {cpu_seconds(
           runs, [&] { check(attn.backward(whole.backward_inputs(), whole.gradients(), workspace, batch)); }),
       pairs, pairs_of_tiles(mask, problem.seqlen, backward.streaming, backward.stationary)}};
}

}  // namespace

int main(int argc, char** argv) {
  support::Options options(
      {{"--seqlen", "8192", "tokens of a pack"}, {"--runs", "3", "of which the best counts"}});
  return support::run_main(argc, argv, options, [&] {
    std::int64_t const tokens = options.whole("--seqlen", 1, 1 << 20);
    int const runs = options.small("--runs", 1, 100);
    std::mt19937_64 random(42);
    auto const dense = measure({tokens}, runs);
    for (char const* const kind : {"one document", "magi", "web", "long_tail", "sft"}) {
      auto const packed = measure(support::pack(kind, tokens, 1, random), runs);
      for (Pass const pass : {Pass::forward, Pass::backward}) {
        std::size_t const i = pass == Pass::forward ? 0 : 1;
        double const flops = (pass == Pass::forward ? 4 : 10) * head_dim * packed[i].pairs;
        bench::Row()("pack", kind)("pass", name(pass))("tokens", tokens)("gflops",
                                                                         1e-9 * flops / packed[i].seconds)(
            "of_tiles", packed[i].seconds / packed[i].tile_pairs * dense[i].tile_pairs / dense[i].seconds)
            .print();
      }
    }
    return 0;
  });
}
