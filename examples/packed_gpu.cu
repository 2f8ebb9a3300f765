// SPDX-License-Identifier: Apache-2.0
// packed.cpp's subject on a GPU that ranks share: the host plans a batch while the GPU may still work on the
// last. From lightseq::testing come device arrays, streams, random tensors and the check against dense
// attention.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <random>
#include <vector>

#include "lightseq/lightseq.cuh"
#include "lightseq/packed_attn.hpp"
#include "lightseq/partition/gather.cuh"
#include "lightseq/testing/cuda.cuh"

using lightseq::bfloat16, lightseq::testing::check_cuda, lightseq::testing::DeviceArray;
constexpr int ranks = 4, head_dim = 128, heads = 8, kv_heads = 2;
constexpr lightseq::Problem largest{
    .seqlen = 3000, .heads = heads, .kv_heads = kv_heads, .max_documents = 64};
using Mask = lightseq::Documents<lightseq::Causal>;
using Attn = lightseq::DistAttn<head_dim, Mask, lightseq::PackedRing, lightseq::CudaTraits>;

/// A whole pack in device memory, which every rank takes its tokens from and gives its results to.
struct Pack {
  std::vector<std::int64_t> ends;
  lightseq::testing::Sequence<bfloat16> host = lightseq::testing::random_sequence<bfloat16>(
      {.seqlen = ends.back(), .heads = heads, .kv_heads = kv_heads}, head_dim, std::random_device{}());
  DeviceArray<bfloat16> q{host.q}, k{host.k}, v{host.v}, d_o{host.d_o}, o{host.o}, dq{host.dq}, dk{host.dk},
      dv{host.dv};

  double error() {
    host.o = o.values(), host.dq = dq.values(), host.dk = dk.values(), host.dv = dv.values();
    auto const found = lightseq::testing::dense_errors<head_dim>(host, Mask(ends));
    return std::max({found.o, found.dq, found.dk, found.dv});
  }
};

void on_rank(lightseq::CudaLocal& comm, cudaStream_t stream, std::vector<Pack>& packs) {
  Attn attn(comm, largest);  // for the largest batch: all memory is the caller's, and serves every batch
  DeviceArray<std::byte> const workspace(attn.workspace_bytes());
  std::int64_t const q_size = attn.max_tokens() * heads * head_dim, kv_size = q_size * kv_heads / heads;
  DeviceArray<bfloat16> const q(q_size), k(kv_size), v(kv_size), o(q_size), d_o(q_size), dq(q_size),
      dk(kv_size), dv(kv_size);
  DeviceArray<float> const lse(attn.max_tokens() * heads);
  for (Pack& pack : packs) {
    lightseq::PackedBatch batch = attn.batch();
    lightseq::Text const fault = attn.plan(pack.ends, batch);
    if (!fault.empty()) lightseq::fail(fault);
    auto const take = [&](auto const& whole, auto const& own, int width) {
      gather(batch.pieces(), comm.rank(), whole.span(), own.span(), width * head_dim, stream);
    };
    auto const give = [&](auto const& own, auto const& whole, int width) {
      scatter(batch.pieces(), comm.rank(), own.span(), whole.span(), width * head_dim, stream);
    };
    take(pack.q, q, heads), take(pack.k, k, kv_heads), take(pack.v, v, kv_heads), take(pack.d_o, d_o, heads);
    auto status = attn.forward({q.data(), k.data(), v.data()}, {o.data(), lse.data()}, workspace.span(),
                               batch, {.compute = stream});
    if (status.ok())
      status = attn.backward({q.data(), k.data(), v.data(), o.data(), lse.data(), d_o.data()},
                             {dq.data(), dk.data(), dv.data()}, workspace.span(), batch, {.compute = stream});
    if (!status.ok()) lightseq::fail(status.message());
    give(o, pack.o, heads), give(dq, pack.dq, heads);
    give(dk, pack.dk, kv_heads), give(dv, pack.dv, kv_heads);
  }
  check_cuda(cudaStreamSynchronize(stream));
}

int main() {
  if (!lightseq::testing::has_gpu()) return std::puts("skipped: there is no GPU"), lightseq::testing::skipped;
  std::vector<Pack> packs;
  packs.push_back({.ends = {900, 910, 2000, 2031, 3000}});
  packs.push_back({.ends = {7, 300, 2500}});
  check_cuda(cudaDeviceSynchronize());  // the ranks' streams do not wait for what filled the arrays
  lightseq::testing::Streams const exchange(ranks), compute(ranks);
  lightseq::CudaLocalWorld world(exchange);
  lightseq::run_ranks(world, [&](lightseq::CudaLocal& comm) { on_rank(comm, compute[comm.rank()], packs); });
  double const error = std::max(packs[0].error(), packs[1].error());
  std::printf("two packs on %d ranks differ by %.1e from dense attention\n", ranks, error);
  return error < 1e-2 ? 0 : 1;
}
