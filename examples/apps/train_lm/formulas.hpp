// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

#include "lightseq/core/host_device.hpp"
#include "parameters.hpp"

/// Formulas that the CPU and the GPU share.
namespace train_lm {

/// Whether a result replaces what is in its memory or is added to it.
enum class Put { over, onto };

/// Added to the mean square of a row before the root.
constexpr float norm_epsilon = 1e-5f;

LIGHTSEQ_HD inline float sigmoid(float x) { return 1 / (1 + std::exp(-x)); }

/// Cosine and sine of an angle.
struct Turn {
  float cos, sin;
};

/// Rotary position embedding: the pair (i, i + head_dim / 2) of every head is turned by an angle that grows
/// with the token's position. That is its position in the whole document: a shard's own count would be wrong.
/// [positions, head_dim / 2].
inline std::vector<Turn> turns(std::span<Index const> positions, Index head_dim) {
  std::vector<Turn> all;
  Index const half = head_dim / 2;
  for (Index const position : positions)
    for (Index i = 0; i < half; ++i) {
      double const frequency = std::pow(1e4, -static_cast<double>(i) / static_cast<double>(half));
      double const angle = static_cast<double>(position) * frequency;
      all.push_back({static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))});
    }
  return all;
}

/// Adam (arXiv 1412.6980). It divides each gradient by the gradient's own size; epsilon keeps those from
/// growing into whole steps that are hardly more than the rounding of a sum.
struct AdamStep {
  static constexpr float beta1 = 0.9f, beta2 = 0.99f, epsilon = 1e-5f;
  float rate, square_scale;

  /// Steps count from 1.
  AdamStep(double lr, Index step)
      : rate(static_cast<float>(lr * unbias(beta1, step))),
        square_scale(static_cast<float>(unbias(beta2, step))) {}

  /// Moves one parameter.
  LIGHTSEQ_HD void move(float gradient, float& mean, float& square, float& value) const {
    mean = beta1 * mean + (1 - beta1) * gradient;
    square = beta2 * square + (1 - beta2) * gradient * gradient;
    value -= rate * mean / (std::sqrt(square_scale * square) + epsilon);
  }

 private:
  static double unbias(float beta, Index step) { return 1 / (1 - std::pow(beta, static_cast<double>(step))); }
};

}  // namespace train_lm
