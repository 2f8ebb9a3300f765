// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/packed_plan.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "laws/packed_plan.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "support/allocations.hpp"
#include "support/data.hpp"
#include "support/masks.hpp"
#include "support/random_pieces.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

template <Mask Inner>
std::string fault(Pieces const& pieces, int64_t slot_rows, Inner const& inner, bool pairs,
                  std::mt19937_64& random) {
  auto const keys_of = [&](Range const& queries) { return keys_within(inner, queries); };
  return test::packed_plan_fault(test::packed_plans(pieces, slot_rows, keys_of), inner, pairs, random);
}

/// Windows of all sizes, some of which look ahead.
SlidingWindow window(int round) { return {round % 40, round % 3 == 0 ? round % 7 : 0}; }

/// What the laws say after a change of these plans, made by hand: three ranks own each a third of both of two
/// documents, and see all of it.
using Plans = test::PackedPlans;
using Step = Plans::Step;
std::string after(std::function<void(Plans&)> const& change) {
  Pieces pieces(3, 6);
  std::vector<int64_t> const ends{6, 12};
  std::vector<Piece> table;
  for (std::int32_t i = 0; i < 6; ++i) table.push_back({i % 3, i / 3, i % 3 * 2, 2});
  REQUIRE(pieces.assign(ends, table).empty());
  Plans plans{&pieces, 4, std::vector(3, std::vector<Step>(3)), std::vector<Step>(3)};
  auto const runs = [](int rank) {
    return std::vector<RowRun>{{0, 2, 2 * rank, 0, 1}, {2, 2, 2 * rank, 1, 2}};
  };
  for (int rank = 0; rank < 3; ++rank)
    for (int s = 0; s < 3; ++s) {
      int const from = (rank + 3 - s) % 3, to = (rank + s) % 3;
      Step& step = plans.ranks[static_cast<std::size_t>(rank)][static_cast<std::size_t>(s)];
      step = {runs(rank), runs(from), 4, {}};
      if (s > 0) step.groups = {{{{to, 0, 2}, {to, 2, 2}}, {{from, 0, 2}, {from, 2, 2}}}};
    }
  change(plans);
  std::mt19937_64 random(1);
  return test::packed_plan_fault(plans, Full{}, true, random);
}

/// After a change of rank 0's first slot.
std::string after_in_slot(std::function<void(Step&)> const& change) {
  return after([&](Plans& plans) { change(plans.ranks[0][1]); });
}

}  // namespace

TEST_CASE("the ranks' plans of small packs show every pair once, and nothing waits for ever") {
  std::mt19937_64 random(test::stream_seed(1));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 5000; ++round) {
    test::RandomPieces const given(round, 20 + 130 * (round % 2), random);
    int64_t const rows = round % 5 == 0 ? 1 + round % 23 : given.pieces.max_rows() + round % 3;
    CAPTURE(round);
    REQUIRE(fault(given.pieces, rows, Causal{}, true, random) == "");
    REQUIRE(fault(given.pieces, rows, window(round), true, random) == "");
    if (round % 3 == 0) REQUIRE(fault(given.pieces, rows, Full{}, true, random) == "");
  }
}

TEST_CASE_TEMPLATE("a user's mask may show later queries less, or earlier keys", Inner, test::BoundedWithin,
                   test::Mirrored, test::PrefixLm) {
  std::mt19937_64 random(test::stream_seed(4));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 300; ++round) {
    test::RandomPieces const given(round, 150, random);
    CAPTURE(round);
    for (Inner const& inner : test::samples<Inner>())
      REQUIRE(fault(given.pieces, given.pieces.max_rows(), inner, true, random) == "");
  }
}

TEST_CASE("the ranks' plans of larger packs and worlds bring all rows, and nothing waits for ever") {
  std::mt19937_64 random(test::stream_seed(2));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  for (int round = 0; round < 200; ++round) {
    int const world = round % 10 < 8 ? 2 + round % 9 : round % 2 == 0 ? 64 : 23;
    test::RandomPieces const given(round, world, world > 20 ? 6000 : 4000, random);
    int64_t const rows = given.pieces.max_rows() + round % 3;
    CAPTURE(round);
    REQUIRE(fault(given.pieces, rows, Causal{}, false, random) == "");
    REQUIRE(fault(given.pieces, rows, window(round), false, random) == "");
    if (world < 20) REQUIRE(fault(given.pieces, rows, Full{}, false, random) == "");
  }
}

TEST_CASE("each law finds its fault") {
  CHECK(after([](Plans&) {}) == "");
  CHECK(after([](Plans& p) { p.ranks[1].pop_back(); }) == "rank 1 has 2 steps, rank 0 3");
  CHECK(after([](Plans& p) { p.ranks[2][0].rows = 5; }) == "rank 2 does not begin with its own keys alone");
  CHECK(after([](Plans& p) { p.slot_rows = 3; }) == "rank 0, step 1: a slot of 4 rows");
  CHECK(after_in_slot([](Step& s) { s.keys.resize(11); }) == "rank 0, step 1: 2 and 11 runs");
  CHECK(after_in_slot([](Step& s) { s.groups.emplace_back(); }) ==
        "rank 0, step 1: a group of 0 and 0 messages");
  CHECK(after_in_slot([](Step& s) { s.groups[0].sends.resize(4, s.groups[0].sends[0]); }) ==
        "rank 0, step 1: a group of 4 and 2 messages");
  CHECK(after_in_slot([](Step& s) { s.groups[0].sends[0].peer = 3; }) ==
        "rank 0, step 1: a message of 2 rows from 0 on, peer 3");
  CHECK(after_in_slot([](Step& s) { s.groups[0].recvs[1].row = 3; }) ==
        "rank 0, step 1: a message of 2 rows from 3 on, peer 2");
  // Whoever sends waits for a receiver that sends.
  CHECK(after([](Plans& p) {
          for (auto& steps : p.ranks)
            for (Step& step : steps)
              if (!step.groups.empty())
                step.groups = {{step.groups[0].sends, {}}, {{}, step.groups[0].recvs}};
        }) == "rank 0 waits for ever in its group 0 of 4");
  CHECK(after_in_slot([](Step& s) { s.groups[0].recvs.clear(); }) ==
        "rank 0 waits for ever in its group 1 of 2");
  CHECK(after_in_slot([](Step& s) { s.groups[0].sends[0].rows -= 1; }) ==
        "rank 0 sends 1 rows for step 1, and rank 1 awaits 2 for step 1");
  CHECK(after([](Plans& p) { std::swap(p.ranks[0][1].groups, p.ranks[0][2].groups); }) ==
        "rank 0 waits for ever in its group 0 of 2");
  CHECK(after_in_slot([](Step& s) { s.groups[0].sends[0].row += 1; }) == "rank 1 gets token 6 twice");
  CHECK(after_in_slot([](Step& s) { s.groups[0].recvs[1].row -= 1; }) ==
        "rank 0, step 1: row 1 of the slot is written twice");
  CHECK(after([](Plans& p) {
          p.ranks[0][1].groups[0].sends.pop_back();
          p.ranks[1][1].groups[0].recvs.pop_back();
        }) == "rank 1, step 1: the gradient of row 2 does not return");
  CHECK(after_in_slot([](Step& s) { s.queries[0].row += 1; }) ==
        "rank 0, step 1: run 0 has row 1 of another document or position");
  CHECK(after_in_slot([](Step& s) { s.queries[0].rows = 0; }) ==
        "rank 0, step 1: run 0 has 0 rows from 0 on, after row 0");
  CHECK(after_in_slot([](Step& s) { s.keys[0].position += 1; }) ==
        "rank 0, step 1: run 0 has row 0 of another document or position");
  CHECK(after_in_slot([](Step& s) { s.keys[0].end += 1; }) ==
        "rank 0, step 1: runs from 0 and 0 on do not name each other");
  CHECK(after_in_slot([](Step& s) { s.keys.pop_back(); }) == "rank 0, step 1: runs that see nothing");
  CHECK(after_in_slot([](Step& s) { s.queries.pop_back(); }) == "rank 0, step 1: runs that see nothing");
  CHECK(after_in_slot([](Step& s) { s.queries.back().rows -= 1; }) == "query 7 sees key 10 0 times");
  CHECK(after_in_slot([](Step& s) { s.queries.clear(), s.keys.clear(); }) ==
        "rank 0, step 1: rows of the slot are in no run");
  CHECK(after([](Plans& p) { p.ranks[1][1] = p.ranks[1][2] = {}; }) ==
        "rank 0 waits for ever in its group 0 of 2");
}

TEST_CASE("a plan allocates nothing for what balanced packing deals out") {
  std::mt19937_64 random(test::stream_seed(3));
  INFO("LIGHTSEQ_SEED=", test::run_seed());
  std::vector<std::string_view> kinds(bench::random_packs.begin(), bench::random_packs.end());
  kinds.insert(kinds.end(), bench::fixed_packs.begin(), bench::fixed_packs.end());
  struct Size {
    int world;
    int64_t tokens, documents;
  };
  for (Size const& size : {Size{2, 2048, 100}, {8, 65536, 300}, {33, 8192, 2000}, {64, 1 << 22, 4096}})
    for (std::string_view const kind : kinds) {
      auto ends = bench::pack(kind, size.tokens, size.world, random);
      ends.resize(std::min(ends.size(), static_cast<std::size_t>(size.documents)));
      Pieces pieces(size.world, BalancedPacking::max_pieces(std::ssize(ends), size.world));
      BalancedPacking packing({std::ssize(ends), ends.back(), size.world});
      REQUIRE(packing.partition(ends, pieces).empty());
      for (int const rank : {0, size.world / 2, size.world - 1}) {
        PackedPlan plan(rank, size.world, pieces.max_pieces(), pieces.max_rows());
        test::AllocationCounter const counter;
        plan.assign(pieces);
        plan.assign(pieces, [](Range const&) { return Range::everything(); });
        plan.assign(pieces, [](Range const& q) { return Range{std::max<int64_t>(0, q.begin - 100), q.end}; });
        int64_t const allocations = counter.count();
        CAPTURE(kind);
        CAPTURE(size.world);
        CAPTURE(rank);
        CHECK(allocations == 0);
      }
    }
}
