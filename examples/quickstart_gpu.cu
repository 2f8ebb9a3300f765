// SPDX-License-Identifier: Apache-2.0
// The main job on a GPU: exact causal attention in bfloat16 over one sequence that is split across 8 ranks
// (threads that share one GPU here), forward and backward, checked against dense attention in double
// precision. From lightseq::testing come device arrays and streams that end by themselves, random tensors, a
// rank's part of them, and that check: an engine has its own.
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <random>
#include <vector>

#include "lightseq/lightseq.cuh"
#include "lightseq/schedule/grid.hpp"
#include "lightseq/schedule/summary.hpp"
#include "lightseq/testing/cuda.cuh"

using lightseq::bfloat16;
using lightseq::testing::DeviceArray;
constexpr int ranks = 8, head_dim = 128;
constexpr double o_bound = 5e-3, lse_bound = 1e-5, gradient_bound = 1e-2;
using Attn = lightseq::DistAttn<head_dim, lightseq::Causal, lightseq::Balanced, lightseq::CudaTraits>;

int main() {
  if (!lightseq::testing::has_gpu()) {
    std::printf("skipped: there is no GPU\n");
    return lightseq::testing::skipped;
  }
  lightseq::Problem const problem{.batch = 1, .seqlen = 2000, .heads = 8, .kv_heads = 2};
  lightseq::Planner const planner(lightseq::Balanced{}, lightseq::Causal{}, ranks, problem.seqlen);
  std::printf("%s%s\nidle: %.2f%% of all ranks' time\n", lightseq::grid(planner).c_str(),
              lightseq::grid_legend, 100 * lightseq::idle_fraction(planner));

  auto sequence = lightseq::testing::random_sequence<bfloat16>(problem, head_dim, std::random_device{}());
  std::vector<lightseq::Status> statuses(ranks);
  std::vector<double> megabytes(ranks), milliseconds(ranks);
  // A rank has two streams: its messages travel on one while it computes on the other.
  lightseq::testing::Streams const exchange(ranks), compute(ranks);
  lightseq::CudaLocalWorld world(exchange);
  lightseq::run_ranks(world, [&](lightseq::CudaLocal& comm) {  // in a thread for each rank
    auto const rank = static_cast<std::size_t>(comm.rank());
    cudaStream_t const stream = compute[comm.rank()];
    Attn attn(comm, problem);  // plans this rank's part; throws on a bad problem, with the numbers

    // All device memory is the caller's: this rank's tokens, room for its results, and a workspace that every
    // call may use anew.
    auto mine = part_of(sequence, attn.positions());
    DeviceArray<bfloat16> const q(mine.q), k(mine.k), v(mine.v), o(mine.o), d_o(mine.d_o), dq(mine.dq),
        dk(mine.dk), dv(mine.dv);
    DeviceArray<float> const lse(mine.lse);
    DeviceArray<std::byte> const workspace(attn.workspace_bytes());
    lightseq::testing::check_cuda(cudaDeviceSynchronize());  // the streams do not wait for the copies above

    lightseq::Status& status = statuses[rank];
    for (int call = 0; call < 2 && status.ok(); ++call) {  // the first also loads the kernels
      auto const begin = std::chrono::steady_clock::now();
      // Returns as soon as all is enqueued: the results are there when the stream has come to its end.
      status = attn.forward({q.data(), k.data(), v.data()}, {o.data(), lse.data()}, workspace.span(),
                            {.compute = stream});
      if (status.ok())
        status = attn.backward({q.data(), k.data(), v.data(), o.data(), lse.data(), d_o.data()},
                               {dq.data(), dk.data(), dv.data()}, workspace.span(), {.compute = stream});
      lightseq::testing::check_cuda(cudaStreamSynchronize(stream));
      milliseconds[rank] =
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
    }
    mine.o = o.values();
    mine.lse = lse.values();
    mine.dq = dq.values();
    mine.dk = dk.values();
    mine.dv = dv.values();
    put_back(mine, attn.positions(), sequence);
    for (lightseq::Pass const pass : {lightseq::Pass::forward, lightseq::Pass::backward})
      megabytes[rank] += 1e-6 * static_cast<double>(attn.bytes_sent(pass));
  });

  for (int rank = 0; rank < ranks; ++rank) {
    auto const r = static_cast<std::size_t>(rank);
    std::printf("rank %d sent %.2f MB: %s\n", rank, megabytes[r], statuses[r].message().c_str());
    if (!statuses[r].ok()) return 1;
  }
  auto const errors = lightseq::testing::dense_errors<head_dim>(sequence, lightseq::Causal{}, problem.scale);
  std::printf(
      "%lld tokens, %lld query and %lld key/value heads, forward and backward on %d ranks of one GPU: %.2f "
      "ms\n",
      static_cast<long long>(problem.seqlen), static_cast<long long>(problem.heads),
      static_cast<long long>(problem.kv_heads), ranks,
      *std::max_element(milliseconds.begin(), milliseconds.end()));
  std::printf(
      "relative errors against dense attention: o %.1e (bound %.0e), lse %.1e (bound %.0e), dq %.1e, dk "
      "%.1e, "
      "dv %.1e (bound %.0e)\n",
      errors.o, o_bound, errors.lse, lse_bound, errors.dq, errors.dk, errors.dv, gradient_bound);
  bool const right = errors.o < o_bound && errors.lse < lse_bound && errors.dq < gradient_bound &&
                     errors.dk < gradient_bound && errors.dv < gradient_bound;
  return right ? 0 : 1;
}
