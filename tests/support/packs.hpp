// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

namespace lightseq::test {

/// The ends of documents of 1 to `longest` tokens that fill so many tokens.
inline std::vector<std::int64_t> random_ends(std::mt19937_64& random, std::int64_t tokens,
                                             std::int64_t longest) {
  std::vector<std::int64_t> ends;
  for (std::int64_t end = 0; end < tokens;) {
    end = std::min(tokens, end + std::uniform_int_distribution<std::int64_t>(1, longest)(random));
    ends.push_back(end);
  }
  return ends;
}

}  // namespace lightseq::test
