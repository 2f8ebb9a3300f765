// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <charconv>
#include <concepts>
#include <cstdio>
#include <string>
#include <string_view>

namespace lightseq::bench {

/// A line of JSON, which is what a bench prints of one measurement: `Row()("dim", 128)("ms", 1.5).print()`
/// writes {"dim": 128, "ms": 1.5}. Names and texts hold no quotes and no backslashes; numbers have six
/// digits, whatever the locale. read_measurements() of predict/calibration.hpp reads such lines.
class Row {
 public:
  Row& operator()(std::string_view name, std::string_view text) { return put(name, '"', text); }
  Row& operator()(std::string_view name, char const* text) { return (*this)(name, std::string_view(text)); }
  Row& operator()(std::string_view name, std::integral auto value) {
    if constexpr (std::same_as<decltype(value), bool>) return put(name, ' ', value ? "true" : "false");
    return put(name, ' ', std::to_string(value));
  }
  Row& operator()(std::string_view name, std::floating_point auto value) {
    char digits[32];
    auto const end = std::to_chars(digits, digits + sizeof digits, value, std::chars_format::general, 6).ptr;
    return put(name, ' ', std::string_view(digits, static_cast<std::size_t>(end - digits)));
  }

  std::string text() const { return line_ + "}\n"; }

  /// To stdout, at once.
  void print() const {
    std::fputs(text().c_str(), stdout);
    std::fflush(stdout);
  }

 private:
  Row& put(std::string_view name, char quote, std::string_view value) {
    line_ += line_.empty() ? "{" : ", ";
    ((line_ += '"') += name) += "\": ";
    if (quote != ' ') line_ += quote;
    line_ += value;
    if (quote != ' ') line_ += quote;
    return *this;
  }

  std::string line_;
};

}  // namespace lightseq::bench
