// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdio>
#include <string>
#include <string_view>

#include "lightseq/core/json.hpp"

namespace lightseq::bench {

/// A line of JSON, which is what a bench prints of one measurement: `Row()("dim", 128)("ms", 1.5).print()`
/// writes {"dim": 128, "ms": 1.5}. read_measurements() of predict/calibration.hpp reads such lines.
class Row {
 public:
  /// A text, a whole number, a bool, or a real number, of which six digits stay.
  template <class Value>
  Row& operator()(std::string_view name, Value const& value) {
    if constexpr (std::floating_point<Value>)
      object_.add(name, six_digits(static_cast<double>(value)));
    else
      object_.add(name, value);
    return *this;
  }

  std::string text() const { return object_.text() + '\n'; }

  /// To stdout, at once.
  void print() const {
    std::fputs(text().c_str(), stdout);
    std::fflush(stdout);
  }

 private:
  static double six_digits(double value) {
    if (!std::isfinite(value)) return value;
    char digits[32];
    auto const end = std::to_chars(digits, digits + sizeof digits, value, std::chars_format::general, 6).ptr;
    std::from_chars(digits, end, value);
    return value;
  }

  JsonObject object_;
};

}  // namespace lightseq::bench
