// SPDX-License-Identifier: Apache-2.0
// The main job: exact causal attention, forward and backward, over one sequence that is split across 8 ranks
// (threads here), checked against dense attention in double precision.
#include <chrono>
#include <cstdio>
#include <random>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/schedule/grid.hpp"
#include "lightseq/schedule/summary.hpp"
#include "lightseq/testing/sequence.hpp"

constexpr int ranks = 8, head_dim = 64;
constexpr double bound = 1e-5;
using Attn = lightseq::DistAttn<head_dim, lightseq::Causal, lightseq::Balanced>;

int main() {
  lightseq::Problem const problem{.batch = 1, .seqlen = 3000, .heads = 8, .kv_heads = 2};
  lightseq::Planner const planner(lightseq::Balanced{}, lightseq::Causal{}, ranks, problem.seqlen);
  std::printf("%s%s\nidle: %.2f%% of all ranks' time\n", lightseq::grid(planner).c_str(),
              lightseq::grid_legend, 100 * lightseq::idle_fraction(planner));

  auto sequence = lightseq::testing::random_sequence<float>(problem, head_dim, std::random_device{}());
  std::vector<lightseq::Status> statuses(ranks);
  std::vector<double> megabytes(ranks);
  lightseq::LocalWorld world(ranks);
  auto const begin = std::chrono::steady_clock::now();
  lightseq::run_ranks(world, [&](lightseq::Local& comm) {
    auto const rank = static_cast<std::size_t>(comm.rank());
    Attn attn(comm, problem);  // plans this rank's part; throws on a bad problem, with the numbers
    std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
    auto mine =
        part_of(sequence, attn.positions());  // plain vectors: this rank's tokens and room for results
    auto const &q = mine.q, &k = mine.k, &v = mine.v, &d_o = mine.d_o;

    lightseq::Status status =
        attn.forward({q.data(), k.data(), v.data()}, {mine.o.data(), mine.lse.data()}, workspace);
    if (status.ok())
      status = attn.backward({q.data(), k.data(), v.data(), mine.o.data(), mine.lse.data(), d_o.data()},
                             {mine.dq.data(), mine.dk.data(), mine.dv.data()}, workspace);
    statuses[rank] = status;
    put_back(mine, attn.positions(), sequence);
    megabytes[rank] = 1e-6 * static_cast<double>(attn.bytes_sent(lightseq::Pass::forward) +
                                                 attn.bytes_sent(lightseq::Pass::backward));
  });
  std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - begin;

  for (int rank = 0; rank < ranks; ++rank) {
    auto const r = static_cast<std::size_t>(rank);
    std::printf("rank %d sent %.2f MB: %s\n", rank, megabytes[r], statuses[r].message().c_str());
    if (!statuses[r].ok()) return 1;
  }
  auto const errors = lightseq::testing::dense_errors<head_dim>(sequence, lightseq::Causal{});
  std::printf("%lld tokens, %lld query and %lld key/value heads, forward and backward on %d ranks: %.3f s\n",
              static_cast<long long>(problem.seqlen), static_cast<long long>(problem.heads),
              static_cast<long long>(problem.kv_heads), ranks, seconds.count());
  std::printf(
      "relative errors against dense attention: o %.1e, lse %.1e, dq %.1e, dk %.1e, dv %.1e (bound %.0e)\n",
      errors.o, errors.lse, errors.dq, errors.dk, errors.dv, bound);
  return errors.worst() < bound ? 0 : 1;
}
