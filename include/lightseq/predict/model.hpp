// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "lightseq/core/error.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/predict/collectives.hpp"
#include "lightseq/predict/layer.hpp"

/// What an iteration of training a model of many layers costs, by its parts.
namespace lightseq {

/// A decoder: an embedding, layers, a norm and a head with a loss over the vocabulary.
struct ModelShape {
  LayerShape layer = {};
  std::int64_t layers = 1, vocabulary = 1;
  bool tied = false;  ///< the embedding is the head's matrix

  /// Throws Error, with the number, on sizes below 1 or above 2^40.
  void check() const {
    layer.check();
    for (auto const& [what, size] : {std::pair{"layers", layers}, {"vocabulary", vocabulary}})
      check_size(what, size);
  }
  /// Elements of all weights on one of `degree` ranks that share them, norms included.
  double weights(int degree) const {
    LayerWidths const width(layer, degree);
    double const table = static_cast<double>(tiles_of(vocabulary, degree)) * width.stream;
    double const in_layers = static_cast<double>(layers) * (width.weights + 2 * width.stream);
    return in_layers + width.stream + (tied ? 1 : 2) * table;
  }
  /// FLOPs of one sequence as utilisation counts them: forward, and twice as many backward, of all products
  /// and of attention's `pairs` visible pairs; nothing padded, nothing repeated.
  double flops(double tokens, double pairs) const {
    double const of_layers = static_cast<double>(layers);
    double const head = static_cast<double>(vocabulary) * static_cast<double>(layer.width);
    double const dims = static_cast<double>(layer.heads) * static_cast<double>(layer.head_dim);
    return 6 * tokens * (of_layers * LayerWidths(layer, 1).weights + head) + 12 * pairs * dims * of_layers;
  }
};

/// Where Adam's states of float, 12 bytes a weight, lie, and where it steps.
enum class Optimizer {
  replicated,  ///< on every rank
  sharded,     ///< each rank has its share
  on_host      ///< the same in host memory; gradients go there and weights come back
};

/// How a model is trained: seqlen tokens on sequence_ranks x tensor_ranks GPUs, which begin at the first of a
/// node, and as many sequences at once as there are replicas.
struct TrainingPlan {
  std::int64_t seqlen = 0;
  double pairs = 0;  ///< visible in a sequence, of one head
  int sequence_ranks = 1, tensor_ranks = 1, replicas = 1;
  int micro_batches = 1;  ///< an iteration, one after another
  Saved saved = Saved::none;
  Offload offload = Offload::none;
  bool sharded_weights = false;  ///< gathered for the forward and for the backward of each micro batch
  bool weights_on_host = false;  ///< their shards, and those of gradients, lie in host memory
  Optimizer optimizer = Optimizer::replicated;
  double constant = 0;                   ///< seconds of an iteration that nothing else explains
  double attention_workspace_bytes = 0;  ///< of one layer, such as Simulation::most_workspace_bytes()

  int gpus() const { return sequence_ranks * tensor_ranks * replicas; }
  /// Throws Error, with the numbers, on what makes no sense.
  void check() const {
    for (auto const& [what, count] : {std::pair{"sequence_ranks", sequence_ranks},
                                      {"tensor_ranks", tensor_ranks},
                                      {"replicas", replicas},
                                      {"micro_batches", micro_batches}})
      if (count < 1 || count > 1 << 20) fail(what, ": ", count, ", must be 1 to ", 1 << 20);
    if (checked_product(sequence_ranks, tensor_ranks, replicas) > 1 << 20)
      fail(sequence_ranks, " x ", tensor_ranks, " x ", replicas, " GPUs are more than ", 1 << 20);
    check_size("tokens of a sequence", seqlen);
    if (seqlen % sequence_ranks != 0)
      fail("a sequence of ", seqlen, " tokens is not a multiple of ", sequence_ranks, " ranks");
    double const all = static_cast<double>(seqlen) * static_cast<double>(seqlen);
    if (!(pairs >= 0 && pairs <= all)) fail(pairs, " pairs are visible of ", all);
    if (weights_on_host && (!sharded_weights || optimizer != Optimizer::on_host))
      fail("weights on the host must be sharded, with the optimizer there");
    check_amount("seconds of an iteration's constant", constant);
    check_amount("bytes of attention's workspace", attention_workspace_bytes);
  }
};

/// What a GPU reaches, per second.
struct ModelRates {
  LayerRates layer = {};
  double head_flops = std::numeric_limits<double>::infinity();  ///< of the head's products
  double host_memory_bytes =
      std::numeric_limits<double>::infinity();                  ///< one GPU's share of its host's memory
  double peak_flops = std::numeric_limits<double>::infinity();  ///< what utilisation refers to

  /// Throws Error, with the number, on rates that are not positive.
  void check() const {
    layer.check();
    for (auto const& [what, rate] :
         {std::pair{"head", head_flops}, {"host memory", host_memory_bytes}, {"peak", peak_flops}})
      if (!(rate > 0)) fail("the ", what, " rate is ", rate, " per second, it must be positive");
  }
};

/// Bytes of a GPU when most are in use.
struct ModelMemory {
  double weights = 0, gradients = 0, optimizer = 0;
  double saved = 0;  ///< by all layers, for the backward
  double working =
      0;  ///< of the layer that runs, with two layers' gathered weights and attention's workspace
  double logits = 0;

  double total() const { return weights + gradients + optimizer + saved + working + logits; }
};

/// What an iteration costs.
struct Iteration {
  Seconds layers, head;      ///< of all micro batches
  double weights = 0;        ///< seconds of the weights' and gradients' traffic that no work hides
  double optimizer = 0;      ///< seconds
  double constant = 0;       ///< seconds
  double tokens = 0;         ///< of all GPUs
  double flops_per_gpu = 0;  ///< as ModelShape::flops()
  double peak_flops = 0;
  ModelMemory memory;  ///< of a GPU

  double communication() const { return layers.communication + head.communication + weights; }
  double seconds() const { return layers.total() + head.total() + weights + optimizer + constant; }
  double tokens_per_second() const { return tokens / seconds(); }
  /// Model FLOPs over what all GPUs could do at their peak in that time; what is repeated does not count.
  double utilisation() const { return flops_per_gpu / (seconds() * peak_flops); }
};

/// Adds up a model's parts; see iteration().
class ModelForms {
 public:
  ModelForms(ModelShape const& shape, TrainingPlan const& plan, ModelRates const& rates,
             Topology const& topology)
      : shape_(shape),
        plan_(plan),
        rates_(rates),
        tensor_(topology, plan.tensor_ranks),
        data_(data_topology(topology, plan.tensor_ranks), plan.gpus() / plan.tensor_ranks),
        element_(static_cast<double>(shape.layer.element_bytes)),
        tokens_(static_cast<double>(plan.seqlen / plan.sequence_ranks)),
        weights_(shape.weights(plan.tensor_ranks)) {}

  Iteration run(AttentionCost const& attention) const {
    LayerPlan const layer_plan{plan_.seqlen / plan_.sequence_ranks, plan_.saved, plan_.offload};
    LayerCost const layer = layer_cost(shape_.layer, layer_plan, rates_.layer, attention, tensor_);
    double const layers = static_cast<double>(shape_.layers);
    Seconds const head_forward = head(2, 8 + element_), head_backward = head(4, 4 + element_);
    double const forward = (layers * layer.forward + head_forward).work();
    double const backward = (layers * (layer.repeated + layer.backward) + head_backward).work();
    double const sequences = static_cast<double>(plan_.micro_batches) * plan_.replicas;
    double const seqlen = static_cast<double>(plan_.seqlen);
    Iteration result;
    result.layers = plan_.micro_batches * layers * layer.all();
    result.head = plan_.micro_batches * (head_forward + head_backward);
    result.weights = traffic(forward, backward);
    result.optimizer = optimizer_seconds();
    result.constant = plan_.constant;
    result.tokens = seqlen * sequences;
    result.flops_per_gpu = shape_.flops(seqlen, plan_.pairs) * sequences / plan_.gpus();
    result.peak_flops = rates_.peak_flops;
    result.memory = memory(layer);
    return result;
  }

 private:
  /// Every `tensor_ranks`-th rank of a topology.
  static Topology data_topology(Topology topology, int tensor_ranks) {
    int& node = topology.ranks_per_node;
    if (node != 0 && node % tensor_ranks != 0 && tensor_ranks % node != 0)
      fail("tensor parallel over ", tensor_ranks, " ranks does not fit nodes of ", node);
    if (node != 0) node = std::max(1, node / tensor_ranks);
    if (topology.sharing == Sharing::node) topology.between.bytes_per_second /= tensor_ranks;
    return topology;
  }

  double logits() const {
    return tokens_ * static_cast<double>(tiles_of(shape_.vocabulary, plan_.tensor_ranks));
  }
  /// Embedding, last norm, head and loss, whose logits are widened to float, `logit_bytes` of memory each.
  Seconds head(double flops, double logit_bytes) const {
    double const width = static_cast<double>(shape_.layer.width);
    double const stream = tokens_ / plan_.tensor_ranks * width * element_ * (flops == 2 ? 4 : 6);
    return {0, flops * width * logits() / rates_.head_flops,
            (stream + logits() * logit_bytes) / rates_.layer.memory_bytes, 0};
  }

  /// Seconds of weights and gradients that `forward` and `backward` seconds of one micro batch do not hide.
  double traffic(double forward, double backward) const {
    double const copy = plan_.weights_on_host ? share() * element_ / rates_.layer.host_bytes : 0;
    double const move = std::max(all_gather(weights_ * element_, data_).seconds, copy);
    auto const exposed = [](double seconds, double work) { return std::max(0.0, seconds - work); };
    if (plan_.sharded_weights)
      return plan_.micro_batches * (exposed(move, forward) + exposed(2 * move, backward));
    if (plan_.optimizer == Optimizer::replicated) return exposed(2 * move, backward);
    return exposed(move, forward) + exposed(move, backward);
  }

  double share() const { return weights_ / data_.ranks(); }

  /// Adam reads a gradient and three states, and writes these and the weight.
  double optimizer_seconds() const {
    double const bytes = 2 * 12 + 2 * element_;
    if (plan_.optimizer == Optimizer::replicated) return weights_ * bytes / rates_.layer.memory_bytes;
    if (plan_.optimizer == Optimizer::sharded) return share() * bytes / rates_.layer.memory_bytes;
    double const copies = plan_.weights_on_host ? 0 : 2 * share() * element_ / rates_.layer.host_bytes;
    return copies + share() * bytes / rates_.host_memory_bytes;
  }

  ModelMemory memory(LayerCost const& layer) const {
    ModelMemory m;
    m.weights = m.gradients =
        plan_.weights_on_host ? 0 : element_ * (plan_.sharded_weights ? share() : weights_);
    if (plan_.optimizer == Optimizer::replicated) m.optimizer = 12 * weights_;
    if (plan_.optimizer == Optimizer::sharded) m.optimizer = 12 * share();
    double const on_device = static_cast<double>(
        plan_.offload == Offload::none ? shape_.layers : std::min<std::int64_t>(2, shape_.layers));
    m.saved = on_device * layer.saved_bytes;
    m.working = (plan_.saved == Saved::all ? 0 : layer.working_bytes) + plan_.attention_workspace_bytes +
                (plan_.sharded_weights ? 2 * element_ * layer.weights : 0);
    m.logits = logits() * (element_ + sizeof(float));
    return m;
  }

  ModelShape shape_;
  TrainingPlan plan_;
  ModelRates rates_;
  RankGroup tensor_, data_;
  double element_, tokens_, weights_;
};

/// An iteration of training, where attention of one layer and one sequence costs a rank so much. Weights that
/// are sharded, and gradients, travel beside the work of the pass: what takes longer counts. Throws Error,
/// with the numbers, on bad input.
inline Iteration iteration(ModelShape const& shape, TrainingPlan const& plan, ModelRates const& rates,
                           Topology const& topology, AttentionCost const& attention) {
  shape.check();
  plan.check();
  rates.check();
  return ModelForms(shape, plan, rates, topology).run(attention);
}

}  // namespace lightseq
