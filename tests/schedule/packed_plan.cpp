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

/// What the laws say of a pack of three documents, two of them dealt out to four ranks, after a change of the
/// plans: of all, or of rank 0's first slot.
std::string after(std::function<void(test::PackedPlans&)> const& change) {
  Pieces pieces(4, 16);
  std::vector<int64_t> const ends{12, 14, 30};
  std::vector<Piece> const table{{0, 0, 0, 3}, {1, 0, 3, 3},  {2, 0, 6, 3},  {1, 0, 9, 3},
                                 {3, 1, 0, 2}, {0, 2, 0, 4},  {2, 2, 4, 1},  {3, 2, 5, 3},
                                 {2, 2, 8, 2}, {1, 2, 10, 2}, {0, 2, 12, 2}, {3, 2, 14, 2}};
  REQUIRE(pieces.assign(ends, table).empty());
  auto plans = test::packed_plans(pieces, 12, [](Range const&) { return Range::everything(); });
  change(plans);
  std::mt19937_64 random(1);
  return test::packed_plan_fault(plans, Full{}, true, random);
}
using Step = test::PackedPlans::Step;
std::string after_in_slot(std::function<void(Step&)> const& change) {
  return after([&](test::PackedPlans& plans) { change(plans.ranks[0][1]); });
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
  using Plans = test::PackedPlans;
  CHECK(after([](Plans&) {}) == "");
  CHECK(after([](Plans& p) { p.ranks[1].pop_back(); }) == "rank 1 has 3 steps, rank 0 4");
  CHECK(after([](Plans& p) { p.ranks[2][0].rows = 5; }) == "rank 2 does not begin with its own keys alone");
  CHECK(after([](Plans& p) { p.slot_rows = 10; }) == "rank 2, step 1: a slot of 11 rows");
  CHECK(after_in_slot([](Step& s) { s.groups.emplace_back(); }) ==
        "rank 0, step 1: a group of 0 and 0 messages");
  CHECK(after_in_slot([](Step& s) { s.groups[0].sends.resize(4, s.groups[0].sends[0]); }) ==
        "rank 0, step 1: a group of 4 and 1 messages");
  CHECK(after_in_slot([](Step& s) { s.groups[0].sends[0].peer = 4; }) ==
        "rank 0, step 1: a message of 7 rows from 0 on, peer 4");
  CHECK(after_in_slot([](Step& s) { s.groups[0].recvs[0].row = 1; }) ==
        "rank 0, step 1: a message of 5 rows from 1 on, peer 3");
  // Whoever sends waits for a receiver that sends.
  CHECK(after([](Plans& p) {
          for (auto& steps : p.ranks)
            for (Step& step : steps) {
              std::vector<Plans::Group> apart;
              for (auto const& group : step.groups) {
                if (!group.sends.empty()) apart.push_back({group.sends, {}});
                if (!group.recvs.empty()) apart.push_back({{}, group.recvs});
              }
              step.groups = apart;
            }
        }) == "rank 0 waits for ever in its group 0 of 9");
  CHECK(after_in_slot([](Step& s) { s.groups[0].recvs.clear(); }) ==
        "rank 0 waits for ever in its group 2 of 6");
  CHECK(after_in_slot([](Step& s) { s.groups[0].sends[0].rows -= 1; }) ==
        "rank 0 sends 6 rows for step 1, and rank 1 awaits 7 for step 1");
  CHECK(after_in_slot([](Step& s) { s.groups[0].sends[0].row += 1; }) == "rank 1 gets token 26 twice");
  CHECK(after([](Plans& p) { p.ranks[3][2].groups[0].sends[1].row -= 1; }) == "rank 1 gets token 21 twice");
  CHECK(after([](Plans& p) { p.ranks[1][2].groups[1].recvs[1].row -= 1; }) ==
        "rank 1, step 2: row 7 of the slot is written twice");
  CHECK(after([](Plans& p) {
          p.ranks[1][2].groups.pop_back();
          p.ranks[2][2].groups.pop_back();
        }) == "rank 1, step 2: the gradient of row 0 does not return");
  CHECK(after_in_slot([](Step& s) { s.queries[0].row += 1; }) ==
        "rank 0, step 1: run 0 has row 4 of another document or position");
  CHECK(after_in_slot([](Step& s) { s.queries[0].rows = 0; }) ==
        "rank 0, step 1: run 0 has 0 rows from 3 on, after row 0");
  CHECK(after_in_slot([](Step& s) { s.keys[0].position += 1; }) ==
        "rank 0, step 1: run 0 has row 0 of another document or position");
  CHECK(after_in_slot([](Step& s) { s.keys[0].end -= 1; }) ==
        "rank 0, step 1: runs 0 and 1 do not lie together");
  CHECK(after_in_slot([](Step& s) { s.keys.pop_back(); }) ==
        "rank 0, step 1: runs from 0 and 0 on do not name each other");
  CHECK(after_in_slot([](Step& s) { s.queries.pop_back(); }) ==
        "rank 0, step 1: runs from 0 and 0 on do not name each other");
  CHECK(after_in_slot([](Step& s) { s.queries.back().rows -= 1; }) == "query 27 sees key 19 0 times");
  CHECK(after_in_slot([](Step& s) { s.queries.clear(), s.keys.clear(); }) ==
        "rank 0, step 1: rows of the slot are in no run");
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
