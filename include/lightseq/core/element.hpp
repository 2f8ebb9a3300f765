// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/host_device.hpp"

namespace lightseq {

// __builtin_bit_cast is std::bit_cast, which nvcc does not take for a device function.

/// The upper half of an IEEE float: 8 exponent bits, 7 mantissa bits. Same bits as `__nv_bfloat16`.
struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;

  /// Rounds to nearest, ties to even; a NaN stays a NaN.
  LIGHTSEQ_HD explicit constexpr bfloat16(float value) {
    auto const word = __builtin_bit_cast(std::uint32_t, value);
    bool const nan = (word & 0x7fffffffu) > 0x7f800000u;
    bits =
        static_cast<std::uint16_t>(nan ? (word >> 16) | 0x40u : (word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }

  LIGHTSEQ_HD explicit constexpr operator float() const {
    return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) << 16);
  }
  friend constexpr bool operator==(bfloat16, bfloat16) = default;
};

/// IEEE half precision: 5 exponent bits, 10 mantissa bits. Same bits as `__half`.
struct float16 {
  std::uint16_t bits = 0;

  float16() = default;

  /// Rounds to nearest, ties to even; what is too large becomes infinite and a NaN stays a NaN.
  LIGHTSEQ_HD explicit constexpr float16(float value) {
    auto const word = __builtin_bit_cast(std::uint32_t, value);
    std::uint32_t const sign = (word >> 16) & 0x8000u;
    std::uint32_t const magnitude = word & 0x7fffffffu;
    std::uint32_t half = 0;
    if (magnitude > 0x7f800000u) {
      half = 0x7e00u;
    } else if (magnitude >= 0x47800000u) {
      half = 0x7c00u;  // 2^16 and above
    } else if (magnitude >= 0x38800000u) {
      half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    } else if (magnitude >= 0x33000000u) {
      // Subnormal: the mantissa, with its hidden bit, in units of 2^-24.
      std::uint32_t const shift = 126u - (magnitude >> 23);
      std::uint32_t const mantissa = (magnitude & 0x7fffffu) | 0x800000u;
      half = (mantissa + (1u << (shift - 1)) - 1u + ((mantissa >> shift) & 1u)) >> shift;
    }
    bits = static_cast<std::uint16_t>(sign | half);
  }

  LIGHTSEQ_HD explicit constexpr operator float() const {
    std::uint32_t const sign = (bits & 0x8000u) << 16;
    std::uint32_t const exponent = (bits >> 10) & 0x1fu;
    std::uint32_t const mantissa = bits & 0x3ffu;
    if (exponent == 0) {
      float const magnitude = static_cast<float>(mantissa) * 0x1p-24f;
      return sign != 0 ? -magnitude : magnitude;
    }
    std::uint32_t const wide = exponent == 0x1fu ? 0xffu : exponent + 112u;
    return __builtin_bit_cast(float, sign | (wide << 23) | (mantissa << 13));
  }
  friend constexpr bool operator==(float16, float16) = default;
};

/// What q, k, v and o may be made of. Everything is accumulated in float.
template <class T>
concept Element = std::is_same_v<T, float> || std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

}  // namespace lightseq
