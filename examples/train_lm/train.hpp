// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "model.hpp"

/// Training steps on all ranks.
namespace train_lm {

struct Options {
  int ranks = 4;
  Index steps = 240;
  Index seqlen = 1024;  ///< tokens of a step, all ranks together
  ModelSize size;
  double lr = 2e-3;
  std::uint64_t seed = 1;
};

/// Replaces `values` by their sum over the ranks, added in the order of the ranks, so that all get the same
/// bits: each rank adds up one piece and hands it round. With NCCL this is one ncclAllReduce.
template <class T>
void all_reduce(lightseq::Transport auto& comm, std::span<T> values) {
  auto const piece = [&](int rank) {
    auto const chunk = lightseq::even_chunk(rank, comm.world(), std::ssize(values));
    return values.subspan(static_cast<std::size_t>(chunk.begin), static_cast<std::size_t>(chunk.rows));
  };
  std::vector<lightseq::Send> sends;
  std::vector<lightseq::Receive> recvs;
  auto const send = [&](std::span<T> data, int peer) {
    sends.push_back({data.data(), static_cast<Index>(data.size_bytes()), peer, "sum"});
  };
  auto const receive = [&](std::span<T> data, int peer) {
    recvs.push_back({data.data(), static_cast<Index>(data.size_bytes()), peer, "sum"});
  };
  auto const exchange = [&] {
    require(comm.start(sends, recvs));
    require(comm.finish());
    sends.clear();
    recvs.clear();
  };

  std::span<T> const mine = piece(comm.rank());
  std::vector<T> parts(mine.size() * static_cast<std::size_t>(comm.world()));
  auto const part = [&](int rank) {
    return std::span<T>(parts).subspan(mine.size() * static_cast<std::size_t>(rank), mine.size());
  };
  for (int peer = 0; peer < comm.world(); ++peer) send(piece(peer), peer), receive(part(peer), peer);
  exchange();
  std::fill(mine.begin(), mine.end(), T(0));
  for (int rank = 0; rank < comm.world(); ++rank)
    for (std::size_t i = 0; i < mine.size(); ++i) mine[i] += part(rank)[i];
  for (int peer = 0; peer < comm.world(); ++peer)
    if (peer != comm.rank()) send(mine, peer), receive(piece(peer), peer);
  exchange();
}

/// Adam (arXiv 1412.6980). It divides each gradient by the gradient's own size; epsilon keeps those from
/// growing into whole steps that are hardly more than the rounding of a sum.
class Adam {
 public:
  Adam(std::size_t size, double lr) : lr_(lr), mean_(size), square_(size) {}

  void step(std::span<float> values, std::span<float const> gradients) {
    ++steps_;
    auto const unbias = [&](float beta) { return 1 / (1 - std::pow(beta, steps_)); };
    auto const rate = static_cast<float>(lr_ * unbias(beta1));
    auto const square_scale = static_cast<float>(unbias(beta2));
    for (std::size_t i = 0; i < values.size(); ++i) {
      float const g = gradients[i];
      mean_[i] = beta1 * mean_[i] + (1 - beta1) * g;
      square_[i] = beta2 * square_[i] + (1 - beta2) * g * g;
      values[i] -= rate * mean_[i] / (std::sqrt(square_scale * square_[i]) + epsilon);
    }
  }

 private:
  static constexpr float beta1 = 0.9f, beta2 = 0.99f, epsilon = 1e-5f;
  double lr_;
  double steps_ = 0;
  std::vector<float> mean_, square_;
};

/// Trains on one window of the text a step, chosen at random; it is split across `ranks` threads. Calls
/// `report(step, mean loss, parameters)` after each step, on rank 0's thread.
template <class Attn, class Report>
void train(Options const& options, std::span<std::uint8_t const> text, Report report) {
  // A slow machine with many ranks is no fault.
  lightseq::LocalWorld world(options.ranks, {.timeout = std::chrono::minutes(10)});
  lightseq::run_ranks(world, [&](lightseq::Local& comm) {
    Attn attn(comm,
              {.seqlen = options.seqlen, .heads = options.size.heads, .kv_heads = options.size.kv_heads});
    Model<Attn> model(attn, options.size, options.seed);
    Parameters& parameters = model.parameters();
    Adam adam(parameters.values.size(), options.lr);
    auto const length = static_cast<std::size_t>(options.seqlen) + 1;
    for (Index step = 1; step <= options.steps; ++step) {
      // The generator is in the same state on every rank, and so are the weights: no rank need tell another.
      std::size_t const begin = parameters.random() % (text.size() - length + 1);
      double loss = model.loss_and_gradients(text.subspan(begin, length));
      all_reduce(comm, std::span(parameters.gradients));
      all_reduce(comm, std::span(&loss, 1));
      adam.step(parameters.values, parameters.gradients);
      if (comm.rank() == 0) report(step, loss, parameters);
    }
  });
}

}  // namespace train_lm
