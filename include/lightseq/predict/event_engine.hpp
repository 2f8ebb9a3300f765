// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <optional>
#include <queue>
#include <utility>
#include <vector>

#include "lightseq/core/problem.hpp"
#include "lightseq/predict/simulation.hpp"
#include "lightseq/predict/topology.hpp"
#include "lightseq/schedule/plan.hpp"
#include "lightseq/trace/timeline.hpp"

namespace lightseq {

/// A message of a turn; `what.peer` is its other end.
struct TurnMessage {
  Transfer what;
  bool sent = false;  ///< else received
  std::int64_t rows = 0, bytes = 0;
};

/// Messages of a rank that travel at once, and a work that begins with them.
struct Turn {
  std::int64_t number = 0;  ///< a message begins when both its ends are in turns of one number
  int step = 0;
  bool ends_step = true;  ///< then the rank waits for the work too, and merges results
  bool barrier = true;    ///< then, where ranks are synchronous, it waits for all others too
  std::optional<Work> work;
  double work_seconds = 0;  ///< while none of the rank's messages travels
  double slowdown = 1;      ///< how many times as long it takes while one does
  double merge_seconds = 0;
  std::int64_t pairs = 0;  ///< visible, of the work
  std::vector<TurnMessage> messages;

  bool empty() const { return !work && messages.empty() && merge_seconds <= 0; }
};

/// What ranks do: `fill(rank, turn, out)` gives the turns of a rank, asked for in their order, and then
/// false. `out` holds an earlier turn.
template <class T>
concept TurnList = requires(T list, Turn& out) {
  { list.world() } -> std::convertible_to<int>;
  { list.fill(int{}, std::int64_t{}, out) } -> std::same_as<bool>;
};

/// Which rank begins its next turn when: the earliest comes first, of these the lowest rank. Most are pushed
/// in that order, as ranks go side by side: they wait in line, and only the others need a heap.
class EventQueue {
 public:
  using Event = std::pair<double, int>;

  bool empty() const { return line_.empty() && heap_.empty(); }
  void push(double time, int rank) {
    Event const event(time, rank);
    if (line_.empty() || line_.back() < event)
      line_.push_back(event);
    else
      heap_.push(event);
  }
  Event pop() {
    bool const in_line = heap_.empty() || (!line_.empty() && line_.front() < heap_.top());
    Event const first = in_line ? line_.front() : heap_.top();
    in_line ? line_.pop_front() : heap_.pop();
    return first;
  }

 private:
  std::deque<Event> line_;
  std::priority_queue<Event, std::vector<Event>, std::greater<>> heap_;
};

/// Discrete-event simulation of ranks that go through turns of messages beside works. When all messages of a
/// turn are over the next one begins; where it ends a step, when the work is over too and results are merged.
/// A port serves messages in the order in which they begin; a message has passed when the ports at both its
/// ends have served it, and its latency later it has arrived. (The ports of one message need not serve it at
/// the same time: this is what is simplified.) A work is slower while messages of its rank are on their way.
template <TurnList Turns>
class EventEngine {
 public:
  /// `topology` is validated(). Both must outlive the engine. Where ranks are `synchronous` a turn that is a
  /// barrier, of which all have as many, ends for all at once.
  EventEngine(Turns& turns, Topology const& topology, TimelineOf timeline, bool synchronous = false)
      : turns_(turns),
        topology_(topology),
        timeline_(timeline),
        synchronous_(synchronous),
        ranks_(static_cast<std::size_t>(turns.world())) {
    std::size_t const world = ranks_.size();
    std::size_t const nodes = world / static_cast<std::size_t>(topology_.ranks_per_node);
    inside_.resize(world);
    between_.resize(topology_.sharing == Sharing::node ? nodes : world);
    result_.ranks.resize(world);
    result_.inside.resize(inside_.size());
    result_.between.resize(between_.size());
  }

  /// Runs it, once. Left to the caller are the pass, the FLOPs and the workspaces.
  Simulation run() {
    for (int rank = 0; rank < turns_.world(); ++rank) begins_.push(0, rank);
    while (!begins_.empty()) {
      auto const [time, rank] = begins_.pop();
      begin_turn(rank, time);
    }
    for (RankCost const& cost : result_.ranks) {
      result_.pairs = capped_sum(result_.pairs, cost.pairs);
      result_.makespan = std::max(result_.makespan, cost.end);
    }
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank)
      add_to_step(std::max(0, ranks_[rank].step), 0, result_.makespan - result_.ranks[rank].end);
    return std::move(result_);
  }

 private:
  struct Port {
    double out_free = 0, in_free = 0;
  };
  struct Rank {
    std::int64_t turn = -1;  ///< that it is in, counted
    std::int64_t number = -1;
    int step = -1;
    bool ends_step = true;
    bool barrier = true;
    std::size_t open = 0;   ///< messages of the turn that have not arrived
    double step_begin = 0;  ///< of its step, or of what is left of it after merges
    double begin = 0;       ///< of the turn
    double work_begin = 0, work_end = 0;
    double work_left = 0;  ///< seconds at full speed, of a work whose end is not known yet ...
    double slowdown = 1;   ///< ... because messages slow it down
    std::optional<Work> work = {};
    double worked_to = 0;   ///< the time for which what is left is known
    double travel_end = 0;  ///< of the messages that have begun
    double last_end = 0;    ///< of the turn's messages so far ...
    double last_begin = 0;  ///< ... and when that one began
    double merge = 0;       ///< seconds at the end of the step
  };

  static constexpr double infinity = std::numeric_limits<double>::infinity();
  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

  /// Adds what a rank did in a step.
  void add_to_step(int step, double work, double seconds) {
    if (result_.steps.size() <= index(step)) result_.steps.resize(index(step) + 1);
    auto const world = static_cast<double>(ranks_.size());
    result_.steps[index(step)].work += work / world;
    result_.steps[index(step)].seconds += seconds / world;
  }

  /// A rank comes to its next turn that is not empty, at `time`.
  void begin_turn(int rank, double time) {
    Rank& r = ranks_[index(rank)];
    do {
      if (!turns_.fill(rank, ++r.turn, turn_)) return;
    } while (turn_.empty() && !synchronous_);
    if (r.ends_step) r.step_begin = time;
    r.number = turn_.number;
    r.step = turn_.step;
    r.ends_step = turn_.ends_step;
    r.barrier = turn_.barrier;
    r.begin = r.last_end = r.last_begin = time;
    r.work_end = std::max(r.work_end, time);
    r.merge = turn_.merge_seconds;
    r.open = turn_.messages.size();
    if (turn_.work) begin_work(rank, time);

    // Those messages begin now whose other end is there already; that end sees to the others when it comes.
    for (TurnMessage const& m : turn_.messages) {
      int const peer = m.what.peer;
      if (ranks_[index(peer)].number != r.number) continue;
      m.sent ? pass(rank, peer, m, time) : pass(peer, rank, m, time);
      if (ranks_[index(peer)].open == 0) end_turn(peer);
    }
    if (r.open == 0) end_turn(rank);
  }

  void begin_work(int rank, double time) {
    Rank& r = ranks_[index(rank)];
    RankCost& cost = result_.ranks[index(rank)];
    cost.pairs = capped_sum(cost.pairs, turn_.pairs);
    r.work = turn_.work;
    r.work_begin = r.worked_to = r.travel_end = time;
    r.work_left = turn_.work_seconds;
    r.slowdown = turn_.slowdown;
    // Messages that its receiver fetches come after its work: they slow down nothing.
    if (r.slowdown <= 1 || topology_.fetched_by_receiver) work_until(rank, infinity);
  }

  /// A rank works on until `until`, slower while messages travel that have begun by now: then the end of its
  /// work is known, or what is left of it.
  void work_until(int rank, double until) {
    Rank& r = ranks_[index(rank)];
    work_at(rank, std::min(r.travel_end, until), r.slowdown);
    work_at(rank, until, 1);
  }

  void work_at(int rank, double until, double slowdown) {
    Rank& r = ranks_[index(rank)];
    if (!r.work || until <= r.worked_to) return;
    double const end = r.worked_to + r.work_left * slowdown;
    r.work_end = std::min(end, until);
    r.work_left -= (r.work_end - r.worked_to) / slowdown;
    r.worked_to = r.work_end;
    if (end > until) return;
    result_.ranks[index(rank)].work += end - r.work_begin;
    add_to_step(r.step, end - r.work_begin, 0);
    note({Activity::work, rank, r.step, r.work_begin, end, *r.work, {}});
    r.work.reset();
  }

  /// A message goes from one rank to another, both of which are in its turn.
  void pass(int from, int to, TurnMessage const& message, double time) {
    int const per_node = topology_.ranks_per_node;
    bool const inside = from / per_node == to / per_node;
    bool const by_node = !inside && topology_.sharing == Sharing::node;
    Link const& link = inside ? topology_.inside : topology_.between;
    std::size_t const source = index(by_node ? from / per_node : from);
    std::size_t const target = index(by_node ? to / per_node : to);
    auto& ports = inside ? inside_ : between_;
    auto& traffic = inside ? result_.inside : result_.between;

    double const seconds = static_cast<double>(message.bytes) / link.bytes_per_second;
    double end = time + seconds;
    if (topology_.sharing != Sharing::none) {
      double& out = ports[source].out_free;
      double& in = ports[target].in_free;
      out = std::max(out, time) + seconds;
      in = std::max(in, time) + seconds;
      end = std::max(out, in);
    }
    end += link.latency;
    if (topology_.fetched_by_receiver) end = std::max(end, ranks_[index(to)].work_end);
    for (std::int64_t* const sum :
         {&traffic[source].out, &traffic[target].in, &result_.ranks[index(from)].bytes_sent})
      *sum = capped_sum(*sum, message.bytes);
    if (message.what.payload == Payload::kv) result_.ranks[index(to)].kv_rows_received += message.rows;
    int const step = ranks_[index(from)].step;
    if (timeline_.ranks > 0) {
      Transfer seen = message.what;
      seen.peer = to;
      note({Activity::send, from, step, time, end, {}, seen});
      seen.peer = from;
      note({Activity::receive, to, step, time, end, {}, seen});
    }
    for (int const rank : {from, to}) {
      Rank& r = ranks_[index(rank)];
      --r.open;
      work_until(rank, time);
      r.travel_end = std::max(r.travel_end, end);
      if (end < r.last_end) continue;
      r.last_end = end;
      r.last_begin = time;
    }
  }

  /// All messages of a rank's turn are known: it comes to the next, perhaps after its work and merges.
  void end_turn(int rank) {
    Rank& r = ranks_[index(rank)];
    work_until(rank, r.ends_step ? infinity : r.last_end);
    RankCost& cost = result_.ranks[index(rank)];
    // Beside a work nobody waits.
    double const idle_from = std::max(r.begin, r.work_end);
    double const end = std::max(idle_from, r.last_end);
    double const for_messages = end - std::clamp(r.last_begin, idle_from, end);
    cost.message_wait += for_messages;
    cost.peer_wait += end - idle_from - for_messages;
    if (end > idle_from) note({Activity::wait, rank, r.step, idle_from, end, {}, {}});
    if (!r.ends_step) return begins_.push(r.last_end, rank);
    cost.merge += r.merge;
    cost.end = end + r.merge;
    if (r.merge > 0) note({Activity::merge, rank, r.step, end, cost.end, {}, {}});
    synchronous_&& r.barrier ? wait_for_all(rank) : end_step(rank);
  }

  void end_step(int rank) {
    Rank const& r = ranks_[index(rank)];
    double const end = result_.ranks[index(rank)].end;
    add_to_step(r.step, 0, end - r.step_begin);
    begins_.push(end, rank);
  }

  /// Ends the step of all ranks when the last one has come to its end.
  void wait_for_all(int rank) {
    waiting_.push_back(rank);
    if (waiting_.size() < ranks_.size()) return;
    double last = 0;
    for (int const one : waiting_) last = std::max(last, result_.ranks[index(one)].end);
    for (int const one : waiting_) {
      RankCost& cost = result_.ranks[index(one)];
      if (last > cost.end) note({Activity::wait, one, ranks_[index(one)].step, cost.end, last, {}, {}});
      cost.peer_wait += last - cost.end;
      cost.end = last;
      end_step(one);
    }
    waiting_.clear();
  }

  void note(Span const& span) {
    if (span.rank < timeline_.ranks) result_.timeline.push_back(span);
  }

  Turns& turns_;
  Topology const& topology_;
  TimelineOf timeline_;
  bool synchronous_;
  std::vector<int> waiting_;  ///< ranks that have come to the barrier
  std::vector<Rank> ranks_;
  std::vector<Port> inside_, between_;
  Turn turn_;  ///< of the rank whose turn begins
  Simulation result_;
  EventQueue begins_;
};

}  // namespace lightseq
