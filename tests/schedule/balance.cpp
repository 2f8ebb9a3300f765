// SPDX-License-Identifier: Apache-2.0
// How evenly the work falls, in visible (query, key) pairs and in tiles: exact formulas, and bounds where
// lengths are ragged.
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <random>
#include <vector>

#include "lightseq/mask/causal.hpp"
#include "lightseq/partition/catalogue.hpp"
#include "lightseq/schedule/balanced.hpp"
#include "lightseq/schedule/ring.hpp"
#include "lightseq/schedule/summary.hpp"
#include "support/data.hpp"
#include "support/masks.hpp"
#include "support/schedules.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

/// Visible pairs of each rank's work at each step, counted one by one.
template <Schedule S, Mask M>
std::vector<std::vector<int64_t>> counted_work(S const& schedule, M const& mask, int world, int64_t seqlen) {
  Planner const planner(schedule, mask, world, seqlen);
  std::vector<std::vector<int64_t>> pairs;
  for (int rank = 0; rank < world; ++rank) {
    pairs.emplace_back();
    for (int step = 0; step < schedule.steps(world); ++step) {
      int64_t count = 0;
      if (auto const work = planner.work(rank, step)) {
        Positions const queries = planner.shard(work->q), keys = planner.shard(work->kv);
        RowSpan const rows = row_span(work->rows, queries.rows());
        for (int64_t i = rows.first; i < rows.first + rows.count; ++i)
          for (int64_t j = 0; j < keys.rows(); ++j)
            count += mask.visible(queries.position(i), keys.position(j)) ? 1 : 0;
      }
      pairs.back().push_back(count);
    }
  }
  return pairs;
}

/// The sums over all steps.
std::vector<int64_t> totals(std::vector<std::vector<int64_t>> const& pairs) {
  std::vector<int64_t> sums;
  for (auto const& row : pairs) {
    sums.push_back(0);
    for (int64_t const count : row) sums.back() += count;
  }
  return sums;
}

int64_t spread(std::vector<int64_t> const& sums) {
  auto const [least, most] = std::minmax_element(sums.begin(), sums.end());
  return *most - *least;
}

/// Work of a causal schedule by rank, for the length that `length(world)` gives, with each world up to 40.
template <class S, class Length, class Check>
void for_each_world(Length length, Check check) {
  for (int world = 1; world <= 40; ++world) {
    int64_t const seqlen = length(world);
    INFO("world ", world, ", seqlen ", seqlen);
    check(world, seqlen, counted_work(S{}, Causal{}, world, seqlen));
  }
}

/// A random length, at most 6 tokens a rank.
struct Ragged {
  std::mt19937_64 random{test::run_seed()};
  int64_t operator()(int world) { return std::uniform_int_distribution<int64_t>(1, 6 * world)(random); }
};

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("visible_pairs() counts what counting one by one gives", P, pairs_are_counted) {
  std::mt19937_64 random(test::run_seed());
  test::for_each_mask([&]<Mask M>(M const& mask, char const*) {
    for (int world = 1; world <= 9; ++world) {
      int64_t const seqlen = std::uniform_int_distribution<int64_t>(1, 12 * world)(random);
      auto const table = test::random_table<P>(world, true, random);
      Planner const planner(table, mask, world, seqlen);
      auto const counted = counted_work(table, mask, world, seqlen);
      for (int rank = 0; rank < world; ++rank)
        for (int step = 0; step < table.length; ++step) {
          auto const work = planner.work(rank, step);
          CHECK((work ? visible_pairs(planner, *work) : 0) ==
                counted[static_cast<std::size_t>(rank)][static_cast<std::size_t>(step)]);
        }
    }
  });
}
TEST_CASE_TEMPLATE_APPLY(pairs_are_counted, Partitions);

TEST_CASE("a window as wide as numbers go is no window on that side") {
  constexpr int64_t widest = std::numeric_limits<int64_t>::max();
  for (int64_t const stride : {1, 3})
    for (int64_t const begin : {0, 7, 40}) {
      Segment const queries{begin, 9, stride}, keys{20, 5, stride};
      for (int64_t const left : {int64_t{0}, int64_t{6}, widest})
        for (int64_t const right : {int64_t{0}, int64_t{6}, widest}) {
          SlidingWindow const mask{left, right};
          int64_t counted = 0;
          for (int64_t q = 0; q < queries.rows; ++q)
            for (int64_t k = 0; k < keys.rows; ++k)
              counted += mask.visible(queries.begin + q * stride, keys.begin + k * stride) ? 1 : 0;
          CHECK(visible_pairs(mask, queries, keys) == counted);
        }
    }
}

namespace {

/// A mask of one's own that says the same as another, so that nothing is known of it but its answers; with
/// `lazy` it never says that all is visible.
template <Mask M>
struct Unknown {
  M mask = {};
  bool lazy = false;
  bool visible(int64_t query, int64_t key) const { return mask.visible(query, key); }
  Cover cover(Range queries, Range keys) const {
    Cover const cover = mask.cover(queries, keys);
    return lazy && cover == Cover::full ? Cover::partial : cover;
  }
};

/// Tiles with a visible pair, asked for pair by pair.
int64_t counted_tiles(auto const& mask, Segment const& q, Segment const& k, int64_t tile) {
  int64_t count = 0;
  for (int64_t i = 0; i < q.rows; i += tile)
    for (int64_t j = 0; j < k.rows; j += tile) {
      bool seen = false;
      for (int64_t row = i; row < std::min(q.rows, i + tile); ++row)
        for (int64_t column = j; column < std::min(k.rows, j + tile); ++column)
          seen = seen || mask.visible(q.position(row), k.position(column));
      count += seen ? 1 : 0;
    }
  return count;
}

}  // namespace

TEST_CASE("visible_tiles() counts the tiles that hold a visible pair") {
  std::mt19937_64 random(test::run_seed());
  auto const below = [&](int64_t bound) {
    return std::uniform_int_distribution<int64_t>(0, bound - 1)(random);
  };
  for (int run = 0; run < 400; ++run) {
    int64_t const stride = 1 + below(5), tile = 1 + below(9);
    Segment const q{below(50), below(40), stride}, k{below(50), below(40), stride};
    // A window may be narrower than a stride, so that it falls between two rows.
    int64_t const widest = below(2) == 0 ? 30 : 3;
    SlidingWindow const window{below(widest), below(widest)};
    CHECK(visible_tiles(Causal{}, q, k, tile) == counted_tiles(Causal{}, q, k, tile));
    CHECK(visible_tiles(Full{}, q, k, tile) == counted_tiles(Full{}, q, k, tile));
    CHECK(visible_tiles(window, q, k, tile) == counted_tiles(window, q, k, tile));
    // Of others cover() is asked, which is exact for rows that lie side by side.
    if (stride > 1) continue;
    test::PrefixLm const prefix{below(60)};
    CHECK(visible_tiles(prefix, q, k, tile) == counted_tiles(prefix, q, k, tile));
    Unknown<SlidingWindow> const unknown{window, run % 2 == 0};
    CHECK(visible_tiles(unknown, q, k, tile) == counted_tiles(window, q, k, tile));
    CHECK(visible_tiles(unknown, q, k, tile, 5) >= counted_tiles(window, q, k, tile));
  }
}

TEST_CASE("with too few questions pairs are sampled, not far from what is visible") {
  Segment const all{0, 20000};
  auto const close = [&](auto const& mask, int64_t exact, double error) {
    auto const wanted = static_cast<double>(exact);
    CHECK(static_cast<double>(visible_pairs(mask, all, all)) == doctest::Approx(wanted).epsilon(error));
  };
  for (bool const lazy : {false, true}) {
    close(Unknown<Causal>{{}, lazy}, visible_pairs(Causal{}, all, all), 0.02);
    SlidingWindow const window{3000, 10};
    close(Unknown<SlidingWindow>{window, lazy}, visible_pairs(window, all, all), 0.04);
  }
  CHECK(visible_pairs(Unknown<Full>{{}, true}, all, all) == all.rows * all.rows);
}

TEST_CASE("half of a square is about half of its pairs, however few the questions") {
  constexpr int64_t far = int64_t{1} << 40;
  for (int64_t const rows : {1000, 5000, 20001})
    for (int64_t const questions : {1, 5, 20, 100, 1000, 10000}) {
      CAPTURE(rows);
      CAPTURE(questions);
      Segment const all{17, rows};
      auto const half = static_cast<double>(rows) * static_cast<double>(rows + 1) / 2;
      for (bool const lazy : {false, true})
        for (SlidingWindow const& window : {SlidingWindow{far, 0}, SlidingWindow{0, far}}) {
          Unknown<SlidingWindow> const mask{window, lazy};
          CHECK(static_cast<double>(visible_pairs(mask, all, all, questions)) ==
                doctest::Approx(half).epsilon(0.02));
        }
    }
}

TEST_CASE("no more is asked of cover() than is allowed, whatever the mask and the tiles") {
  struct Counted {
    SlidingWindow window = {};
    bool lazy = false;
    int64_t* asked = nullptr;
    bool visible(int64_t query, int64_t key) const { return window.visible(query, key); }
    Cover cover(Range queries, Range keys) const {
      ++*asked;
      return lazy ? Cover::partial : window.cover(queries, keys);
    }
  };
  Segment const queries{0, 3001}, keys{40, 1777};
  for (SlidingWindow const& window : {SlidingWindow{5000, 0}, SlidingWindow{300, 20}, SlidingWindow{3, 0}})
    for (bool const lazy : {false, true})
      for (int64_t questions = 1; questions <= 20000; questions += 1 + questions / 7) {
        int64_t asked = 0;
        Counted const mask{window, lazy, &asked};
        CAPTURE(questions);
        CHECK(visible_pairs(mask, queries, keys, questions) >= 0);
        CHECK(asked <= questions);
        for (int64_t const tile : {1, 16, 128}) {
          asked = 0;
          CHECK(visible_tiles(mask, queries, keys, tile, questions) > 0);
          CHECK(asked <= questions);
        }
      }
}

TEST_CASE("masks that are never full take bounded time; their idle time counts tiles") {
  auto const begin = std::chrono::steady_clock::now();
  test::EqualDocuments const documents{300, true};
  Unknown<test::EqualDocuments> const lazy{documents, true};
  for (int const world : {1, 8, 64}) {
    // Striped tiles span many documents and are all visible in part; a ring of whole chunks has few tiles.
    Planner const striped(StripedRing{}, lazy, world, int64_t{1} << 20);
    CHECK(idle_fraction(striped) >= 0);
    Planner const ring(Ring{}, lazy, world, int64_t{1} << 20);
    CHECK(idle_fraction(ring) < 1);
  }
  Planner const striped(StripedRing{}, documents, 8, 65536);
  Planner const zigzag(ZigzagRing{}, documents, 8, 65536);
  double striped_tiles = 0, zigzag_tiles = 0;
  for (int rank = 0; rank < 8; ++rank)
    for (int step = 0; step < 8; ++step) {
      if (auto const work = striped.work(rank, step)) striped_tiles += visible_tiles(striped, *work, 128);
      if (auto const work = zigzag.work(rank, step)) zigzag_tiles += visible_tiles(zigzag, *work, 128);
    }
  CHECK(striped_tiles > 2 * zigzag_tiles);
  std::chrono::duration<double> const seconds = std::chrono::steady_clock::now() - begin;
  CHECK(seconds.count() < 10);
}

TEST_CASE("sequences as long as 54 bits count: pairs up to 63 bits, tiles and idle time beyond") {
  constexpr int64_t most = std::numeric_limits<int64_t>::max();
  int64_t const longest = int64_t{1} << 54;
  Segment const all{0, longest}, strided{5, longest / 8, 8};
  CHECK(visible_pairs(Full{}, all, all) == most);
  CHECK(visible_pairs(Causal{}, all, all) == most);
  CHECK(visible_pairs(SlidingWindow{most, most}, all, all) == most);
  CHECK(visible_pairs(Unknown<Causal>{}, all, all) == most);
  CHECK(visible_pairs(SlidingWindow{99, 0}, all, all) == 100 * longest - 99 * 100 / 2);
  CHECK(visible_pairs(SlidingWindow{8, 0}, strided, strided) == 2 * strided.rows - 1);
  auto const tiles = static_cast<double>(longest / 128);
  CHECK(visible_tiles(Full{}, all, all, 128) == tiles * tiles);
  CHECK(visible_tiles(Causal{}, all, all, 128) == tiles * (tiles + 1) / 2);
  CHECK(visible_tiles(SlidingWindow{128, 0}, all, all, 128) == 2 * tiles - 1);
  CHECK(visible_tiles(Causal{}, all, all, most) == 1);
  CHECK(visible_tiles(Unknown<Causal>{}, all, all, most) == 1);
  CHECK(idle_fraction(Planner(Balanced{}, Causal{}, 8, longest)) == 0);
  CHECK(idle_fraction(Planner(ZigzagRing{}, Causal{}, 8, longest)) == 0);
  CHECK(idle_fraction(Planner(Ring{}, Causal{}, 8, longest)) == doctest::Approx(7.0 / 15));
  CHECK(idle_fraction(Planner(StripedRing{}, Unknown<Causal>{}, 8, longest)) >= 0);
}

TEST_CASE("idle_fraction() is the waiting for the busiest rank of each step") {
  std::mt19937_64 random(test::run_seed());
  for (int world = 1; world <= 9; ++world) {
    auto const table = test::random_table<Zigzag>(world, true, random);
    auto const counted = counted_work(table, Causal{}, world, 7 * world + 1);
    double busy = 0, span = 0;
    for (std::size_t step = 0; step < counted[0].size(); ++step) {
      int64_t longest = 0;
      for (auto const& row : counted) {
        busy += static_cast<double>(row[step]);
        longest = std::max(longest, row[step]);
      }
      span += static_cast<double>(longest);
    }
    CHECK(idle_fraction(Planner(table, Causal{}, world, 7 * world + 1), 1) ==
          doctest::Approx(1 - busy / (span * world)));
  }
  CHECK(idle_fraction(Planner(test::Table<Contiguous>{1, {{std::nullopt}}}, Causal{}, 1, 4)) == 0);
}

TEST_CASE("Balanced: all ranks have the same work at every step if 2 * world divides the length") {
  for (int64_t const half : {1, 2, 3, 5})
    for_each_world<Balanced>(
        [&](int world) { return 2 * world * half; },
        [&](int world, int64_t seqlen, auto const& pairs) {
          int64_t const n = 2 * half;  // tokens of a rank
          for (auto const& row : pairs)
            for (int step = 0; step <= world / 2; ++step)
              CHECK(row[static_cast<std::size_t>(step)] == (step == 0           ? n * (n + 1) / 2
                                                            : 2 * step == world ? n * n / 2
                                                                                : n * n));
          CHECK(totals(pairs)[0] * world == seqlen * (seqlen + 1) / 2);
          CHECK(idle_fraction(Planner(Balanced{}, Causal{}, world, seqlen)) == 0);
        });
}

TEST_CASE("Balanced: for odd worlds it is enough that the world divides the length") {
  for (int world = 1; world <= 41; world += 2)
    for (int64_t const n : {1, 3, 5})
      CHECK(idle_fraction(Planner(Balanced{}, Causal{}, world, n * world)) == 0);
}

TEST_CASE("Balanced: ragged lengths cost no more than the raggedness of the shards") {
  // Shards have n or n + 1 tokens. So a rank's diagonals differ by n + 1 pairs, a block of all rows by
  // (n + 1)^2 - n^2, and the last one of an even world lies between floor(n / 2) n and ceil((n + 1) / 2)(n +
  // 1).
  Ragged length;
  for (int run = 0; run < 4; ++run)
    for_each_world<Balanced>(std::ref(length), [](int world, int64_t seqlen, auto const& pairs) {
      int64_t const n = seqlen / world;
      int64_t const blocks = (world - 1) / 2;
      int64_t const last = world % 2 == 0 ? (n + 2) / 2 * (n + 1) - n / 2 * n : 0;
      CHECK(spread(totals(pairs)) <= n + 1 + blocks * (2 * n + 1) + last);
    });
}

TEST_CASE("ZigzagRing: all ranks have the same work at every step if 2 * world divides the length") {
  for (int64_t const c : {1, 2, 5})  // tokens of a chunk
    for_each_world<ZigzagRing>(
        [&](int world) { return 2 * world * c; },
        [&](int world, int64_t seqlen, auto const& pairs) {
          for (auto const& row : pairs)
            for (int step = 0; step < world; ++step)
              CHECK(row[static_cast<std::size_t>(step)] == 2 * c * c + (step == 0 ? c : 0));
          CHECK(idle_fraction(Planner(ZigzagRing{}, Causal{}, world, seqlen)) == 0);
        });
}

TEST_CASE("ZigzagRing: ragged lengths cost no more than the raggedness of the chunks") {
  // Chunks have c or c + 1 tokens, and before a rank's two there are 2 world - 1 chunks together. So its work
  // is at least (2 world - 1) c^2 + c (c + 1), and at most that with c + 1 for c.
  Ragged length;
  for (int run = 0; run < 4; ++run)
    for_each_world<ZigzagRing>(std::ref(length), [](int world, int64_t seqlen, auto const& pairs) {
      int64_t const c = seqlen / (2 * world);
      CHECK(spread(totals(pairs)) <= (2 * world - 1) * (2 * c + 1) + 2 * (c + 1));
    });
}

TEST_CASE("StripedRing: neighbours differ by one pair a row") {
  for (int64_t const m : {1, 2, 5})
    for_each_world<StripedRing>(
        [&](int world) { return m * world; },
        [&](int world, int64_t seqlen, auto const& pairs) {
          auto const sums = totals(pairs);
          for (int rank = 0; rank < world; ++rank)
            CHECK(sums[static_cast<std::size_t>(rank)] == m * (rank + 1) + world * m * (m - 1) / 2);
          // Tile by tile all are alike: those on the diagonal are visible in part, whoever's keys they are.
          if (m > 1) CHECK(idle_fraction(Planner(StripedRing{}, Causal{}, world, seqlen)) == 0);
          CHECK(idle_fraction(Planner(StripedRing{}, Causal{}, world, seqlen), 1) ==
                doctest::Approx((world - 1.0) / static_cast<double>(seqlen + world)).epsilon(1e-12));
        });
  Ragged length;
  for_each_world<StripedRing>(std::ref(length), [](int, int64_t seqlen, auto const& pairs) {
    CHECK(spread(totals(pairs)) <= seqlen);
  });
}

TEST_CASE("Ring: under a causal mask the work grows with the rank and about half of the time is lost") {
  for (int64_t const n : {1, 2, 5})
    for_each_world<Ring>([&](int world) { return n * world; },
                         [&](int world, int64_t seqlen, auto const& pairs) {
                           auto const sums = totals(pairs);
                           for (int rank = 0; rank < world; ++rank)
                             CHECK(sums[static_cast<std::size_t>(rank)] == rank * n * n + n * (n + 1) / 2);
                           auto const total = static_cast<double>(seqlen * (seqlen + 1) / 2);
                           auto const span =
                               static_cast<double>(world * ((world - 1) * n * n + n * (n + 1) / 2));
                           CHECK(idle_fraction(Planner(Ring{}, Causal{}, world, seqlen), 1) ==
                                 doctest::Approx(1 - total / span).epsilon(1e-12));
                         });
  // Large shards: (world - 1) / (2 world - 1).
  CHECK(idle_fraction(Planner(Ring{}, Causal{}, 64, 64 * 65536)) ==
        doctest::Approx(63.0 / 127).epsilon(1e-4));
  CHECK(idle_fraction(Planner(Ring{}, Full{}, 64, 64)) == 0);
}
