// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "lightseq/core/error.hpp"

/// Numbers as sentences and tables say them.
namespace lightseq {

/// The number of three digits that is nearest; zero, and what is not finite, as it is.
inline double three_digits(double value) {
  if (!(value > 0) || std::isinf(value)) return value;
  double const unit = std::pow(10, 2 - std::floor(std::log10(value)));
  return std::isinf(unit) ? value : std::round(value * unit) / unit;
}

/// What a sentence says of a number: three digits.
inline std::string rounded(double value) { return sentence(three_digits(value)); }

/// A number of at least 0 in the largest of some units, each a thousand of the one before, in which it is at
/// least 1: "12.3 us".
inline std::string scaled(double value, double first_unit, std::span<char const* const> units) {
  if (!(value > 0) || std::isinf(value)) return rounded(value) + units[0];
  std::size_t unit = 0;
  double scaled = value / first_unit;
  while (unit + 1 < units.size() && three_digits(scaled) >= 1000) scaled /= 1000, ++unit;
  return rounded(scaled) + units[unit];
}

/// Seconds: "12.3 us", "1.5 ms", "20 s".
inline std::string seconds_text(double seconds) {
  constexpr char const* units[] = {" us", " ms", " s"};
  return seconds > 0 ? scaled(seconds, 1e-6, units) : rounded(seconds) + " s";
}

/// Bytes: "512 bytes", "1.5 kB", "571 MB", "80 GB", "1.2 TB".
inline std::string bytes_text(std::int64_t bytes) {
  constexpr char const* units[] = {" bytes", " kB", " MB", " GB", " TB"};
  return scaled(static_cast<double>(bytes), 1, units);
}

/// How many of something: "950", "3.1 k", "2.05 M".
inline std::string count_text(double count) {
  constexpr char const* units[] = {"", " k", " M", " G"};
  return scaled(count, 1, units);
}

/// A length in tokens, exact: "16M" and "64k" where it is a multiple of 2^20 or 2^10, else its digits.
inline std::string length_text(std::int64_t tokens) {
  constexpr std::int64_t k = 1024;
  if (tokens % (k * k) == 0) return sentence(tokens / (k * k), 'M');
  return tokens % k == 0 ? sentence(tokens / k, 'k') : std::to_string(tokens);
}

}  // namespace lightseq
