// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "lightseq/core/error.hpp"

/// JSON, written and read whatever the global locale.
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

/// The members of an object whose values are no objects or arrays: texts without their quotes, everything
/// else as it stands there.
using JsonMembers = std::map<std::string, std::string, std::less<>>;

/// Reads such an object.
class JsonReader {
 public:
  /// `where`, such as "line 3", begins what errors say.
  JsonReader(std::string_view text, std::string where) : text_(text), where_(std::move(where)) {}

  /// The members of the object that is all of the text. Throws Error, with the column, on anything else.
  JsonMembers members() {
    JsonMembers members;
    expect('{');
    if (!next_is('}')) do {
        std::string const key = quoted();
        expect(':');
        members[key] = next_is('"') ? quoted() : word();
      } while (taken(','));
    expect('}');
    skip_blanks();
    if (at_ != text_.size()) complain("expected the end");
    return members;
  }

 private:
  static constexpr std::string_view blanks = " \t\r";

  [[noreturn]] void complain(std::string_view what) const { fail(where_, ", column ", at_ + 1, ": ", what); }
  void skip_blanks() { at_ = std::min(text_.find_first_not_of(blanks, at_), text_.size()); }
  bool next_is(char c) {
    skip_blanks();
    return at_ < text_.size() && text_[at_] == c;
  }
  bool taken(char c) {
    bool const found = next_is(c);
    if (found) ++at_;
    return found;
  }
  void expect(char c) {
    if (!taken(c)) complain(std::string("expected ") + c);
  }

  std::string quoted() {
    expect('"');
    std::string found;
    while (at_ < text_.size() && text_[at_] != '"') found += text_[at_] == '\\' ? escaped() : text_[at_++];
    if (at_ == text_.size()) fail(where_, ": a text does not end");
    ++at_;
    return found;
  }
  /// A character that follows a backslash: itself, or the code of a control character.
  char escaped() {
    std::string_view const rest = text_.substr(at_ + 1);
    if (rest.starts_with("u00") && rest.size() >= 5) {
      int code = 0;
      auto const end = std::from_chars(rest.data() + 3, rest.data() + 5, code, 16).ptr;
      if (end == rest.data() + 5 && code < 0x80) return at_ += 6, static_cast<char>(code);
    }
    if (rest.empty() || std::string_view("\"\\/").find(rest[0]) == rest.npos)
      complain("this escape is none that is read here");
    at_ += 2;
    return rest[0];
  }
  /// A number, true, false or null.
  std::string word() {
    std::size_t const end = std::min(text_.find_first_of(",} \t\r", at_), text_.size());
    if (end == at_) complain("expected a value");
    std::string const found(text_.substr(at_, end - at_));
    at_ = end;
    return found;
  }

  std::string_view text_;
  std::string where_;
  std::size_t at_ = 0;
};

}  // namespace lightseq
