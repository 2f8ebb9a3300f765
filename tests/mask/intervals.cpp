// SPDX-License-Identifier: Apache-2.0
#include "lightseq/mask/intervals.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "laws/mask.hpp"
#include "lightseq/mask/laws.hpp"
#include "support/data.hpp"
#include "support/intervals.hpp"
#include "support/packs.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

using Rows = std::vector<Intervals::Row>;

bool visible_in(Rows const& rows, int64_t query, int64_t key) {
  if (query >= std::ssize(rows)) return false;
  auto const& [first, second] = rows[static_cast<std::size_t>(query)];
  return first.contains(key) || second.contains(key);
}

/// A mask shows a pair just where `want(query, key)` says so.
template <Mask M, class Want>
bool shows(M const& mask, int64_t positions, Want const& want) {
  bool same = true;
  for (int64_t query = 0; query < positions; ++query)
    for (int64_t key = 0; key < positions; ++key)
      same &= mask.visible(query, key) == static_cast<bool>(want(query, key));
  return same;
}

/// What is thrown says, without the library's name; nothing where nothing is thrown.
std::string said(std::function<Intervals()> const& make) {
  try {
    make();
    return "";
  } catch (Error const& error) {
    return std::string(error.what()).substr(std::string("lightseq: ").size());
  }
}
std::string fault_of(Rows const& rows) {
  return said([&] { return Intervals(rows); });
}

/// The runs of a mask, of its rows and its columns.
int64_t runs_of(Intervals const& mask) { return std::ssize(mask.data()) / int64_t{sizeof(IntervalRun)}; }

}  // namespace

TEST_CASE("intervals show what their rows say, and cover() and bounds are as tight as can be") {
  std::mt19937_64 random(test::stream_seed(1));
  for (int run = 0; run < 3000; ++run) {
    int64_t const count = 1 + static_cast<int64_t>(random() % 24);
    Rows const rows = test::random_rows(random, count, 1 + static_cast<int64_t>(random() % 12));
    Intervals const mask(rows);
    std::vector<std::byte> copy(mask.data().begin(), mask.data().end());
    auto const view = view_of(mask, copy.data());
    INFO("LIGHTSEQ_SEED=", test::run_seed(), ", run ", run);
    auto const want = [&](int64_t query, int64_t key) { return visible_in(rows, query, key); };
    CHECK(shows(mask, count + 3, want));
    CHECK(shows(view, count + 3, want));
    if (run % 10 != 0) continue;
    test::CoverCount const covers = test::count_covers(view, count + 2);
    CHECK(covers.wrong == 0);
    CHECK(covers.lazy == 0);
    test::BoundCount const bounds = test::count_bounds(mask, count + 2);
    CHECK(bounds.missed == 0);
    CHECK(bounds.grown == 0);
    CHECK(bounds.wide == 0);
  }
}

TEST_CASE("whole rows and columns of intervals are what is visible") {
  std::mt19937_64 random(test::stream_seed(2));
  for (int run = 0; run < 200; ++run) {
    int64_t const count = 1 + static_cast<int64_t>(random() % 50);
    Rows const rows = test::random_rows(random, count, 20);
    Intervals const mask(rows);
    bool same = true;
    for (int64_t query = 0; query < count + 2; ++query)
      for (int64_t key = 0; key < count + 2; ++key) {
        bool const want = visible_in(rows, query, key);
        same &= KeysSeen<IntervalsView>(mask.view(), query)(key) == want;
        same &= SeeingQueries<IntervalsView>(mask.view(), key)(query) == want;
      }
    CHECK(same);
  }
}

TEST_CASE("between a shared prefix and a document no key is asked for") {
  Intervals const mask = Intervals::shared_prefix(std::vector<int64_t>{10, 25, 40, 50});
  auto const both = [](Range first, Range second) { return RangePair{first, second}; };
  CHECK(mask.key_ranges_of({30, 32}) == both({0, 10}, {25, 32}));
  CHECK(mask.key_ranges_of({30, 42}) == both({0, 10}, {25, 42}));
  CHECK(mask.key_ranges_of({3, 7}) == both({0, 7}, {}));
  CHECK(mask.key_ranges_of({3, 32}) == both({0, 32}, {}));
  CHECK(mask.key_ranges_of({50, 60}).hull().empty());
}

TEST_CASE("intervals are right at any size") {
  std::mt19937_64 random(test::stream_seed(3));
  auto const check = [&](int64_t count, int64_t longest) {
    Intervals const mask(test::random_rows(random, count, longest));
    CHECK(laws::first_fault(mask.view(), count + count / 10 + 1, test::run_seed()) == "");
  };
  check(1, 1), check(2, 2), check(63, 20);
  for (int64_t const count : {3001, 20'000})
    for (int64_t const longest : {int64_t{1}, int64_t{300}, count}) check(count, longest);
}

TEST_CASE("however rows are written, intervals that show the same are the same") {
  std::mt19937_64 random(test::stream_seed(4));
  for (int run = 0; run < 300; ++run) {
    int64_t const count = 1 + static_cast<int64_t>(random() % 40);
    Rows const rows = test::random_rows(random, count, 12);
    Rows other = rows;
    for (auto& [first, second] : other) {
      if (random() % 2 == 0) std::swap(first, second);
      Range& empty = first.empty() ? first : second;
      Range& full = first.empty() ? second : first;
      if (!empty.empty()) continue;
      if (int64_t const cut = full.begin + static_cast<int64_t>(random() % 3); cut <= full.end) {
        empty = {cut, full.end};  // two that touch, or one within the other
        if (random() % 2 == 0) full.end = cut;
      }
    }
    for (int i = 0; i < run % 3; ++i) other.push_back({Range{i, i}, Range{}});
    Intervals const a(rows), b(other);
    INFO("LIGHTSEQ_SEED=", test::run_seed(), ", run ", run);
    CHECK(a.digest() == b.digest());
    CHECK(a.rows() == b.rows());
    CHECK(std::ranges::equal(a.data(), b.data()));
  }
}

TEST_CASE("intervals that differ have other digests") {
  std::mt19937_64 random(test::stream_seed(5));
  for (int run = 0; run < 200; ++run) {
    Rows const rows = test::random_rows(random, 30, 10), others = test::random_rows(random, 30, 10);
    Rows later = rows;
    later.insert(later.begin(), Intervals::Row{});
    for (Rows const& other : {others, later}) {
      bool const same = shows(Intervals(rows), 33,
                              [&](int64_t query, int64_t key) { return visible_in(other, query, key); });
      CHECK((Intervals(rows).digest() == Intervals(other).digest()) == same);
    }
  }
}

TEST_CASE("a tensor of bounds, of int32 or int64, is taken as it is") {
  std::mt19937_64 random(test::stream_seed(6));
  Rows const rows = test::random_rows(random, 51, 9);
  std::vector<std::int32_t> shorts;
  std::vector<int64_t> longs;
  for (Intervals::Row const& row : rows)
    for (Range const& range : row)
      for (int64_t const bound : {range.begin, range.end}) {
        longs.push_back(bound);
        shorts.push_back(static_cast<std::int32_t>(bound));
      }
  CHECK(Intervals(shorts).digest() == Intervals(rows).digest());
  CHECK(Intervals(longs).digest() == Intervals(rows).digest());
}

TEST_CASE("rows that make no sense are refused, with the row and the numbers") {
  CHECK(fault_of({}) == "Intervals: the list of rows is empty");
  CHECK(fault_of({{}, {Range{1, 0}}}) == "Intervals: a range of row 1 begins at key 1, but ends at key 0");
  CHECK(fault_of({{}, {Range{}, Range{-1, 2}}}) == "Intervals: a range of row 1 begins at key -1");
  CHECK(fault_of({{}, {}, {Range{0, 4}, Range{0, 1}}}) ==
        "Intervals: a range of row 2 ends at key 4, but there are 3 rows");
  CHECK(fault_of({{Range{5, 5}}}) == "Intervals: a range of row 0 ends at key 5, but there are 1 rows");
  CHECK(fault_of({{Range{1, 1}}}) == "");
  CHECK(said([] {
          return Intervals(std::vector<std::int32_t>{0, 1, 0, 0, 0});
        }) == "Intervals: there are 5 bounds, but a row has 4");
  CHECK(said([] { return Intervals(std::vector<int64_t>{}); }) == "Intervals: the list of rows is empty");
  CHECK(said([] { return Intervals::block_causal(16, int64_t{1} << 40); }) ==
        "Intervals: there are 1099511627776 rows, it must be at most 1073741823");
}

TEST_CASE("the fingerprint names the last query that sees a key") {
  Fingerprint names;
  Intervals(Rows{{Range{0, 1}}, {Range{0, 1}}, {}}).name_values(names);
  CHECK(std::string(names.names[1]) == "the last query that sees a key");
  CHECK(names.values[1] == 1);
}

TEST_CASE("documents take about one run each, however long they are") {
  std::mt19937_64 random(test::stream_seed(7));
  std::vector<int64_t> const ends = test::random_ends(random, 100'000, 1000);
  auto const documents = std::ssize(ends);
  std::vector<std::int32_t> const prefixes(ends.size(), 1);
  CHECK(runs_of(Intervals::shared_prefix(ends)) <= 3 * documents + 4);
  CHECK(runs_of(Intervals::prefix_lm(ends, prefixes)) <= 4 * documents + 4);
  CHECK(runs_of(Intervals::block_causal(1000, 100'000)) == 2 * 100 + 2);
}

TEST_CASE("shared_prefix: answers see their prompt and themselves, causally") {
  std::mt19937_64 random(test::stream_seed(8));
  for (int run = 0; run < 100; ++run) {
    std::vector<int64_t> const list = test::random_ends(random, 60, 1 + static_cast<int64_t>(random() % 30));
    DocumentEnds const documents(list);
    std::vector<std::int32_t> prefixes;
    for (std::int32_t d = 0; d < documents.count(); ++d)
      prefixes.push_back(static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(d + 1)));
    auto const want = [&](auto const& prefix_of) {
      return [&](int64_t query, int64_t key) {
        if (query >= 60 || key >= 60) return false;
        int64_t const own = documents.document_of(query), other = documents.document_of(key);
        return own == other ? key <= query : other == prefix_of(own);
      };
    };
    CHECK(shows(Intervals::shared_prefix(documents), 64, want([](int64_t) { return 0; })));
    CHECK(shows(Intervals::shared_prefix(documents, prefixes), 64,
                want([&](int64_t document) { return prefixes[static_cast<std::size_t>(document)]; })));
  }
}

TEST_CASE("block_causal: a block sees itself and all earlier ones") {
  for (int64_t const rows : {1, 2, 37, 48})
    for (int64_t const block : {1, 2, 5, 16, 48, 1000})
      CHECK(shows(Intervals::block_causal(block, rows), 60, [&](int64_t query, int64_t key) {
        return query < rows && key < rows && key / block <= query / block;
      }));
}

TEST_CASE("prefix_lm: documents are causal after their prefixes, which all of their tokens see") {
  std::mt19937_64 random(test::stream_seed(9));
  for (int run = 0; run < 100; ++run) {
    std::vector<int64_t> const list = test::random_ends(random, 60, 30);
    DocumentEnds const documents(list);
    std::vector<std::int32_t> prefixes;
    for (int64_t d = 0; d < documents.count(); ++d)
      prefixes.push_back(
          static_cast<std::int32_t>(random() % static_cast<std::uint64_t>(documents.length(d) + 1)));
    CHECK(shows(Intervals::prefix_lm(documents, prefixes), 64, [&](int64_t query, int64_t key) {
      if (query >= 60 || key >= 60 || documents.document_of(query) != documents.document_of(key))
        return false;
      int64_t const document = documents.document_of(key);
      return key <= query || key - documents.begin(document) < prefixes[static_cast<std::size_t>(document)];
    }));
  }
}

TEST_CASE("the named intervals are those that a list of their rows makes") {
  Rows rows;
  for (int64_t query = 0; query < 40; ++query)
    rows.push_back(query < 10 ? Intervals::Row{Range{0, query + 1}}
                              : Intervals::Row{Range{query < 25 ? 10 : 25, query + 1}, Range{0, 10}});
  CHECK(Intervals::shared_prefix(std::vector<int64_t>{10, 25, 40}).digest() == Intervals(rows).digest());
}

TEST_CASE("the named intervals refuse what makes no sense, with the document and the numbers") {
  std::vector<std::int32_t> const ends{0, 5, 9, 20}, bad{0, 5, 4};
  using Prefixes = std::vector<std::int32_t>;
  CHECK(said([&] { return Intervals::shared_prefix(bad); }) ==
        "Intervals::shared_prefix: document 1 ends at token 4, but begins at token 5");
  CHECK(said([&] {
          return Intervals::shared_prefix(ends, Prefixes{0, 0});
        }) == "Intervals::shared_prefix: there are 3 documents, but 2 prefixes");
  CHECK(said([&] {
          return Intervals::shared_prefix(ends, Prefixes{0, 2, 0});
        }) ==
        "Intervals::shared_prefix: document 1 has document 2 for its prefix, it must be an earlier one or "
        "itself");
  CHECK(said([&] {
          return Intervals::shared_prefix(ends, Prefixes{0, -1, 0});
        }) ==
        "Intervals::shared_prefix: document 1 has document -1 for its prefix, it must be an earlier one or "
        "itself");
  CHECK(said([&] {
          return Intervals::prefix_lm(bad, Prefixes{1, 1});
        }) == "Intervals::prefix_lm: document 1 ends at token 4, but begins at token 5");
  CHECK(said([&] { return Intervals::prefix_lm(ends, Prefixes{}); }) ==
        "Intervals::prefix_lm: there are 3 documents, but 0 prefixes");
  CHECK(said([&] {
          return Intervals::prefix_lm(ends, Prefixes{5, 5, 0});
        }) == "Intervals::prefix_lm: document 1 has 4 tokens, but a prefix of 5");
  CHECK(said([&] {
          return Intervals::prefix_lm(ends, Prefixes{0, -2, 0});
        }) == "Intervals::prefix_lm: document 1 has 4 tokens, but a prefix of -2");
  CHECK(said([&] { return Intervals::block_causal(0, 20); }) ==
        "Intervals::block_causal: a block has 0 tokens, it must have at least 1");
  CHECK(said([&] { return Intervals::block_causal(4, 0); }) == "Intervals: the list of rows is empty");
}
