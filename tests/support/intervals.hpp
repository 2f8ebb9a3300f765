// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <random>
#include <vector>

#include "lightseq/mask/intervals.hpp"

namespace lightseq::test {

/// Any range of so many keys; in one of four cases an empty one.
inline Range random_range(std::mt19937_64& random, std::int64_t keys) {
  std::uniform_int_distribution<std::int64_t> bound(0, keys);
  std::int64_t const a = bound(random), b = random() % 4 == 0 ? a : bound(random);
  return {std::min(a, b), std::max(a, b)};
}

/// Rows in groups of 1 to `longest`, in each of which bounds stay or move on with the row, as far as there
/// are keys: ranges in any order, which overlap, touch or are empty.
inline std::vector<Intervals::Row> random_rows(std::mt19937_64& random, std::int64_t count,
                                               std::int64_t longest) {
  std::vector<Intervals::Row> rows;
  while (std::ssize(rows) < count) {
    Intervals::Row row{random_range(random, count), random_range(random, count)};
    std::int64_t const moves = static_cast<std::int64_t>(random() % 16);
    std::int64_t left = std::uniform_int_distribution<std::int64_t>(1, longest)(random);
    for (; left > 0 && std::ssize(rows) < count; --left) {
      rows.push_back(row);
      for (int i = 0; i < 2; ++i) {
        auto& [begin, end] = row[static_cast<std::size_t>(i)];
        end = std::min(count, end + (moves >> (2 * i) & 1));
        begin = std::min(end, begin + (moves >> (2 * i + 1) & 1));
      }
    }
  }
  return rows;
}

}  // namespace lightseq::test
