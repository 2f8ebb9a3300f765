// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include "lightseq/core/status.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/core/version.hpp"

namespace lightseq {

/// What all ranks must be given alike: named numbers, of which the values travel. The version comes first, as
/// the other names are those of one version.
struct Terms {
  static constexpr std::size_t capacity = 16;
  std::array<std::int64_t, capacity> values = {version};
  std::array<char const*, capacity> names = {"the library's version"};
  std::size_t count = 1;
  Text failure;  ///< why this rank cannot be constructed; empty where it can

  /// `name` is a literal; at most 15 can be added.
  constexpr void add(char const* name, std::int64_t value) {
    names[count] = name;
    values[count++] = value;
  }
};

/// Compares `mine` with the values of another rank: ok, or a disagreement that names the first that differs.
inline Status compare(Terms const& mine, int rank, std::array<std::int64_t, Terms::capacity> const& theirs,
                      int peer) {
  for (std::size_t i = 0; i < mine.count; ++i)
    if (mine.values[i] != theirs[i])
      return {.code = Code::disagreement,
              .subject = mine.names[i],
              .have = theirs[i],
              .need = mine.values[i],
              .peer = peer,
              .native = rank};
  return {};
}

/// What all ranks get where one cannot be constructed.
inline Status refusal(int rank, Text const& failure) {
  return {.code = Code::not_constructed, .peer = rank, .said = failure};
}

}  // namespace lightseq
