// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <set>
#include <span>
#include <string>
#include <vector>

/// What a training is made of before any device comes in: sizes, weights and the choice of text. Where the
/// options are the same, the weights of the first step and all windows of text are the same bits.
namespace train_lm {

using Index = std::int64_t;
using In = std::span<float const>;
using Out = std::span<float>;

/// The classes of tokens: the text is read byte by byte.
constexpr Index bytes = 256;

struct ModelSize {
  Index layers = 2;
  Index dim = 128;     ///< width of the residual stream
  Index heads = 4;     ///< query heads
  Index kv_heads = 2;  ///< key/value heads, a divisor of heads

  Index hidden() const { return (8 * dim / 3 + 7) / 8 * 8; }  ///< width inside the feed-forward network
};

struct Options {
  int ranks = 4;
  Index steps = 240;
  Index seqlen = 1024;  ///< tokens of a step, all ranks together
  Index documents = 1;  ///< that a step's text is cut into where the schedule is for packs
  ModelSize size;
  double lr = 2e-3;
  std::uint64_t seed = 1;
};

/// All weights of a model in one vector and their gradients in another, so that the sum over ranks and the
/// optimiser are one loop each.
struct Parameters {
  struct Entry {
    std::string name;
    std::size_t first, size;
  };
  std::vector<Entry> entries;
  std::vector<float> values, gradients;
  std::mt19937_64 random;  ///< of the first values, then of the text

  explicit Parameters(std::uint64_t seed) : random(seed) {}

  /// Where the window of the next step begins in a text of `size` bytes: seqlen bytes and the one that
  /// follows them. The generator is in the same state on every rank: no rank need tell another.
  std::size_t next_window(std::size_t size, Index seqlen) {
    return random() % (size - static_cast<std::size_t>(seqlen));
  }

  /// Where the documents of the next step end, `count` of random lengths in so many tokens.
  std::vector<Index> next_documents(Index tokens, Index count) {
    std::set<Index> ends{tokens};
    while (std::ssize(ends) < count)
      ends.insert(1 + static_cast<Index>(random() % static_cast<std::uint64_t>(tokens - 1)));
    return {ends.begin(), ends.end()};
  }
};

/// One weight matrix [rows, cols] among the parameters, at first zero.
class Weight {
 public:
  Weight(Parameters& parameters, std::string const& name, Index rows, Index cols)
      : rows_(rows),
        cols_(cols),
        parameters_(&parameters),
        first_(parameters.values.size()),
        size_(static_cast<std::size_t>(rows * cols)) {
    parameters.entries.push_back({name, first_, size_});
    parameters.values.resize(first_ + size_);
    parameters.gradients.resize(first_ + size_);
  }

  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  std::size_t first() const { return first_; }  ///< where it begins among the parameters
  Out values() const { return Out(parameters_->values).subspan(first_, size_); }
  Out gradients() const { return Out(parameters_->gradients).subspan(first_, size_); }

 private:
  Index rows_, cols_;
  Parameters* parameters_;
  std::size_t first_, size_;
};

/// For y = x w^T: normal numbers of variance 1 / in.
inline Weight matrix(Parameters& parameters, std::string const& name, Index out, Index in) {
  Weight const weight(parameters, name, out, in);
  std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(in)));
  for (float& value : weight.values()) value = normal(parameters.random);
  return weight;
}

/// The gain of a norm: ones.
inline Weight gain(Parameters& parameters, std::string const& name, Index dim) {
  Weight const weight(parameters, name, 1, dim);
  for (float& value : weight.values()) value = 1;
  return weight;
}

/// next = y + down(silu(gate(n)) * up(n)), where n = norm(y).
struct FeedForwardWeights {
  Weight norm, gate, up, down;

  FeedForwardWeights(Parameters& p, std::string const& name, ModelSize const& size)
      : norm(gain(p, name + "norm", size.dim)),
        gate(matrix(p, name + "gate", size.hidden(), size.dim)),
        up(matrix(p, name + "up", size.hidden(), size.dim)),
        down(matrix(p, name + "down", size.dim, size.hidden())) {}
};

/// y = x + out(attention(rope(q(n)), rope(k(n)), v(n))), where n = norm(x); then the feed-forward network.
struct LayerWeights {
  Weight norm, q, k, v, out;
  FeedForwardWeights feed_forward;

  LayerWeights(Parameters& p, std::string const& name, ModelSize const& size, Index head_dim)
      : norm(gain(p, name + "norm", size.dim)),
        q(matrix(p, name + "q", size.heads * head_dim, size.dim)),
        k(matrix(p, name + "k", size.kv_heads * head_dim, size.dim)),
        v(matrix(p, name + "v", size.kv_heads * head_dim, size.dim)),
        out(matrix(p, name + "out", size.dim, size.heads * head_dim)),
        feed_forward(p, name + "ffn.", size) {}
};

/// Embedding, layers, norm, and the embedding's matrix once more as the head.
struct ModelWeights {
  Weight embedding, norm;
  std::vector<LayerWeights> layers;

  ModelWeights(Parameters& p, ModelSize const& size, Index head_dim)
      : embedding(matrix(p, "embedding", bytes, size.dim)), norm(gain(p, "norm", size.dim)) {
    for (Index i = 0; i < size.layers; ++i)
      layers.emplace_back(p, "layer" + std::to_string(i) + ".", size, head_dim);
  }
};

}  // namespace train_lm
