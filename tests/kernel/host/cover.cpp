// SPDX-License-Identifier: Apache-2.0
#include "kernel/host/laws.hpp"
#include "lightseq/mask/intervals.hpp"

namespace lightseq::test {

constexpr int dim = 8;

/// Both passes of the mask over a whole sequence; returns how many pairs they asked for.
std::int64_t asked(AnyMask const& mask, std::int64_t tokens) {
  Positions const positions{{{0, tokens}}};
  Case<dim, float> const c(positions, positions);
  std::int64_t const before = mask.asked();
  run(c, mask);
  return mask.asked() - before;
}

TEST_CASE("full and hidden tiles ask for no pair") {
  CHECK(asked({Full{}, "full"}, 700) == 0);
  CHECK(asked({SlidingWindow{5000, 5000}, "a window wider than the sequence"}, 700) == 0);
}

TEST_CASE("a causal mask asks for pairs near the diagonal only: twice the tokens, twice the pairs") {
  AnyMask const causal(Causal{}, "causal");
  double const small = static_cast<double>(asked(causal, 1000));
  double const large = static_cast<double>(asked(causal, 4000));
  CHECK(small >= 1000);
  CHECK(large / small > 3.5);
  CHECK(large / small < 4.5);
}

TEST_CASE("a cover that never helps asks for every pair once in each pass") {
  CHECK(asked({Holes{}, "holes"}, 333) == 2 * 333 * 333);
}

/// How often both passes ask about a tile, of two heads that share keys.
std::int64_t asked_tiles(AnyMask const& mask, Positions const& queries, Positions const& keys) {
  Case<dim, float> const c(queries, keys, 1, 2, 1);
  std::int64_t const before = mask.asked_tiles();
  run(c, mask);
  return mask.asked_tiles() - before;
}

TEST_CASE("a window asks about the tiles it shows: four times the tokens, four times the questions") {
  AnyMask const window(SlidingWindow{100, 20}, "window");
  auto const shards = [](std::int64_t tokens) {
    return std::vector<Positions>{
        {{{0, tokens, 1}, {}}}, {{{0, tokens / 2, 1}, {1 << 30, tokens / 2, 1}}}, {{{3, tokens, 4}, {}}}};
  };
  std::vector<Positions> const few = shards(10'000), many = shards(40'000);
  for (std::size_t i = 0; i < few.size(); ++i) {
    auto const small = static_cast<double>(asked_tiles(window, few[i], few[i]));
    auto const large = static_cast<double>(asked_tiles(window, many[i], many[i]));
    // A tile of 48 rows and its window reach over 6 tiles of 64, those of its group over some more.
    CHECK(small < 2 * 2 * (10'000.0 / 48 + 10) * 10);
    CHECK(large / small > 3.5);
    CHECK(large / small < 4.5);
  }
  CHECK(asked_tiles(window, {{{0, 20'000, 1}, {}}}, {{{1 << 20, 20'000, 1}, {}}}) == 0);
}

/// Intervals that count what the kernels ask about.
struct CountedIntervals : IntervalsView {
  mutable std::int64_t asked = 0;
  Cover cover(Range queries, Range keys) const {
    ++asked;
    return IntervalsView::cover(queries, keys);
  }
};

TEST_CASE("documents that share a prefix ask about no key between it and them") {
  std::int64_t asked[2];
  for (int i : {0, 1}) {
    std::int64_t const tokens = 10'000 * (1 + 3 * i);
    std::vector<std::int64_t> ends{50};
    while (ends.back() < tokens) ends.push_back(std::min(tokens, ends.back() + 400));
    Positions const half{{{0, tokens / 2, 1}, {tokens / 2, tokens / 2, 1}}};
    Case<dim, float> const c(half, half);
    Intervals const mask = Intervals::shared_prefix(ends);
    CountedIntervals const counted{mask.view()};
    run(c, counted);
    asked[i] = counted.asked;
    // In the forward a tile of 48 queries has at most 9 + 2 key tiles of 64, those of its group some more; in
    // the backward the prefix is seen by all, and a document by itself.
    CHECK(asked[i] < tokens / 48 * 40);
  }
  CHECK(asked[1] < 4.5 * static_cast<double>(asked[0]));
}

/// Lies that nothing is hidden, or that everything is, where `visible` says otherwise.
template <Cover answer>
struct Liar {
  static constexpr bool visible(std::int64_t query, std::int64_t key) { return Holes::visible(query, key); }
  static constexpr Cover cover(Range, Range) { return answer; }
};

TEST_CASE("the kernels believe cover") {
  Positions const positions = Zigzag::shard(0, 2, 250);
  Case<dim, float> const c(positions, positions);
  CHECK(run(c, Liar<Cover::full>{}) == run(c, Full{}));
  auto const none = run(c, Liar<Cover::none>{});
  for (auto const* zero : {&none.o, &none.dq, &none.dk, &none.dv})
    CHECK(std::all_of(zero->begin(), zero->end(), [](float x) { return x == 0; }));
}

/// Remembers that a hull was asked for that holds tokens of two distant segments.
struct Gap {
  std::int64_t begin, end;
  mutable bool straddled = false;
  bool visible(std::int64_t, std::int64_t) const { return true; }
  Cover cover(Range queries, Range keys) const {
    for (Range const& r : {queries, keys})
      if (r.empty() || (r.begin < begin && r.end > end)) straddled = true;
    return Cover::full;
  }
};

TEST_CASE("no tile straddles the segments of a shard, and none is empty") {
  for (int i = 0; i < 10; ++i) {
    Positions const zigzag{{{0, random_between(0, 200)}, {100000, random_between(0, 200)}}};
    Case<dim, float> const c(zigzag, zigzag);
    Gap const gap{50000, 60000};
    run(c, gap);
    CHECK(!gap.straddled);
  }
}

TEST_CASE("tiles hold every row of a shard once, in order, at its position") {
  for (int size : {1, 7, 48, 64})
    for (int i = 0; i < 50; ++i) {
      Positions const shard{
          {{3, random_between(0, 200), random_between(1, 3)}, {5000, random_between(0, 200), 2}}};
      std::int64_t row = 0;
      bool right = true;
      for (std::int64_t t = 0; t < tiles_of(shard, size); ++t) {
        ShardTile const tile = tile_at(shard, size, t);
        right = right && tile.first == row && tile.rows >= 1 && tile.rows <= size &&
                tile.positions.rows == tile.rows;
        for (int r = 0; r < tile.rows; ++r, ++row)
          right = right && tile.positions.position(r) == shard.position(row);
      }
      CHECK(right);
      CHECK(row == shard.rows());
    }
}

}  // namespace lightseq::test
