// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels.cuh"
#include "layers.cuh"
#include "lightseq/lightseq.cuh"
#include "parameters.hpp"
#include "ranks.hpp"
#include "share.hpp"

/// The model of model.hpp on one rank of a GPU. Nothing here waits for the device.
namespace train_lm::gpu {

/// From its forward to its backward a layer's attention keeps its output, and nothing else.
template <class Attn>
using Checkpoint = lightseq::Checkpointed<Attn, lightseq::SaveOutput>;

/// Memory that is free again when a layer's forward or backward has run, so that all layers share it.
struct Scratch {
  DeviceArray<float> y, d_normed;               ///< [rows, dim]
  DeviceArray<bfloat16> x_normed, y_normed, d;  ///< [rows, dim]
  DeviceArray<bfloat16> d_o, dq, dk, dv;        ///< [rows, heads or kv_heads, head_dim]
  DeviceArray<bfloat16> gate, up, product;      ///< [rows, hidden]
  DeviceArray<std::byte> workspace;             ///< of the attention

  Scratch(Index rows, ModelSize const& size, Index head_dim, Index workspace_bytes)
      : y(rows * size.dim),
        d_normed(rows * size.dim),
        x_normed(rows * size.dim),
        y_normed(rows * size.dim),
        d(rows * size.dim),
        d_o(rows * size.heads * head_dim),
        dq(rows * size.heads * head_dim),
        dk(rows * size.kv_heads * head_dim),
        dv(rows * size.kv_heads * head_dim),
        gate(rows * size.hidden()),
        up(rows * size.hidden()),
        product(rows * size.hidden()),
        workspace(workspace_bytes) {}
};

/// next = y + down(silu(gate(n)) * up(n)), where n = norm(y).
class FeedForward {
 public:
  FeedForward(FeedForwardWeights const& weights, Layers const& layers) : w_(weights), layers_(&layers) {}

  void forward(Scratch& s, float const* y, float* next) const {
    inside(s, y);
    layers_->copy(y, w_.norm.cols(), next);
    layers_->linear(w_.down, s.product.data(), Put::onto, next);
  }

  /// Turns d, the gradient of next, into the gradient of y. It computes again from y what lies between.
  void backward(Scratch& s, float const* y, float* d) const {
    inside(s, y);
    layers_->round(d, w_.norm.cols(), s.d.data());
    layers_->linear_backward(w_.down, s.product.data(), s.d.data(), Put::over, s.product.data());
    layers_->swiglu_backward(s.gate.data(), s.up.data(), s.product.data(), w_.up.rows());
    layers_->linear_backward(w_.gate, s.y_normed.data(), s.gate.data(), Put::over, s.d_normed.data());
    layers_->linear_backward(w_.up, s.y_normed.data(), s.up.data(), Put::onto, s.d_normed.data());
    layers_->norm_backward(w_.norm, y, s.d_normed.data(), d);
  }

 private:
  void inside(Scratch& s, float const* y) const {
    layers_->norm(w_.norm, y, s.y_normed.data());
    layers_->linear(w_.gate, s.y_normed.data(), Put::over, s.gate.data());
    layers_->linear(w_.up, s.y_normed.data(), Put::over, s.up.data());
    layers_->swiglu(s.gate.data(), s.up.data(), w_.up.rows(), s.product.data());
  }

  FeedForwardWeights w_;
  Layers const* layers_;
};

/// Attention and the feed-forward network, with the checkpoint at attention's output, as on the CPU.
template <class Attn>
class Layer {
 public:
  Layer(LayerWeights const& weights, ModelSize const& size, Layers const& layers, Attn& attn)
      : w_(weights),
        size_(size),
        layers_(&layers),
        feed_forward_(weights.feed_forward, layers),
        attention_(attn),
        saved_(attention_.saved_bytes()) {}

  void forward(Scratch& s, float const* x, float* next) {
    auto const a = attention_.forward(projection(s, x), saved_.span(), s.workspace.span(), stream());
    require(a.status);
    add_attention(s, x, a.o);
    feed_forward_.forward(s, s.y.data(), next);
  }

  /// Turns d, the gradient of next, into the gradient of x.
  void backward(Scratch& s, float const* x, float* d) {
    auto const a = attention_.restore(projection(s, x), saved_.span(), s.workspace.span(), stream());
    require(a.status);
    add_attention(s, x, a.o);  // as the forward left it
    feed_forward_.backward(s, s.y.data(), d);

    layers_->round(d, size_.dim, s.d.data());
    layers_->linear_backward(w_.out, a.o, s.d.data(), Put::over, s.d_o.data());
    require(attention_.backward(a, s.d_o.data(), {s.dq.data(), s.dk.data(), s.dv.data()}, s.workspace.span(),
                                stream()));
    layers_->rope_backward(size_.heads, s.dq.data());
    layers_->rope_backward(size_.kv_heads, s.dk.data());
    layers_->linear_backward(w_.q, s.x_normed.data(), s.dq.data(), Put::over, s.d_normed.data());
    layers_->linear_backward(w_.k, s.x_normed.data(), s.dk.data(), Put::onto, s.d_normed.data());
    layers_->linear_backward(w_.v, s.x_normed.data(), s.dv.data(), Put::onto, s.d_normed.data());
    layers_->norm_backward(w_.norm, x, s.d_normed.data(), d);
  }

 private:
  typename Attn::Stream stream() const { return {.compute = layers_->stream()}; }

  /// What the checkpoint calls in the forward, and again in the backward, to have q, k and v filled in.
  auto projection(Scratch& s, float const* x) const {
    return [this, &s, x](bfloat16* q, bfloat16* k, bfloat16* v) {
      layers_->norm(w_.norm, x, s.x_normed.data());
      layers_->linear(w_.q, s.x_normed.data(), Put::over, q);
      layers_->linear(w_.k, s.x_normed.data(), Put::over, k);
      layers_->linear(w_.v, s.x_normed.data(), Put::over, v);
      layers_->rope(size_.heads, q);
      layers_->rope(size_.kv_heads, k);
    };
  }

  /// s.y, from what is kept.
  void add_attention(Scratch& s, float const* x, bfloat16 const* o) const {
    layers_->copy(x, size_.dim, s.y.data());
    layers_->linear(w_.out, o, Put::onto, s.y.data());
  }

  LayerWeights w_;
  ModelSize size_;
  Layers const* layers_;
  FeedForward feed_forward_;
  Checkpoint<Attn> attention_;
  DeviceArray<std::byte> saved_;
};

/// A language model of bytes, as on the CPU.
template <class Attn>
class Model {
 public:
  /// All windows are taken from `text`.
  Model(Attn& attn, ModelSize const& size, std::uint64_t seed, std::vector<std::uint8_t> const& text,
        cudaStream_t stream)
      : tokens_(attn.positions()),
        loss_weight_(1 / static_cast<float>(attn.problem().seqlen)),
        first_(seed),
        weights_(first_, size, attn.extents().head_dim),
        layers_(first_, listed(tokens_), attn.extents().head_dim, stream),
        text_(text),
        logits_(tokens_.rows() * bytes),
        losses_(tokens_.rows()),
        d_(tokens_.rows() * size.dim),
        d_logits_(tokens_.rows() * bytes),
        scratch_(tokens_.rows(), size, attn.extents().head_dim, Checkpoint<Attn>(attn).workspace_bytes()) {
    for (Index i = 0; i <= size.layers; ++i) x_.emplace_back(tokens_.rows() * size.dim);
    for (LayerWeights const& layer : weights_.layers) stack_.emplace_back(layer, size, layers_, attn);
    check_cuda(cudaDeviceSynchronize());  // the stream does not wait for the copies above
  }
  Model(Model const&) = delete;

  /// The parameters as they were at first, and the generator of the windows.
  Parameters& first() { return first_; }
  DeviceParameters const& parameters() const { return layers_.parameters(); }

  /// Enqueues this rank's share of the mean loss over the window that begins at `begin`, and of its
  /// gradients. The sum over the ranks is the whole.
  void loss_and_gradients(std::size_t begin) {
    // By position in the whole text, as on the CPU.
    std::uint8_t const* const text = text_.data() + begin;
    Weight const& embedding = weights_.embedding;
    Index const dim = embedding.cols(), rows = tokens_.rows();
    cudaStream_t const stream = layers_.stream();
    DeviceArray<bfloat16> const& normed = scratch_.y_normed;
    launch(embed, rows, stream, text, tokens_, layers_.values(embedding), dim, x_.front().data());
    for (std::size_t i = 0; i < stack_.size(); ++i)
      stack_[i].forward(scratch_, x_[i].data(), x_[i + 1].data());
    layers_.norm(weights_.norm, x_.back().data(), normed.data());
    layers_.linear(embedding, normed.data(), Put::over, logits_.data());
    launch(cross_entropy, rows, stream, loss_weight_, text, tokens_, logits_.data(), losses_.data(),
           d_logits_.data());

    zero(parameters().gradients);
    zero(d_);
    launch(sum_up, 1, stream, losses_.data(), rows, parameters().loss());
    layers_.linear_backward(embedding, normed.data(), d_logits_.data(), Put::over, scratch_.d_normed.data());
    layers_.norm_backward(weights_.norm, x_.back().data(), scratch_.d_normed.data(), d_.data());
    for (std::size_t i = stack_.size(); i-- > 0;) stack_[i].backward(scratch_, x_[i].data(), d_.data());
    launch(embed_backward, bytes, stream, text, tokens_, d_.data(), dim, layers_.gradients(embedding));
  }

 private:
  void zero(DeviceArray<float> const& array) const {
    check_cuda(cudaMemsetAsync(array.data(), 0, array.span().size_bytes(), layers_.stream()));
  }

  lightseq::Positions tokens_;
  float loss_weight_;
  Parameters first_;
  ModelWeights weights_;
  Layers layers_;
  std::vector<Layer<Attn>> stack_;
  DeviceArray<std::uint8_t> text_;
  DeviceArray<float> logits_;          // [rows, bytes]
  DeviceArray<float> losses_;          // [rows]
  DeviceArray<float> d_;               // [rows, dim], the gradient on its way back
  DeviceArray<bfloat16> d_logits_;     // [rows, bytes]
  std::vector<DeviceArray<float>> x_;  // [layers + 1][rows, dim], what each layer takes in
  Scratch scratch_;
};

}  // namespace train_lm::gpu
