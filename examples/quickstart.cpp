// SPDX-License-Identifier: Apache-2.0
// The main job: exact causal attention, forward and backward, over one sequence that is split across 8 ranks
// (threads here), checked against dense attention in double precision. From lightseq::testing come random
// tensors and that check, which an engine does not need.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <random>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/schedule/grid.hpp"
#include "lightseq/schedule/summary.hpp"
#include "lightseq/testing/sequence.hpp"

constexpr int ranks = 8, head_dim = 64;
constexpr double bound = 1e-5;
constexpr lightseq::Problem problem{.batch = 1, .seqlen = 3000, .heads = 8, .kv_heads = 2};
constexpr std::int64_t q_row = problem.heads * head_dim, kv_row = problem.kv_heads * head_dim;
using Attn = lightseq::DistAttn<head_dim, lightseq::Causal, lightseq::Balanced>;
using Tensor = std::vector<float>;

Tensor zeros(std::int64_t size) { return Tensor(static_cast<std::size_t>(size)); }

/// The rows of a tensor [token, row] that a rank owns, in its order.
Tensor part_of(Tensor const& whole, lightseq::Positions const& at, std::int64_t row) {
  Tensor part;
  for (std::int64_t i = 0; i < at.rows(); ++i) {
    auto const from = whole.begin() + at.position(i) * row;
    part.insert(part.end(), from, from + row);
  }
  return part;
}

/// Puts a rank's rows where they belong in the whole.
void put_back(float const* part, lightseq::Positions const& at, std::int64_t row, float* whole) {
  for (std::int64_t i = 0; i < at.rows(); ++i) std::copy_n(part + i * row, row, whole + at.position(i) * row);
}

/// What each of the threads does: its part of forward and backward. The results go into the whole.
lightseq::Status run_rank(lightseq::Local& comm, lightseq::testing::Sequence<float>& whole,
                          double& megabytes) {
  Attn attn(comm, problem);  // plans this rank's part; throws on a bad problem, with the numbers
  std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));

  // This rank's tokens [token, heads, dim], and room for its results; lse is [heads, token].
  lightseq::Positions const at = attn.positions();
  auto const q = part_of(whole.q, at, q_row), d_o = part_of(whole.d_o, at, q_row),
             k = part_of(whole.k, at, kv_row), v = part_of(whole.v, at, kv_row);
  auto o = zeros(attn.tokens() * q_row), dq = o, dk = zeros(attn.tokens() * kv_row), dv = dk,
       lse = zeros(attn.tokens() * problem.heads);

  lightseq::Status status = attn.forward({q.data(), k.data(), v.data()}, {o.data(), lse.data()}, workspace);
  if (status.ok())
    status = attn.backward({q.data(), k.data(), v.data(), o.data(), lse.data(), d_o.data()},
                           {dq.data(), dk.data(), dv.data()}, workspace);

  put_back(o.data(), at, q_row, whole.o.data());
  put_back(dq.data(), at, q_row, whole.dq.data());
  put_back(dk.data(), at, kv_row, whole.dk.data());
  put_back(dv.data(), at, kv_row, whole.dv.data());
  for (std::int64_t head = 0; head < problem.heads; ++head)
    put_back(lse.data() + head * attn.tokens(), at, 1, whole.lse.data() + head * problem.seqlen);
  for (auto const pass : {lightseq::Pass::forward, lightseq::Pass::backward})
    megabytes += 1e-6 * static_cast<double>(attn.bytes_sent(pass));
  return status;
}

int main() {
  lightseq::Planner const planner(lightseq::Balanced{}, lightseq::Causal{}, ranks, problem.seqlen);
  std::printf("%s%s\nidle: %.2f%% of all ranks' time\n", lightseq::grid(planner).c_str(),
              lightseq::grid_legend, 100 * lightseq::idle_fraction(planner));

  auto whole = lightseq::testing::random_sequence<float>(problem, head_dim, std::random_device{}());
  std::vector<lightseq::Status> statuses(ranks);
  std::vector<double> megabytes(ranks);
  lightseq::LocalWorld world(ranks);
  auto const begin = std::chrono::steady_clock::now();
  lightseq::run_ranks(world, [&](lightseq::Local& comm) {
    auto const rank = static_cast<std::size_t>(comm.rank());
    statuses[rank] = run_rank(comm, whole, megabytes[rank]);
  });
  std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - begin;

  for (int rank = 0; rank < ranks; ++rank) {
    auto const r = static_cast<std::size_t>(rank);
    std::printf("rank %d sent %.2f MB: %s\n", rank, megabytes[r], statuses[r].message().c_str());
    if (!statuses[r].ok()) return 1;
  }
  auto const errors = lightseq::testing::dense_errors<head_dim>(whole, lightseq::Causal{});
  std::printf("%lld tokens, %lld query and %lld key/value heads, forward and backward on %d ranks: %.3f s\n",
              static_cast<long long>(problem.seqlen), static_cast<long long>(problem.heads),
              static_cast<long long>(problem.kv_heads), ranks, seconds.count());
  std::printf(
      "relative errors against dense attention: o %.1e, lse %.1e, dq %.1e, dk %.1e, dv %.1e (bound %.0e)\n",
      errors.o, errors.lse, errors.dq, errors.dk, errors.dv, bound);
  return errors.worst() < bound ? 0 : 1;
}
