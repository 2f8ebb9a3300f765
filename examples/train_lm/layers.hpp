// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "lightseq/core/range.hpp"

/// The layers of a Llama-style language model, forward and backward written out by hand. Activations are
/// [rows, width] without gaps, a row a token of this rank; `dx` is the gradient of the loss with respect to
/// x. All of them work token by token, so that none knows of ranks. Rope alone asks where a token stands.
namespace train_lm {

using Index = std::int64_t;
using In = std::span<float const>;
using Out = std::span<float>;

/// All weights of a model in one vector and their gradients in another, so that the sum over ranks and the
/// optimiser are one loop each.
struct Parameters {
  struct Entry {
    std::string name;
    std::size_t first, size;
  };
  std::vector<Entry> entries;
  std::vector<float> values, gradients;
  std::mt19937_64 random;  ///< of the first values

  explicit Parameters(std::uint64_t seed) : random(seed) {}
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
  Out values() const { return Out(parameters_->values).subspan(first_, size_); }
  Out gradients() const { return Out(parameters_->gradients).subspan(first_, size_); }

 private:
  Index rows_, cols_;
  Parameters* parameters_;
  std::size_t first_, size_;
};

/// Whether a result replaces what is in its memory or is added to it.
enum class Put { over, onto };

/// c [m, n] = a b, where a is [m, k] and b is [k, n], each stored so or as its transpose.
inline void multiply(CBLAS_TRANSPOSE a_stored, CBLAS_TRANSPOSE b_stored, Index m, Index n, Index k, In a,
                     In b, Put put, Out c) {
  auto const size = [](Index i) { return static_cast<blasint>(i); };
  cblas_sgemm(CblasRowMajor, a_stored, b_stored, size(m), size(n), size(k), 1, a.data(),
              size(a_stored == CblasTrans ? m : k), b.data(), size(b_stored == CblasTrans ? k : n),
              put == Put::onto ? 1.0f : 0.0f, c.data(), size(n));
}

/// y = x w^T, with w [out, in].
struct Linear {
  Weight w;

  Linear(Parameters& parameters, std::string const& name, Index out, Index in)
      : w(parameters, name, out, in) {
    std::normal_distribution<float> normal(0, 1 / std::sqrt(static_cast<float>(in)));
    for (float& value : w.values()) value = normal(parameters.random);
  }

  void forward(In x, Put put, Out y) const {
    Index const rows = std::ssize(x) / w.cols();
    multiply(CblasNoTrans, CblasTrans, rows, w.rows(), w.cols(), x, w.values(), put, y);
  }
  void backward(In x, In dy, Put put, Out dx) const {
    Index const rows = std::ssize(x) / w.cols();
    multiply(CblasTrans, CblasNoTrans, w.rows(), w.cols(), rows, dy, x, Put::onto, w.gradients());
    multiply(CblasNoTrans, CblasNoTrans, rows, w.cols(), w.rows(), dy, w.values(), put, dx);
  }
};

/// y = gain * x / rms(x), where rms(x) is the root of the mean square of a row.
struct RmsNorm {
  Weight gain;

  RmsNorm(Parameters& parameters, std::string const& name, Index dim) : gain(parameters, name, 1, dim) {
    for (float& value : gain.values()) value = 1;
  }

  void forward(In x, Out y) const {
    Out const g = gain.values();
    for (std::size_t row = 0; row < x.size(); row += g.size()) {
      float const scale = inverse_rms(x.subspan(row, g.size()));
      for (std::size_t i = 0; i < g.size(); ++i) y[row + i] = g[i] * scale * x[row + i];
    }
  }

  /// Adds to dx, where the gradient that came past the norm is already.
  void backward(In x, In dy, Out dx) const {
    Out const g = gain.values(), dg = gain.gradients();
    for (std::size_t row = 0; row < x.size(); row += g.size()) {
      float const scale = inverse_rms(x.subspan(row, g.size()));
      float dot = 0;
      for (std::size_t i = 0; i < g.size(); ++i) {
        float const normed = scale * x[row + i];
        dg[i] += dy[row + i] * normed;
        dot += g[i] * dy[row + i] * normed;
      }
      float const mean = dot / static_cast<float>(g.size());
      for (std::size_t i = 0; i < g.size(); ++i)
        dx[row + i] += scale * (g[i] * dy[row + i] - mean * scale * x[row + i]);
    }
  }

 private:
  static float inverse_rms(In row) {
    float sum = 0;
    for (float const value : row) sum += value * value;
    return 1 / std::sqrt(sum / static_cast<float>(row.size()) + 1e-5f);
  }
};

/// Rotary position embedding: turns the pair (i, i + head_dim / 2) of every head by an angle that grows with
/// the token's position. That is its position in the whole sequence: a shard's own count would be wrong.
class Rope {
 public:
  Rope(lightseq::Positions const& tokens, Index head_dim) : half_(static_cast<std::size_t>(head_dim) / 2) {
    for (Index row = 0; row < tokens.rows(); ++row)
      for (std::size_t i = 0; i < half_; ++i) {
        double const turns = std::pow(1e4, -static_cast<double>(i) / static_cast<double>(half_));
        double const angle = static_cast<double>(tokens.position(row)) * turns;
        turns_.push_back({static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))});
      }
  }

  /// x [rows, heads, head_dim], in place.
  void forward(Index heads, Out x) const { turn(heads, x, 1); }

  /// The gradient of a turn is the turn back.
  void backward(Index heads, Out dx) const { turn(heads, dx, -1); }

 private:
  struct Turn {
    float cos, sin;
  };

  void turn(Index heads, Out x, float direction) const {
    std::size_t const row_size = static_cast<std::size_t>(heads) * 2 * half_;
    for (std::size_t head = 0; head < x.size(); head += 2 * half_) {
      Turn const* const turns = turns_.data() + head / row_size * half_;
      for (std::size_t i = 0; i < half_; ++i) {
        float const cos = turns[i].cos, sin = direction * turns[i].sin;
        float const a = x[head + i], b = x[head + half_ + i];
        x[head + i] = a * cos - b * sin;
        x[head + half_ + i] = b * cos + a * sin;
      }
    }
  }

  std::size_t half_;
  std::vector<Turn> turns_;  // [rows, head_dim / 2]
};

/// y = silu(gate) * up, element by element.
struct SwiGlu {
  static void forward(In gate, In up, Out y) {
    for (std::size_t i = 0; i < y.size(); ++i) y[i] = gate[i] * sigmoid(gate[i]) * up[i];
  }

  /// Puts the gradients where gate and up were.
  static void backward(Out gate, Out up, In dy) {
    for (std::size_t i = 0; i < dy.size(); ++i) {
      float const g = gate[i], s = sigmoid(g);
      gate[i] = dy[i] * up[i] * s * (1 + g * (1 - s));
      up[i] = dy[i] * g * s;
    }
  }

 private:
  static float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }
};

/// The sum over rows of -weight * log softmax(logits)[label]; its gradient takes the logits' place.
inline double cross_entropy(double weight, std::span<std::uint8_t const> labels, Out logits) {
  std::size_t const classes = labels.empty() ? 0 : logits.size() / labels.size();
  auto const factor = static_cast<float>(weight);
  double loss = 0;
  for (std::size_t row = 0; row < labels.size(); ++row) {
    Out const of_row = logits.subspan(row * classes, classes);
    float const max = *std::max_element(of_row.begin(), of_row.end());
    float& of_label = of_row[labels[row]];
    float const wanted = of_label - max;
    float sum = 0;
    for (float& logit : of_row) sum += logit = std::exp(logit - max);
    loss += weight * (std::log(sum) - wanted);
    for (float& logit : of_row) logit *= factor / sum;
    of_label -= factor;
  }
  return loss;
}

}  // namespace train_lm
