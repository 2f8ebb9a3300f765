// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "lightseq/core/error.hpp"

/// JSON, read whatever the global locale, as far as json.hpp writes it.
namespace lightseq {

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
