// SPDX-License-Identifier: Apache-2.0
// Where the gradient checkpoint sits: one attention layer under each policy. SaveOutput, LightSeq's, keeps O
// and LSE; its backward repeats the projection but neither the attention nor its messages. Random tensors and
// a rank's part of them are from lightseq::testing: they stand for the layer's own.
#include <chrono>
#include <cstdio>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"

constexpr int ranks = 4, head_dim = 64;
using Attn = lightseq::DistAttn<head_dim, lightseq::Causal, lightseq::Balanced>;
using Sequence = lightseq::testing::Sequence<float>;
lightseq::Problem const problem{.batch = 1, .seqlen = 2048, .heads = 4, .kv_heads = 2};

/// A training step of one layer on one rank: its forward, and, when the loss has come back, its backward.
template <class Policy>
void train(lightseq::Local& comm, Sequence const& whole, Sequence& result, std::int64_t& saved_bytes,
           int& projected) {
  Attn attn(comm, problem);
  lightseq::Checkpointed<Attn, Policy> layer(attn);
  auto part = part_of(whole, attn.positions());
  std::vector<std::byte> saved(static_cast<std::size_t>(layer.saved_bytes()));          // one a layer
  std::vector<std::byte> workspace(static_cast<std::size_t>(layer.workspace_bytes()));  // one for all layers

  // A real layer computes q, k and v from its input here; ours just has them.
  int projections = 0;
  auto const project = [&](float* q, float* k, float* v) {
    ++projections;
    std::copy(part.q.begin(), part.q.end(), q);
    std::copy(part.k.begin(), part.k.end(), k);
    std::copy(part.v.begin(), part.v.end(), v);
  };
  auto const forward = layer.forward(project, saved, workspace);
  if (!forward.status.ok()) throw std::runtime_error(forward.status.message());
  std::fill(workspace.begin(), workspace.end(), std::byte{});  // the other layers use it

  auto const activations = layer.restore(project, saved, workspace);
  lightseq::Status const status = layer.backward(activations, part.d_o.data(),
                                                 {part.dq.data(), part.dk.data(), part.dv.data()}, workspace);
  if (!status.ok()) throw std::runtime_error(status.message());
  put_back(part, attn.positions(), result);
  if (comm.rank() == 0) {
    saved_bytes = layer.saved_bytes();
    projected = projections;
  }
}

template <class Policy>
Sequence run(char const* name, Sequence const& whole) {
  Sequence result = whole;
  std::int64_t saved_bytes = 0;
  int projected = 0;
  lightseq::LocalWorld world(ranks);
  auto const begin = std::chrono::steady_clock::now();
  lightseq::run_ranks(
      world, [&](lightseq::Local& comm) { train<Policy>(comm, whole, result, saved_bytes, projected); });
  std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - begin;
  std::printf("%-10s  saved %8lld bytes a rank, projected %d times, %.3f s\n", name,
              static_cast<long long>(saved_bytes), projected, seconds.count());
  return result;
}

int main() {
  auto const whole = lightseq::testing::random_sequence<float>(problem, head_dim, 1);
  auto const none = run<lightseq::SaveNone>("SaveNone", whole);
  auto const output = run<lightseq::SaveOutput>("SaveOutput", whole);
  auto const all = run<lightseq::SaveAll>("SaveAll", whole);
  bool const same = none.dq == all.dq && none.dk == all.dk && none.dv == all.dv && output.dq == all.dq &&
                    output.dk == all.dk && output.dv == all.dv;
  std::printf("gradients: %s\n", same ? "the same bits under every policy" : "THEY DIFFER");
  return same ? 0 : 1;
}
