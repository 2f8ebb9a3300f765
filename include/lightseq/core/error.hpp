// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <exception>
#include <locale>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

#include "lightseq/core/standard.hpp"
#include "lightseq/core/text.hpp"

namespace lightseq {

/// Thrown at plan time, never in a call: a problem, mask, schedule or rank that cannot be served.
class Error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

inline std::ostream& operator<<(std::ostream& out, Text const& text) { return out << text.view(); }

/// All arguments, one after another, whatever the global locale.
template <class... Args>
std::string sentence(Args const&... args) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  (text << ... << args);
  return text.str();
}

/// Throws an Error whose text is all arguments, one after another.
template <class... Args>
[[noreturn]] void fail(Args const&... args) {
  throw Error(sentence("lightseq: ", args...));
}

/// In a handler: what the exception says, without the library's name.
inline Text thrown_text() noexcept {
  try {
    throw;
  } catch (std::exception const& exception) {
    std::string_view text = exception.what();
    constexpr std::string_view name = "lightseq: ";
    if (text.starts_with(name)) text.remove_prefix(name.size());
    return text.empty() ? Text("an exception without words") : Text(text);
  } catch (...) {
    return "an exception of a type without words";
  }
}

}  // namespace lightseq
