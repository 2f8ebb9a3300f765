// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lightseq/core/problem.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/documents.hpp"
#include "lightseq/predict/advise.hpp"
#include "lightseq/predict/simulate_packed.hpp"

namespace lightseq {

/// The sentence on packing: how it compares with the best of the schedules that do not pack.
inline std::string packing_reason(Advice const& packed, Advice const& other) {
  double const ratio = packed.seconds() / other.seconds();
  std::string text = packed.name() + " is as fast as " + other.name();
  if (ratio <= 1 / 1.0005)
    text = sentence(packed.name(), " is the fastest, and ", other.name(), " takes ", rounded(1 / ratio),
                    " times as long");
  if (ratio >= 1.0005)
    text = sentence(packed.name(), " takes ", rounded(ratio), " times as long as ", other.name());
  text += sentence(": packed, ranks idle ", percent_of_time(packed, packed.message_wait + packed.idle),
                   " of the time, against ", percent_of_time(other, other.message_wait + other.idle),
                   ", receive ", count_text(packed.rows_received), " rows of keys each, against ",
                   count_text(other.rows_received));
  double const work = (packed.work + packed.merge) / (other.work + other.merge);
  return std::isfinite(work) ? sentence(text, ", and work ", rounded(work), " times as long") : text;
}

/// All that is known of PackedRing's plans for a pack without a simulation.
template <Mask Inner>
Advice described(std::vector<PackedPlan> const& plans, Inner const&, Extents const& extents,
                 bool with_backward) {
  Advice advice;
  advice.schedule = name_of<PackedRing>();
  advice.partition = "BalancedPacking";
  std::int64_t rows = 0;
  for (PackedPlan const& plan : plans) rows = std::max(rows, plan.rows());
  advice.tensor_bytes = shard_tensor_bytes(extents, rows, with_backward);
  write_type<PackedRing, Documents<Inner>>(extents, advice);
  return advice;
}

/// What PackedRing costs by its plans for a pack, in the forward or in both passes; without the sentence.
template <Mask Inner>
Advice packed_advice(std::vector<PackedPlan> const& plans, Inner const& inner, Extents const& extents,
                     Topology const& cluster, ComputeModel const& compute, bool with_backward) {
  Advice advice = described(plans, inner, extents, with_backward);
  for (Pass const pass : {Pass::forward, Pass::backward})
    if (pass == Pass::forward || with_backward)
      add_pass(simulate(plans, inner, pass, extents, cluster, compute), advice);
  return advice;
}

/// As advise(), with PackedRing beside the schedules that leave each token of the sequence where its position
/// puts it; its sentence says what packing wins or loses against the best of those. PackedRing runs as
/// this library does, whatever the execution of the others. Packed are the documents'
/// tokens; the schedules split all of the sequence. Throws Error, too, where the documents end after it.
template <class List = Schedules, Mask Inner>
std::vector<Advice> advise_packed(Problem const& asked, int head_dim, std::int64_t element_bytes,
                                  Documents<Inner> const& documents, int world, Topology const& topology,
                                  ComputeModel const& compute, bool with_backward = true,
                                  std::function<void(Advice const&)> const& simulated = {},
                                  Execution const& execution = {}) {
  Problem const problem = validated(asked, head_dim);
  check_value(documents, problem.seqlen);
  auto ranking = advise<List>(problem, head_dim, element_bytes, documents, world, topology, compute,
                              with_backward, simulated, execution);
  Extents const extents{problem.batch, problem.heads, problem.kv_heads, head_dim, element_bytes};
  ranking.push_back(packed_advice(packed_plans(documents.ends(), problem.seqlen, world, documents.inner()),
                                  documents.inner(), extents, validated(topology, world), compute,
                                  with_backward));
  if (simulated) simulated(ranking.back());
  rank_advices(ranking, extents);
  auto const packs = [](Advice const& a) { return a.schedule == name_of<PackedRing>(); };
  auto const packed = std::find_if(ranking.begin(), ranking.end(), packs),
             other = std::find_if_not(ranking.begin(), ranking.end(), packs);
  if (other != ranking.end()) packed->why = packing_reason(*packed, *other);
  return ranking;
}

}  // namespace lightseq
