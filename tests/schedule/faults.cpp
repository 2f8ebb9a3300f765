// SPDX-License-Identifier: Apache-2.0
// Whatever is broken in good plans, the laws notice it.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "laws/schedule.hpp"
#include "lightseq/schedule/balanced.hpp"
#include "lightseq/schedule/ring.hpp"

using namespace lightseq;
using Plans = std::vector<Plan>;

namespace {

using List = std::vector<Transfer> Step::*;
constexpr Rows every_rows[] = {Rows::all, Rows::lower, Rows::upper};
constexpr Payload every_payload[] = {Payload::kv, Payload::q, Payload::out, Payload::dq, Payload::dkv};

Plan& of(Plans& plans, int rank) { return plans[static_cast<std::size_t>(rank)]; }
Step& of(Plans& plans, int rank, int step) {
  auto& steps = of(plans, rank).steps;
  if (steps.size() <= static_cast<std::size_t>(step)) steps.resize(static_cast<std::size_t>(step) + 1);
  return steps[static_cast<std::size_t>(step)];
}

/// Where a message stands in the plans.
struct End {
  int rank, step;
  List list;
  std::size_t index;

  std::vector<Transfer>& messages(Plans& plans) const { return of(plans, rank, step).*list; }
  Transfer& message(Plans& plans) const { return messages(plans)[index]; }
  void erase(Plans& plans) const {
    messages(plans).erase(messages(plans).begin() + static_cast<std::ptrdiff_t>(index));
  }
};

std::vector<End> all_ends(Plans const& plans) {
  std::vector<End> ends;
  for (Plan const& plan : plans)
    for (int step = 0; step < static_cast<int>(plan.steps.size()); ++step)
      for (List const list : {&Step::sends, &Step::recvs})
        for (std::size_t i = 0; i < (laws::step_of(plan, step).*list).size(); ++i)
          ends.push_back({plan.rank, step, list, i});
  return ends;
}

/// The receive of a send.
End other_end(Plans& plans, End const& send) {
  Transfer const sent = send.message(plans);
  auto const& recvs = of(plans, sent.peer, send.step).recvs;
  auto const found = std::find_if(recvs.begin(), recvs.end(), [&](Transfer const& t) {
    return t.peer == send.rank && laws::same_content(t, sent);
  });
  REQUIRE(found != recvs.end());
  return {sent.peer, send.step, &Step::recvs, static_cast<std::size_t>(found - recvs.begin())};
}

/// Breaks copies of good plans, one way at a time, and counts the ways and those that no law noticed.
template <Schedule S, Mask M>
class Breaker {
 public:
  Breaker(Planner<S, M> const& planner, Pass pass)
      : planner_(planner), good_(test::all_plans(planner, pass)) {
    REQUIRE(laws::first_fault(planner_, good_) == "");
  }

  Plans const& good() const { return good_; }
  int world() const { return planner_.world(); }

  void must_notice(std::string const& what, std::function<void(Plans&)> const& damage) {
    Plans plans = good_;
    damage(plans);
    ++ways;
    INFO(what);
    CHECK(laws::first_fault(planner_, plans) != "");
  }

  int ways = 0;

 private:
  Planner<S, M> planner_;
  Plans good_;
};

/// One end of one message is wrong.
template <class B>
void break_one_end(B& breaker) {
  for (End const& end : all_ends(breaker.good())) {
    Plans good = breaker.good();
    Transfer const original = end.message(good);
    std::string const where = sentence(text(original), end.list == &Step::sends ? " sent" : " received",
                                       " by rank ", end.rank, " at step ", end.step, ": ");
    auto const change = [&](char const* what, auto member, auto value) {
      if (original.*member == value) return;
      breaker.must_notice(where + what, [&](Plans& plans) { end.message(plans).*member = value; });
    };
    for (int rank = -1; rank <= breaker.world(); ++rank) {
      change("another peer", &Transfer::peer, rank);
      change("another shard", &Transfer::shard, rank);
    }
    for (Rows const rows : every_rows) change("other rows", &Transfer::rows, rows);
    for (Payload const payload : every_payload) change("another payload", &Transfer::payload, payload);
    breaker.must_notice(where + "dropped", [&](Plans& plans) { end.erase(plans); });
    breaker.must_notice(where + "doubled", [&](Plans& plans) { end.messages(plans).push_back(original); });
    breaker.must_notice(where + "a step late", [&](Plans& plans) {
      end.erase(plans);
      (of(plans, end.rank, end.step + 1).*end.list).push_back(original);
    });
    if (end.index > 0 && end.messages(good)[end.index - 1].peer == original.peer)
      breaker.must_notice(where + "before its turn", [&](Plans& plans) {
        std::swap(end.message(plans), end.messages(plans)[end.index - 1]);
      });
  }
}

/// Both ends of one message are wrong in the same way, so that they still match.
template <class B>
void break_both_ends(B& breaker) {
  for (End const& send : all_ends(breaker.good())) {
    if (send.list != &Step::sends) continue;
    Plans good = breaker.good();
    Transfer const original = send.message(good);
    End const recv = other_end(good, send);
    std::string const where =
        sentence(text(original), " from rank ", send.rank, " to ", recv.rank, " at step ", send.step, ": ");
    auto const change = [&](char const* what, auto member, auto value) {
      if (original.*member == value) return;
      breaker.must_notice(where + what, [&](Plans& plans) {
        send.message(plans).*member = value;
        recv.message(plans).*member = value;
      });
    };
    for (int shard = 0; shard < breaker.world(); ++shard) change("another shard", &Transfer::shard, shard);
    for (Rows const rows : every_rows) change("other rows", &Transfer::rows, rows);
    for (Payload const payload : every_payload) change("another payload", &Transfer::payload, payload);
    auto const erase = [&](Plans& plans) {
      send.erase(plans);
      recv.erase(plans);
    };
    auto const add = [&](Plans& plans, int sender, int receiver, int step) {
      Transfer copy = original;
      copy.peer = receiver;
      of(plans, sender, step).sends.push_back(copy);
      copy.peer = sender;
      of(plans, receiver, step).recvs.push_back(copy);
    };
    breaker.must_notice(where + "dropped", erase);
    breaker.must_notice(where + "doubled",
                        [&](Plans& plans) { add(plans, send.rank, recv.rank, send.step); });
    for (int const step : {send.step - 1, send.step + 1})
      if (step >= 0)
        breaker.must_notice(where + (step < send.step ? "a step early" : "a step late"), [&](Plans& plans) {
          erase(plans);
          add(plans, send.rank, recv.rank, step);
        });
    for (int receiver = 0; receiver < breaker.world(); ++receiver)
      if (receiver != recv.rank && receiver != send.rank)
        breaker.must_notice(where + "to another rank", [&](Plans& plans) {
          erase(plans);
          add(plans, send.rank, receiver, send.step);
        });
    for (int sender = 0; sender < breaker.world(); ++sender) {
      auto const& work = laws::step_of(of(good, sender), send.step).work;
      bool const holds = !is_result(original.payload) &&
                         (original.shard == sender ||
                          (work && original.payload == Payload::kv && work->kv == original.shard) ||
                          (work && original.payload == Payload::q && work->q == original.shard &&
                           work->rows == original.rows));
      if (sender != recv.rank && sender != send.rank && !holds)
        breaker.must_notice(where + "from one who does not have it", [&](Plans& plans) {
          erase(plans);
          add(plans, sender, recv.rank, send.step);
        });
    }
  }
}

template <class B>
void break_works(B& breaker) {
  for (Plan const& plan : breaker.good()) {
    for (int step = 0; step < static_cast<int>(plan.steps.size()); ++step) {
      auto const original = laws::step_of(plan, step).work;
      if (!original) continue;
      std::string const where = sentence("the work of rank ", plan.rank, " at step ", step, ": ");
      auto const change = [&](char const* what, auto member, auto value) {
        if ((*original).*member == value) return;
        breaker.must_notice(where + what,
                            [&](Plans& plans) { (*of(plans, plan.rank, step).work).*member = value; });
      };
      for (int shard = -1; shard <= breaker.world(); ++shard) {
        change("other queries", &Work::q, shard);
        change("other keys", &Work::kv, shard);
      }
      for (Rows const rows : every_rows) change("other rows", &Work::rows, rows);
      breaker.must_notice(where + "dropped", [&](Plans& plans) { of(plans, plan.rank, step).work.reset(); });
      breaker.must_notice(where + "swapped with the next", [&](Plans& plans) {
        Step& next = of(plans, plan.rank, step + 1);
        std::swap(of(plans, plan.rank, step).work, next.work);
      });
    }
    breaker.must_notice("the plan of another rank",
                        [&](Plans& plans) { of(plans, plan.rank) = breaker.good()[plan.rank == 0 ? 1 : 0]; });
    breaker.must_notice("the plan of another pass", [&](Plans& plans) {
      Pass& pass = of(plans, plan.rank).pass;
      pass = pass == Pass::forward ? Pass::backward : Pass::forward;
    });
    breaker.must_notice("a plan of another world", [&](Plans& plans) { ++of(plans, plan.rank).world; });
  }
  breaker.must_notice("a plan too few", [](Plans& plans) { plans.pop_back(); });
}

template <Schedule S, Mask M>
void break_everything(S const& schedule, M const& mask, int world) {
  for (Route const route : {Route::owner, Route::neighbour})
    for (Pass const pass : {Pass::forward, Pass::backward}) {
      INFO("world ", world, ", route ", static_cast<int>(route), ", pass ", static_cast<int>(pass));
      Breaker<S, M> breaker(Planner<S, M>(schedule, mask, world, 4 * world, route), pass);
      break_one_end(breaker);
      break_both_ends(breaker);
      break_works(breaker);
      CHECK(breaker.ways > 100);
    }
}

}  // namespace

TEST_CASE("the laws notice every way to break the plans of Ring") {
  break_everything(Ring{}, Full{}, 4);
  break_everything(Ring{}, Full{}, 5);
}

TEST_CASE("the laws notice every way to break the plans of Balanced") {
  for (int world = 2; world <= 6; ++world) break_everything(Balanced{}, Causal{}, world);
}
