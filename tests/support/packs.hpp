// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <random>
#include <vector>

#include "bench/support/packs.hpp"

namespace lightseq::test {

/// The ends of documents of 1 to `longest` tokens that fill so many tokens.
inline std::vector<std::int64_t> random_ends(std::mt19937_64& random, std::int64_t tokens,
                                             std::int64_t longest) {
  std::uniform_int_distribution<std::int64_t> length(1, longest);
  return bench::ends_of(tokens, [&] { return length(random); });
}

}  // namespace lightseq::test
