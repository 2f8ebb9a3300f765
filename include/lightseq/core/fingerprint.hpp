// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
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

/// What stands for an element that a list does not have, and its word.
inline constexpr std::int64_t missing_element = -1;
inline std::string element_words(std::int64_t value) {
  return value == missing_element ? "missing" : std::to_string(value);
}

/// What all ranks must be given alike: named values, of which the numbers that stand for them travel. The
/// version comes first, as the other names belong to one version. And a list of numbers, none of them
/// negative, of which the first that differs is found, before any value.
struct Fingerprint {
  static constexpr std::size_t capacity = 32;
  std::array<std::int64_t, capacity> values = {version};
  std::array<char const*, capacity> names = {"the library's version"};
  std::array<Words, capacity> words = {};
  std::size_t count = 1;
  Text failure = {};                        ///< why this rank cannot be constructed; empty where it can
  std::span<std::int64_t const> list = {};  ///< the caller's, who keeps it while ranks agree
  char const* element_name = "element";     ///< a literal, which reads well before " 3 is 7 on rank 1"

  /// An element of the list, or missing_element after its end.
  constexpr std::int64_t element(std::int64_t i) const {
    return i < std::ssize(list) ? list[static_cast<std::size_t>(i)] : missing_element;
  }

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

/// What all ranks get where `name` is `mine` on a rank and `theirs` on another: the higher rank first,
/// whoever compares.
inline Status disagreement(char const* name, std::int64_t mine, int rank, std::int64_t theirs, int peer,
                           Words words) {
  return {.code = Code::disagreement,
          .subject = name,
          .have = peer > rank ? theirs : mine,
          .need = peer > rank ? mine : theirs,
          .peer = std::max(rank, peer),
          .second_peer = std::min(rank, peer),
          .words = words};
}

/// The same where it is an element of a list.
inline Status disagreement(char const* name, std::int64_t element, std::int64_t mine, int rank,
                           std::int64_t theirs, int peer) {
  Status status = disagreement(name, mine, rank, theirs, peer, element_words);
  status.element = element;
  return status;
}

/// Compares `mine` with the values of another rank: ok, or a disagreement that names the first that differs.
inline Status compare(Fingerprint const& mine, int rank,
                      std::array<std::int64_t, Fingerprint::capacity> const& theirs, int peer) {
  for (std::size_t i = 0; i < mine.count; ++i)
    if (mine.values[i] != theirs[i])
      return disagreement(mine.names[i], mine.values[i], rank, theirs[i], peer, mine.words[i]);
  return {};
}

/// Compares the lists of two ranks: ok, or a disagreement that names the first element that differs.
inline Status compare_lists(Fingerprint const& mine, int rank, Fingerprint const& theirs, int peer) {
  char const* const name = mine.list.empty() ? theirs.element_name : mine.element_name;
  for (std::int64_t i = 0; i < std::max(std::ssize(mine.list), std::ssize(theirs.list)); ++i)
    if (mine.element(i) != theirs.element(i))
      return disagreement(name, i, mine.element(i), rank, theirs.element(i), peer);
  return {};
}

/// What all ranks get where one cannot be constructed.
inline Status refusal(int rank, Text const& failure) {
  return {.code = Code::not_constructed, .peer = rank, .said = failure};
}

}  // namespace lightseq
