// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <string>
#include <type_traits>

#include "laws/mask.hpp"
#include "lightseq/mask/laws.hpp"
#include "lightseq/partition/contiguous.hpp"
#include "support/data.hpp"
#include "support/masks.hpp"

using namespace lightseq;
using std::int64_t;

TEST_CASE("cover() agrees with visible(), for every mask") {
  test::for_each_mask([](auto const& mask, char const* name) {
    INFO("mask ", std::string(name));
    test::check_mask(mask, false);
  });
}

TEST_CASE_TEMPLATE_DEFINE("cover() is never partial without need, and bounds are tight", M, tight) {
  for (M const& mask : test::samples<M>()) test::check_mask(mask, true);
}
TEST_CASE_TEMPLATE_APPLY(tight, Masks);
TEST_CASE_TEMPLATE_INVOKE(tight, test::PrefixLm);

TEST_CASE(
    "SlidingWindow: cover() agrees with visible(), and is never partial without need, for all small "
    "windows") {
  for (int64_t left = 0; left <= 13; ++left)
    for (int64_t right = 0; right <= 13; ++right) test::check_mask(SlidingWindow{left, right}, true, 12);
}

namespace {

/// A mask that is wrong at the corner of a rectangle, and one that never commits itself.
struct TooFull : Causal {
  static Cover cover(Range queries, Range keys) {
    return keys.end <= queries.begin + 2 ? Cover::full : Causal::cover(queries, keys);
  }
};
struct TooEmpty : Causal {
  static Cover cover(Range queries, Range keys) {
    return keys.begin + 1 >= queries.end ? Cover::none : Causal::cover(queries, keys);
  }
};
struct Lazy : Causal {
  static Cover cover(Range, Range) { return Cover::partial; }
};

/// Bounds that miss the diagonal, that are too wide, and that shrink where a range grows.
struct TooNarrow : Causal {
  static constexpr bool exact_rows = false;
  static Range keys_of(Range queries) { return {0, queries.end - 1}; }
};
struct TooWide : Causal {
  static constexpr bool exact_rows = false;
  static Range queries_of(Range) { return Range::everything(); }
};
struct Shrinking : Causal {
  static Range keys_of(Range queries) { return {0, queries.end + (queries.size() == 1 ? 2 : 0)}; }
};

/// One that says partial whenever it is asked, with bounds that tell more, and two of which one alone does.
struct LazyWindow : SlidingWindow {
  static Cover cover(Range, Range) { return Cover::partial; }
};
struct WithKeys : LazyWindow {
  static Range queries_of(Range) { return Range::everything(); }
};
struct WithQueries : LazyWindow {
  static Range keys_of(Range) { return Range::everything(); }
};

}  // namespace

TEST_CASE("the law of masks notices a wrong cover()") {
  CHECK(test::count_covers(TooFull{}, 6).wrong > 0);
  CHECK(test::count_covers(TooEmpty{}, 6).wrong > 0);
  CHECK(test::count_covers(Lazy{}, 6).wrong == 0);
  CHECK(test::count_covers(Lazy{}, 6).lazy > 0);
}

TEST_CASE("first_fault() finds nothing wrong with good masks, of however many positions") {
  for (int64_t const positions : {int64_t{1}, int64_t{2}, int64_t{50}, int64_t{3000}, int64_t{1} << 40})
    test::for_each_mask([&](auto const& mask, char const* name) {
      INFO("mask ", std::string(name), ", positions ", positions);
      CHECK(laws::first_fault(mask, positions, test::run_seed()) == "");
    });
  CHECK(laws::first_fault(SlidingWindow{1000, 7}, 1 << 20, test::run_seed()) == "");
  CHECK(laws::first_fault(Lazy{}, 5000, test::run_seed()) == "");
}

namespace {

/// A window whose cover() takes it for wider, or for narrower, by so much, in rectangles of at least `rows`
/// rows and columns.
struct Misjudged {
  SlidingWindow window = {};
  int64_t by = 0, rows = 0;
  bool visible(int64_t query, int64_t key) const { return window.visible(query, key); }
  Cover cover(Range queries, Range keys) const {
    SlidingWindow taken = window;
    if (std::min(queries.size(), keys.size()) >= rows) taken.left += by;
    return taken.cover(queries, keys);
  }
};

/// Whether a fault's sentence is true of the mask.
template <Mask M>
bool is_true(M const& mask, std::string const& fault) {
  long long q0 = 0, q1 = 0, k0 = 0, k1 = 0, query = 0, key = 0;
  bool const none = fault.find("is none") != fault.npos;
  char const* const format =
      none ? "cover([%lld, %lld), [%lld, %lld)) is none, but query %lld sees key %lld"
           : "cover([%lld, %lld), [%lld, %lld)) is full, but query %lld does not see key %lld";
  if (std::sscanf(fault.c_str(), format, &q0, &q1, &k0, &k1, &query, &key) != 6) return false;
  bool const inside = q0 <= query && query < q1 && k0 <= key && key < k1;
  return inside && mask.cover({q0, q1}, {k0, k1}) == (none ? Cover::none : Cover::full) &&
         mask.visible(query, key) == none;
}

}  // namespace

namespace {

/// A window whose bounds are too narrow by so much, on one side of one of them.
struct Misbound : SlidingWindow {
  int64_t keys = 0, queries = 0;
  Range keys_of(Range of) const { return SlidingWindow{left - keys, right}.keys_of(of); }
  Range queries_of(Range of) const { return SlidingWindow{left - queries, right}.queries_of(of); }
};

}  // namespace

namespace {

/// A window that says of its rows what holds of a wider one's.
struct NotExact : SlidingWindow {
  Range keys_of(Range of) const { return SlidingWindow{left + 1, right}.keys_of(of); }
};
struct NotExactOfKeys : SlidingWindow {
  Range queries_of(Range of) const { return SlidingWindow{left, right + 1}.queries_of(of); }
};

}  // namespace

namespace {

/// A window of which one row, or one column, is looked up one too far.
struct Misrowed : SlidingWindow {
  int64_t query = -1, key = -1;
  auto row(int64_t of) const {
    return
        [window = *this, at = of == query ? of + 1 : of](int64_t other) { return window.visible(at, other); };
  }
  auto column(int64_t of) const {
    return
        [window = *this, at = of == key ? of + 1 : of](int64_t other) { return window.visible(other, at); };
  }
};
static_assert(HasRows<Misrowed> && !is_asked_by_rows<Misrowed>);

}  // namespace

TEST_CASE("first_fault() finds a row or a column that is not what is visible") {
  CHECK(laws::first_fault(Misrowed{{3, 0}}, 300, test::run_seed()) == "");
  CHECK(laws::first_fault(Misrowed{{3, 0}, 5}, 300) == "row(5)(2) is false, but query 5 sees key 2");
  CHECK(laws::first_fault(Misrowed{{3, 0}, -1, 5}, 300) == "column(5)(5) is false, but query 5 sees key 5");
}

namespace {

/// The first 10 keys and a window, whose gap reaches too far by so much on either side.
struct Misgapped {
  int64_t first = 0, second = 0;
  bool visible(int64_t query, int64_t key) const {
    return key < 10 || SlidingWindow{20, 0}.visible(query, key);
  }
  Cover cover(Range, Range) const { return Cover::partial; }
  Range keys_of(Range queries) const { return {0, std::max<int64_t>(10, queries.end)}; }
  Range queries_of(Range) const { return Range::everything(); }
  RangePair key_ranges_of(Range queries) const {
    Range const window{std::max<int64_t>(queries.begin - 20, 0) + second, queries.end};
    return RangePair{{0, 10 - first}, {}}.joined({{}, window});
  }
};

}  // namespace

TEST_CASE("first_fault() finds visible keys in the gap of a mask's ranges of keys") {
  static_assert(HasKeyRanges<Misgapped> && !HasKeyRanges<SlidingWindow>);
  for (int64_t const positions : {200, 5000}) {
    CHECK(laws::first_fault(Misgapped{}, positions, test::run_seed()) == "");
    for (Misgapped const& mask : {Misgapped{1, 0}, Misgapped{0, 1}}) {
      std::string const fault = laws::first_fault(mask, positions, test::run_seed());
      CHECK_MESSAGE(fault.starts_with("key_ranges_of(["), fault);
    }
  }
}

TEST_CASE("first_fault() finds rows that are not exact") {
  for (int64_t const positions : {int64_t{5000}, int64_t{1} << 40}) {
    std::string const keys = laws::first_fault(NotExact{{1000, 7}}, positions, test::run_seed());
    CHECK_MESSAGE(keys.starts_with("exact_rows is true, but query "), keys);
    CHECK_MESSAGE(keys.find("which lies in keys_of([") != keys.npos, keys);
    std::string const queries = laws::first_fault(NotExactOfKeys{{1000, 7}}, positions, test::run_seed());
    CHECK_MESSAGE(queries.find("which lies in queries_of([") != queries.npos, queries);
  }
}

TEST_CASE("first_fault() finds bounds that leave out what is visible") {
  CHECK(laws::first_fault(TooNarrow{}, 6) == "keys_of([0, 1)) is [0, 0), but query 0 sees key 0");
  CHECK(laws::first_fault(TooWide{}, 6) == "");
  for (int64_t const positions : {int64_t{5000}, int64_t{1} << 20, int64_t{1} << 40}) {
    SlidingWindow const window{1000, 7};
    CHECK(laws::first_fault(Misbound{window}, positions, test::run_seed()) == "");
    std::string const keys = laws::first_fault(Misbound{window, 1, 0}, positions, test::run_seed());
    CHECK_MESSAGE(keys.starts_with("keys_of(["), keys);
    std::string const queries = laws::first_fault(Misbound{window, 0, 1}, positions, test::run_seed());
    CHECK_MESSAGE(queries.starts_with("queries_of(["), queries);
  }
}

namespace {

/// A window that says that it reaches farther than it does, on one side.
struct Misreaching : SlidingWindow {
  int64_t before = 0, after = 0;
  Reach reach() const { return {left + before, right + after}; }
};

/// A mask that counts the pairs of large rectangles, or of all, wrong by one.
struct Miscounting {
  test::PrefixLm mask = {};
  int64_t rows = 0;
  bool visible(int64_t query, int64_t key) const { return mask.visible(query, key); }
  Cover cover(Range queries, Range keys) const { return mask.cover(queries, keys); }
  int64_t pairs(Range queries, Range keys) const {
    return mask.pairs(queries, keys) + (queries.size() >= rows ? 1 : 0);
  }
};

}  // namespace

TEST_CASE("first_fault() finds a wrong reach() and wrong pairs(), in rectangles of all sizes") {
  static_assert(HasReach<Misreaching> && HasPairs<Miscounting> && !HasPairs<Causal>);
  CHECK(laws::first_fault(Misreaching{{3, 1}, 1, 0}, 6) ==
        "reach() is 4 before and 1 after, but query 4 does not see key 0");
  CHECK(laws::first_fault(Misreaching{{3, 1}, 0, -1}, 6) ==
        "reach() is 3 before and 0 after, but query 0 sees key 1");
  CHECK(laws::first_fault(Miscounting{{2}, 0}, 6) ==
        "[0, 1) x [0, 1) has 2 pairs by the mask's count, but 1 are visible");
  for (int64_t const positions : {int64_t{5000}, int64_t{1} << 20, int64_t{1} << 30}) {
    CHECK(laws::first_fault(Misreaching{{1000, 7}, 0, 0}, positions, test::run_seed()) == "");
    for (int64_t const by : {-1, 1}) {
      std::string const before =
          laws::first_fault(Misreaching{{1000, 7}, by, 0}, positions, test::run_seed());
      CHECK_MESSAGE(before.starts_with("reach() is "), before);
      std::string const after = laws::first_fault(Misreaching{{1000, 7}, 0, by}, positions, test::run_seed());
      CHECK_MESSAGE(after.starts_with("reach() is "), after);
    }
    for (int64_t const rows : {1, 100, 1000}) {
      std::string const fault = laws::first_fault(Miscounting{{50}, rows}, positions, test::run_seed());
      CHECK_MESSAGE(fault.ends_with(" are visible"), fault);
    }
    CHECK(laws::first_fault(Miscounting{{50}, positions + 1}, positions, test::run_seed()) == "");
  }
}

TEST_CASE("pairs are known in O(1) for rows of one stride by reach(), for rows side by side by pairs()") {
  std::mt19937_64 random(test::run_seed());
  auto const below = [&](int64_t bound) {
    return std::uniform_int_distribution<int64_t>(0, bound - 1)(random);
  };
  test::for_each_mask([&](auto const& mask, char const* name) {
    INFO("mask ", std::string(name));
    using M = std::decay_t<decltype(mask)>;
    for (int run = 0; run < 200; ++run) {
      int64_t const stride = 1 + below(3);
      Segment const queries{below(50), below(40), stride}, keys{below(50), below(40), stride};
      auto const known = known_pairs(mask, queries, keys);
      bool const empty = queries.rows == 0 || keys.rows == 0;
      CHECK(known.has_value() == (empty || HasReach<M> || (HasPairs<M> && stride == 1)));
      int64_t visible = 0;
      for (int64_t q = 0; q < queries.rows; ++q)
        for (int64_t k = 0; k < keys.rows; ++k)
          visible += mask.visible(queries.position(q), keys.position(k)) ? 1 : 0;
      CHECK(known.value_or(visible) == visible);
    }
  });
  CHECK_FALSE(known_pairs(Causal{}, {0, 5, 1}, {0, 5, 2}));
}

TEST_CASE(
    "first_fault() finds a wrong cover() at the mask's edge, in rectangles of all sizes, and is right") {
  CHECK(laws::first_fault(TooEmpty{}, 6) == "cover([0, 1), [0, 1)) is none, but query 0 sees key 0");
  CHECK(laws::first_fault(TooFull{}, 6) == "cover([0, 1), [1, 2)) is full, but query 0 does not see key 1");
  int found = 0, all = 0;
  for (int64_t const left : {0, 5, 100, 1023, 20000})
    for (int64_t const by : {-3, 1, 40})
      for (int64_t const rows : {0, 16, 100, 1000})
        for (int64_t const positions : {int64_t{4096}, int64_t{1} << 16, int64_t{1} << 34}) {
          Misjudged const mask{{left, 0}, by, rows};
          if (left + by < 0 || left >= positions) continue;
          // Of a window that is taken for wider, rectangles must fit into it; else nothing is wrong.
          if (by > 0 ? 2 * rows > left + by : rows > left) continue;
          std::string const fault =
              laws::first_fault(mask, positions, test::run_seed() + static_cast<std::uint64_t>(all));
          ++all;
          found += fault.empty() ? 0 : 1;
          INFO(fault);
          if (!fault.empty()) CHECK(is_true(mask, fault));
        }
  CHECK(all > 50);
  CHECK(found >= all * 95 / 100);
}

namespace {

/// Causal, but its cover() has all pairs of two contiguous shards hidden that are all visible.
struct HiddenShards : Causal {
  int64_t positions = 1;
  int shards = 1;
  Cover cover(Range queries, Range keys) const {
    Cover const right = Causal::cover(queries, keys);
    return right == Cover::full && is_shard(queries) && is_shard(keys) ? Cover::none : right;
  }
  bool is_shard(Range const& range) const {
    for (int rank = 0; rank < shards; ++rank)
      if (range == Contiguous::shard(rank, shards, positions).segments[0].hull()) return true;
    return false;
  }
};

}  // namespace

TEST_CASE("first_fault() finds a cover() that is wrong of whole shards alone, however long they are") {
  for (int const shards : {2, 3, 4, 5, 8, 16})
    for (int64_t const positions : {int64_t{4096}, (int64_t{1} << 20) + 1, (int64_t{1} << 40) - 1}) {
      HiddenShards const mask{{}, positions, shards};
      std::string const fault = laws::first_fault(mask, positions, test::run_seed());
      INFO("shards ", shards, ", positions ", positions, ", ", fault);
      CHECK(is_true(mask, fault));
    }
}

namespace {

/// All is visible but one pair, and cover() does not know it of small rectangles.
struct Pinhole {
  int64_t query = 0, key = 0;
  bool visible(int64_t q, int64_t k) const { return q != query || k != key; }
  Cover cover(Range queries, Range keys) const {
    bool const around = queries.touches({query, query + 1}) && keys.touches({key, key + 1});
    return around && std::max(queries.size(), keys.size()) > 16 ? Cover::partial : Cover::full;
  }
};

}  // namespace

TEST_CASE(
    "first_fault() finds the one pair of which cover() is wrong, where cover() leaves open what is around") {
  std::mt19937_64 random(test::run_seed());
  for (int64_t const positions : {int64_t{1} << 12, (int64_t{1} << 20) + 1, (int64_t{1} << 40) - 1})
    for (int run = 0; run < 10; ++run) {
      std::uniform_int_distribution<int64_t> any(0, positions - 1);
      Pinhole const mask{any(random), any(random)};
      std::string const fault = laws::first_fault(mask, positions, test::run_seed());
      INFO("positions ", positions, ", query ", mask.query, ", key ", mask.key, ", ", fault);
      CHECK(is_true(mask, fault));
    }
}

TEST_CASE("a mask is tested with some positions") {
  CHECK_THROWS_WITH_AS(laws::first_fault(Full{}, 0),
                       "lightseq: a mask is tested with 0 positions, it must be at least 1", Error);
}

TEST_CASE("the law of masks notices wrong bounds") {
  CHECK(test::count_bounds(TooNarrow{}, 6).missed > 0);
  CHECK(test::count_bounds(TooWide{}, 6).missed == 0);
  CHECK(test::count_bounds(TooWide{}, 6).wide > 0);
  CHECK(test::count_bounds(Shrinking{}, 6).missed == 0);
  CHECK(test::count_bounds(Shrinking{}, 6).grown > 0);
}

TEST_CASE("what is seen from the queries' side is seen from the keys' side, even if cover() is lazy") {
  auto const agree = [](auto const& mask) {
    bool same = true;
    for (int64_t q0 = 0; q0 < 12; ++q0)
      for (int64_t q1 = q0 + 1; q1 <= 12; ++q1)
        for (int64_t k0 = 0; k0 < 12; ++k0)
          for (int64_t k1 = k0 + 1; k1 <= 12; ++k1) {
            Range const q{q0, q1}, k{k0, k1};
            bool const seen = cover_within(mask, q, k) != Cover::none;
            bool visible = false;
            for (int64_t i = q0; i < q1; ++i)
              for (int64_t j = k0; j < k1; ++j) visible = visible || mask.visible(i, j);
            same = same && (seen || !visible);
            if (seen) same = same && keys_within(mask, q).touches(k) && queries_within(mask, k).touches(q);
          }
    return same;
  };
  CHECK(agree(Full{}));
  CHECK(agree(Causal{}));
  CHECK(agree(SlidingWindow{3, 1}));
  CHECK(agree(TooWide{}));
  for (int64_t const left : {0, 2, 5})
    for (int64_t const right : {0, 2, 5}) {
      CHECK(agree(LazyWindow{{left, right}}));
      CHECK(agree(WithKeys{{{left, right}}}));
      CHECK(agree(WithQueries{{{left, right}}}));
    }
  CHECK(agree(test::EqualDocuments{5, true}));
}

TEST_CASE("masks by their definition, pair by pair") {
  for (int64_t q = 0; q < 40; ++q)
    for (int64_t k = 0; k < 40; ++k) {
      CHECK(Full::visible(q, k));
      CHECK(Causal::visible(q, k) == (k <= q));
      for (int64_t const left : {0, 1, 7, 60})
        for (int64_t const right : {0, 1, 7, 60})
          CHECK(SlidingWindow{left, right}.visible(q, k) == (q - left <= k && k <= q + right));
    }
}

TEST_CASE("windows and positions may be as large as 63 bits hold") {
  constexpr int64_t huge = std::numeric_limits<int64_t>::max();
  std::mt19937_64 random(test::run_seed());
  auto const position = [&] { return static_cast<int64_t>(random() >> (1 + random() % 63)); };
  for (int run = 0; run < 20000; ++run) {
    int64_t const q = position(), k = position(), q_rows = 1 + position() % 100,
                  k_rows = 1 + position() % 100;
    Range const queries{q - q % 128, q - q % 128 + q_rows}, keys{k - k % 128, k - k % 128 + k_rows};
    SlidingWindow const all{huge, huge}, earlier{huge, 0}, later{0, huge};
    bool same = all.visible(q, k) && all.cover(queries, keys) == Cover::full;
    same = same && earlier.visible(q, k) == Causal::visible(q, k);
    same = same && earlier.cover(queries, keys) == Causal::cover(queries, keys);
    same = same && later.visible(q, k) == Causal::visible(k, q);
    for (int64_t const left : {int64_t{0}, position(), huge})
      for (int64_t const right : {int64_t{0}, position(), huge}) {
        SlidingWindow const window{left, right};
        bool const seen = window.cover(queries, keys) != Cover::none;
        same = same && window.keys_of(queries).touches(keys) == seen;
        same = same && window.queries_of(keys).touches(queries) == seen;
      }
    same = same && all.keys_of(queries) == Range::everything() && all.queries_of(keys) == Range::everything();
    same = same && earlier.keys_of(queries) == Causal::keys_of(queries);
    same = same && earlier.queries_of(keys) == Causal::queries_of(keys);
    CHECK(same);
  }
}
