// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <queue>
#include <utility>
#include <vector>

#include "lightseq/predict/compute_model.hpp"
#include "lightseq/predict/topology.hpp"
#include "lightseq/schedule/buffers.hpp"
#include "lightseq/schedule/summary.hpp"
#include "lightseq/trace/timeline.hpp"

/// What a pass costs on a cluster that need not exist: all ranks' plans, simulated.
namespace lightseq {

/// Where one rank's time goes, in seconds, and what it needs.
struct RankCost {
  double end = 0;           ///< when its last step is over
  double work = 0;          ///< attention
  double merge = 0;         ///< adding up results
  double peer_wait = 0;     ///< waits for a peer that has not come to the step yet
  double message_wait = 0;  ///< waits for bytes that are on their way: communication that no work hides
  std::int64_t pairs = 0;   ///< visible pairs of its works, see visible_pairs()
  std::int64_t bytes_sent = 0;
  std::int64_t workspace_bytes = 0;  ///< messages and accumulators, without the kernels' scratch
};

/// Bytes that pass a port in a pass, at most 2^63 - 1, as all bytes here.
struct Traffic {
  std::int64_t out = 0;
  std::int64_t in = 0;
};

/// What simulate() finds.
struct Simulation {
  Pass pass = Pass::forward;
  double makespan = 0;     ///< seconds until the last rank is done
  double flops = 0;        ///< of all these pairs
  std::int64_t pairs = 0;  ///< visible, of all works
  std::vector<RankCost> ranks;
  std::vector<Traffic> inside;   ///< of each rank, with ranks of its node
  std::vector<Traffic> between;  ///< of each rank or, where its ranks share, each node, with other nodes
  Timeline timeline;             ///< in no order; empty unless asked for

  /// The sum of one thing over all ranks.
  double sum(double RankCost::*what) const {
    double all = 0;
    for (RankCost const& rank : ranks) all += rank.*what;
    return all;
  }

  /// The share of all ranks' time in which they neither attend nor merge.
  double idle_fraction() const {
    double const busy = sum(&RankCost::work) + sum(&RankCost::merge);
    return share(std::max(0.0, makespan_sum() - busy));
  }

  /// The share of all ranks' time in which they wait for bytes on their way.
  double exposed_fraction() const { return share(sum(&RankCost::message_wait)); }

  /// FLOPs of visible pairs over what all ranks could do in that time at `peak_flops` per second.
  double efficiency(double peak_flops) const {
    return makespan > 0 ? flops / (makespan_sum() * peak_flops) : 0;
  }

  /// Bytes that the busiest rank sends.
  std::int64_t most_bytes_sent() const {
    return most([](RankCost const& rank) { return rank.bytes_sent; });
  }

  /// Bytes that leave the busiest port between nodes.
  std::int64_t most_bytes_between() const {
    std::int64_t result = 0;
    for (Traffic const& port : between) result = std::max(result, port.out);
    return result;
  }

  /// Bytes that the neediest rank must keep besides its tensors.
  std::int64_t most_workspace_bytes() const {
    return most([](RankCost const& rank) { return rank.workspace_bytes; });
  }

 private:
  double makespan_sum() const { return makespan * static_cast<double>(ranks.size()); }
  double share(double seconds) const { return makespan > 0 ? seconds / makespan_sum() : 0; }
  template <class Of>
  std::int64_t most(Of of) const {
    std::int64_t result = 0;
    for (RankCost const& rank : ranks) result = std::max(result, of(rank));
    return result;
  }
};

/// Tokens of a sequence whose visible pairs can be counted in 63 bits on the way to any sum.
inline constexpr std::int64_t max_simulated_seqlen = std::int64_t{1} << 31;

/// Discrete-event simulation of all ranks through the steps of execute(): in a step a rank's work and its
/// messages run side by side; a message begins when both ends have come to the step; when the work and all
/// messages are over results are merged, and the next step begins. A port serves messages in the order in
/// which they begin; a message has passed when the ports at both its ends have served it, and its latency
/// later it has arrived. (The ports of one message need not serve it at the same time: this is what is
/// simplified.) Left out: the packing of a rank's own tensors before the first step and the rounding of
/// results after the last.
///
/// `Steps` has `world()`, `steps()`, `pass()`, `rows(shard)`, `pairs(work)`, `tiles(work, tile)` and
/// `fill(rank, step, out)`.
template <class Steps>
class Simulator {
 public:
  /// Throws Error on an impossible topology or model, on sizes below 1, and on a sequence or messages that
  /// are too long.
  Simulator(Steps const& steps, Extents const& extents, Topology const& topology, ComputeModel const& compute,
            bool with_timeline = false)
      : steps_(steps),
        extents_(extents),
        topology_(validated(topology, steps.world())),
        compute_(compute),
        with_timeline_(with_timeline),
        exchange_units_(steps.world() > 1 ? topology_.exchange_units : 0),
        ranks_(static_cast<std::size_t>(steps.world())) {
    compute_.check(exchange_units_);
    std::size_t const world = ranks_.size();
    std::size_t const nodes = world / static_cast<std::size_t>(topology_.ranks_per_node);
    inside_.resize(world);
    between_.resize(topology_.sharing == Sharing::node ? nodes : world);
    result_.ranks.resize(world);
    result_.inside.resize(inside_.size());
    result_.between.resize(between_.size());
    result_.pass = steps.pass();
    std::int64_t seqlen = 0;
    for (int shard = 0; shard < steps.world(); ++shard) {
      max_rows_ = std::max(max_rows_, steps.rows(shard));
      seqlen += steps.rows(shard);
    }
    if (seqlen > max_simulated_seqlen)
      fail("the sequence has ", seqlen, " tokens, at most ", max_simulated_seqlen, " can be simulated");
    for (auto const& [what, size] : {std::pair{"batch", extents.batch},
                                     {"heads", extents.heads},
                                     {"kv_heads", extents.kv_heads},
                                     {"head dim", extents.head_dim},
                                     {"bytes of an element", extents.element_bytes}})
      if (size < 1) fail(what, ": ", size, ", must be at least 1");
    std::int64_t const heads = std::max(extents.heads, extents.kv_heads);
    std::int64_t const element = std::max(most_bytes_an_element, 64 * extents.element_bytes);
    if (checked_product(extents.batch, max_rows_, heads, extents.head_dim, element) < 0)
      fail("the messages of ", max_rows_, " tokens with batch ", extents.batch, ", ", heads,
           " heads and head dim ", extents.head_dim, " overflow 63 bits");
  }

  /// Runs it, once.
  Simulation run() {
    for (int rank = 0; rank < steps_.world(); ++rank) begins_.push({0, rank});
    while (!begins_.empty()) {
      auto const [time, rank] = begins_.top();
      begins_.pop();
      begin_step(rank, time);
    }
    for (std::size_t rank = 0; rank < ranks_.size(); ++rank) {
      RankCost& cost = result_.ranks[rank];
      result_.pairs = capped_sum(result_.pairs, cost.pairs);
      result_.makespan = std::max(result_.makespan, cost.end);
      std::int64_t const rows = steps_.rows(static_cast<int>(rank));
      cost.workspace_bytes = ranks_[rank].buffers.bytes(extents_, steps_.pass(), rows, max_rows_) +
                             Accumulators(extents_, rows).bytes(steps_.pass());
    }
    result_.flops = static_cast<double>(result_.pairs) * ComputeModel::pair_flops(extents_, steps_.pass());
    return std::move(result_);
  }

 private:
  struct Port {
    double out_free = 0, in_free = 0;
  };
  struct Rank {
    int step = -1;         ///< that it is in
    std::size_t open = 0;  ///< messages of the step that have not arrived
    double work_end = 0;
    double last_end = 0;    ///< of the step's messages so far ...
    double last_begin = 0;  ///< ... and when that one began
    double merge = 0;       ///< seconds at the end of the step
    BufferSet buffers;
  };

  static std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

  std::int64_t rows_of(Transfer const& t) const { return row_span(t.rows, steps_.rows(t.shard)).count; }

  /// A rank comes to its next step that is not empty, at `time`.
  void begin_step(int rank, double time) {
    Rank& r = ranks_[index(rank)];
    RankCost& cost = result_.ranks[index(rank)];
    do {
      if (++r.step >= steps_.steps()) return;
      steps_.fill(rank, r.step, step_);
    } while (step_.empty());
    r.buffers.add(rank, r.step, step_);
    r.work_end = time;
    r.last_end = r.last_begin = time;
    r.merge = 0;
    r.open = step_.sends.size() + step_.recvs.size();
    if (step_.work) {
      double const seconds = work_seconds(rank, *step_.work, cost);
      r.work_end += seconds;
      cost.work += seconds;
      note({Activity::work, rank, r.step, time, r.work_end, *step_.work, {}});
    }
    for (Transfer const& t : step_.recvs)
      if (is_result(t.payload)) r.merge += compute_.merge_seconds(t.payload, rows_of(t), extents_);

    // Those messages begin now whose other end is there already; that end sees to the others when it comes.
    auto const meet = [&](Transfer const& t, bool sending) {
      Rank const& peer = ranks_[index(t.peer)];
      if (peer.step != r.step) return;
      sending ? pass(rank, t.peer, t, time) : pass(t.peer, rank, t, time);
      if (peer.open == 0) end_step(t.peer);
    };
    for (Transfer const& t : step_.sends) meet(t, true);
    for (Transfer const& t : step_.recvs) meet(t, false);
    if (r.open == 0) end_step(rank);
  }

  double work_seconds(int rank, Work const& work, RankCost& cost) const {
    std::int64_t const pairs = steps_.pairs(work);
    cost.pairs = capped_sum(cost.pairs, pairs);
    auto const tile = static_cast<double>(compute_.tile);
    ComputeModel::WorkSize size;
    size.pairs =
        compute_.units > 0 ? steps_.tiles(work, compute_.tile) * tile * tile : static_cast<double>(pairs);
    size.q_rows = row_span(work.rows, steps_.rows(work.q)).count;
    size.kv_rows = steps_.rows(work.kv);
    size.continues = work.q == rank && ranks_[index(rank)].step > 0;
    size.foreign_q = work.q != rank;
    size.foreign_kv = work.kv != rank;
    return compute_.work_seconds(size, extents_, steps_.pass(), exchange_units_);
  }

  /// A message goes from one rank to another, both of which are in its step.
  void pass(int from, int to, Transfer const& message, double time) {
    std::int64_t const bytes = extents_.message_bytes(message.payload, steps_.pass(), rows_of(message));
    int const per_node = topology_.ranks_per_node;
    bool const inside = from / per_node == to / per_node;
    bool const by_node = !inside && topology_.sharing == Sharing::node;
    Link const& link = inside ? topology_.inside : topology_.between;
    std::size_t const source = index(by_node ? from / per_node : from);
    std::size_t const target = index(by_node ? to / per_node : to);
    auto& ports = inside ? inside_ : between_;
    auto& traffic = inside ? result_.inside : result_.between;

    double const seconds = static_cast<double>(bytes) / link.bytes_per_second;
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
      *sum = capped_sum(*sum, bytes);
    int const step = ranks_[index(from)].step;
    if (with_timeline_) {
      Transfer seen = message;
      seen.peer = to;
      note({Activity::send, from, step, time, end, {}, seen});
      seen.peer = from;
      note({Activity::receive, to, step, time, end, {}, seen});
    }
    for (int const rank : {from, to}) {
      Rank& r = ranks_[index(rank)];
      --r.open;
      if (end < r.last_end) continue;
      r.last_end = end;
      r.last_begin = time;
    }
  }

  /// The work and all messages of a rank's step are known: it merges and comes to the next.
  void end_step(int rank) {
    Rank const& r = ranks_[index(rank)];
    RankCost& cost = result_.ranks[index(rank)];
    double const end = std::max(r.work_end, r.last_end);
    double const for_messages = end - std::clamp(r.last_begin, r.work_end, end);
    cost.message_wait += for_messages;
    cost.peer_wait += end - r.work_end - for_messages;
    cost.merge += r.merge;
    cost.end = end + r.merge;
    if (end > r.work_end) note({Activity::wait, rank, r.step, r.work_end, end, {}, {}});
    if (r.merge > 0) note({Activity::merge, rank, r.step, end, cost.end, {}, {}});
    begins_.push({cost.end, rank});
  }

  void note(Span const& span) {
    if (with_timeline_) result_.timeline.push_back(span);
  }

  Steps const& steps_;
  Extents extents_;
  Topology topology_;
  ComputeModel compute_;
  bool with_timeline_;
  int exchange_units_;
  std::int64_t max_rows_ = 0;
  std::vector<Rank> ranks_;
  std::vector<Port> inside_, between_;
  Step step_;  ///< of the rank whose step begins
  Simulation result_;
  std::priority_queue<std::pair<double, int>, std::vector<std::pair<double, int>>, std::greater<>> begins_;
};

/// The steps of all ranks as a planner gives them, made when they are asked for.
template <Schedule S, Mask M>
struct PlannedSteps {
  Planner<S, M> const& planner;
  Pass of = Pass::forward;

  int world() const { return planner.world(); }
  int steps() const { return planner.schedule_steps() + 1; }
  Pass pass() const { return of; }
  std::int64_t rows(int shard) const { return planner.shard(shard).rows(); }
  std::int64_t pairs(Work const& work) const { return visible_pairs(planner, work); }
  double tiles(Work const& work, std::int64_t tile) const { return visible_tiles(planner, work, tile); }
  void fill(int rank, int step, Step& out) const { planner.fill(rank, step, of, out); }
};

/// The steps of the finished plans of all ranks, in order; the planner tells what a work costs.
template <Schedule S, Mask M>
struct FinishedSteps {
  Planner<S, M> const& planner;
  std::vector<Plan> const& plans;

  int world() const { return planner.world(); }
  int steps() const {
    std::size_t most = 0;
    for (Plan const& plan : plans) most = std::max(most, plan.steps.size());
    return static_cast<int>(most);
  }
  Pass pass() const { return plans.empty() ? Pass::forward : plans[0].pass; }
  std::int64_t rows(int shard) const { return planner.shard(shard).rows(); }
  std::int64_t pairs(Work const& work) const { return visible_pairs(planner, work); }
  double tiles(Work const& work, std::int64_t tile) const { return visible_tiles(planner, work, tile); }
  void fill(int rank, int step, Step& out) const {
    auto const& steps = plans[static_cast<std::size_t>(rank)].steps;
    out = static_cast<std::size_t>(step) < steps.size() ? steps[static_cast<std::size_t>(step)] : Step{};
  }
};

/// Simulates a pass of all ranks of a planner's world, in O(steps) of time for each rank that has a
/// reader(), and O(1) of memory without a timeline. The schedule's laws are not checked.
template <Schedule S, Mask M>
Simulation simulate(Planner<S, M> const& planner, Pass pass, Extents const& extents, Topology const& topology,
                    ComputeModel const& compute, bool with_timeline = false) {
  PlannedSteps<S, M> const steps{planner, pass};
  return Simulator(steps, extents, topology, compute, with_timeline).run();
}

/// The same of plans that may have been changed by hand; they must keep the laws of plan_laws.hpp.
template <Schedule S, Mask M>
Simulation simulate(Planner<S, M> const& planner, std::vector<Plan> const& plans, Extents const& extents,
                    Topology const& topology, ComputeModel const& compute, bool with_timeline = false) {
  FinishedSteps<S, M> const steps{planner, plans};
  return Simulator(steps, extents, topology, compute, with_timeline).run();
}

}  // namespace lightseq
