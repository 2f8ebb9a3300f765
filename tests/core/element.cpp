// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/element.hpp"

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

#include "support/data.hpp"

using namespace lightseq;

namespace {

/// A binary format with an implicit leading bit, as its definition gives it.
template <class T>
struct Format;
template <>
struct Format<bfloat16> {
  static constexpr int exponent_bits = 8, mantissa_bits = 7;
};
template <>
struct Format<float16> {
  static constexpr int exponent_bits = 5, mantissa_bits = 10;
};

template <class T>
T from_bits(unsigned bits) {
  T value;
  value.bits = static_cast<std::uint16_t>(bits);
  return value;
}

/// The number that 16 bits mean.
template <class T>
double meaning(unsigned bits) {
  using F = Format<T>;
  int const bias = (1 << (F::exponent_bits - 1)) - 1;
  int const exponent = static_cast<int>(bits >> F::mantissa_bits & ((1u << F::exponent_bits) - 1));
  int const mantissa = static_cast<int>(bits & ((1u << F::mantissa_bits) - 1));
  double magnitude = std::ldexp(mantissa + (exponent > 0 ? 1 << F::mantissa_bits : 0),
                                std::max(exponent, 1) - bias - F::mantissa_bits);
  if (exponent == (1 << F::exponent_bits) - 1)
    magnitude =
        mantissa == 0 ? std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  return bits >> 15 != 0 ? -magnitude : magnitude;
}

/// The bits of +infinity.
template <class T>
constexpr unsigned infinity_bits = ((1u << Format<T>::exponent_bits) - 1) << Format<T>::mantissa_bits;

/// Whether a finite float became the number next to it; of two equally near ones that with an even last bit.
/// Halfway above the largest number is infinity.
template <class T>
bool nearest(float value) {
  unsigned const magnitude = T(value).bits & 0x7fffu;
  if (std::signbit(value) != (T(value).bits >> 15 != 0) || magnitude > infinity_bits<T>) return false;
  auto const at = [](unsigned bits) {  // infinity counts as the power of two that is out of reach
    return bits < infinity_bits<T> ? meaning<T>(bits) : std::ldexp(1, 1 << (Format<T>::exponent_bits - 1));
  };
  double const wanted = std::abs(static_cast<double>(value)), error = std::abs(at(magnitude) - wanted);
  if (magnitude == infinity_bits<T> && wanted >= at(magnitude)) return true;
  bool const even = magnitude % 2 == 0;
  auto const loses_to = [&](unsigned other) {
    double const others = std::abs(at(other) - wanted);
    return others < error || (others == error && !even);
  };
  return !(magnitude > 0 && loses_to(magnitude - 1)) &&
         !(magnitude < infinity_bits<T> && loses_to(magnitude + 1));
}

}  // namespace

TEST_CASE_TEMPLATE("all 2^16 bit patterns mean what the format says, and come back", T, bfloat16, float16) {
  for (unsigned bits = 0; bits < 0x10000; ++bits) {
    double const wanted = meaning<T>(bits);
    float const value = static_cast<float>(from_bits<T>(bits));
    if (std::isnan(wanted)) {
      CHECK(std::isnan(value));
      CHECK(std::isnan(static_cast<float>(T(value))));
    } else {
      CHECK(value == wanted);
      CHECK(std::signbit(value) == std::signbit(wanted));
      CHECK(T(value).bits == bits);
      CHECK(T(value) == from_bits<T>(bits));
    }
  }
}

TEST_CASE_TEMPLATE("rounding is to nearest, ties to even, around every number of the format", T, bfloat16,
                   float16) {
  for (unsigned bits = 0; bits < infinity_bits<T>; ++bits) {
    double const here = meaning<T>(bits);
    double const next =
        bits + 1 < infinity_bits<T> ? meaning<T>(bits + 1) : here + (here - meaning<T>(bits - 1));
    auto const half = static_cast<float>((here + next) / 2);  // exact, but for the smallest bfloat16s
    for (float const magnitude :
         {std::nextafter(half, 0.0f), half,
          std::nextafter(half, next > 1e38 ? std::numeric_limits<float>::max() : static_cast<float>(next))})
      for (float const value : {magnitude, -magnitude}) CHECK(nearest<T>(value));
  }
}

TEST_CASE_TEMPLATE("rounding is to nearest for random floats of every size", T, bfloat16, float16) {
  std::mt19937_64 random(test::run_seed());
  for (int run = 0; run < 200000; ++run) {
    auto const value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    if (std::isnan(value)) {
      CHECK(std::isnan(static_cast<float>(T(value))));
      CHECK(std::signbit(static_cast<float>(T(value))) == std::signbit(value));
    } else if (!std::isinf(value)) {
      CHECK(nearest<T>(value));
    }
  }
  CHECK(T(std::numeric_limits<float>::infinity()).bits == infinity_bits<T>);
  CHECK(T(-std::numeric_limits<float>::infinity()).bits == (infinity_bits<T> | 0x8000u));
}

TEST_CASE("elements are the types that kernels know") {
  static_assert(Element<float> && Element<bfloat16> && Element<float16>);
  static_assert(!Element<double> && !Element<int> && !Element<float const>);
  static_assert(sizeof(bfloat16) == 2 && sizeof(float16) == 2);
  static_assert(bfloat16(1.0f).bits == 0x3f80 && float16(1.0f).bits == 0x3c00);
  CHECK(bfloat16().bits == float16().bits);
}
