// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cblas.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "formulas.hpp"
#include "parameters.hpp"

/// The layers of a Llama-style language model, forward and backward written out by hand. Activations are
/// [rows, width] without gaps, a row a token of this rank; `dx` is the gradient of the loss with respect to
/// x. All of them work token by token, so that none knows of ranks. Rope alone asks where a token stands.
namespace train_lm {

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
    return 1 / std::sqrt(sum / static_cast<float>(row.size()) + norm_epsilon);
  }
};

/// Rotary position embedding.
class Rope {
 public:
  /// For rows at these positions of their documents.
  Rope(std::span<Index const> positions, Index head_dim)
      : half_(static_cast<std::size_t>(head_dim) / 2), turns_(turns(positions, head_dim)) {}

  /// x [rows, heads, head_dim], in place.
  void forward(Index heads, Out x) const { turn(heads, x, 1); }

  /// The gradient of a turn is the turn back.
  void backward(Index heads, Out dx) const { turn(heads, dx, -1); }

 private:
  void turn(Index heads, Out x, float direction) const {
    std::size_t const row_size = static_cast<std::size_t>(heads) * 2 * half_;
    for (std::size_t head = 0; head < x.size(); head += 2 * half_) {
      Turn const* const of_row = turns_.data() + head / row_size * half_;
      for (std::size_t i = 0; i < half_; ++i) {
        float const cos = of_row[i].cos, sin = direction * of_row[i].sin;
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
