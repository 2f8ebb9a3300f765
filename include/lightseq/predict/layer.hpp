// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <utility>

#include "lightseq/core/error.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/predict/attention_cost.hpp"
#include "lightseq/predict/collectives.hpp"

/// What one transformer layer costs a rank in training: closed forms round attention's own cost.
namespace lightseq {

/// A decoder layer: norm, projections of queries, keys and values, rotary embedding, attention, projection
/// of its output, norm, feed-forward, and two residual additions.
struct LayerShape {
  std::int64_t width = 0, feed_forward = 0;  ///< elements of a token's stream, and of the hidden layer
  std::int64_t heads = 1, kv_heads = 1, head_dim = 128;
  bool gated = true;  ///< the feed-forward has three matrices, else two
  std::int64_t element_bytes = 2;

  /// Throws Error, with the number, on sizes below 1 or above 2^40.
  void check() const {
    for (auto const& [what, size] : {std::pair{"width", width},
                                     {"feed_forward", feed_forward},
                                     {"heads", heads},
                                     {"kv_heads", kv_heads},
                                     {"head dim", head_dim},
                                     {"bytes of an element", element_bytes}})
      check_size(what, size);
  }
};

/// Elements of a layer's matrices and activations on one of `degree` ranks that share them (tensor parallel:
/// heads padded by HeadShare, the feed-forward's elements rounded up). The stream itself is not shared here.
struct LayerWidths {
  double stream, queries, keys, hidden;
  double matrices, weights;  ///< of the feed-forward: how many; of all products: elements
  double heads;              ///< of queries
  double operands,
      gradients;  ///< of a token: that all products read in the forward; that come in the backward

  LayerWidths(LayerShape const& shape, int degree) {
    shape.check();
    HeadShare const share = HeadShare::of(shape.heads, shape.kv_heads, degree);
    auto const number = [](std::int64_t n) { return static_cast<double>(n); };
    heads = number(share.heads);
    stream = number(shape.width);
    queries = heads * number(shape.head_dim);
    keys = number(share.kv_heads) * number(shape.head_dim);
    hidden = number(tiles_of(shape.feed_forward, degree));
    matrices = shape.gated ? 3 : 2;
    weights = stream * (2 * queries + 2 * keys + matrices * hidden);
    operands = 2 * stream + queries + hidden;
    gradients = 2 * stream + queries + 2 * keys + (matrices - 1) * hidden;
  }
};

/// What a device reaches besides attention, per second. Infinite rates are left out of account.
struct LayerRates {
  double gemm_flops = std::numeric_limits<double>::infinity();    ///< of products
  double memory_bytes = std::numeric_limits<double>::infinity();  ///< of norms and the like
  double host_bytes = std::numeric_limits<double>::infinity();    ///< to host memory, one way
  /// Bytes read and written to make an operand's element ready for a product: 5 where a bfloat16 is read for
  /// its scale, read again and written as fp8.
  double cast_bytes = 0;

  /// Throws Error, with the number, on rates that are not positive.
  void check() const {
    for (auto const& [what, rate] :
         {std::pair{"product", gemm_flops}, {"memory", memory_bytes}, {"host", host_bytes}})
      if (!(rate > 0)) fail("the ", what, " rate is ", rate, " per second, it must be positive");
    check_amount("bytes of a cast", cast_bytes);
  }
};

/// What a layer keeps from its forward to its backward, as the policies of checkpoint/.
enum class Saved {
  all,    ///< everything: nothing is repeated
  none,   ///< the layer's input: all is repeated, attention and its messages too
  output  ///< attention's output and the stream (DistFlashAttn, arXiv 2310.03294): all but attention is
          ///< repeated
};

/// Where it is kept.
enum class Offload {
  none,    ///< on the device
  beside,  ///< on the host: copies travel beside the work, what they take longer counts
  exposed  ///< on the host: all their time counts
};

/// How a layer runs.
struct LayerPlan {
  std::int64_t tokens = 0;  ///< of a rank, or of all ranks that share matrices
  Saved saved = Saved::none;
  Offload offload = Offload::none;
};

/// Where time goes, in seconds.
struct Seconds {
  double attention = 0, gemm = 0, elementwise = 0;
  double communication = 0;  ///< that no work hides

  double work() const { return attention + gemm + elementwise; }
  double total() const { return work() + communication; }
  Seconds& operator+=(Seconds const& o) {
    attention += o.attention;
    gemm += o.gemm;
    elementwise += o.elementwise;
    communication += o.communication;
    return *this;
  }
  friend Seconds operator+(Seconds a, Seconds const& b) { return a += b; }
  friend Seconds operator*(double n, Seconds const& s) {
    return {n * s.attention, n * s.gemm, n * s.elementwise, n * s.communication};
  }
};

/// What a layer costs a rank.
struct LayerCost {
  Seconds forward, repeated, backward;  ///< `repeated`: forward work that the backward begins with
  double weights = 0;                   ///< elements of its products' matrices
  double saved_bytes = 0;               ///< kept from the forward to the backward, wherever
  double working_bytes = 0;             ///< that the backward needs of one layer, repeated or kept
  double bytes_sent = 0;                ///< to other ranks, in all passes

  Seconds all() const { return forward + repeated + backward; }
};

/// Closed forms of a layer without attention, `tensor.ranks()` ranks sharing its matrices: then all-gathers
/// of the stream before products and reduce-scatters after them (Megatron's sequence parallel, arXiv
/// 2205.05198), which nothing hides. Traffic of memory is that of kernels which are not fused with each
/// other.
class LayerForms {
 public:
  /// Throws Error, with the numbers, on bad sizes and rates, and where ranks do not divide the tokens.
  LayerForms(LayerShape const& shape, std::int64_t tokens, LayerRates const& rates, RankGroup const& tensor)
      : shape_(shape), rates_(rates), tensor_(tensor), width_(shape, tensor.ranks()) {
    rates.check();
    check_size("tokens of a layer", tokens);
    if (tokens % tensor.ranks() != 0)
      fail("a layer has ", tokens, " tokens, which must be a multiple of ", tensor.ranks(), " ranks");
    tokens_ = static_cast<double>(tokens);
    own_ = tokens_ / tensor.ranks();
    element_ = static_cast<double>(shape.element_bytes);
  }

  LayerWidths const& width() const { return width_; }

  Seconds forward() const {
    LayerWidths const& w = width_;
    double const shared = 2 * (w.queries + w.keys) + w.matrices * w.hidden;
    return seconds(2, 10 * w.stream, shared, w.operands, 4);
  }
  Seconds backward() const {
    LayerWidths const& w = width_;
    double const shared = 2 * (w.queries + w.keys) + (2 * w.matrices - 1) * w.hidden;
    return seconds(4, 12 * w.stream, shared, w.operands + w.gradients, 6);
  }
  /// Bytes that a forward sends a rank's peers; a backward 1.5 times as many.
  double forward_bytes() const { return 4 * travel().bytes_sent; }

  double saved_bytes(Saved saved) const {
    LayerWidths const& w = width_;
    double const output = tokens_ * (element_ * w.queries + sizeof(float) * w.heads);
    double const stream = own_ * element_ * w.stream;
    if (saved == Saved::none) return stream;
    if (saved == Saved::output) return stream + output;
    return 4 * stream + output + tokens_ * element_ * (w.queries + 2 * w.keys + w.matrices * w.hidden);
  }

 private:
  /// The stream, gathered or scattered.
  Collective travel() const { return all_gather(tokens_ * element_ * width_.stream, tensor_); }

  Seconds seconds(double flops, double own, double shared, double cast, double travels) const {
    double const traffic = element_ * (own_ * own + tokens_ * shared);
    double const casts = rates_.cast_bytes * (tokens_ * cast + width_.weights);
    return {0, flops * width_.weights * tokens_ / rates_.gemm_flops, (traffic + casts) / rates_.memory_bytes,
            travels * travel().seconds};
  }

  LayerShape shape_;
  LayerRates rates_;
  RankGroup tensor_;
  LayerWidths width_;
  double tokens_ = 0, own_ = 0, element_ = 0;
};

/// What a layer with this attention costs a rank. Throws Error, with the numbers, on bad input.
inline LayerCost layer_cost(LayerShape const& shape, LayerPlan const& plan, LayerRates const& rates,
                            AttentionCost const& attention, RankGroup const& tensor = RankGroup({}, 1)) {
  LayerForms const forms(shape, plan.tokens, rates, tensor);
  auto const seconds = [](AttentionPass const& pass) {
    for (double const amount : {pass.seconds, pass.communication, pass.bytes_sent})
      check_amount("seconds or bytes of attention", amount);
    return Seconds{pass.seconds, 0, 0, pass.communication};
  };
  bool const again = plan.saved == Saved::none, repeats = plan.saved != Saved::all;
  LayerCost cost;
  cost.forward = forms.forward() + seconds(attention.forward);
  cost.backward = forms.backward() + seconds(attention.backward);
  if (repeats) cost.repeated = again ? cost.forward : forms.forward();
  cost.bytes_sent = (repeats ? 3.5 : 2.5) * forms.forward_bytes() +
                    (again ? 2 : 1) * attention.forward.bytes_sent + attention.backward.bytes_sent;
  cost.weights = forms.width().weights;
  cost.saved_bytes = forms.saved_bytes(plan.saved);
  cost.working_bytes = forms.saved_bytes(Saved::all);
  if (plan.offload == Offload::none) return cost;
  double const copy = cost.saved_bytes / rates.host_bytes;
  auto const exposed = [&](Seconds const& work) {
    return plan.offload == Offload::exposed ? copy : std::max(0.0, copy - work.total());
  };
  double const down = exposed(cost.forward), up = exposed(cost.repeated + cost.backward);
  cost.forward.communication += down;
  cost.backward.communication += up;
  return cost;
}

}  // namespace lightseq
