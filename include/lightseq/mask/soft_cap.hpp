// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <concepts>
#include <cstdint>
#include <string>

#include "lightseq/core/error.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/host_device.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/score.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq {

/// Keeps scores within (-cap, cap): cap * tanh(s / cap), as in Gemma 2 (arXiv 2408.00118). That of an
/// infinite s is NaN: a product that overflows has no softmax here either.
class SoftCap {
 public:
  SoftCap() = default;
  /// The cap is from 1e-6 to 1e9.
  constexpr SoftCap(float cap) : cap_(cap), inverse_(1 / cap) {}

  constexpr float cap() const { return cap_; }

  template <std::floating_point F>
  LIGHTSEQ_HD F score(F s) const {
    return cap_ * tanh(s * inverse_) + (s - s);
  }
  template <std::floating_point F>
  LIGHTSEQ_HD F score_gradient(F s) const {
    // Of a score near the cap, 1 - tanh(s / cap)^2 would leave few digits.
    F const rest = decay(s * inverse_), part = inverse(1 + rest);
    return 4 * rest * part * part;
  }

  /// With a relative error of 1.2e-6: tanh(x) / x, interpolated at the Chebyshev nodes of x^2.
  constexpr NearSeries near_series() const {
    float const square = cap_ * cap_;
    return {0.3f * cap_, 0.999998835f, -0.333099888f / square, 0.126335824f / square / square};
  }

  std::int64_t digest() const { return digest_of(cap_); }
  void name_values(Fingerprint& fingerprint) const { fingerprint.add("the soft cap", cap_); }
  std::string fault() const {
    if (cap_ >= 1e-6f && cap_ <= 1e9f) return {};
    return sentence("SoftCap{", cap_, "}: the cap must be between 1e-6 and 1e9");
  }

 private:
  /// exp(-2 |x|) and 1 / x, which on a GPU need not be correct to the last bit.
  template <std::floating_point F>
  LIGHTSEQ_HD static F decay(F x) {
#ifdef __CUDA_ARCH__
    if constexpr (std::same_as<F, float>) {
      float y;
      asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(-2.885390082f * fabsf(x)));
      return y;
    }
#endif
    return std::exp(-2 * std::abs(x));
  }
  template <std::floating_point F>
  LIGHTSEQ_HD static F inverse(F x) {
#ifdef __CUDA_ARCH__
    if constexpr (std::same_as<F, float>) {
      float y;
      asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
      return y;
    }
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

  float cap_ = 0, inverse_ = 0;
};
static_assert(UniformRule<SoftCap> && HasScoreGradient<SoftCap> && HasNearSeries<SoftCap>);

}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
