// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/core/standard.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

/// Vectors of floats, by the vector extension that GCC, Clang and nvcc's host pass share. The width is a
/// template parameter everywhere, so files compiled for different machines do not share functions.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace simd {

/// Floats in the widest vector that this file is compiled for.
#if defined(__AVX512F__)
inline constexpr int native_width = 16;
#elif defined(__AVX__)
inline constexpr int native_width = 8;
#else
inline constexpr int native_width = 4;
#endif

/// The widest vector of any machine: memory laid out in multiples of it suits every width.
inline constexpr int max_width = 16;

template <int Width>
struct Types;
template <>
struct Types<4> {
  typedef float Floats __attribute__((vector_size(16)));
  typedef std::uint32_t Words __attribute__((vector_size(16)));
};
template <>
struct Types<8> {
  typedef float Floats __attribute__((vector_size(32)));
  typedef std::uint32_t Words __attribute__((vector_size(32)));
};
template <>
struct Types<16> {
  typedef float Floats __attribute__((vector_size(64)));
  typedef std::uint32_t Words __attribute__((vector_size(64)));
};

template <int Width>
using Floats = typename Types<Width>::Floats;
template <int Width>
using Words = typename Types<Width>::Words;

template <int Width>
[[gnu::always_inline]] inline Floats<Width> load(float const* from) {
  Floats<Width> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <int Width>
[[gnu::always_inline]] inline void store(float* to, Floats<Width> v) {
  std::memcpy(to, &v, sizeof v);
}

template <int Width>
[[gnu::always_inline]] inline Floats<Width> broadcast(float value) {
  return Floats<Width>{} + value;
}

/// 2^x with a relative error under 1e-7; exactly 1 at 0, exactly 0 below -125, so also at -inf. A NaN stays
/// a NaN, whatever its bits. x must be below 127.
template <int Width>
[[gnu::always_inline]] inline Floats<Width> exp2(Floats<Width> x) {
  // Adding 1.5 * 2^23 leaves x rounded to an integer in the low bits of the sum; 127 more make it an
  // exponent.
  float const magic = 12582912.0f + 127;
  Floats<Width> const shifted = x + magic;
  Floats<Width> const f = x - (shifted - magic);
  // Minimax polynomial for 2^f on [-1/2, 1/2] with the constant term held at 1.
  Floats<Width> p = f * 0x1.41fbbcp-13f + 0x1.5f3e52p-10f;
  p = p * f + 0x1.3b2d4cp-7f;
  p = p * f + 0x1.c6aee8p-5f;
  p = p * f + 0x1.ebfbdcp-3f;
  p = p * f + 0x1.62e430p-1f;
  p = p * f + 1.0f;
  // A product, as a sum of bits would turn some NaNs into numbers.
  auto const power = p * std::bit_cast<Floats<Width>>(std::bit_cast<Words<Width>>(shifted) << 23);
  auto const vanishes = std::bit_cast<Words<Width>>(x < -125.0f);
  return std::bit_cast<Floats<Width>>(std::bit_cast<Words<Width>>(power) & ~vanishes);
}

/// Calls f with the constants 0, ..., Count - 1; never a loop, so arrays indexed by them live in registers.
template <int Count, class F>
[[gnu::always_inline]] inline void unroll(F&& f) {
  [&]<int... I>(std::integer_sequence<int, I...>) __attribute__((always_inline)) {
    (f(std::integral_constant<int, I>{}), ...);
  }
  (std::make_integer_sequence<int, Count>{});
}

}  // namespace simd
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
