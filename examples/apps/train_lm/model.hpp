// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "layers.hpp"
#include "lightseq/lightseq.hpp"
#include "parameters.hpp"
#include "ranks.hpp"
#include "share.hpp"

/// The model on one rank. Every rank has all the weights, and the activations of its own tokens.
namespace train_lm {

/// From its forward to its backward a layer's attention keeps its output, and nothing else.
template <class Attn>
using Checkpoint = lightseq::Checkpointed<Attn, lightseq::SaveOutput>;

/// Memory that is free again when a layer's forward or backward returns, so that all layers share it.
struct Scratch {
  std::vector<float> x_normed, y, y_normed, d_normed;  ///< [rows, dim]
  std::vector<float> d_o, dq, dk, dv;                  ///< [rows, heads or kv_heads, head_dim]
  std::vector<float> gate, up, product;                ///< [rows, hidden]
  std::vector<std::byte> workspace;                    ///< of the attention

  explicit Scratch(Index workspace_bytes) : workspace(static_cast<std::size_t>(workspace_bytes)) {}

  /// Makes room for the rows of a step.
  void resize(std::size_t rows, ModelSize const& size, Index head_dim) {
    auto const room = [rows](Index width, auto&... arrays) {
      (arrays.resize(rows * static_cast<std::size_t>(width)), ...);
    };
    room(size.dim, x_normed, y, y_normed, d_normed);
    room(size.heads * head_dim, d_o, dq);
    room(size.kv_heads * head_dim, dk, dv);
    room(size.hidden(), gate, up, product);
  }
};

/// next = y + down(silu(gate(n)) * up(n)), where n = norm(y).
class FeedForward {
 public:
  explicit FeedForward(FeedForwardWeights const& w)
      : norm_{w.norm}, gate_{w.gate}, up_{w.up}, down_{w.down} {}

  void forward(Scratch& s, In y, Out next) const {
    inside(s, y);
    std::copy(y.begin(), y.end(), next.begin());
    down_.forward(s.product, Put::onto, next);
  }

  /// Turns d, the gradient of next, into the gradient of y. It computes again from y what lies between.
  void backward(Scratch& s, In y, Out d) const {
    inside(s, y);
    down_.backward(s.product, d, Put::over, s.product);
    SwiGlu::backward(s.gate, s.up, s.product);
    gate_.backward(s.y_normed, s.gate, Put::over, s.d_normed);
    up_.backward(s.y_normed, s.up, Put::onto, s.d_normed);
    norm_.backward(y, s.d_normed, d);
  }

 private:
  void inside(Scratch& s, In y) const {
    norm_.forward(y, s.y_normed);
    gate_.forward(s.y_normed, Put::over, s.gate);
    up_.forward(s.y_normed, Put::over, s.up);
    SwiGlu::forward(s.gate, s.up, s.product);
  }

  RmsNorm norm_;
  Linear gate_, up_, down_;
};

/// y = x + out(attention(rope(q(n)), rope(k(n)), v(n))), where n = norm(x); then the feed-forward network.
///
/// The checkpoint sits at attention's output (DistFlashAttn, arXiv 2310.03294, section 3.4). From its forward
/// to its backward a layer keeps its input x, which the model holds, and attention's o and lse, which are in
/// `saved_`. The backward computes all else again: n, q, k and v from x, y from x and o, the inside of the
/// feed-forward network from y. Attention itself never runs again, and none of its messages is sent twice.
/// `batch` is what attention's calls take besides where it plans for each step.
template <class Attn>
class Layer {
 public:
  Layer(LayerWeights const& w, ModelSize const& size, Attn& attn)
      : size_(size),
        norm_{w.norm},
        q_{w.q},
        k_{w.k},
        v_{w.v},
        out_{w.out},
        feed_forward_(w.feed_forward),
        attention_(attn),
        saved_(static_cast<std::size_t>(attention_.saved_bytes())) {}

  template <class... Batch>
  void forward(Scratch& s, Rope const& rope, In x, Out next, Batch const&... batch) {
    auto const a = attention_.forward(projection(s, rope, x), saved_, s.workspace, batch...);
    require(a.status);
    add_attention(s, x, {a.o, s.dq.size()});
    feed_forward_.forward(s, s.y, next);
  }

  /// Turns d, the gradient of next, into the gradient of x.
  template <class... Batch>
  void backward(Scratch& s, Rope const& rope, In x, Out d, Batch const&... batch) {
    auto const a = attention_.restore(projection(s, rope, x), saved_, s.workspace, batch...);
    require(a.status);
    In const o(a.o, s.dq.size());  // as the forward left it
    add_attention(s, x, o);
    feed_forward_.backward(s, s.y, d);

    out_.backward(o, d, Put::over, s.d_o);
    require(
        attention_.backward(a, s.d_o.data(), {s.dq.data(), s.dk.data(), s.dv.data()}, s.workspace, batch...));
    rope.backward(size_.heads, s.dq);
    rope.backward(size_.kv_heads, s.dk);
    q_.backward(s.x_normed, s.dq, Put::over, s.d_normed);
    k_.backward(s.x_normed, s.dk, Put::onto, s.d_normed);
    v_.backward(s.x_normed, s.dv, Put::onto, s.d_normed);
    norm_.backward(x, s.d_normed, d);
  }

 private:
  /// What the checkpoint calls in the forward, and again in the backward, to have q, k and v filled in.
  auto projection(Scratch& s, Rope const& rope, In x) const {
    return [this, &s, &rope, x](float* q_data, float* k_data, float* v_data) {
      Out const q(q_data, s.dq.size()), k(k_data, s.dk.size()), v(v_data, s.dv.size());
      norm_.forward(x, s.x_normed);
      q_.forward(s.x_normed, Put::over, q);
      k_.forward(s.x_normed, Put::over, k);
      v_.forward(s.x_normed, Put::over, v);
      rope.forward(size_.heads, q);
      rope.forward(size_.kv_heads, k);
    };
  }

  /// s.y, from what is kept.
  void add_attention(Scratch& s, In x, In o) const {
    std::copy(x.begin(), x.end(), s.y.begin());
    out_.forward(o, Put::onto, s.y);
  }

  ModelSize size_;
  RmsNorm norm_;
  Linear q_, k_, v_, out_;
  FeedForward feed_forward_;
  Checkpoint<Attn> attention_;
  std::vector<std::byte> saved_;
};

/// A language model of bytes: embedding, layers, norm, and the embedding's matrix once more as the head.
template <class Attn>
class Model {
 public:
  Model(Attn& attn, ModelSize const& size, std::uint64_t seed)
      : size_(size),
        head_dim_(attn.extents().head_dim),
        parameters_(seed),
        weights_(parameters_, size, head_dim_),
        embedding_{weights_.embedding},
        norm_{weights_.norm},
        x_(static_cast<std::size_t>(size.layers) + 1),
        scratch_(Checkpoint<Attn>(attn).workspace_bytes()) {
    for (LayerWeights const& layer : weights_.layers) layers_.emplace_back(layer, size, attn);
  }
  Model(Model const&) = delete;

  Parameters& parameters() { return parameters_; }

  /// This rank's part of the mean loss of a step in nats and, in the parameters, of its gradients. The sum
  /// over the ranks is the whole. `batch` is what attention's calls take besides.
  template <class... Batch>
  double loss_and_gradients(Share const& share, Batch const&... batch) {
    std::size_t const rows = share.tokens.size(), dim = static_cast<std::size_t>(size_.dim);
    resize(rows);
    Rope const rope(share.positions, head_dim_);
    for (std::size_t row = 0; row < rows; ++row) {
      In const vector = embedding_.w.values().subspan(share.tokens[row] * dim, dim);
      std::copy(vector.begin(), vector.end(), x_.front().begin() + std::ssize(vector) * Index(row));
    }
    for (std::size_t i = 0; i < layers_.size(); ++i)
      layers_[i].forward(scratch_, rope, x_[i], x_[i + 1], batch...);
    norm_.forward(x_.back(), scratch_.y_normed);
    embedding_.forward(scratch_.y_normed, Put::over, logits_);
    double const loss = cross_entropy(1 / static_cast<double>(share.of), share.labels, logits_);

    std::fill(parameters_.gradients.begin(), parameters_.gradients.end(), 0.0f);
    std::fill(d_.begin(), d_.end(), 0.0f);
    embedding_.backward(scratch_.y_normed, logits_, Put::over, scratch_.d_normed);
    norm_.backward(x_.back(), scratch_.d_normed, d_);
    for (std::size_t i = layers_.size(); i-- > 0;) layers_[i].backward(scratch_, rope, x_[i], d_, batch...);
    for (std::size_t row = 0; row < rows; ++row)
      for (std::size_t i = 0; i < dim; ++i)
        embedding_.w.gradients()[share.tokens[row] * dim + i] += d_[row * dim + i];
    return loss;
  }

 private:
  void resize(std::size_t rows) {
    logits_.resize(rows * bytes);
    d_.resize(rows * static_cast<std::size_t>(size_.dim));
    for (std::vector<float>& x : x_) x.resize(d_.size());
    scratch_.resize(rows, size_, head_dim_);
  }

  ModelSize size_;
  Index head_dim_;
  Parameters parameters_;
  ModelWeights weights_;
  Linear embedding_;  // as a layer it is the head: logits = x embedding^T
  RmsNorm norm_;
  std::vector<Layer<Attn>> layers_;
  std::vector<float> logits_;          // [rows, bytes]
  std::vector<float> d_;               // [rows, dim], the gradient on its way back
  std::vector<std::vector<float>> x_;  // [layers + 1][rows, dim], what each layer takes in
  Scratch scratch_;
};

}  // namespace train_lm
