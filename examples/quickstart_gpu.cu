// SPDX-License-Identifier: Apache-2.0
// The main job on a GPU: exact causal attention in bfloat16 over one sequence that is split across 8 ranks
// (threads that share one GPU here), forward and backward, checked against dense attention in double
// precision. From lightseq::testing come random tensors, a rank's part of them in host memory, and that
// check, which an engine does not need.
#include <thrust/device_vector.h>

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

namespace {

using lightseq::bfloat16;
using lightseq::testing::check_cuda;
using Sequence = lightseq::testing::Sequence<bfloat16>;
constexpr int ranks = 8, head_dim = 128;
constexpr double o_bound = 5e-3, lse_bound = 1e-5, gradient_bound = 1e-2;
constexpr lightseq::Problem problem{.batch = 1, .seqlen = 2000, .heads = 8, .kv_heads = 2};
using Attn = lightseq::DistAttn<head_dim, lightseq::Causal, lightseq::Balanced, lightseq::CudaTraits>;

template <class T>
T* raw(thrust::device_vector<T>& vector) {
  return thrust::raw_pointer_cast(vector.data());
}

/// A rank's tensors in device memory: q, o, d_o, dq [token, heads, dim]; k, v, dk, dv with kv_heads; lse
/// [heads, token].
struct Part {
  explicit Part(Sequence const& host)
      : q(host.q),
        k(host.k),
        v(host.v),
        d_o(host.d_o),
        o(host.o),
        dq(host.dq),
        dk(host.dk),
        dv(host.dv),
        lse(host.lse) {}

  lightseq::Inputs<bfloat16> inputs() { return {raw(q), raw(k), raw(v)}; }
  lightseq::Outputs<bfloat16> outputs() { return {raw(o), raw(lse)}; }
  lightseq::BackwardInputs<bfloat16> backward_inputs() {
    return {raw(q), raw(k), raw(v), raw(o), raw(lse), raw(d_o)};
  }
  lightseq::Gradients<bfloat16> gradients() { return {raw(dq), raw(dk), raw(dv)}; }

  void results_to(Sequence& host) const {
    thrust::copy(o.begin(), o.end(), host.o.begin());
    thrust::copy(lse.begin(), lse.end(), host.lse.begin());
    thrust::copy(dq.begin(), dq.end(), host.dq.begin());
    thrust::copy(dk.begin(), dk.end(), host.dk.begin());
    thrust::copy(dv.begin(), dv.end(), host.dv.begin());
  }

  thrust::device_vector<bfloat16> q, k, v, d_o, o, dq, dk, dv;
  thrust::device_vector<float> lse;
};

/// What a rank has to say.
struct Report {
  lightseq::Status status;
  double megabytes = 0, milliseconds = 0;
};

/// What each of the threads does: its part of forward and backward, twice; the results go into the whole.
Report run_rank(lightseq::CudaLocal& comm, cudaStream_t stream, Sequence& whole) {
  Report report;
  Attn attn(comm, problem);  // plans this rank's part; throws on a bad problem, with the numbers

  // All device memory is the caller's: this rank's tokens, room for its results, and a workspace that every
  // call may use anew. Row i of a part is token attn.positions().position(i) of the sequence.
  Sequence host = part_of(whole, attn.positions());
  Part part(host);
  thrust::device_vector<std::byte> memory(static_cast<std::size_t>(attn.workspace_bytes()));
  std::span<std::byte> const workspace(raw(memory), memory.size());
  check_cuda(cudaDeviceSynchronize());  // the streams do not wait for the copies above

  for (int call = 0; call < 2 && report.status.ok(); ++call) {  // the first also loads the kernels
    auto const begin = std::chrono::steady_clock::now();
    // Returns as soon as all is enqueued: the results are there when the stream has come to its end.
    report.status = attn.forward(part.inputs(), part.outputs(), workspace, {.compute = stream});
    if (report.status.ok())
      report.status = attn.backward(part.backward_inputs(), part.gradients(), workspace, {.compute = stream});
    check_cuda(cudaStreamSynchronize(stream));
    report.milliseconds =
        std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  }
  check_cuda(cudaDeviceSynchronize());  // other ranks may still read this one's messages
  part.results_to(host);
  put_back(host, attn.positions(), whole);
  for (lightseq::Pass const pass : {lightseq::Pass::forward, lightseq::Pass::backward})
    report.megabytes += 1e-6 * static_cast<double>(attn.bytes_sent(pass));
  return report;
}

/// Whether the results are near those of dense attention.
bool is_right(Sequence const& whole) {
  auto const errors = lightseq::testing::dense_errors<head_dim>(whole, lightseq::Causal{}, problem.scale);
  std::printf(
      "relative errors against dense attention: o %.1e (bound %.0e), lse %.1e (bound %.0e), dq %.1e, dk "
      "%.1e, dv %.1e (bound %.0e)\n",
      errors.o, o_bound, errors.lse, lse_bound, errors.dq, errors.dk, errors.dv, gradient_bound);
  return errors.o < o_bound && errors.lse < lse_bound &&
         std::max({errors.dq, errors.dk, errors.dv}) < gradient_bound;
}

}  // namespace

int main() {
  if (!lightseq::testing::has_gpu()) {
    std::printf("skipped: there is no GPU\n");
    return lightseq::testing::skipped;
  }
  lightseq::Planner const planner(lightseq::Balanced{}, lightseq::Causal{}, ranks, problem.seqlen);
  std::printf("%s%s\nidle: %.2f%% of all ranks' time\n", lightseq::grid(planner).c_str(),
              lightseq::grid_legend, 100 * lightseq::idle_fraction(planner));

  auto whole = lightseq::testing::random_sequence<bfloat16>(problem, head_dim, std::random_device{}());
  std::vector<Report> reports(ranks);
  // A rank has two streams: its messages travel on one while it computes on the other.
  std::vector<cudaStream_t> exchange(ranks), compute(ranks);
  for (auto* const streams : {&exchange, &compute})
    for (cudaStream_t& stream : *streams)
      check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  {
    lightseq::CudaLocalWorld world(exchange);
    lightseq::run_ranks(world, [&](lightseq::CudaLocal& comm) {  // in a thread for each rank
      auto const rank = static_cast<std::size_t>(comm.rank());
      reports[rank] = run_rank(comm, compute[rank], whole);
    });
  }
  for (auto const& streams : {exchange, compute})
    for (cudaStream_t const stream : streams) check_cuda(cudaStreamDestroy(stream));

  double milliseconds = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    Report const& report = reports[static_cast<std::size_t>(rank)];
    std::printf("rank %d sent %.2f MB: %s\n", rank, report.megabytes, report.status.message().c_str());
    if (!report.status.ok()) return 1;
    milliseconds = std::max(milliseconds, report.milliseconds);
  }
  std::printf(
      "%lld tokens, %lld query and %lld key/value heads, forward and backward on %d ranks of one GPU: "
      "%.2f ms\n",
      static_cast<long long>(problem.seqlen), static_cast<long long>(problem.heads),
      static_cast<long long>(problem.kv_heads), ranks, milliseconds);
  return is_right(whole) ? 0 : 1;
}
