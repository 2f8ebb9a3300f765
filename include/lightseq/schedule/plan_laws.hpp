// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <string>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/schedule/planner.hpp"
#include "lightseq/schedule/text.hpp"

/// The laws of finished plans, for tests and for those who write a schedule. Each reads the plan of one rank,
/// or the plans of all ranks in order, and gives an empty string, or a sentence on the first fault that it
/// finds. None asks the planner how it came to a plan.
namespace lightseq::laws {

/// A step of a plan; empty steps before its start and after its end.
inline Step const& step_of(Plan const& plan, int step) {
  static Step const idle;
  bool const inside = step >= 0 && step < static_cast<int>(plan.steps.size());
  return inside ? plan.steps[static_cast<std::size_t>(step)] : idle;
}

/// Whether two messages carry the same thing, whoever the peers are.
constexpr bool same_content(Transfer const& a, Transfer const& b) {
  return a.payload == b.payload && a.shard == b.shard && a.rows == b.rows;
}

/// Calls `visit` with each input that a rank's work needs from elsewhere.
template <class Visit>
void for_each_needed(Plan const& plan, Step const& step, Visit visit) {
  if (!step.work) return;
  if (step.work->kv != plan.rank) visit(Transfer{Payload::kv, step.work->kv, Rows::all});
  if (step.work->q != plan.rank) visit(Transfer{Payload::q, step.work->q, step.work->rows});
}

/// Calls `visit` with each result that a rank's work owes, `peer` being the owner.
template <class Visit>
void for_each_owed(Plan const& plan, Step const& step, Visit visit) {
  if (!step.work) return;
  Work const& w = *step.work;
  bool const forward = plan.pass == Pass::forward;
  if (w.q != plan.rank) visit(Transfer{forward ? Payload::out : Payload::dq, w.q, w.rows, w.q});
  if (w.kv != plan.rank && !forward) visit(Transfer{Payload::dkv, w.kv, Rows::all, w.kv});
}

/// Shards are of this world and peers are other ranks of it.
inline std::string stays_in_world(Plan const& plan) {
  auto const inside = [&](int rank) { return rank >= 0 && rank < plan.world; };
  for (int step = 0; step < static_cast<int>(plan.steps.size()); ++step) {
    Step const& s = step_of(plan, step);
    if (s.work && !(inside(s.work->q) && inside(s.work->kv)))
      return sentence("rank ", plan.rank, " works on queries of shard ", s.work->q, " and keys of shard ",
                      s.work->kv, " at step ", step, " in a world of ", plan.world);
    for (auto const* list : {&s.sends, &s.recvs})
      for (Transfer const& t : *list)
        if (!inside(t.peer) || t.peer == plan.rank || !inside(t.shard))
          return sentence("rank ", plan.rank, " has a message ", text(t), " with peer ", t.peer, " at step ",
                          step, " in a world of ", plan.world);
  }
  return {};
}

/// Step 0 needs nothing that travels.
inline std::string starts_local(Plan const& plan) {
  auto const& work = step_of(plan, 0).work;
  if (!work || *work == Work{plan.rank, plan.rank, Rows::all}) return {};
  return sentence("rank ", plan.rank, " starts with queries of shard ", work->q, text(work->rows),
                  " and keys of shard ", work->kv, ", which are not its own");
}

/// No group is larger than Plan::max_group or brings two payloads of one kind.
inline std::string groups_are_small(Plan const& plan) {
  for (int step = 0; step < static_cast<int>(plan.steps.size()); ++step) {
    Step const& s = step_of(plan, step);
    std::size_t const messages = s.sends.size() + s.recvs.size();
    if (messages > Plan::max_group)
      return sentence("rank ", plan.rank, " has ", messages, " messages at step ", step);
    std::array<int, payload_kinds> received{};
    for (Transfer const& t : s.recvs)
      if (++received[static_cast<std::size_t>(t.payload)] > 1)
        return sentence("rank ", plan.rank, " receives two ", name(t.payload), " payloads at step ", step);
  }
  return {};
}

/// A work's inputs arrive in the step before, and nothing else does.
inline std::string inputs_arrive(Plan const& plan) {
  std::string fault;
  auto const blame = [&](auto const&... words) {
    if (fault.empty()) fault = sentence("rank ", plan.rank, words...);
  };
  for (int step = 0; step <= static_cast<int>(plan.steps.size()) && fault.empty(); ++step) {
    Step const& now = step_of(plan, step);
    auto const& arrived = step_of(plan, step - 1).recvs;
    for_each_needed(plan, now, [&](Transfer const& need) {
      for (Transfer const& t : arrived)
        if (same_content(t, need)) return;
      blame(" needs ", text(need), " at step ", step, " and did not receive it in the step before");
    });
    for (Transfer const& t : arrived) {
      bool used = is_result(t.payload);
      for_each_needed(plan, now, [&](Transfer const& need) { used = used || same_content(t, need); });
      if (!used) blame(" receives ", text(t), " at step ", step - 1, ", which its next step does not use");
    }
  }
  return fault;
}

/// An input is sent by its owner or by a rank whose work is using it.
inline std::string senders_hold_inputs(Plan const& plan) {
  for (int step = 0; step < static_cast<int>(plan.steps.size()); ++step) {
    Step const& s = step_of(plan, step);
    for (Transfer const& t : s.sends) {
      bool held = is_result(t.payload) || t.shard == plan.rank;
      for_each_needed(plan, s, [&](Transfer const& need) { held = held || same_content(t, need); });
      if (!held)
        return sentence("rank ", plan.rank, " sends ", text(t), " at step ", step,
                        " and does not hold it then");
    }
  }
  return {};
}

/// A work's results go to their owner in the step after, once, and no other results are sent.
inline std::string results_return(Plan const& plan) {
  std::string fault;
  auto const blame = [&](auto const&... words) {
    if (fault.empty()) fault = sentence("rank ", plan.rank, words...);
  };
  for (int step = 0; step <= static_cast<int>(plan.steps.size()) && fault.empty(); ++step) {
    Step const& before = step_of(plan, step - 1);
    auto const& sends = step_of(plan, step).sends;
    for_each_owed(plan, before, [&](Transfer const& owed) {
      int times = 0;
      for (Transfer const& t : sends) times += t == owed ? 1 : 0;
      if (times != 1)
        blame(" returns ", text(owed), " to its owner ", times, " times at step ", step,
              ", the step after the work");
    });
    for (Transfer const& t : sends) {
      bool owed = !is_result(t.payload);
      for_each_owed(plan, before, [&](Transfer const& result) { owed = owed || t == result; });
      if (!owed)
        blame(" sends ", text(t), " to ", t.peer, " at step ", step,
              ", which its work of the step before did not make");
    }
  }
  return fault;
}

/// What one slot of a buffer goes through. Within a step the work and the exchange run side by side, so what
/// one of them writes must rest until the step is over, and what one of them reads must not change.
class Slot {
 public:
  /// The work or the exchange of `step` reads the content. Whether it is there and at rest.
  bool read(Transfer const& content, int step) { return written_ < step && take(content, step); }

  /// As read, but when work and exchange of `step` are over.
  bool read_after(Transfer const& content, int step) { return take(content, step); }

  /// The work or the exchange of `step` writes. Whether none else uses the slot and its content has been
  /// read.
  bool write(Transfer const& content, int step) {
    bool const free = read_ < step && !unread_;
    content_ = content;
    written_ = step;
    unread_ = true;
    return free;
  }

  /// Whether something was written and never read.
  bool unread() const { return unread_; }

 private:
  bool take(Transfer const& content, int step) {
    read_ = step;
    unread_ = false;
    return written_ >= 0 && same_content(content_, content);
  }

  Transfer content_;
  int written_ = -1, read_ = -1;
  bool unread_ = false;
};

/// Two slots of each buffer suffice: what the work of step t takes in, and what it puts out at either end of
/// the wire, is in slot t % 2, and no slot is written while it is used or before its content was.
inline std::string two_slots_suffice(Plan const& plan) {
  std::array<std::array<Slot, 2>, payload_kinds> incoming, outgoing;
  auto const slot = [](auto& slots, Transfer const& t, int step) -> Slot& {
    return slots[static_cast<std::size_t>(t.payload)][static_cast<std::size_t>(step % 2)];
  };
  std::string fault;
  int step = 0;
  auto const expect = [&](bool sound, char const* what, Transfer const& t) {
    if (!sound && fault.empty())
      fault = sentence("rank ", plan.rank, " at step ", step, ": the slot ", what, " ", text(t),
                       " is not free for it");
  };
  for (; step < static_cast<int>(plan.steps.size()) && fault.empty(); ++step) {
    Step const& s = step_of(plan, step);
    for_each_needed(plan, s, [&](Transfer const& t) {
      expect(slot(incoming, t, step).read(t, step), "from which the work reads", t);
    });
    for (Transfer const& t : s.sends)
      if (is_result(t.payload))
        expect(slot(outgoing, t, step + 1).read(t, step), "from which the exchange sends", t);
      else if (t.shard != plan.rank)
        expect(slot(incoming, t, step).read(t, step), "from which the exchange relays", t);
    for_each_owed(plan, s, [&](Transfer const& t) {
      expect(slot(outgoing, t, step).write(t, step), "into which the work writes", t);
    });
    for (Transfer const& t : s.recvs)
      expect(slot(incoming, t, step + 1).write(t, step), "into which the exchange receives", t);
    for (Transfer const& t : s.recvs)
      if (is_result(t.payload))
        expect(slot(incoming, t, step + 1).read_after(t, step), "from which the step merges", t);
  }
  for (auto const* slots : {&incoming, &outgoing})
    for (auto const& pair : *slots)
      for (Slot const& last : pair)
        if (last.unread() && fault.empty())
          fault = sentence("rank ", plan.rank, " has filled a slot that nothing reads");
  return fault;
}

/// The index-th message of a list that goes to, or comes from, a peer; null if there are not so many.
inline Transfer const* message_with(std::vector<Transfer> const& list, int peer, std::size_t index) {
  for (Transfer const& t : list)
    if (t.peer == peer && index-- == 0) return &t;
  return nullptr;
}

/// Every send meets a receive of the same content in the same step, and the other way round: between two
/// ranks the n-th send meets the n-th receive.
inline std::string messages_meet(std::vector<Plan> const& plans) {
  for (Plan const& plan : plans)
    for (int step = 0; step < static_cast<int>(plan.steps.size()); ++step)
      for (bool const sending : {true, false}) {
        auto const& here = sending ? step_of(plan, step).sends : step_of(plan, step).recvs;
        for (Transfer const& t : here) {
          std::size_t index = 0;
          while (message_with(here, t.peer, index) != &t) ++index;
          Step const& there = step_of(plans[static_cast<std::size_t>(t.peer)], step);
          Transfer const* const met = message_with(sending ? there.recvs : there.sends, plan.rank, index);
          if (met == nullptr || !same_content(t, *met))
            return sentence("rank ", plan.rank, sending ? " sends " : " awaits ", text(t),
                            sending ? " to rank " : " from rank ", t.peer, " at step ", step,
                            ", which there ", sending ? "awaits " : "sends ",
                            met == nullptr ? Text("nothing") : text(*met), " in its place");
        }
      }
  return {};
}

/// The plans come to an end on a transport that holds nothing back for a receiver: a message passes when both
/// its ends are in their ranks' current groups, and a rank goes on when all messages of its group have
/// passed. Steps need not be counted alike for that, so none are compared here.
inline std::string no_deadlock(std::vector<Plan> const& plans) {
  std::size_t const world = plans.size();
  std::vector<int> sent(world * world, 0), awaited(world * world, 0);  // begun so far, by [from * world + to]
  auto const pair = [world](int from, int to) {
    return static_cast<std::size_t>(from) * world + static_cast<std::size_t>(to);
  };
  auto const begin = [&](int rank, Step const& s) {
    for (Transfer const& t : s.sends) ++sent[pair(rank, t.peer)];
    for (Transfer const& t : s.recvs) ++awaited[pair(t.peer, rank)];
  };
  auto const stuck_on = [&](int rank, Step const& s) -> Transfer const* {
    for (Transfer const& t : s.sends)
      if (sent[pair(rank, t.peer)] > awaited[pair(rank, t.peer)]) return &t;
    for (Transfer const& t : s.recvs)
      if (awaited[pair(t.peer, rank)] > sent[pair(t.peer, rank)]) return &t;
    return nullptr;
  };
  std::vector<int> current(world, 0);
  for (Plan const& plan : plans) begin(plan.rank, step_of(plan, 0));
  for (bool moved = true; moved;) {
    moved = false;
    for (Plan const& plan : plans) {
      int& step = current[static_cast<std::size_t>(plan.rank)];
      if (step == static_cast<int>(plan.steps.size()) || stuck_on(plan.rank, step_of(plan, step))) continue;
      begin(plan.rank, step_of(plan, ++step));
      moved = true;
    }
  }
  for (Plan const& plan : plans) {
    int const step = current[static_cast<std::size_t>(plan.rank)];
    if (Transfer const* const t = stuck_on(plan.rank, step_of(plan, step)))
      return sentence("rank ", plan.rank, " waits for ever at step ", step, ", for ", text(*t), " and peer ",
                      t->peer);
  }
  return {};
}

/// Every pair of shards that the mask shows is computed by one work of the plans, half by half of the
/// queries.
template <Schedule S, Mask M>
std::string computed_once(Planner<S, M> const& planner, std::vector<Plan> const& plans) {
  auto const world = static_cast<std::size_t>(planner.world());
  std::vector<int> lower(world * world, 0), upper(lower);
  for (Plan const& plan : plans)
    for (Step const& s : plan.steps) {
      if (!s.work) continue;
      std::size_t const pair =
          static_cast<std::size_t>(s.work->q) * world + static_cast<std::size_t>(s.work->kv);
      if (s.work->rows != Rows::upper) ++lower[pair];
      if (s.work->rows != Rows::lower) ++upper[pair];
    }
  for (int q = 0; q < planner.world(); ++q)
    for (int kv = 0; kv < planner.world(); ++kv)
      for (Rows const half : {Rows::lower, Rows::upper}) {
        std::size_t const pair = static_cast<std::size_t>(q) * world + static_cast<std::size_t>(kv);
        int const times = half == Rows::lower ? lower[pair] : upper[pair];
        if (times != 1 && planner.visible(Work{q, kv, half}))
          return sentence("queries of shard ", q, text(half), " meet keys of shard ", kv, " ", times,
                          " times");
      }
  return {};
}

/// The first fault of the plans of all ranks, in order, of one pass; empty if every law holds.
template <Schedule S, Mask M>
std::string first_fault(Planner<S, M> const& planner, std::vector<Plan> const& plans) {
  if (static_cast<int>(plans.size()) != planner.world())
    return sentence("there are ", plans.size(), " plans in a world of ", planner.world());
  for (std::size_t rank = 0; rank < plans.size(); ++rank) {
    Plan const& plan = plans[rank];
    if (plan.rank != static_cast<int>(rank) || plan.world != planner.world() || plan.pass != plans[0].pass)
      return sentence("plan ", rank, " is that of rank ", plan.rank, " in a world of ", plan.world,
                      ", or of another pass");
    for (auto const law : {stays_in_world, starts_local, groups_are_small, inputs_arrive, senders_hold_inputs,
                           results_return, two_slots_suffice})
      if (std::string fault = law(plan); !fault.empty()) return fault;
  }
  for (auto const law : {messages_meet, no_deadlock})
    if (std::string fault = law(plans); !fault.empty()) return fault;
  return computed_once(planner, plans);
}

}  // namespace lightseq::laws
