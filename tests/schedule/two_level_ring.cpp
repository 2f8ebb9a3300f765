// SPDX-License-Identifier: Apache-2.0
#include "lightseq/schedule/two_level_ring.hpp"

#include <string>
#include <vector>

#include "laws/schedule.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"
#include "support/schedules.hpp"

using namespace lightseq;

namespace {

/// The plans of the forward under a mask that hides nothing, relayed.
std::vector<Plan> relayed(int world, int per_node) {
  Planner const planner(TwoLevelRing{per_node}, Full{}, world, 2 * world, Route::neighbour);
  return test::all_plans(planner, Pass::forward);
}

struct Relayed : DefaultTraits {
  static constexpr Route route = Route::neighbour;
};

/// Rank 0 of three meets the keys of rank 1 in two steps, and nobody hands anything on.
struct Keeper : test::Table<Contiguous> {
  Keeper() {
    length = 4;
    works = {{Work{0, 0}, Work{0, 1, Rows::lower}, Work{0, 1, Rows::upper}, Work{0, 2}},
             {Work{1, 1}, Work{1, 0}, Work{1, 2}},
             {Work{2, 2}, std::nullopt, Work{2, 0}, Work{2, 1}}};
  }
  static int predecessor(int rank, int, int) { return rank; }
  static int successor(int rank, int, int) { return rank; }
};
static_assert(HasRelay<Keeper>);

}  // namespace

TEST_CASE("one rank in a node, and one node, are the flat ring") {
  for (int world = 1; world <= 64; ++world)
    for (int const per_node : {1, world})
      for (int rank = 0; rank < world; ++rank)
        for (int step = 0; step < world; ++step) {
          CHECK(TwoLevelRing{per_node}.at(rank, step, world) == Ring::at(rank, step, world));
          CHECK(TwoLevelRing{per_node}.reader(rank, step, world) == Ring::reader(rank, step, world));
        }
}

TEST_CASE(
    "every message is relayed, and one step in a node's ranks crosses nodes, rank by rank of one place") {
  for (int world = 1; world <= 64; ++world)
    for (int per_node = 1; per_node <= world; ++per_node) {
      if (world % per_node != 0) continue;
      int crossings = 0;
      for (Plan const& plan : relayed(world, per_node))
        for (std::size_t step = 0; step < plan.steps.size(); ++step)
          for (Transfer const& t : plan.steps[step].recvs) {
            bool const crosses = t.peer / per_node != plan.rank / per_node;
            CHECK(crosses == ((step + 1) % static_cast<std::size_t>(per_node) == 0));
            CHECK((!crosses || t.peer % per_node == plan.rank % per_node));
            crossings += crosses ? 1 : 0;
          }
      CHECK(crossings == (world / per_node - 1) * world);
    }
}

TEST_CASE("ranks in a node that do not divide the world are refused") {
  for (int const per_node : {-2, 0, 3, 8}) {
    Planner const planner(TwoLevelRing{per_node}, Causal{}, 4, 8);
    CHECK_THROWS_WITH_AS(planner.plan(0, Pass::forward),
                         sentence("lightseq: the two-level ring has ", per_node,
                                  " ranks in a node, which do not divide a world of 4")
                             .c_str(),
                         Error);
  }
}

TEST_CASE("a predecessor without its successor is refused") {
  struct Wrong : TwoLevelRing {
    static int successor(int, int, int) { return 0; }
  };
  Planner const planner(Wrong{}, Causal{}, 4, 8);
  CHECK_THROWS_WITH_AS(planner.plan(2, Pass::forward),
                       "lightseq: the schedule's predecessor(2, 0, 4) is 0, whose successor is not that rank",
                       Error);
}

TEST_CASE("a predecessor outside the world is refused, though it has the rank for its successor") {
  struct Line : Ring {
    int back = 1;
    int predecessor(int rank, int, int) const { return rank - back; }
    int successor(int rank, int, int) const { return rank + back; }
  };
  for (int world = 1; world <= 6; ++world)
    for (int back = -world; back <= world; ++back)
      for (int rank = 0; rank < world; ++rank) {
        Planner const planner(Line{{}, back}, Full{}, world, 2 * world);
        std::string said;
        try {
          planner.check(rank);
        } catch (Error const& error) {
          said = error.what();
        }
        int const from = rank - back;
        CHECK(said == (from >= 0 && from < world
                           ? ""
                           : sentence("lightseq: the schedule's predecessor(", rank, ", 0, ", world, ") is ",
                                      from, ", whose successor is not that rank")));
      }
}

TEST_CASE("a rank that is its own predecessor takes what it lacks from the owner") {
  for (std::int64_t const seqlen : {3, 6, 24, 25}) {
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      Planner const planner(Keeper{}, Full{}, 3, seqlen, Route::neighbour);
      CHECK(laws::first_fault(planner, test::all_plans(planner, pass)) == "");
    }
    Problem const problem{.batch = 1, .seqlen = seqlen, .heads = 2, .kv_heads = 1};
    LocalWorld world(3);
    auto sequence = testing::random_sequence<float>(problem, 16, test::stream_seed(8));
    using Attn = DistAttn<16, Full, Keeper, Relayed>;
    REQUIRE(testing::run_world<Attn>(world, problem, Full{}, Keeper{}, sequence) == "");
    CHECK(testing::dense_errors<16>(sequence, Full{}).worst() < 1e-5);
  }
}

TEST_CASE("DistAttn takes it by value and equals dense attention") {
  auto const check = [&]<class Attn, class S>(Attn*, S const& schedule, int ranks) {
    Problem const problem{.batch = 1, .seqlen = 41, .heads = 4, .kv_heads = 2};
    LocalWorld world(ranks);
    auto sequence = testing::random_sequence<float>(problem, 16, test::stream_seed(7));
    REQUIRE(testing::run_world<Attn>(world, problem, Causal{}, schedule, sequence) == "");
    CHECK(testing::dense_errors<16>(sequence, Causal{}).worst() < 1e-5);
  };
  for (int const per_node : {2, 3}) {
    using Flat = TwoLevelRing;
    using Folded = TwoLevelZigzagRing;
    check(static_cast<DistAttn<16, Causal, Flat, Relayed>*>(nullptr), Flat{per_node}, 2 * per_node);
    check(static_cast<DistAttn<16, Causal, Folded, Relayed>*>(nullptr), Folded{per_node}, 3 * per_node);
    check(static_cast<DistAttn<16, Causal, Folded>*>(nullptr), Folded{per_node}, 2 * per_node);
  }
}
