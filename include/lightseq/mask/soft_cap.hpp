// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <string>

#include "lightseq/core/error.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/host_device.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/score.hpp"

namespace lightseq {

/// Keeps scores within (-cap, cap): cap * tanh(s / cap), as in Gemma 2 (arXiv 2408.00118).
struct SoftCap {
  static constexpr char const* name = "SoftCap";

  float cap = 0;  ///< positive

  template <std::floating_point F>
  LIGHTSEQ_HD F score(F s) const {
    return cap * tanh(s / cap);
  }
  template <std::floating_point F>
  LIGHTSEQ_HD F score_gradient(F s) const {
    // Of a score near the cap, 1 - tanh(s / cap)^2 would leave few digits.
    F const rest = decay(s / cap), part = inverse(1 + rest);
    return 4 * rest * part * part;
  }

  /// By a polynomial, with a relative error of 6e-7.
  LIGHTSEQ_HD constexpr float near() const { return cap; }
  LIGHTSEQ_HD constexpr float score_near(float s) const { return cap * tanh_near(s / cap); }
  LIGHTSEQ_HD constexpr float score_gradient_near(float s) const {
    float const part = tanh_near(s / cap);
    return 1 - part * part;
  }

  std::int64_t digest() const { return digest_of(cap); }
  void name_values(Fingerprint& fingerprint) const { fingerprint.add("the soft cap", cap); }
  std::string fault() const {
    if (cap >= std::numeric_limits<float>::min() && cap <= std::numeric_limits<float>::max()) return {};
    return sentence("SoftCap{", cap, "}: the cap must be positive and finite");
  }

 private:
  /// exp(-2 |x|) and 1 / x, which on a GPU need not be correct to the last bit.
  template <std::floating_point F>
  LIGHTSEQ_HD static F decay(F x) {
#ifdef __CUDA_ARCH__
    if constexpr (std::same_as<F, float>) return __expf(-2 * fabsf(x));
#endif
    return std::exp(-2 * std::abs(x));
  }
  template <std::floating_point F>
  LIGHTSEQ_HD static F inverse(F x) {
#ifdef __CUDA_ARCH__
    if constexpr (std::same_as<F, float>) return __fdividef(1, x);
#endif
    return 1 / x;
  }

  template <std::floating_point F>
  LIGHTSEQ_HD static F tanh(F x) {
#ifdef __CUDA_ARCH__
    // To 2e-7 in absolute terms, which is what exponents need.
    F const rest = decay(x);
    if constexpr (std::same_as<F, float>) return copysignf(1 - 2 * rest * inverse(1 + rest), x);
#endif
    return std::tanh(x);
  }

  /// tanh(x) for |x| <= 1, interpolated at the Chebyshev nodes of x * x.
  LIGHTSEQ_HD static constexpr float tanh_near(float x) {
    float const t = x * x;
    float p = 0.0167208552f + t * -0.00305822904f;
    p = -0.0515859884f + t * p;
    p = 0.132807206f + t * p;
    p = -0.333289514f + t * p;
    p = 0.999999395f + t * p;
    return x * p;
  }
};
static_assert(UniformRule<SoftCap> && HasScoreGradient<SoftCap> && HasNearScores<SoftCap>);

}  // namespace lightseq
