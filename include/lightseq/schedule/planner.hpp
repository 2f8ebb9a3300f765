// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/schedule/plan.hpp"
#include "lightseq/schedule/schedule.hpp"

namespace lightseq {

/// Derives plans from a schedule. The rules:
/// - a work whose rectangle the mask hides is dropped, and its messages with it;
/// - the inputs of step t travel during step t - 1, from the owner or, if the route says so, the neighbour;
/// - the results of step t travel during step t + 1 to the owner, who merges them;
/// - steps at the end in which a rank has nothing to do are cut.
template <Schedule S, Mask M>
class Planner {
  static_assert(
      HasReader<S> || !requires(S own, int i) { own.reader(i, i, i); },
      "lightseq: reader(shard, step, world) of a schedule is constant and returns an int");
  static_assert(
      HasRelay<S> || !(
                         requires(S own, int i) { own.predecessor(i, i, i); } ||
                         requires(S own, int i) { own.successor(i, i, i); }),
      "lightseq: predecessor and successor of a schedule come together, are constant and return an int");

 public:
  /// `world` ranks share `seqlen` tokens, both at least 1. Throws Error on a mask or schedule whose values
  /// make no sense to itself.
  constexpr Planner(S schedule, M mask, int world, std::int64_t seqlen, Route route = Route::owner)
      : schedule_(schedule), mask_(mask), world_(world), seqlen_(seqlen), route_(route) {
    // Of a mask that holds a list nothing is constant, and nvcc warns of the question.
    if constexpr (std::is_trivially_destructible_v<S> && std::is_trivially_destructible_v<M>)
      if (std::is_constant_evaluated()) return;
    check_value(mask_);
    check_value(schedule_);
  }

  constexpr int world() const { return world_; }
  constexpr std::int64_t seqlen() const { return seqlen_; }
  constexpr S const& schedule() const { return schedule_; }
  constexpr M const& mask() const { return mask_; }
  constexpr Route route() const { return route_; }
  constexpr int schedule_steps() const { return schedule_.steps(world_); }

  constexpr Positions shard(int rank) const { return S::Partition::shard(rank, world_, seqlen_); }

  /// shard() as a function object.
  constexpr auto shards() const {
    return [this](int rank) { return shard(rank); };
  }

  /// Whether any query in `rows` of shard `q` may see any key of shard `kv`.
  constexpr bool visible(Work const& work) const { return visible(work, shards()); }

  /// The same for those who remember shards: `shards(rank)` gives what shard() does.
  template <class Shards>
  constexpr bool visible(Work const& work, Shards const& shards) const {
    Positions const& keys = shards(work.kv);
    Positions queries = shards(work.q);
    RowSpan const span = row_span(work.rows, queries.rows());
    queries = queries.slice(span.first, span.count);
    for (Segment const& q : queries.segments)
      for (Segment const& k : keys.segments)
        if (q.rows > 0 && k.rows > 0 && mask_.cover(q.hull(), k.hull()) != Cover::none) return true;
    return false;
  }

  /// What a rank really computes at a step: the schedule's work unless the mask hides it. A work of a shard
  /// that does not exist is none: check() refuses it on that rank, and no mask is asked about such tokens.
  constexpr std::optional<Work> work(int rank, int step) const { return work(rank, step, shards()); }

  /// The same for those who remember shards.
  template <class Shards>
  constexpr std::optional<Work> work(int rank, int step, Shards const& shards) const {
    if (step < 0 || step >= schedule_steps()) return std::nullopt;
    std::optional<Work> const work = schedule_.at(rank, step, world_);
    return work && names_shards(*work) && visible(*work, shards) ? work : std::nullopt;
  }

  /// Calls `visit(rank)` for every other rank that may touch at `step` what `shard` owns.
  template <class Visit>
  constexpr void for_each_reader(int shard, int step, Visit visit) const {
    if (step < 0 || step >= schedule_steps()) return;
    if constexpr (HasReader<S>) {
      int const rank = schedule_.reader(shard, step, world_);
      if (rank != shard) visit(rank);
    } else {
      for (int rank = 0; rank < world_; ++rank)
        if (rank != shard) visit(rank);
    }
  }

  /// The plan of one rank. Throws Error, with the numbers, if the schedule breaks a law that this rank can
  /// see.
  Plan plan(int rank, Pass pass) const {
    check(rank);
    Plan plan{rank, world_, pass, std::vector<Step>(static_cast<std::size_t>(schedule_steps()) + 1)};
    for (int step = 0; step <= schedule_steps(); ++step) {
      Step& s = plan.steps[static_cast<std::size_t>(step)];
      fill(rank, step, pass, s);
      check_group(rank, step, s);
    }
    while (!plan.steps.empty() && plan.steps.back().empty()) plan.steps.pop_back();
    return plan;
  }

  /// One step of that plan, 0 <= step <= schedule_steps(), in O(1) with a reader() and unchecked: for those
  /// who go through the plans of more ranks than memory holds. What `s` held is lost.
  void fill(int rank, int step, Pass pass, Step& s) const {
    fill(rank, step, pass, s, [this](int worker, int at) { return work(worker, at); });
  }

  /// The same for those who remember works: `works(rank, step)` gives what work() does.
  template <class Works>
  void fill(int rank, int step, Pass pass, Step& s, Works const& works) const {
    s.work = works(rank, step);
    s.sends.clear();
    s.recvs.clear();
    add_input_sends(rank, step, works, s.sends);
    for_each_input(rank, step + 1, works, [&](Transfer const& need) { s.recvs.push_back(need); });
    for_each_result(rank, step - 1, pass, works, [&](Transfer const& result) { s.sends.push_back(result); });
    for_each_reader(rank, step - 1, [&](int helper) {
      for_each_result(helper, step - 1, pass, works, [&](Transfer result) {
        if (result.peer != rank) return;
        result.peer = helper;
        s.recvs.push_back(result);
      });
    });
  }

  /// What a rank can see of the laws, in O(steps): step 0 is local, readers are named right, and its own
  /// queries meet every shard of keys that they see exactly once. Throws Error, with the numbers, on a
  /// breach.
  void check(int rank) const {
    if (rank < 0 || rank >= world_) fail("rank is ", rank, ", it must be in 0 ... ", world_ - 1);
    if (schedule_steps() < 0)
      fail("the schedule's steps(", world_, ") is ", schedule_steps(), ", it must not be negative");
    std::vector<int> lower(static_cast<std::size_t>(world_)), upper(lower);
    auto const count = [&](int worker, int step, std::optional<Work> const& w) {
      if (!w || w->q != rank || w->kv < 0 || w->kv >= world_) return;
      check_rows(worker, step, *w);  // this rank will send them
      auto const kv = static_cast<std::size_t>(w->kv);
      if (w->rows != Rows::upper) ++lower[kv];
      if (w->rows != Rows::lower) ++upper[kv];
    };
    for (int step = 0; step < schedule_steps(); ++step) {
      std::optional<Work> const own = schedule_.at(rank, step, world_);
      check_work(rank, step, own);
      count(rank, step, own);
      for_each_reader(rank, step, [&](int reader) {
        if (reader < 0 || reader >= world_)
          fail("the schedule's reader(", rank, ", ", step, ", ", world_, ") is ", reader,
               "; it must be in 0 ... ", world_ - 1, ", and the shard itself where no other rank reads it");
        count(reader, step, schedule_.at(reader, step, world_));
      });
    }
    for (int kv = 0; kv < world_; ++kv) {
      auto const at = static_cast<std::size_t>(kv);
      if (lower[at] != 1) check_unseen(Work{rank, kv, Rows::lower}, lower[at], "lower");
      if (upper[at] != 1) check_unseen(Work{rank, kv, Rows::upper}, upper[at], "upper");
    }
  }

 private:
  constexpr bool names_shards(Work const& work) const {
    return work.q >= 0 && work.q < world_ && work.kv >= 0 && work.kv < world_;
  }

  /// The inputs that a rank lacks for its work at `step`, each with the peer that sends it.
  template <class Works, class Visit>
  constexpr void for_each_input(int rank, int step, Works const& works, Visit visit) const {
    std::optional<Work> const w = works(rank, step);
    if (!w) return;
    auto const from = [&](Payload payload) { return source(rank, step, *w, payload, works); };
    if (w->kv != rank) visit(Transfer{Payload::kv, w->kv, Rows::all, from(Payload::kv)});
    if (w->q != rank) visit(Transfer{Payload::q, w->q, w->rows, from(Payload::q)});
  }

  /// Who sends `rank` an input of its work `w` at `step`.
  template <class Works>
  constexpr int source(int rank, int step, Work const& w, Payload payload, Works const& works) const {
    if (route_ == Route::neighbour) {
      int const neighbour = predecessor(rank, step);
      std::optional<Work> const held = works(neighbour, step - 1);
      bool const relays =
          neighbour != rank && held &&
          (payload == Payload::kv ? held->kv == w.kv : held->q == w.q && held->rows == w.rows);
      if (relays) return neighbour;
    }
    return payload == Payload::kv ? w.kv : w.q;
  }

  /// From whom a rank may take for its work at `step` what that one held a step before, and to whom it hands
  /// on what it held.
  constexpr int predecessor(int rank, int step) const {
    if constexpr (HasRelay<S>) return schedule_.predecessor(rank, step, world_);
    return wrap(rank - 1, world_);
  }
  constexpr int successor(int rank, int step) const {
    if constexpr (HasRelay<S>) return schedule_.successor(rank, step, world_);
    return wrap(rank + 1, world_);
  }

  /// What a rank sends at `step` for the works of step + 1: its own tensors and, on a relay, those it holds.
  template <class Works>
  constexpr void add_input_sends(int rank, int step, Works const& works, std::vector<Transfer>& sends) const {
    auto const serve = [&](int receiver) {
      for_each_input(receiver, step + 1, works, [&](Transfer need) {
        if (need.peer != rank) return;
        need.peer = receiver;
        sends.push_back(need);
      });
    };
    int const next = successor(rank, step + 1);
    bool next_served = next == rank || route_ == Route::owner;
    for_each_reader(rank, step + 1, [&](int reader) {
      serve(reader);
      next_served = next_served || reader == next;
    });
    if (!next_served) serve(next);
  }

  /// The results that a rank's work at `step` owes to other ranks.
  template <class Works, class Visit>
  constexpr void for_each_result(int rank, int step, Pass pass, Works const& works, Visit visit) const {
    std::optional<Work> const w = works(rank, step);
    if (!w) return;
    if (w->q != rank)
      visit(Transfer{pass == Pass::forward ? Payload::out : Payload::dq, w->q, w->rows, w->q});
    if (w->kv != rank && pass == Pass::backward) visit(Transfer{Payload::dkv, w->kv, Rows::all, w->kv});
  }

  static void check_rows(int rank, int step, Work const& work) {
    if (work.rows != Rows::all && work.rows != Rows::lower && work.rows != Rows::upper)
      fail("the schedule gives rank ", rank, " at step ", step, " the rows ", static_cast<int>(work.rows),
           "; they must be all, the lower or the upper half");
  }

  void check_work(int rank, int step, std::optional<Work> const& w) const {
    if (!w) return;
    if (!names_shards(*w))
      fail("the schedule gives rank ", rank, " at step ", step, " queries of shard ", w->q,
           " and keys of shard ", w->kv, "; there are ", world_, " shards");
    check_rows(rank, step, *w);
    if (step == 0 && *w != Work{rank, rank, Rows::all})
      fail("the schedule starts rank ", rank, " with queries of shard ", w->q, " and keys of shard ", w->kv,
           "; step 0 must be a rank's own queries against its own keys, as nothing has travelled yet");
    if constexpr (HasReader<S>) {
      for (int const shard : {w->q, w->kv})
        if (shard != rank && schedule_.reader(shard, step, world_) != rank)
          fail("the schedule's reader(", shard, ", ", step, ", ", world_, ") is ",
               schedule_.reader(shard, step, world_), ", but at() has rank ", rank, " read that shard");
    }
    if constexpr (HasRelay<S>) {
      int const from = schedule_.predecessor(rank, step, world_);
      if (from < 0 || from >= world_ || schedule_.successor(from, step, world_) != rank)
        fail("the schedule's predecessor(", rank, ", ", step, ", ", world_, ") is ", from,
             ", whose successor is not that rank");
    }
  }

  /// Throws unless the mask hides a pair that is computed so many times, not once.
  void check_unseen(Work const& pair, int count, char const* half) const {
    if (!visible(pair)) return;
    std::string const what =
        sentence("the schedule computes the ", half, " half of the queries of shard ", pair.q,
                 " against the keys of shard ", pair.kv, " ", count, " times in a world of ", world_);
    std::int64_t questions = 1 << 16;
    if (auto const seen = find_visible(pair, questions))
      fail(what, "; the mask shows them, so it must be once: query ", seen->first, " sees key ",
           seen->second);
    fail(what, "; the mask's cover() leaves open whether they are visible, and ",
         questions > 0 ? "no query of them sees a key" : "none of many that were asked sees a key",
         ": where a schedule leaves out what the mask hides, cover() must answer none");
  }

  /// A query and a key of a work that see each other, found in at most so many questions to the mask; what is
  /// left of these is above 0 if every pair was judged.
  std::optional<std::pair<std::int64_t, std::int64_t>> find_visible(Work const& work,
                                                                    std::int64_t& questions) const {
    Positions queries = shard(work.q);
    RowSpan const span = row_span(work.rows, queries.rows());
    queries = queries.slice(span.first, span.count);
    Positions const keys = shard(work.kv);
    for (Segment const& q : queries.segments)
      for (Segment const& k : keys.segments)
        if (auto const found = find_visible(q, k, questions)) return found;
    return std::nullopt;
  }
  std::optional<std::pair<std::int64_t, std::int64_t>> find_visible(Segment const& q, Segment const& k,
                                                                    std::int64_t& questions) const {
    if (q.rows == 0 || k.rows == 0 || --questions <= 0) return std::nullopt;
    if (mask_.visible(q.begin, k.begin)) return std::pair(q.begin, k.begin);
    if (q.rows == 1 && k.rows == 1) return std::nullopt;
    if (mask_.cover(q.hull(), k.hull()) == Cover::none) return std::nullopt;
    bool const by_queries = q.rows >= k.rows;
    std::int64_t const rows = by_queries ? q.rows : k.rows, half = rows / 2;
    for (auto const& [first, count] : {RowSpan{half, rows - half}, RowSpan{0, half}})
      if (auto const found = by_queries ? find_visible(q.slice(first, count), k, questions)
                                        : find_visible(q, k.slice(first, count), questions))
        return found;
    return std::nullopt;
  }

  static void check_group(int rank, int step, Step const& s) {
    if (s.sends.size() + s.recvs.size() > Plan::max_group)
      fail("rank ", rank, " has ", s.sends.size() + s.recvs.size(), " messages at step ", step,
           "; a group holds at most ", Plan::max_group);
    int received[payload_kinds] = {};
    for (Transfer const& t : s.recvs)
      if (++received[static_cast<std::size_t>(t.payload)] > 1)
        fail("rank ", rank, " receives two ", name(t.payload), " payloads at step ", step,
             "; there is one slot for each step");
  }

  S schedule_;
  M mask_;
  int world_;
  std::int64_t seqlen_;
  Route route_;
};

/// Whether every rank of a planner's world works on all of its own queries and no others, in at most
/// `max_steps` steps: then one launch a rank can attend all keys.
template <Schedule S, Mask M>
bool own_queries_only(Planner<S, M> const& planner, std::ptrdiff_t max_steps) {
  for (int rank = 0; rank < planner.world(); ++rank) {
    Plan const plan = planner.plan(rank, Pass::forward);
    if (std::ssize(plan.steps) > max_steps) return false;
    for (Step const& step : plan.steps)
      if (step.work && (step.work->q != rank || step.work->rows != Rows::all)) return false;
  }
  return true;
}

}  // namespace lightseq
