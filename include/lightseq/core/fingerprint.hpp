// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>

#include "lightseq/core/status.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/core/version.hpp"

namespace lightseq {

/// Words for the bits of a float, as few digits as tell it from all others: "0.5".
inline std::string float_words(std::int64_t bits) {
  char text[32];
  auto const number = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
  return {text, std::to_chars(text, text + sizeof text, number).ptr};
}

/// The same for the bits of a double.
inline std::string double_words(std::int64_t bits) {
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, std::bit_cast<double>(bits)).ptr};
}

/// "no" and "yes".
inline std::string bool_words(std::int64_t value) { return value == 0 ? "no" : "yes"; }

/// No words, for a number that means nothing to a reader: that it differs is all there is to say. The name it
/// goes by is a plural, as in "the masks".
inline std::string no_words(std::int64_t) { return {}; }

/// What all ranks must be given alike: named values, of which the numbers that stand for them travel. The
/// version comes first, as the other names belong to one version.
struct Fingerprint {
  static constexpr std::size_t capacity = 32;
  std::array<std::int64_t, capacity> values = {version};
  std::array<char const*, capacity> names = {"the library's version"};
  std::array<Words, capacity> words = {};
  std::size_t count = 1;
  Text failure;  ///< why this rank cannot be constructed; empty where it can

  /// `name` is a literal, which reads well before " is 3 on rank 1"; `said` puts the number in words. Beyond
  /// the capacity nothing is added.
  constexpr void add(char const* name, std::int64_t value, Words said = nullptr) {
    if (count == capacity) return;
    names[count] = name;
    words[count] = said;
    values[count++] = value;
  }
  constexpr void add(char const* name, std::integral auto value) {
    add(name, static_cast<std::int64_t>(value));
  }
  constexpr void add(char const* name, bool value) { add(name, value ? 1 : 0, bool_words); }
  constexpr void add(char const* name, float value) {
    add(name, std::bit_cast<std::int32_t>(value == 0 ? 0 : value), float_words);
  }
  constexpr void add(char const* name, double value) {
    add(name, std::bit_cast<std::int64_t>(value == 0 ? 0 : value), double_words);
  }
};

/// A mask or schedule that names its values, so that ranks which disagree are told them:
/// `name_values(fingerprint)` adds each, under names of its own ("the window's left"), or some of them, at
/// most max_named_values. What it leaves out is compared all the same.
inline constexpr std::size_t max_named_values = 7;
template <class T>
concept NamesValues = requires(T const value, Fingerprint& fingerprint) {
  value.name_values(fingerprint);
};

/// Compares `mine` with the values of another rank: ok, or a disagreement that names the first that differs,
/// and the higher rank first, whoever compares.
inline Status compare(Fingerprint const& mine, int rank,
                      std::array<std::int64_t, Fingerprint::capacity> const& theirs, int peer) {
  for (std::size_t i = 0; i < mine.count; ++i)
    if (mine.values[i] != theirs[i])
      return {.code = Code::disagreement,
              .subject = mine.names[i],
              .have = peer > rank ? theirs[i] : mine.values[i],
              .need = peer > rank ? mine.values[i] : theirs[i],
              .peer = std::max(rank, peer),
              .second_peer = std::min(rank, peer),
              .words = mine.words[i]};
  return {};
}

/// What all ranks get where one cannot be constructed.
inline Status refusal(int rank, Text const& failure) {
  return {.code = Code::not_constructed, .peer = rank, .said = failure};
}

}  // namespace lightseq
