// SPDX-License-Identifier: Apache-2.0
#include "lightseq/mask/packed_rows.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <span>
#include <vector>

#include "laws/mask.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/laws.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "support/data.hpp"
#include "support/masks.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

/// Runs of both sides of some documents, with rows left out between documents and positions within them.
struct Case {
  std::vector<RowRun> queries, keys;

  explicit Case(std::mt19937_64& random) {
    auto const below = [&](int n) { return std::uniform_int_distribution<int>(0, n - 1)(random); };
    int row[2] = {below(3), below(3)};
    for (int document = 0, documents = 1 + below(7); document < documents; ++document) {
      std::int32_t first[2] = {};
      for (int side = 0; side < 2; ++side) {
        auto& runs = side == 0 ? queries : keys;
        first[side] = static_cast<std::int32_t>(runs.size());
        for (int position = below(4), left = 1 + below(3); left > 0; --left) {
          int const rows = 1 + below(9);
          runs.push_back({.row = row[side], .rows = rows, .position = position});
          position += rows + below(6);
          row[side] += rows;
        }
        row[side] += below(3) == 0 ? below(5) : 0;
      }
      auto const link = [](std::vector<RowRun>& runs, std::int32_t from, std::int32_t begin,
                           std::size_t end) {
        for (RowRun& run : std::span(runs).subspan(static_cast<std::size_t>(from)))
          run.first = begin, run.end = static_cast<std::int32_t>(end);
      };
      link(queries, first[0], first[1], keys.size());
      link(keys, first[1], first[0], queries.size());
    }
  }

  template <Mask Inner>
  PackedRows<Inner> mask(Inner const& inner) const {
    return {{queries.data(), static_cast<int>(queries.size())},
            {keys.data(), static_cast<int>(keys.size())},
            inner};
  }

  /// Whether a query sees a key, by going through all runs.
  template <Mask Inner>
  bool visible(Inner const& inner, int64_t query, int64_t key) const {
    for (RowRun const& q : queries)
      for (auto k = static_cast<std::size_t>(q.first); k < static_cast<std::size_t>(q.end); ++k)
        if (q.all_rows().contains(query) && keys[k].all_rows().contains(key))
          return inner.visible(q.position + query - q.row, keys[k].position + key - keys[k].row);
    return false;
  }
};

/// Causal, with bounds beyond all positions.
struct FarBounds {
  static constexpr bool visible(int64_t query, int64_t key) { return Causal{}.visible(query, key); }
  static constexpr Cover cover(Range queries, Range keys) { return Causal{}.cover(queries, keys); }
  static constexpr Range keys_of(Range) { return {INT64_MIN, INT64_MAX}; }
  static constexpr Range queries_of(Range) { return {INT64_MIN, INT64_MAX}; }
};

}  // namespace

TEST_CASE_TEMPLATE("rows of packed documents show what a scan of their runs shows", Inner, Full, Causal,
                   SlidingWindow, test::PrefixLm, test::BoundedWithin, test::Mirrored) {
  std::mt19937_64 random(test::stream_seed(1));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 6; ++round)
    for (Inner const& inner : test::samples<Inner>()) {
      Case const runs(random);
      auto const mask = runs.mask(inner);
      int wrong = 0;
      for (int64_t q = 0; q < 90; ++q)
        for (int64_t k = 0; k < 90; ++k) wrong += mask.visible(q, k) != runs.visible(inner, q, k) ? 1 : 0;
      CHECK(wrong == 0);
      CHECK(laws::first_fault(mask, 90) == "");
    }
}

TEST_CASE("rectangles within a run or over several of one document are covered exactly") {
  std::vector<RowRun> const queries{{.row = 4, .rows = 8, .position = 20, .first = 0, .end = 2}};
  std::vector<RowRun> const keys{{.row = 0, .rows = 10, .position = 0, .first = 0, .end = 1},
                                 {.row = 10, .rows = 10, .position = 12, .first = 0, .end = 1}};
  PackedRows<> const mask({queries.data(), 1}, {keys.data(), 2}, {});
  CHECK(mask.cover({4, 12}, {0, 18}) == Cover::full);
  CHECK(mask.cover({4, 12}, {5, 19}) == Cover::full);
  CHECK(mask.cover({4, 12}, {5, 20}) == Cover::partial);
  CHECK(mask.cover({4, 13}, {0, 5}) == Cover::partial);
  CHECK(mask.cover({0, 4}, {0, 20}) == Cover::none);
  CHECK(mask.cover({4, 5}, {19, 20}) == Cover::none);
  CHECK(mask.keys_of({5, 6}) == Range{0, 20});
  CHECK(mask.keys_of({4, 5}) == Range{0, 19});
  CHECK(mask.queries_of({19, 20}) == Range{5, 12});
}

TEST_CASE("bounds within documents may be any numbers") {
  std::vector<RowRun> const queries{{.row = 4, .rows = 8, .position = 20, .first = 0, .end = 2}};
  std::vector<RowRun> const keys{{.row = 0, .rows = 10, .position = 1, .first = 0, .end = 1},
                                 {.row = 10, .rows = 10, .position = 12, .first = 0, .end = 1}};
  PackedRows<FarBounds> const mask({queries.data(), 1}, {keys.data(), 2}, {});
  CHECK(mask.keys_of({4, 12}) == Range{0, 20});
  CHECK(mask.queries_of({0, 20}) == Range{4, 12});
  CHECK(mask.cover({4, 12}, {0, 18}) == Cover::full);
}

TEST_CASE_TEMPLATE("the sights of rows are a mask that shows the same", Inner, Full, Causal, SlidingWindow) {
  std::mt19937_64 random(test::stream_seed(2));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 12; ++round)
    for (Inner const& inner : test::samples<Inner>()) {
      Case const runs(random);
      auto const mask = runs.mask(inner);
      std::vector<RowSight> of_queries(200), of_keys(200);
      for (std::size_t row = 0; row < 200; ++row) {
        of_queries[row] = mask.sight_of_query(static_cast<int64_t>(row));
        of_keys[row] = mask.sight_of_key(static_cast<int64_t>(row));
      }
      RowSights const sights(of_queries.data(), of_keys.data());
      int wrong = 0;
      for (int64_t q = 0; q < 90; ++q)
        for (int64_t k = 0; k < 90; ++k) {
          bool const visible = runs.visible(inner, q, k);
          wrong += sights.visible(q, k) != visible || sights.queries_of({k, k + 1}).contains(q) != visible;
        }
      CHECK(wrong == 0);
      for (std::size_t row = 1; row < 200; ++row)
        for (auto const* side : {&of_queries, &of_keys}) {
          CHECK((*side)[row].begin >= (*side)[row - 1].begin);
          CHECK((*side)[row].end >= (*side)[row - 1].end);
        }
      CHECK(laws::first_fault(sights, 150) == "");
    }
}
