// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lightseq/core/catalogue.hpp"
#include "lightseq/core/error.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/predict/simulation.hpp"
#include "lightseq/predict/units.hpp"
#include "lightseq/schedule/packed_ring.hpp"
#include "lightseq/schedule/planner.hpp"

namespace lightseq {

/// One way to run a problem, and what it would cost: seconds, shares of all ranks' time, bytes.
struct Advice {
  std::string schedule;   ///< the type's name, which `simulate --schedule` takes
  std::string partition;  ///< the type's name
  Route route = Route::owner;
  int ranks_per_node = 0;  ///< to give to a two-level schedule; 0 for others

  double forward_seconds = 0;
  double backward_seconds = 0;     ///< 0 if only the forward was asked for
  std::int64_t bytes_sent = 0;     ///< by the busiest rank of each pass, both passes together
  std::int64_t bytes_between = 0;  ///< the same, out of the busiest port between nodes
  double rows_received = 0;        ///< of keys and values, by a rank in a forward, on average
  double flops = 0;                ///< of visible pairs, all ranks and both passes together
  std::int64_t workspace_bytes = 0;
  std::int64_t tensor_bytes = 0;  ///< of the largest shard, see shard_tensor_bytes()

  std::string type;      ///< C++ to paste: "lightseq::DistAttn<128, lightseq::Causal, lightseq::ZigzagRing>"
  std::string traits;    ///< C++ that declares the traits in it; empty where the default ones do
  std::string argument;  ///< the constructor's argument for the schedule, "{.ranks_per_node = 8}"; or empty

  /// Where the ranks' time goes, on average, both passes together.
  double work = 0, merge = 0, message_wait = 0, idle = 0;

  /// The efficiency of each step, see StepCost::work_fraction().
  std::vector<double> forward_steps, backward_steps;

  /// Whether its seconds are a lower bound, and nothing else that a simulation would find is there.
  bool at_least = false;

  std::string why;  ///< a sentence that sets it against the best

  double seconds() const { return forward_seconds + backward_seconds; }

  /// What a rank must have at the peak, of a pass: workspace and its own tensors. Left out are the kernels'
  /// scratch, weights, and what an engine keeps of other layers.
  std::int64_t memory_bytes() const { return capped_sum(workspace_bytes, tensor_bytes); }

  /// FLOPs of visible pairs over what `world` GPUs could do in that time at `peak_flops` per second each.
  double efficiency(int world, double peak_flops) const {
    return seconds() > 0 ? flops / (seconds() * world * peak_flops) : 0;
  }

  /// What tables and sentences call it, and what `simulate --schedule` takes: its schedule or, where inputs
  /// come from neighbours, "ZigzagRing:neighbour".
  std::string name() const { return schedule + (route == Route::owner ? "" : ":neighbour"); }
};

/// Bytes of a rank's own tensors of `rows` tokens: q, k, v, o and lse, and for a backward the gradients of q,
/// k, v and o besides.
inline std::int64_t shard_tensor_bytes(Extents const& extents, std::int64_t rows, bool with_backward) {
  std::int64_t const each = with_backward ? 4 : 2;
  return each * (extents.per_q_head_bytes(rows, extents.element_bytes) +
                 extents.per_kv_head_bytes(rows, extents.element_bytes)) +
         extents.stats_bytes(rows);
}

/// Gives an advice the C++ to paste.
template <AnySchedule S, Mask M>
void write_type(Extents const& extents, Advice& advice) {
  bool const relayed = advice.route == Route::neighbour;
  advice.type = sentence("lightseq::DistAttn<", extents.head_dim, ", ", type_name<M>(), ", ", type_name<S>(),
                         relayed ? ", Relayed>" : ">");
  if (relayed)
    advice.traits =
        sentence("struct Relayed : lightseq::", extents.element_bytes == 4 ? "Default" : "Cuda",
                 "Traits { static constexpr lightseq::Route route = lightseq::Route::neighbour; };");
  if (advice.ranks_per_node > 0)
    advice.argument = sentence("{.ranks_per_node = ", advice.ranks_per_node, "}");
}

/// Adds what the simulation of a pass has found.
inline void add_pass(Simulation const& s, Advice& advice) {
  bool const forward = s.pass == Pass::forward;
  double const share = 1.0 / static_cast<double>(s.ranks.size());
  (forward ? advice.forward_seconds : advice.backward_seconds) = s.makespan;
  for (StepCost const& step : s.steps)
    (forward ? advice.forward_steps : advice.backward_steps).push_back(step.work_fraction());
  if (forward)
    for (RankCost const& rank : s.ranks)
      advice.rows_received += share * static_cast<double>(rank.kv_rows_received);
  double const work = share * s.sum(&RankCost::work), merge = share * s.sum(&RankCost::merge);
  double const waits = share * s.sum(&RankCost::message_wait);
  advice.flops += s.flops;
  advice.work += work;
  advice.merge += merge;
  advice.message_wait += waits;
  advice.idle += std::max(0.0, s.makespan - work - merge - waits);
  advice.bytes_sent = capped_sum(advice.bytes_sent, s.most_bytes_sent());
  advice.bytes_between = capped_sum(advice.bytes_between, s.most_bytes_between());
  advice.workspace_bytes = std::max(advice.workspace_bytes, s.most_workspace_bytes());
}

/// Rows of a ranking, the fastest first, in groups: those of a group take at most 1 + `margin` times as long
/// as its first. A row has seconds() and name().
template <class Row>
std::vector<std::span<Row const>> tied(std::span<Row const> rows, double margin = 0.01) {
  std::vector<std::span<Row const>> groups;
  while (!rows.empty()) {
    std::size_t count = 1;
    while (count < rows.size() && rows[count].seconds() <= (1 + margin) * rows[0].seconds()) ++count;
    groups.push_back(rows.first(count));
    rows = rows.subspan(count);
  }
  return groups;
}

/// What is said of a group of several: "ZigzagRing, Ring and Balanced are within 1 %"; of one: nothing.
template <class Row>
std::string tie_text(std::span<Row const> group, double margin = 0.01) {
  std::string text;
  for (std::size_t i = 0; i < group.size(); ++i)
    text += (i == 0 ? "" : i + 1 < group.size() ? ", " : " and ") + group[i].name();
  return group.size() > 1 ? sentence(text, " are within ", rounded(100 * margin), " %") : "";
}

}  // namespace lightseq
