// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "examples/support/options.hpp"
#include "examples/support/packs.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/predict/presets.hpp"
#include "lightseq/predict/simulate.hpp"
#include "lightseq/schedule/packed_ring.hpp"

/// What `simulate` is asked.
namespace lightseq::simulator {

inline std::string names_of_packs() {
  std::string names;
  for (char const* const name : support::random_packs) names.append(names.empty() ? "" : ", ").append(name);
  return names;
}

inline std::string names_of_presets() {
  std::string names;
  for (Preset const& preset : presets()) names.append(names.empty() ? "" : ", ").append(preset.name);
  return names;
}

/// All options with their defaults. What is empty of the GPU and of its nodes is the preset's.
inline support::Options known_options() {
  return support::Options(
      {
          {"--world", "8", "GPUs; a list such as 8,64 gives a table"},
          {"--seqlen", "65536", "tokens of the whole sequence; or a list"},
          {"--heads", "32", "query heads"},
          {"--kv-heads", "8", "key/value heads, a divisor of the query heads; or a list"},
          {"--dim", "128", "head dim"},
          {"--batch", "1", "sequences"},
          {"--mask", "Causal", names_of<Masks>()},
          {"--window", "4096", "keys that a query sees, of masks such as SlidingWindow"},
          {"--documents", "",
           "packs documents, causal within: a kind of random packs, which are " + names_of_packs() +
               "; or a list of lengths, taken again and again until the sequence is full"},
          {"--pass", "both", "forward, backward or both; the ranking is by the forward or by both"},
          {"--schedule", "Ring,Balanced,ZigzagRing,PackedRing",
           "which to tabulate, or to draw besides the fastest: all, or a list of " + names_of<Schedules>() +
               ", " + std::string(PackedRing::name) +
               "; PackedRing serves --documents alone; ZigzagRing:neighbour, :owner name a route too; other "
               "systems' are " +
               names_of<Baselines>()},
          {"--route", "owner",
           "of schedules that name none: owner, neighbour (relays) or, in tables, best; two-level rings "
           "relay"},
          {"--fastest", support::off,
           "simulates only the schedules that may be the fastest; of the others it gives lower bounds: for "
           "thousands of GPUs"},
          {"--degrees", support::off,
           "judges, too, how many of the GPUs should share a sequence, and what the others do"},
          {"--rest", "both", "what the others do, for --degrees: data, tensor (parallel) or both"},
          {"--activations", "counted", "counted or left-out: what tensor parallel layers send besides"},
          {"--memory-gb", "", "of a GPU: ways that need more stand last and are not advised"},
          {"--tie-percent", "1", "ways that differ by less are one row"},
          {"--preset", "h100",
           "a GPU in its nodes: " + names_of_presets() + "; what an option does not say below is its"},
          {"--ranks-per-node", "", "GPUs of a node; a world of fewer is one node"},
          {"--inside-gbs", "", "GB/s each way inside a node"},
          {"--inside-us", "", "latency there, in microseconds"},
          {"--between-gbs", "", "GB/s each way between nodes"},
          {"--between-us", "", "latency there, in microseconds"},
          {"--sharing", "", "none, rank (a port each) or node (one port for all between nodes)"},
          {"--exchange-sms", "", "multiprocessors that the exchange takes from attention"},
          {"--forward-tflops", "", "of one GPU's attention"},
          {"--backward-tflops", "", "the same of the backward"},
          {"--carry-tbs", "", "TB/s of partial results that a forward continues"},
          {"--memory-tbs", "", "TB/s of merges and zeroing"},
          {"--launch-us", "", "of each kernel"},
          {"--backward-launch-us", "", "more, of a work of the backward, which has several kernels"},
          {"--sms", "", "multiprocessors, which compute whole tiles; 0: any work fills the GPU"},
          {"--tile", "", "rows of queries and of keys that one of them takes at once"},
          {"--forward-hidden", "",
           "what a hidden pair of a tile that the mask cuts takes, in visible ones; of the forward"},
          {"--backward-hidden", "", "the same of the backward"},
          {"--forward-partial", "",
           "what a visible pair of a work takes of which the mask hides others, in pairs of one without"},
          {"--backward-partial", "", "the same of the backward"},
          {"--forward-row", "", "what a row of queries takes besides its pairs, in visible ones"},
          {"--backward-row", "", "the same of the backward's keys"},
          {"--peak-tflops", "", "what efficiency refers to"},
          {"--calibration", "",
           "a file with rows of bench_cuda_kernel, in place of the preset's rates; prints how well they fit"},
          {"--carry", "fused",
           "how partial results add up, of all schedules but PackedRing, as the next four: fused into "
           "attention, or merged by kernels of their own"},
          {"--kernels-per-work", "1", "launches, such as 2 where each half of a shard has its own"},
          {"--result-bytes", "4", "of an element of outputs and gradients on their way: 4 or 2"},
          {"--no-overlap", support::off, "messages follow the work of their step"},
          {"--synchronous", support::off, "no rank begins a step before all have ended the one before"},
          {"--svg", "", "writes a Gantt chart of the schedules, of up to 64 ranks"},
          {"--trace", "",
           "writes a Chrome trace of the first schedule, of up to 64 ranks, for ui.perfetto.dev"},
          {"--html", "", "writes a report of one page"},
          {"--json", "", "writes every number, with the options"},
          {"--csv", "", "the same, a line for each way"},
      },
      {},
      {"--world 64 --seqlen 1048576 --html report.html", "--world 8,64 --seqlen 65536,1048576 --csv rows.csv",
       "--world 32 --batch 4 --degrees --memory-gb=80", "--documents web --schedule all --svg packs.svg"});
}

inline constexpr double most_ranks = 1 << 16, most_tokens = max_simulated_seqlen, most_heads = 1e6;

}  // namespace lightseq::simulator
