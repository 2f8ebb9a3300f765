// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/predict/compute_model.hpp"
#include "lightseq/predict/event_engine.hpp"
#include "lightseq/predict/execution.hpp"
#include "lightseq/predict/simulation.hpp"
#include "lightseq/predict/topology.hpp"
#include "lightseq/schedule/buffers.hpp"
#include "lightseq/schedule/summary.hpp"

/// What a pass costs on a cluster that need not exist: all ranks' plans, simulated.
namespace lightseq {

/// Tokens of a sequence whose visible pairs can be counted in 63 bits on the way to any sum.
inline constexpr std::int64_t max_simulated_seqlen = std::int64_t{1} << 31;

/// Throws Error, with the numbers, on sizes below 1, and on a sequence of `seqlen` tokens or messages of
/// `max_rows` rows that are too long.
inline void check_sizes(Extents const& extents, std::int64_t seqlen, std::int64_t max_rows) {
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
  if (checked_product(extents.batch, max_rows, heads, extents.head_dim, element) < 0)
    fail("the messages of ", max_rows, " tokens with batch ", extents.batch, ", ", heads,
         " heads and head dim ", extents.head_dim, " overflow 63 bits");
}

/// Simulates all ranks through the steps of execute(), each of which is a turn; see EventEngine. Where
/// messages do not travel beside works a step is two turns. Left out: the packing of a rank's own tensors
/// before the first step and the rounding of results after the last.
///
/// `Steps` has `world()`, `steps()`, `pass()`, `rows(shard)`, `pairs(work)`, `tiles(work, tile)` and
/// `fill(rank, step, out)`.
template <class Steps>
class Simulator {
 public:
  /// Throws Error on an impossible topology or model, on sizes below 1, and on a sequence or messages that
  /// are too long.
  Simulator(Steps& steps, Extents const& extents, Topology const& topology, ComputeModel const& compute,
            Execution const& execution = {}, TimelineOf timeline = false)
      : steps_(steps),
        extents_(extents),
        topology_(validated(topology, steps.world())),
        compute_(compute),
        execution_(execution),
        timeline_(timeline),
        exchange_units_(steps.world() > 1 ? topology_.exchange_units : 0),
        buffers_(static_cast<std::size_t>(steps.world())) {
    compute_.check(exchange_units_);
    execution_.check();
    std::int64_t seqlen = 0;
    for (int shard = 0; shard < steps.world(); ++shard) {
      rows_.push_back(steps.rows(shard));
      max_rows_ = std::max(max_rows_, rows_.back());
      seqlen += rows_.back();
    }
    check_sizes(extents, seqlen, max_rows_);
  }

  /// Runs it, once.
  Simulation run() {
    Simulation result = EventEngine(*this, topology_, timeline_, execution_.synchronous).run();
    result.pass = steps_.pass();
    result.flops = static_cast<double>(result.pairs) * ComputeModel::pair_flops(extents_, steps_.pass());
    for (std::size_t rank = 0; rank < buffers_.size(); ++rank) {
      std::int64_t const rows = rows_[rank];
      result.ranks[rank].workspace_bytes = buffers_[rank].bytes(extents_, steps_.pass(), rows, max_rows_) +
                                           Accumulators(extents_, rows).bytes(steps_.pass());
    }
    return result;
  }

  /// As a TurnList.
  int world() const { return steps_.world(); }
  bool fill(int rank, std::int64_t turn, Turn& out) {
    bool const beside = execution_.overlapped;
    int const step = static_cast<int>(beside ? turn : turn / 2);
    if (step >= steps_.steps()) return false;
    bool const works = beside || turn % 2 == 0, sends = beside || turn % 2 == 1;
    out.number = turn;
    out.step = step;
    out.barrier = sends;
    out.messages.clear();
    out.work.reset();
    out.merge_seconds = 0;
    steps_.fill(rank, step, step_);
    if (works) {
      buffers_[static_cast<std::size_t>(rank)].add(rank, step, step_);
      if (step_.work) describe_work(rank, step, *step_.work, out);
    }
    if (sends) add_messages(out);
    return true;
  }

 private:
  std::int64_t rows_at(int shard) const { return rows_[static_cast<std::size_t>(shard)]; }
  std::int64_t rows_of(Transfer const& t) const { return row_span(t.rows, rows_at(t.shard)).count; }

  void add_messages(Turn& out) const {
    for (Transfer const& t : step_.sends) out.messages.push_back(message(t, true));
    for (Transfer const& t : step_.recvs) {
      out.messages.push_back(message(t, false));
      if (is_result(t.payload)) out.merge_seconds += compute_.merge_seconds(t.payload, rows_of(t), extents_);
    }
  }

  TurnMessage message(Transfer const& t, bool sent) const {
    std::int64_t const bytes =
        extents_.message_bytes(t.payload, steps_.pass(), rows_of(t), execution_.result_bytes);
    return {t, sent, rows_of(t), bytes};
  }

  void describe_work(int rank, int step, Work const& work, Turn& out) const {
    out.work = work;
    out.pairs = steps_.pairs(work);
    ComputeModel::WorkSize size;
    size.pairs = static_cast<double>(out.pairs);
    size.q_rows = row_span(work.rows, rows_at(work.q)).count;
    size.kv_rows = rows_at(work.kv);
    if (compute_.units > 0) size.count_tiles(steps_.tiles(work, compute_.tile), compute_.tile);
    bool const continues = work.q == rank && step > 0;
    size.continues = continues && execution_.fused_carry;
    size.foreign_q = work.q != rank;
    size.foreign_kv = work.kv != rank;
    auto const seconds = [&](int exchange_units) {
      return (execution_.kernels_per_work - 1) * compute_.launch_seconds(steps_.pass()) +
             compute_.work_seconds(size, extents_, steps_.pass(), exchange_units);
    };
    out.work_seconds = seconds(0);
    out.slowdown =
        exchange_units_ > 0 && out.work_seconds > 0 ? seconds(exchange_units_) / out.work_seconds : 1;
    if (continues && !execution_.fused_carry && steps_.pass() == Pass::forward)
      out.merge_seconds += compute_.merge_seconds(Payload::out, size.q_rows, extents_);
  }

  Steps& steps_;
  Extents extents_;
  Topology topology_;
  ComputeModel compute_;
  Execution execution_;
  TimelineOf timeline_;
  int exchange_units_;
  std::vector<std::int64_t> rows_;  ///< of shards
  std::int64_t max_rows_ = 0;
  std::vector<BufferSet> buffers_;  ///< of ranks
  Step step_;                       ///< of the rank that was asked for last
};

/// The steps of all ranks as a planner gives them, made when they are asked for. It remembers all shards, and
/// some works of each rank, as steps of several ranks ask for the same.
template <Schedule S, Mask M>
class PlannedSteps {
 public:
  PlannedSteps(Planner<S, M> const& planner, Pass pass)
      : planner_(planner), pass_(pass), works_(static_cast<std::size_t>(planner.world()) * remembered) {
    for (int rank = 0; rank < planner.world(); ++rank) shards_.push_back(planner.shard(rank));
  }

  int world() const { return planner_.world(); }
  int steps() const { return planner_.schedule_steps() + 1; }
  Pass pass() const { return pass_; }
  std::int64_t rows(int shard) const { return shards_[static_cast<std::size_t>(shard)].rows(); }
  std::int64_t pairs(Work const& work) const { return visible_pairs(planner_, work, shards()); }
  double tiles(Work const& work, std::int64_t tile) const {
    return visible_tiles(planner_, work, tile, shards());
  }
  void fill(int rank, int step, Step& out) {
    planner_.fill(rank, step, pass_, out, [this](int worker, int at) { return work(worker, at); });
  }

 private:
  static constexpr std::size_t remembered = 4;  ///< steps of a rank, one after another

  struct Known {
    int step = -1;
    std::optional<Work> work = {};
  };

  std::optional<Work> work(int rank, int step) {
    if (step < 0 || rank < 0 || rank >= world()) return planner_.work(rank, step);
    Known& known =
        works_[static_cast<std::size_t>(rank) * remembered + static_cast<std::size_t>(step) % remembered];
    if (known.step != step) known = {step, planner_.work(rank, step, shards())};
    return known.work;
  }

  auto shards() const {
    return [this](int rank) -> Positions const& { return shards_[static_cast<std::size_t>(rank)]; };
  }

  Planner<S, M> const& planner_;
  Pass pass_;
  std::vector<Positions> shards_;
  std::vector<Known> works_;
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
                    ComputeModel const& compute, Execution const& execution, TimelineOf timeline = false) {
  PlannedSteps<S, M> steps(planner, pass);
  return Simulator(steps, extents, topology, compute, execution, timeline).run();
}

/// The same as this library runs a step.
template <Schedule S, Mask M>
Simulation simulate(Planner<S, M> const& planner, Pass pass, Extents const& extents, Topology const& topology,
                    ComputeModel const& compute, TimelineOf timeline = false) {
  return simulate(planner, pass, extents, topology, compute, Execution{}, timeline);
}

/// The same of plans that may have been changed by hand; they must keep the laws of plan_laws.hpp.
template <Schedule S, Mask M>
Simulation simulate(Planner<S, M> const& planner, std::vector<Plan> const& plans, Extents const& extents,
                    Topology const& topology, ComputeModel const& compute, TimelineOf timeline = false) {
  FinishedSteps<S, M> steps{planner, plans};
  return Simulator(steps, extents, topology, compute, {}, timeline).run();
}

}  // namespace lightseq
