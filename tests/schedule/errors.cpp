// SPDX-License-Identifier: Apache-2.0
// A schedule that breaks a law is refused when a plan is made, in a sentence with the numbers.
#include <doctest/doctest.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "laws/schedule.hpp"
#include "lightseq/schedule/balanced.hpp"
#include "lightseq/schedule/laws.hpp"
#include "lightseq/schedule/ring.hpp"
#include "support/schedules.hpp"

using namespace lightseq;
using Works = std::vector<std::vector<std::optional<Work>>>;

namespace {

constexpr auto lower = Rows::lower, upper = Rows::upper;

/// What making this rank's plan says; empty if there is nothing to say.
template <Schedule S, Mask M>
std::string complaint(S const& schedule, M const& mask, int world, int rank, std::int64_t seqlen = 0,
                      Pass pass = Pass::forward) {
  try {
    Plan const plan = Planner(schedule, mask, world, seqlen > 0 ? seqlen : 4 * world).plan(rank, pass);
    return plan.rank == rank ? "" : "a plan of another rank";
  } catch (Error const& error) {
    return error.what();
  }
}

/// The same of a table, with 4 tokens a rank.
template <Mask M>
std::string complaint(Works const& works, M const& mask, int rank, Pass pass = Pass::forward) {
  std::size_t length = 0;
  for (auto const& row : works) length = std::max(length, row.size());
  return complaint(test::Table<Contiguous>{static_cast<int>(length), works}, mask,
                   static_cast<int>(works.size()), rank, 0, pass);
}

/// With 4 tokens a rank: all see the keys of rank 0 and their own.
struct FirstAndOwn {
  static bool visible(std::int64_t query, std::int64_t key) { return key < 4 || key / 4 == query / 4; }
  static Cover cover(Range queries, Range keys) {
    return visible(queries.begin, keys.begin) ? Cover::partial : Cover::none;
  }
};

/// Ring, but its reader() is what the test says.
struct Misread : Ring {
  int named = 0;
  int reader(int, int, int) const { return named; }
};

/// Stateless faulty schedules, which are refused when they are compiled.
struct Misses : Ring {
  static constexpr std::optional<Work> at(int rank, int step, int world) {
    if (step == 1 && rank == 2) return std::nullopt;
    return Ring::at(rank, step, world);
  }
};
struct Doubles : Ring {
  static constexpr int steps(int world) { return world + 1; }
};
struct StartsAbroad : Ring {
  static constexpr Work at(int rank, int step, int world) { return Ring::at(rank, step + 1, world); }
};
struct NamesNobody : Ring {
  static constexpr int reader(int shard, int, int) { return shard; }
};

struct NamesNoHelper : Balanced {
  static constexpr int reader(int shard, int step, int world) {
    return shard + step < world ? shard + step : shard;
  }
};

// The laws that are proved while compiling, for schedules and masks without values.
static_assert(laws::proved_complete<Ring, Full>());
static_assert(laws::proved_complete<ZigzagRing, Causal>());
static_assert(laws::proved_complete<StripedRing, Causal>());
static_assert(laws::proved_complete<Balanced, Causal>());
static_assert(!laws::proved_complete<Balanced, Full>());
static_assert(!laws::proved_complete<Misses, Causal>());
static_assert(!laws::proved_complete<Doubles, Causal>());
constexpr laws::Counterexample doubled = laws::against_complete<Doubles, Causal>();
static_assert(doubled.world == 1 && doubled.first == 0 && doubled.second == 0 && doubled.times == 2);
constexpr laws::Counterexample missed = laws::against_complete<Misses, Causal>();
static_assert(missed.world == 3 && missed.first == 2 && missed.second == 1 && missed.times == 0);
static_assert(missed.rows == Rows::lower && !laws::against_complete<Ring, Full>().found());
/// Each wrong in one world alone, at its last rank.
template <int only>
struct MissesIn : Ring {
  static constexpr std::optional<Work> at(int rank, int step, int world) {
    if (world == only && rank == world - 1 && step == world - 1) return std::nullopt;
    return Ring::at(rank, step, world);
  }
};
template <int only>
struct StartsInHalfIn : Ring {
  static constexpr Work at(int rank, int step, int world) {
    Work work = Ring::at(rank, step, world);
    if (world == only && rank == world - 1 && step == 0) work.rows = lower;
    return work;
  }
};
template <int only>
struct NamesNobodyIn : Ring {
  static constexpr int reader(int shard, int step, int world) {
    return world == only && step == world - 1 ? shard : Ring::reader(shard, step, world);
  }
};

/// They are refused in the worlds that the README names. In a world of one nobody reads what is another's.
template <int... worlds>
constexpr bool refused_in(std::integer_sequence<int, worlds...>) {
  return ((laws::against_complete<MissesIn<worlds + 1>, Full>().world == worlds + 1) && ...) &&
         ((laws::against_local<StartsInHalfIn<worlds + 1>>().world == worlds + 1) && ...) &&
         ((laws::against_readers<NamesNobodyIn<worlds + 1>>().found() == (worlds > 0)) && ...);
}
static_assert(refused_in(std::make_integer_sequence<int, 5>()));

static_assert(laws::proved_local<Balanced>());
static_assert(!laws::proved_local<StartsAbroad>());
static_assert(laws::proved_readers<Balanced>());
static_assert(!laws::proved_readers<NamesNobody>());
static_assert(!laws::proved_readers<NamesNoHelper>());

}  // namespace

TEST_CASE("a pair of shards that is missed or doubled is named by the rank whose queries they are") {
  Works const good{{Work{0, 0}}, {Work{1, 1}, Work{1, 0}}, {Work{2, 2}, Work{2, 1}, Work{2, 0}}};
  for (int rank = 0; rank < 3; ++rank) CHECK(complaint(good, Causal{}, rank) == "");

  Works works = good;
  works[1].pop_back();
  CHECK(complaint(works, Causal{}, 1) ==
        "lightseq: the schedule computes the lower half of the queries of shard 1 against the keys of shard "
        "0 0 times "
        "in a world of 3; the mask shows them, so it must be once: query 4 sees key 0");
  CHECK(complaint(works, Causal{}, 0) == "");

  works = good;
  works[2][1] = Work{2, 1, lower};
  CHECK(complaint(works, Causal{}, 2) ==
        "lightseq: the schedule computes the upper half of the queries of shard 2 against the keys of shard "
        "1 0 times "
        "in a world of 3; the mask shows them, so it must be once: query 10 sees key 4");

  works = good;
  works[0].push_back(Work{2, 0, upper});  // the helper does what the owner does too
  CHECK(complaint(works, Causal{}, 2) ==
        "lightseq: the schedule computes the upper half of the queries of shard 2 against the keys of shard "
        "0 2 times "
        "in a world of 3; the mask shows them, so it must be once: query 10 sees key 0");

  works = good;
  for (int again = 0; again < 256; ++again) works[1].push_back(Work{1, 0});
  CHECK(complaint(works, Causal{}, 1) ==
        "lightseq: the schedule computes the lower half of the queries of shard 1 against the keys of shard "
        "0 257 times "
        "in a world of 3; the mask shows them, so it must be once: query 4 sees key 0");

  works = good;
  works[0].push_back(Work{0, 2});  // hidden by the mask, so it does not matter how often
  works[0].push_back(Work{0, 2});
  CHECK(complaint(works, Causal{}, 0) == "");
}

TEST_CASE("every pair missed or doubled is noticed by some rank, and its place does not matter") {
  for (int world = 2; world <= 6; ++world)
    for (int rank = 0; rank < world; ++rank)
      for (int step = 0; step < world; ++step)
        for (bool const drop : {true, false}) {
          test::Table<Contiguous> table{world + 1, {}};
          for (int r = 0; r < world; ++r) {
            table.works.emplace_back();
            for (int s = 0; s < world; ++s) table.works.back().push_back(Ring::at(r, s, world));
          }
          auto& row = table.works[static_cast<std::size_t>(rank)];
          if (drop)
            row[static_cast<std::size_t>(step)].reset();
          else
            row.push_back(row[static_cast<std::size_t>(step)]);
          CHECK(complaint(table, Full{}, world, rank).find(drop ? " 0 times " : " 2 times ") !=
                std::string::npos);
        }
}

TEST_CASE("step 0 that is not local is refused") {
  CHECK(complaint(Works{{Work{0, 1}, Work{0, 0}}, {Work{1, 1}, Work{1, 0}}}, Full{}, 0) ==
        "lightseq: the schedule starts rank 0 with queries of shard 0 and keys of shard 1; step 0 must be a "
        "rank's own "
        "queries against its own keys, as nothing has travelled yet");
  CHECK(complaint(Works{{Work{0, 0, lower}, Work{0, 0, upper}}}, Full{}, 0) ==
        "lightseq: the schedule starts rank 0 with queries of shard 0 and keys of shard 0; step 0 must be a "
        "rank's own "
        "queries against its own keys, as nothing has travelled yet");
}

TEST_CASE("a shard outside the world is refused") {
  for (Work const& bad : {Work{0, 2}, Work{0, -1}, Work{2, 0}, Work{-1, 0}})
    CHECK(complaint(Works{{Work{0, 0}, bad}, {Work{1, 1}}}, Causal{}, 0) ==
          sentence("lightseq: the schedule gives rank 0 at step 1 queries of shard ", bad.q,
                   " and keys of shard ", bad.kv, "; there are 2 shards"));
}

namespace {

/// A mask that knows 16 tokens, as one with a table does.
struct Of16 {
  static bool visible(std::int64_t, std::int64_t) { return true; }
  static Cover cover(Range queries, Range keys) {
    for (Range const& range : {queries, keys}) CHECK((range.begin >= 0 && range.end <= 16));
    return Cover::partial;
  }
};

}  // namespace

TEST_CASE("a mask is not asked about a shard outside the world, by no rank") {
  for (int const outside : {-1, 4, 99})
    for (Work const& work : {Work{1, outside}, {outside, 1}}) {
      Works works(4);
      for (int rank = 0; rank < 4; ++rank)
        for (int step = 0; step < 4; ++step)
          works[static_cast<std::size_t>(rank)].push_back(Ring::at(rank, step, 4));
      works[1][1] = work;
      for (Pass const pass : {Pass::forward, Pass::backward})
        for (int rank = 0; rank < 4; ++rank)
          CHECK(complaint(works, Of16{}, rank, pass).empty() == (rank != 1));
    }
}

TEST_CASE("rows that are neither all nor a half are refused") {
  for (int const bad : {-1, 3, 7})
    CHECK(complaint(Works{{Work{0, 0}, Work{0, 1, static_cast<Rows>(bad)}}, {Work{1, 1}, Work{1, 0}}}, Full{},
                    0) == sentence("lightseq: the schedule gives rank 0 at step 1 the rows ", bad,
                                   "; they must be all, the lower or the upper half"));
  // The owner of queries sends another rank what that one asks for: it must not index by such rows either.
  for (int const bad : {-1, 3, 7})
    for (int const rank : {0, 1})
      CHECK(complaint(Works{{Work{0, 0}, Work{1, 0, static_cast<Rows>(bad)}}, {Work{1, 1}}}, Causal{},
                      rank) == sentence("lightseq: the schedule gives rank 0 at step 1 the rows ", bad,
                                        "; they must be all, the lower or the upper half"));
}

TEST_CASE("a negative number of steps is refused, whatever the mask shows") {
  struct Negative : Ring {
    static constexpr int steps(int) { return -3; }
  };
  CHECK(complaint(Negative{}, test::FarBack{1000}, 2, 0) ==
        "lightseq: the schedule's steps(2) is -3, it must not be negative");
}

TEST_CASE("a reader() that does not fit at() is refused") {
  Misread schedule;
  schedule.named = 1;
  CHECK(complaint(schedule, Full{}, 3, 0) ==
        "lightseq: the schedule's reader(2, 1, 3) is 1, but at() has rank 0 read that shard");
  schedule.named = 3;
  CHECK(complaint(schedule, Full{}, 3, 0) ==
        "lightseq: the schedule's reader(0, 0, 3) is 3; it must be in 0 ... 2, and the shard itself where no "
        "other "
        "rank reads it");
  schedule.named = -1;
  CHECK(complaint(schedule, Full{}, 3, 2) ==
        "lightseq: the schedule's reader(2, 0, 3) is -1; it must be in 0 ... 2, and the shard itself where "
        "no other "
        "rank reads it");
}

TEST_CASE("a group holds at most 6 messages, and brings at most one payload of each kind") {
  // At step 1 all other ranks want the keys of rank 0.
  auto const star = [](int world) {
    Works works;
    for (int rank = 0; rank < world; ++rank) {
      works.push_back({Work{rank, rank}});
      if (rank > 0) works.back().push_back(Work{rank, 0});
    }
    return works;
  };
  CHECK(complaint(star(7), FirstAndOwn{}, 0, Pass::forward) == "");
  CHECK(complaint(star(8), FirstAndOwn{}, 0, Pass::forward) ==
        "lightseq: rank 0 has 7 messages at step 0; a group holds at most 6");
  CHECK(complaint(star(3), FirstAndOwn{}, 0, Pass::backward) ==
        "lightseq: rank 0 receives two dkv payloads at step 2; there is one slot for each step");

  Works const helped{{Work{0, 0}}, {Work{1, 1}, Work{0, 1}}, {Work{2, 2}, Work{0, 2}}};
  CHECK(complaint(helped, Full{}, 0, Pass::forward) ==
        "lightseq: rank 0 receives two out payloads at step 2; there is one slot for each step");
  CHECK(complaint(helped, Full{}, 0, Pass::backward) ==
        "lightseq: rank 0 receives two dq payloads at step 2; there is one slot for each step");
}

TEST_CASE("a rank outside the world is refused") {
  for (int const rank : {-1, 4, 100})
    CHECK(complaint(Ring{}, Full{}, 4, rank) ==
          sentence("lightseq: rank is ", rank, ", it must be in 0 ... 3"));
}

namespace {

/// Causal, with a cover() that does not know it.
struct Undecided {
  std::int64_t width = 0;
  bool visible(std::int64_t q, std::int64_t k) const { return k <= q && q - k <= width; }
  Cover cover(Range, Range) const { return Cover::partial; }
};

}  // namespace

TEST_CASE("where cover() leaves open what the mask hides, the text says that this is the fault") {
  CHECK(complaint(Balanced{}, Undecided{3}, 2, 0, 8) ==
        "lightseq: the schedule computes the lower half of the queries of shard 0 against the keys of shard "
        "1 0 times in a world of 2; the mask's cover() leaves open whether they are visible, and no query of "
        "them sees a key: where a schedule leaves out what the mask hides, cover() must answer none");
  CHECK(complaint(Balanced{}, Undecided{3}, 2, 0, 1 << 20).find("none of many that were asked sees a key") !=
        std::string::npos);
  CHECK(complaint(Ring{}, Undecided{3}, 2, 0, 8) == "");
  // Of a pair that some query sees the one query and key are found, wherever they are.
  struct One {
    std::int64_t query = 0, key = 0;
    bool visible(std::int64_t q, std::int64_t k) const { return q == k || (q == query && k == key); }
    Cover cover(Range, Range) const { return Cover::partial; }
  };
  for (std::int64_t query = 0; query < 2; ++query)
    for (std::int64_t key = 4; key < 8; ++key)
      CHECK(complaint(Works{{Work{0, 0}}, {Work{1, 1}, Work{1, 0}}}, One{query, key}, 0)
                .find(sentence("once: query ", query, " sees key ", key)) != std::string::npos);
  CHECK(complaint(Works{{Work{0, 0}}, {Work{1, 1}, Work{1, 0}}}, One{3, 6}, 0)
            .find("cover() must answer none") != std::string::npos);  // of the lower half, which comes first
}

TEST_CASE("a mask or schedule that finds its own values senseless is refused in its words") {
  for (SlidingWindow const& window : {SlidingWindow{-1, 0}, SlidingWindow{3, -2}, SlidingWindow{-7, -7}})
    CHECK(complaint(Ring{}, window, 2, 0) ==
          sentence("lightseq: SlidingWindow{", window.left, ", ", window.right,
                   "}: left and right must not be negative; a side without a limit has that of the "
                   "sequence's length or more"));
  CHECK(complaint(Ring{}, SlidingWindow{0, 0}, 2, 0) == "");
  struct Choosy : Ring {
    int number = 0;
    std::string fault() const { return number == 3 ? "Choosy is 3" : ""; }
  };
  CHECK(complaint(Choosy{{}, 3}, Full{}, 2, 0) == "lightseq: Choosy is 3");
  CHECK(complaint(Choosy{{}, 4}, Full{}, 2, 0) == "");
}

TEST_CASE("Balanced is refused under a mask that shows a later shard") {
  CHECK(complaint(Balanced{}, SlidingWindow{4, 0}, 4, 0, 8) == "");
  CHECK(complaint(Balanced{}, SlidingWindow{4, 2}, 4, 0, 8) ==
        "lightseq: the schedule computes the lower half of the queries of shard 0 against the keys of shard "
        "1 0 times in "
        "a world of 4; the mask shows them, so it must be once: query 0 sees key 2");
  CHECK(complaint(Balanced{}, test::EqualDocuments{2, false}, 4, 0, 8) ==
        "");  // documents end where shards do
  CHECK(complaint(Balanced{}, test::EqualDocuments{4, false}, 4, 0, 8).find(" 0 times ") !=
        std::string::npos);
}
