// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <charconv>
#include <cmath>
#include <concepts>
#include <string>
#include <string_view>
#include <type_traits>

#include "lightseq/core/standard.hpp"

/// JSON, written whatever the global locale; json_reader.hpp reads it.
namespace lightseq {

/// A text in quotes, in which none of its characters means anything to JSON.
inline std::string json_text(std::string_view plain) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string text = "\"";
  for (char const c : plain) {
    auto const code = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\')
      text.append({'\\', c});
    else if (code < 0x20)
      text.append("\\u00").append({digits[code / 16], digits[code % 16]});
    else
      text += c;
  }
  return text + '"';
}

/// A number: floating ones with 15 digits, and null if it is not finite.
template <class Number>
requires std::integral<Number> || std::floating_point<Number> std::string json_number(Number number) {
  char digits[32] = {};
  if constexpr (std::is_same_v<Number, bool>) {
    return number ? "true" : "false";
  } else if constexpr (std::is_integral_v<Number>) {
    return std::string(digits, std::to_chars(digits, digits + sizeof digits, number).ptr);
  } else {
    if (!std::isfinite(number)) return "null";
    double const wide = number;
    return std::string(
        digits, std::to_chars(digits, digits + sizeof digits, wide, std::chars_format::general, 15).ptr);
  }
}

/// Writes an object member by member: `JsonObject().add("rank", 3).add("state", "done").text()` is
/// {"rank": 3, "state": "done"}.
class JsonObject {
 public:
  /// A number, a bool, a text, an object or lines.
  template <class Value>
  JsonObject& add(std::string_view key, Value const& value) {
    if constexpr (std::is_arithmetic_v<Value>)
      return add_written(key, json_number(value));
    else if constexpr (requires { value.text(); })
      return add_written(key, value.text());
    else
      return add_written(key, json_text(value));
  }

  std::string text() const { return "{" + members_ + "}"; }

 private:
  JsonObject& add_written(std::string_view key, std::string const& value) {
    if (!members_.empty()) members_ += ", ";
    members_ += json_text(key) + ": " + value;
    return *this;
  }

  std::string members_;
};

/// Writes an array of objects, one a line.
class JsonLines {
 public:
  void add(JsonObject const& object) {
    lines_ += lines_.empty() ? "\n" : ",\n";
    lines_ += object.text();
  }
  std::string text() const { return "[" + lines_ + "\n]"; }

 private:
  std::string lines_;
};

}  // namespace lightseq
