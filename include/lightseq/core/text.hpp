// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>

#include "lightseq/core/standard.hpp"

namespace lightseq {

/// A short text held by value, for those who must not allocate, and for messages. What is too long is cut.
class Text {
 public:
  static constexpr std::size_t capacity = 240;  ///< bytes, a zero at the end among them

  constexpr Text() = default;
  constexpr Text(char const* text) { append(text); }
  constexpr Text(std::string_view text) { append(text); }
  Text(std::string const& text) { append(text); }

  constexpr bool empty() const { return bytes_[0] == '\0'; }
  constexpr std::string_view view() const { return bytes_.data(); }

  constexpr Text& append(std::string_view text) {
    std::size_t size = view().size();
    for (char const c : text)
      if (size + 1 < capacity) bytes_[size++] = c;
    return *this;
  }

  friend constexpr Text operator+(Text left, std::string_view right) { return left.append(right); }
  friend constexpr Text operator+(Text left, char const* right) { return left.append(right); }
  friend constexpr Text operator+(Text left, Text const& right) { return left.append(right.view()); }
  friend constexpr Text operator+(Text left, std::integral auto number) {
    std::array<char, 24> digits{};
    auto const end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
    return left.append({digits.data(), static_cast<std::size_t>(end - digits.data())});
  }

 private:
  std::array<char, capacity> bytes_{};
};

}  // namespace lightseq
