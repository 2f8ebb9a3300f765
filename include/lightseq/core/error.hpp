// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <locale>
#include <sstream>
#include <stdexcept>
#include <string>

#include "lightseq/core/standard.hpp"

namespace lightseq {

/// Thrown at plan time, never in a call: a problem, mask, schedule or rank that cannot be served.
class Error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// All arguments, one behind the other, whatever the global locale.
template <class... Args>
std::string sentence(Args const&... args) {
  std::ostringstream text;
  text.imbue(std::locale::classic());
  (text << ... << args);
  return text.str();
}

/// Throws an Error whose text is all arguments, one behind the other.
template <class... Args>
[[noreturn]] void fail(Args const&... args) {
  throw Error(sentence("lightseq: ", args...));
}

}  // namespace lightseq
