// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/range.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
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

/// Every range of the positions below `end`, the last of them an empty one.
std::vector<Range> every_range(int64_t end) {
  std::vector<Range> ranges;
  for (int64_t i = 0; i < end; ++i)
    for (int64_t j = i + 1; j <= end; ++j) ranges.push_back({i, j});
  ranges.push_back({});
  return ranges;
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

TEST_CASE("ranges touch where they share a position, and are joined in the smallest that holds both") {
  for (int64_t a = 0; a < 5; ++a)
    for (int64_t b = 0; b < 7; ++b)
      for (int64_t c = 0; c < 5; ++c)
        for (int64_t d = 0; d < 7; ++d) {
          Range const one{a, b}, other{c, d}, both = one.joined(other);
          auto const in = [](Range const& r, int64_t i) { return r.begin <= i && i < r.end; };
          bool shared = false, held = true;
          for (int64_t i = 0; i < 7; ++i) {
            shared = shared || (in(one, i) && in(other, i));
            held = held && (in(both, i) || (!in(one, i) && !in(other, i)));
          }
          auto const needed = [&](int64_t i) { return in(one, i) || in(other, i); };
          CHECK(one.touches(other) == shared);
          CHECK(held);
          CHECK((both.empty() || (needed(both.begin) && needed(both.end - 1))));
          CHECK(both.empty() == (one.empty() && other.empty()));
        }
}

namespace {

/// The tiles of a segment whose hulls share a position with a range, one by one.
std::vector<int64_t> touched(Segment const& segment, int64_t size, Range const& range) {
  std::vector<int64_t> tiles;
  for (int64_t first = 0; first < segment.rows; first += size)
    if (segment.slice(first, std::min(size, segment.rows - first)).hull().touches(range))
      tiles.push_back(first / size);
  return tiles;
}

template <class Int>
bool holds(TileSpan<Int> const& span, std::vector<int64_t> const& tiles) {
  bool same = span.size() == static_cast<Int>(tiles.size());
  for (std::size_t i = 0; same && i < tiles.size(); ++i)
    same = tiles[i] == span.begin + static_cast<int64_t>(i);
  return same;
}

}  // namespace

TEST_CASE("the tiles within a range are those whose hulls touch it, for every stride, offset and size") {
  constexpr int64_t far = std::numeric_limits<int64_t>::max(), before = std::numeric_limits<int64_t>::min();
  bool narrow = true, wide = true;
  for (int const begin : {0, 1, 5})
    for (int stride = 1; stride <= 4; ++stride)
      for (int rows = 0; rows <= 9; ++rows)
        for (int const size : {1, 2, 3, 8}) {
          Segment const segment{begin, rows, stride};
          auto const check = [&](Range const& range) {
            std::vector<int64_t> const want = touched(segment, size, range);
            wide = wide && holds(tiles_within(segment, size, range), want);
            narrow = narrow && holds(tiles_within<int>(begin, stride, rows, size, range), want);
          };
          for (int64_t from = -3; from < 45; ++from) {
            for (int64_t to = from - 2; to < 46; ++to) check({from, to});
            check({from, far}), check({before, from}), check({from, before});
          }
          check({before, far}), check({0, far}), check({far, far}), check(Range::everything());
        }
  CHECK(narrow);
  CHECK(wide);
}

TEST_CASE("positions as large as a launch may have are counted right in 32 bits") {
  constexpr int last = std::numeric_limits<int>::max() / 2;
  for (int const stride : {1, 7, 1 << 20})
    for (int const size : {1, 80, 128}) {
      int const rows = last / stride + 1;
      Segment const segment{0, rows, stride};
      for (int64_t const from : {int64_t{0}, int64_t{last} / 3, int64_t{last}, int64_t{last} + 1})
        for (int64_t const length : {int64_t{1}, int64_t{1000}, int64_t{1} << 50}) {
          Range const range{from, from + length};
          auto const want = tiles_within(segment, size, range);
          auto const got = tiles_within<int>(0, stride, rows, size, range);
          CHECK(got.begin == want.begin);
          CHECK(got.end == want.end);
        }
    }
}

TEST_CASE("the tiles of a shard within a range are in its span, which is tight where segments ascend") {
  for (int64_t const gap : {0, 4, -20})
    for (int64_t first = 0; first <= 7; ++first)
      for (int64_t second = 0; second <= 7; ++second)
        for (int64_t const stride : {1, 2})
          for (int64_t const size : {1, 3}) {
            int64_t const end = 20 + first * stride;
            Positions const shard{{{20, first, stride}, {gap < 0 ? 0 : end + gap, second, stride}}};
            for (int64_t from = 0; from < 50; ++from)
              for (int64_t to = from; to < 55; to += 3) {
                std::vector<int64_t> want = touched(shard.segments[0], size, {from, to});
                for (int64_t const tile : touched(shard.segments[1], size, {from, to}))
                  want.push_back((first + size - 1) / size + tile);
                auto const span = tiles_within(shard, size, {from, to});
                bool right =
                    want.empty() ? span.size() == 0 : span.begin <= want.front() && span.end > want.back();
                if (gap >= 0 && !want.empty())
                  right = right && span.begin == want.front() && span.end == want.back() + 1;
                CHECK(right);
              }
          }
}

TEST_CASE("joined pairs of ranges hold both, with a gap where both have one") {
  std::vector<RangePair> pairs;
  for (Range const& first : every_range(6))
    for (Range const& second : every_range(6))
      if (second.empty() || first.end < second.begin) pairs.push_back({first, second});
  bool holds = true, least = true;
  for (RangePair const& a : pairs)
    for (RangePair const& b : pairs) {
      RangePair const both = a.joined(b);
      for (int64_t i = 0; i < 6; ++i) {
        Range const position{i, i + 1};
        holds = holds && (both.touches(position) || !(a.touches(position) || b.touches(position)));
      }
      holds = holds && (both.second.empty() || both.first.end < both.second.begin);
      least = least && both.hull() == a.hull().joined(b.hull());
      Range const gap{std::max(a.first.end, b.first.end), std::min(a.second.begin, b.second.begin)};
      if (!a.second.empty() && !b.second.empty() && !gap.empty()) least = least && !both.touches(gap);
    }
  CHECK(holds);
  CHECK(least);
}

TEST_CASE("spans of tiles that are put apart have the tiles of both, none twice") {
  bool right = true;
  for (Range const& a : every_range(6))
    for (Range const& b : every_range(6)) {
      auto const span = [](Range const& range) { return TileSpan<int64_t>{range.begin, range.end}; };
      auto const has = [](TileSpan<int64_t> const& of, int64_t tile) {
        return of.begin <= tile && tile < of.end;
      };
      auto const [first, second] = apart(span(a), span(b));
      for (int64_t tile = 0; tile < 6; ++tile) {
        right = right && (has(first, tile) || has(second, tile) || !(a.contains(tile) || b.contains(tile)));
        right = right && !(has(first, tile) && has(second, tile));
      }
      right = right && (second.size() == 0 || first.end <= second.begin);
      if (!a.empty() && !b.empty() && a.end <= b.begin)
        right = right && first == span(a) && second == span(b);
      if (a.empty() || b.empty()) right = right && first == span(a.joined(b)) && second.size() == 0;
    }
  CHECK(right);
}
