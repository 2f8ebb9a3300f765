// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "formulas.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/packed_attn.hpp"
#include "model.hpp"
#include "parameters.hpp"
#include "ranks.hpp"
#include "share.hpp"

/// Training steps on all ranks.
namespace train_lm {

/// Moves all parameters.
class Adam {
 public:
  Adam(std::size_t size, double lr) : lr_(lr), mean_(size), square_(size) {}

  void step(std::span<float> values, std::span<float const> gradients) {
    AdamStep const adam(lr_, ++steps_);
    for (std::size_t i = 0; i < values.size(); ++i) adam.move(gradients[i], mean_[i], square_[i], values[i]);
  }

 private:
  double lr_;
  Index steps_ = 0;
  std::vector<float> mean_, square_;
};

/// Attention of a model, by its schedule: one for packs serves documents, and all others one text.
template <int HeadDim, class Schedule>
using Attention =
    lightseq::DistAttn<HeadDim,
                       std::conditional_t<lightseq::PackedSchedule<Schedule>,
                                          lightseq::Documents<lightseq::Causal>, lightseq::Causal>,
                       Schedule>;

/// A function of a step's text and the ends of its documents: this rank's part of the loss, and of the
/// gradients. Where attention does not plan for documents, the text is one.
template <class Attn>
auto step_of(lightseq::Local const& comm, Attn& attn, Model<Attn>& model) {
  if constexpr (lightseq::PackedSchedule<typename Attn::Schedule>)
    return [&, batch = attn.batch()](std::span<std::uint8_t const> text,
                                     lightseq::DocumentEnds const& documents) mutable {
      if (lightseq::Text const fault = attn.plan(documents, batch); !fault.empty()) lightseq::fail(fault);
      return model.loss_and_gradients(Share(batch.pieces(), comm.rank(), text), batch);
    };
  else
    return [&](std::span<std::uint8_t const> text, lightseq::DocumentEnds const&) {
      return model.loss_and_gradients(Share(attn.positions(), text));
    };
}

/// Trains on one window of the text a step, chosen at random; it is split across `ranks` threads. Calls
/// `report(step, mean loss, parameters)` after each step, on rank 0's thread.
template <class Attn, class Report>
void train(Options const& options, std::span<std::uint8_t const> text, Report report) {
  // A slow machine with many ranks is no fault.
  lightseq::LocalWorld world(options.ranks, {.timeout = std::chrono::minutes(10)});
  lightseq::run_ranks(world, [&](lightseq::Local& comm) {
    Attn attn(comm, {.seqlen = options.seqlen,
                     .heads = options.size.heads,
                     .kv_heads = options.size.kv_heads,
                     .max_documents = options.documents});
    Model<Attn> model(attn, options.size, options.seed);
    auto loss_and_gradients = step_of(comm, attn, model);
    Parameters& parameters = model.parameters();
    Adam adam(parameters.values.size(), options.lr);
    auto const length = static_cast<std::size_t>(options.seqlen) + 1;
    for (Index step = 1; step <= options.steps; ++step) {
      std::size_t const begin = parameters.next_window(text.size(), options.seqlen);
      auto const documents = parameters.next_documents(options.seqlen, options.documents);
      double loss = loss_and_gradients(text.subspan(begin, length), documents);
      all_reduce(comm, std::span(parameters.gradients));
      all_reduce(comm, std::span(&loss, 1));
      adam.step(parameters.values, parameters.gradients);
      if (comm.rank() == 0) report(step, loss, parameters);
    }
  });
}

}  // namespace train_lm
