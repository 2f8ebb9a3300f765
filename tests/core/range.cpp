// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/range.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <vector>

using namespace lightseq;
using std::int64_t;

namespace {

/// The positions, one by one.
std::vector<int64_t> listed(Positions const& positions) {
  std::vector<int64_t> list;
  for (Segment const& s : positions.segments)
    for (int64_t row = 0; row < s.rows; ++row) list.push_back(s.begin + row * s.stride);
  return list;
}

}  // namespace

TEST_CASE("a range knows its size") {
  for (int64_t begin = 0; begin < 5; ++begin)
    for (int64_t end = begin; end < 9; ++end) {
      CHECK(Range{begin, end}.size() == end - begin);
      CHECK(Range{begin, end}.empty() == (begin == end));
    }
  CHECK(Range{3, 2}.empty());
}

TEST_CASE("a segment's hull is the smallest range that holds its positions") {
  for (int64_t begin = 0; begin < 4; ++begin)
    for (int64_t rows = 0; rows < 6; ++rows)
      for (int64_t stride = 1; stride < 4; ++stride) {
        Segment const segment{begin, rows, stride};
        Range const hull = segment.hull();
        CHECK(hull.empty() == (rows == 0));
        if (rows == 0) continue;
        CHECK(hull.begin == segment.position(0));
        CHECK(hull.end == segment.position(rows - 1) + 1);
      }
}

TEST_CASE("every slice of positions has the positions of its rows") {
  std::vector<Segment> segments;
  for (int64_t const rows : {0, 1, 2, 5})
    for (int64_t const stride : {1, 3}) segments.push_back({7, rows, stride});
  for (Segment const& first : segments)
    for (Segment second : segments) {
      second.begin = 100;
      Positions const positions{{first, second}};
      std::vector<int64_t> const all = listed(positions);
      REQUIRE(positions.rows() == static_cast<int64_t>(all.size()));
      for (std::size_t row = 0; row < all.size(); ++row)
        CHECK(positions.position(static_cast<int64_t>(row)) == all[row]);
      for (std::size_t from = 0; from <= all.size(); ++from)
        for (std::size_t count = 0; from + count <= all.size(); ++count) {
          Positions const slice = positions.slice(static_cast<int64_t>(from), static_cast<int64_t>(count));
          auto const begin = all.begin() + static_cast<std::ptrdiff_t>(from);
          CHECK(listed(slice) == std::vector<int64_t>(begin, begin + static_cast<std::ptrdiff_t>(count)));
          CHECK(slice.rows() == static_cast<int64_t>(count));
          for (Segment const& s : slice.segments) CHECK(s.rows >= 0);
        }
    }
}
