// SPDX-License-Identifier: Apache-2.0
// Each law of finished plans alone: a plan by hand that breaks it, and the sentence that says so.
#include "lightseq/schedule/plan_laws.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "lightseq/schedule/ring.hpp"

using namespace lightseq;

namespace {

constexpr auto kv = Payload::kv, q = Payload::q, out = Payload::out, dq = Payload::dq, dkv = Payload::dkv;
constexpr auto all = Rows::all, lower = Rows::lower, upper = Rows::upper;

/// Plans of the ranks 0, 1, ... made of their steps.
std::vector<Plan> plans_of(Pass pass, std::vector<std::vector<Step>> const& steps) {
  std::vector<Plan> plans;
  for (auto const& s : steps)
    plans.push_back({static_cast<int>(plans.size()), static_cast<int>(steps.size()), pass, s});
  return plans;
}

/// The plan of rank 0 in a world of 4.
Plan plan_of(Pass pass, std::vector<Step> const& steps) { return {0, 4, pass, steps}; }

struct Case {
  std::string (*law)(Plan const&);
  Pass pass;
  std::vector<Step> steps;
  char const* sentence;
};

Step const own{Work{0, 0}, {}, {}};

}  // namespace

TEST_CASE("a law of one plan gives its sentence") {
  Transfer const kv3{kv, 3, all, 3}, kv2{kv, 2, all, 2}, q3{q, 3, upper, 3}, out3{out, 3, upper, 3};
  Pass const forward = Pass::forward, backward = Pass::backward;
  Case const cases[] = {
      {laws::stays_in_world,
       forward,
       {own, {Work{4, 0}, {}, {}}},
       "rank 0 works on queries of shard 4 and keys of shard 0 at step 1 in a world of 4"},
      {laws::stays_in_world,
       forward,
       {own, {{}, {{kv, 0, all, 0}}, {}}},
       "rank 0 has a message kv of shard 0 with peer 0 at step 1 in a world of 4"},
      {laws::stays_in_world,
       forward,
       {{{}, {}, {{q, -1, lower, 1}}}},
       "rank 0 has a message q of shard -1 (lower half) with peer 1 at step 0 in a world of 4"},
      {laws::starts_local,
       forward,
       {{Work{0, 3}, {}, {}}},
       "rank 0 starts with queries of shard 0 and keys of shard 3, which are not its own"},
      {laws::starts_local,
       forward,
       {{Work{0, 0, upper}, {}, {}}},
       "rank 0 starts with queries of shard 0 (upper half) and keys of shard 0, which are not its own"},
      {laws::groups_are_small,
       forward,
       {own, {{}, {kv3, kv3, kv3, kv3}, {kv3, q3, out3}}},
       "rank 0 has 7 messages at step 1"},
      {laws::groups_are_small, forward, {{{}, {}, {kv3, kv2}}}, "rank 0 receives two kv payloads at step 0"},
      {laws::inputs_arrive,
       forward,
       {own, {Work{0, 3}, {}, {}}},
       "rank 0 needs kv of shard 3 at step 1 and did not receive it in the step before"},
      {laws::inputs_arrive,
       forward,
       {{{}, {}, {}}, {Work{3, 0, upper}, {}, {}}},
       "rank 0 needs q of shard 3 (upper half) at step 1 and did not receive it in the step before"},
      {laws::inputs_arrive,
       forward,
       {{{}, {}, {kv3}}, own, {Work{0, 3}, {}, {}}},
       "rank 0 receives kv of shard 3 at step 0, which its next step does not use"},
      {laws::inputs_arrive,
       forward,
       {own, {{}, {}, {kv3}}},
       "rank 0 receives kv of shard 3 at step 1, which its next step does not use"},
      {laws::senders_hold_inputs,
       forward,
       {{{}, {{kv, 3, all, 1}}, {kv3}}, {Work{0, 3}, {}, {}}},
       "rank 0 sends kv of shard 3 at step 0 and does not hold it then"},
      {laws::results_return,
       forward,
       {own, {Work{3, 0, upper}, {}, {}}, {}, {{}, {out3}, {}}},
       "rank 0 returns out of shard 3 (upper half) to its owner 0 times at step 2, the step after the work"},
      {laws::results_return,
       backward,
       {own, {Work{0, 3}, {}, {}}, {{}, {{dkv, 3, all, 2}}, {}}},
       "rank 0 returns dkv of shard 3 to its owner 0 times at step 2, the step after the work"},
      {laws::results_return,
       forward,
       {own, {Work{3, 0, upper}, {}, {}}, {{}, {out3, out3}, {}}},
       "rank 0 returns out of shard 3 (upper half) to its owner 2 times at step 2, the step after the work"},
      {laws::results_return,
       backward,
       {own, {{}, {{dq, 3, all, 3}}, {}}},
       "rank 0 sends dq of shard 3 to 3 at step 1, which its work of the step before did not make"},
      {laws::two_slots_suffice,
       forward,
       {{{}, {}, {kv3, kv2}}, {Work{0, 3}, {}, {}}},
       "rank 0 at step 0: the slot into which the exchange receives kv of shard 2 is not free for it"},
      {laws::two_slots_suffice,  // not yet read when the next comes
       forward,
       {{{}, {}, {kv3}}, {}, {{}, {}, {kv2}}},
       "rank 0 at step 2: the slot into which the exchange receives kv of shard 2 is not free for it"},
      {laws::two_slots_suffice,
       forward,
       {{{}, {}, {kv3}}, own, {Work{0, 3}, {}, {}}},
       "rank 0 at step 2: the slot from which the work reads kv of shard 3 is not free for it"},
      {laws::two_slots_suffice,
       forward,
       {{{}, {}, {kv3}}, {{}, {{kv, 2, all, 1}}, {}}},
       "rank 0 at step 1: the slot from which the exchange relays kv of shard 2 is not free for it"},
      {laws::two_slots_suffice,
       forward,
       {{{}, {}, {q3}}, {Work{3, 0, upper}, {}, {}}, {}, {{}, {out3}, {}}},
       "rank 0 at step 3: the slot from which the exchange sends out of shard 3 (upper half) is not free for "
       "it"},
      {laws::two_slots_suffice,
       forward,
       {{{}, {}, {q3}},
        {Work{3, 0, upper}, {}, {q3}},
        {Work{3, 0, upper}, {}, {q3}},
        {Work{3, 0, upper}, {}, {}}},
       "rank 0 at step 3: the slot into which the work writes out of shard 3 (upper half) is not free for "
       "it"},
      {laws::two_slots_suffice,
       forward,
       {own, {{}, {}, {kv3}}},
       "rank 0 has filled a slot that nothing reads"},
  };
  for (Case const& c : cases) CHECK(c.law(plan_of(c.pass, c.steps)) == std::string(c.sentence));
}

TEST_CASE("a slot is not written while it is read, nor read while it is written") {
  Transfer const a{kv, 1}, b{kv, 2};
  laws::Slot slot;
  CHECK_FALSE(slot.read(a, 0));  // nothing there
  slot = {};
  CHECK(slot.write(a, 0));
  CHECK_FALSE(slot.read(a, 0));  // beside the write
  CHECK(slot.read_after(a, 0));
  CHECK(slot.read(a, 1));
  CHECK_FALSE(slot.write(b, 1));  // beside the read
  slot = {};
  CHECK(slot.write(a, 0));
  CHECK(slot.unread());
  CHECK_FALSE(slot.write(b, 1));  // over what nobody read
  CHECK_FALSE(slot.read(a, 2));   // something else is there
  CHECK_FALSE(slot.unread());
  CHECK(slot.write(a, 3));
}

TEST_CASE("messages meet in the same step, in order and with the same content") {
  Transfer const send{kv, 0, all, 1}, recv{kv, 0, all, 0};
  auto const meet = [](std::vector<std::vector<Step>> const& steps) {
    return laws::messages_meet(plans_of(Pass::forward, steps));
  };
  CHECK(meet({{{{}, {send}, {}}}, {{{}, {}, {recv}}}}) == "");
  CHECK(meet({{{{}, {send}, {}}}, {}}) ==
        "rank 0 sends kv of shard 0 to rank 1 at step 0, which there awaits nothing in its place");
  CHECK(meet({{}, {{}, {{}, {}, {recv}}}}) ==
        "rank 1 awaits kv of shard 0 from rank 0 at step 1, which there sends nothing in its place");
  CHECK(meet({{{{}, {send}, {}}}, {{{}, {}, {{kv, 0, upper, 0}}}}}) ==
        "rank 0 sends kv of shard 0 to rank 1 at step 0, which there awaits kv of shard 0 (upper half) in "
        "its place");
  CHECK(meet({{{{}, {send, {q, 0, all, 1}}, {}}}, {{{}, {}, {{q, 0, all, 0}, recv}}}}) ==
        "rank 0 sends kv of shard 0 to rank 1 at step 0, which there awaits q of shard 0 in its place");
}

TEST_CASE("a cycle of ranks that wait for each other is found, and steps counted differently are none") {
  auto const deadlock = [](std::vector<std::vector<Step>> const& steps) {
    return laws::no_deadlock(plans_of(Pass::forward, steps));
  };
  auto const send = [](int to) { return Step{{}, {{kv, 0, all, to}}, {}}; };
  auto const recv = [](int from) { return Step{{}, {}, {{kv, 0, all, from}}}; };
  auto const both = [](int to, int from) { return Step{{}, {{kv, 0, all, to}}, {{kv, 0, all, from}}}; };
  CHECK(deadlock({{both(1, 1)}, {both(0, 0)}}) == "");
  CHECK(deadlock({{send(1), recv(1)}, {recv(0), send(0)}}) == "");
  CHECK(deadlock({{send(1)}, {{}, {}, recv(0)}}) == "");
  CHECK(deadlock({{send(1), recv(1)}, {send(0), recv(0)}}) ==
        "rank 0 waits for ever at step 0, for kv of shard 0 and peer 1");
  CHECK(deadlock({{send(1), recv(2)}, {send(2), recv(0)}, {send(0), recv(1)}}) ==
        "rank 0 waits for ever at step 0, for kv of shard 0 and peer 1");
  CHECK(deadlock({{send(1), recv(2)}, {recv(0), send(2)}, {send(0), recv(1)}}) == "");
  CHECK(deadlock({{both(1, 1), send(1), recv(1)}, {both(0, 0), send(0), recv(0)}}) ==
        "rank 0 waits for ever at step 1, for kv of shard 0 and peer 1");
  CHECK(deadlock({{both(1, 2)}, {both(2, 0)}, {both(0, 1)}}) == "");
  CHECK(deadlock({{}, {{}, {}, recv(0)}}) == "rank 1 waits for ever at step 2, for kv of shard 0 and peer 0");
}

TEST_CASE("plans that are not in the order of their ranks are refused, also where ranks send nothing") {
  for (int world = 2; world <= 6; ++world)
    for (SlidingWindow const& mask : {SlidingWindow{100, 100}, SlidingWindow{0, 0}}) {
      Planner const planner(Ring{}, mask, world, 2 * world);
      for (int a = 0; a < world; ++a)
        for (int b = a; b < world; ++b) {
          std::vector<Plan> plans;
          for (int rank = 0; rank < world; ++rank)
            plans.push_back(planner.plan(rank == a ? b : rank == b ? a : rank, Pass::forward));
          CHECK(laws::first_fault(planner, plans) ==
                (a == b ? ""
                        : sentence("plan ", a, " is that of rank ", b, " in a world of ", world,
                                   ", or of another pass")));
        }
    }
}

TEST_CASE("a pair of shards that no work, or two works compute, is named") {
  Planner<Ring, Full> const planner(Ring{}, Full{}, 2, 8);
  auto const computed = [&](std::vector<Work> const& works) {
    std::vector<Step> steps;
    for (Work const& w : works) steps.push_back({w, {}, {}});
    return laws::computed_once(planner, plans_of(Pass::forward, {steps, {}}));
  };
  CHECK(computed({{0, 0}, {0, 1}, {1, 0}, {1, 1, lower}, {1, 1, upper}}) == "");
  CHECK(computed({{0, 0}, {0, 1}, {1, 0}, {1, 1, lower}}) ==
        "queries of shard 1 (upper half) meet keys of shard 1 0 times");
  CHECK(computed({{0, 0}, {0, 1}, {0, 1}, {1, 0}, {1, 1}}) ==
        "queries of shard 0 (lower half) meet keys of shard 1 2 times");
}
