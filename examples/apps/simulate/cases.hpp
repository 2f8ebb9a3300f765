// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "examples/apps/simulate/options.hpp"
#include "lightseq/mask/documents.hpp"
#include "lightseq/predict/advise_degrees.hpp"
#include "lightseq/predict/calibration.hpp"

namespace lightseq::simulator {

using support::blamed_on;
using support::Options;

/// One question: everything but the schedule.
struct Case {
  int world = 1;
  Problem problem = {};
  Extents extents = {};
  Topology topology = {};
  ComputeModel compute = {};
  Execution execution = {};
  std::vector<Pass> passes;
  std::string mask;
  std::int64_t window = 1;
  std::vector<std::int64_t> ends;  ///< of documents; none: the sequence is not packed
  std::int64_t memory_limit = 0;   ///< bytes of a GPU; 0: none
  double margin = 0;               ///< of ties
  bool fastest = false;            ///< only ways that may be the fastest are simulated

  bool with_backward() const { return passes.back() == Pass::backward; }
  int head_dim() const { return static_cast<int>(extents.head_dim); }
};

/// The ends of the documents that were asked for: of random packs always the same ones.
inline std::vector<std::int64_t> document_ends(Options const& options, std::int64_t seqlen, int world) {
  std::string const& text = options.text("--documents");
  if (text.empty()) return {};
  options.whole_numbers("--seqlen", 1, largest<std::int32_t>);  // a pack has no more tokens
  std::mt19937_64 random(42);
  auto const& kinds = support::random_packs;
  if (std::find(kinds.begin(), kinds.end(), text) != kinds.end())
    return support::pack(text, seqlen, world, random);
  if (text.find_first_not_of("0123456789,") != text.npos)
    fail("--documents is '", text, "', it must be a list of lengths or one of ", names_of_packs());
  auto const lengths = options.whole_numbers("--documents", 1, most_tokens);
  return support::ends_of(seqlen,
                          [&, next = std::size_t{0}]() mutable { return lengths[next++ % lengths.size()]; });
}

/// What is in a file. It is read more than once, which a pipe cannot be.
inline std::string file_text(std::string const& path) {
  if (!std::filesystem::is_regular_file(path)) fail("cannot read ", path, ": it is not a file");
  std::ifstream file(path);
  std::string text;
  for (std::string line; std::getline(file, line);) text += line + '\n';
  if (!file.eof()) fail("cannot read ", path);
  return text;
}

inline Preset preset_of(Options const& options) {
  std::map<std::string, Preset> all;
  for (Preset const& preset : presets()) all.emplace(preset.name, preset);
  return options.choice("--preset", all);
}

/// Replaces a number by what an option says, if it says something.
inline void override(Options const& options, char const* option, double unit, double least, double& value) {
  if (!options.text(option).empty()) value = unit * options.number(option, least);
}
inline void override(Options const& options, char const* option, int least, int most, int& value) {
  if (!options.text(option).empty()) value = options.small(option, least, most);
}

/// The GPU: a preset, with what a bench measured, with what options say.
inline ComputeModel compute_of(Options const& options, int dim) {
  ComputeModel gpu = preset_of(options).compute;
  if (std::string const& path = options.text("--calibration"); !path.empty())
    gpu = blamed_on("--calibration", [&] { return calibrated(gpu, file_text(path), dim); });
  auto const set = [&](char const* option, double unit, double least, double& value) {
    override(options, option, unit, least, value);
  };
  set("--forward-tflops", 1e12, 1e-9, gpu.forward_flops);
  set("--backward-tflops", 1e12, 1e-9, gpu.backward_flops);
  set("--carry-tbs", 1e12, 1e-9, gpu.carry_bytes);
  set("--memory-tbs", 1e12, 1e-9, gpu.memory_bytes);
  set("--launch-us", 1e-6, 0, gpu.launch);
  set("--forward-hidden", 1, 0, gpu.forward_weights.hidden);
  set("--backward-hidden", 1, 0, gpu.backward_weights.hidden);
  set("--forward-partial", 1, 1e-9, gpu.forward_weights.partial);
  set("--backward-partial", 1, 1e-9, gpu.backward_weights.partial);
  set("--forward-row", 1, 0, gpu.forward_weights.row);
  set("--backward-row", 1, 0, gpu.backward_weights.row);
  set("--backward-launch-us", 1e-6, 0, gpu.backward_launch);
  set("--peak-tflops", 1e12, 1e-9, gpu.peak_flops);
  override(options, "--sms", 0, 1000000, gpu.units);
  if (!options.text("--tile").empty()) gpu.tile = options.whole("--tile", 1, 1e6);
  return gpu;
}

/// What the case's model makes of the calibration's lines; nothing without one.
inline std::vector<Residual> residuals_of(Options const& options, Case const& c) {
  std::string const& path = options.text("--calibration");
  if (path.empty()) return {};
  return blamed_on("--calibration", [&] {
    return residuals(c.compute, read_measurements(file_text(path), c.extents.head_dim),
                     c.topology.exchange_units);
  });
}

/// The cluster of such GPUs: the preset's, with what a bench measured of messages, with what options say.
inline Topology topology_of(Options const& options, int world, ComputeModel const& gpu, int dim) {
  Topology nodes = preset_of(options).nodes;
  if (std::string const& path = options.text("--calibration"); !path.empty())
    nodes = blamed_on("--calibration", [&] { return calibrated(nodes, gpu, file_text(path), dim); });
  override(options, "--ranks-per-node", 1, 1000000000, nodes.ranks_per_node);
  nodes.ranks_per_node = std::min(nodes.ranks_per_node, world);
  override(options, "--inside-gbs", 1e9, 1e-9, nodes.inside.bytes_per_second);
  override(options, "--inside-us", 1e-6, 0, nodes.inside.latency);
  override(options, "--between-gbs", 1e9, 1e-9, nodes.between.bytes_per_second);
  override(options, "--between-us", 1e-6, 0, nodes.between.latency);
  override(options, "--exchange-sms", 0, 1000000, nodes.exchange_units);
  if (!options.text("--sharing").empty())
    nodes.sharing = options.choice<Sharing>(
        "--sharing", {{"none", Sharing::none}, {"rank", Sharing::rank}, {"node", Sharing::node}});
  return blamed_on("--ranks-per-node, --world", [&] { return validated(nodes, world); });
}

inline Execution execution_of(Options const& options) {
  return {.fused_carry = options.choice<bool>("--carry", {{"fused", true}, {"merged", false}}),
          .kernels_per_work = options.small("--kernels-per-work", 1, 1000),
          .result_bytes = options.choice<std::int64_t>("--result-bytes", {{"2", 2}, {"4", 4}}),
          .overlapped = !options.on("--no-overlap"),
          .synchronous = options.on("--synchronous")};
}

inline Case make_case(Options const& options, std::int64_t world, std::int64_t seqlen,
                      std::int64_t kv_heads) {
  Case c;
  int const dim = options.small("--dim", 1, 256);
  if (!Host::serves_head_dim(dim)) fail("--dim is ", dim, ", it must be a multiple of 8");
  c.world = static_cast<int>(world);
  Problem const asked{.batch = options.whole("--batch", 1, 1e6),
                      .seqlen = seqlen,
                      .heads = options.whole("--heads", 1, most_heads),
                      .kv_heads = kv_heads};
  c.problem = blamed_on("--batch, --seqlen, --heads, --kv-heads, --dim", [&] {
    // A pack's inbox has room for several messages of one rank.
    check_sizes({asked.batch, asked.heads, kv_heads, dim, sizeof(bfloat16)}, seqlen,
                (options.text("--documents").empty() ? 1 : PackedPlan::inbox_slots) * seqlen);
    return validated(asked, dim);
  });
  c.extents = {c.problem.batch, c.problem.heads, c.problem.kv_heads, dim, sizeof(bfloat16)};
  c.compute = compute_of(options, dim);
  c.topology = topology_of(options, c.world, c.compute, dim);
  blamed_on("--exchange-sms, --sms", [&] { c.compute.check(c.topology.exchange_units); });
  c.execution = execution_of(options);
  c.passes = options.choice<std::vector<Pass>>("--pass", {{"forward", {Pass::forward}},
                                                          {"backward", {Pass::backward}},
                                                          {"both", {Pass::forward, Pass::backward}}});
  c.mask = options.text("--mask");
  c.window = options.whole("--window", 1, most_tokens);
  c.ends = blamed_on("--documents", [&] { return document_ends(options, seqlen, c.world); });
  if (!options.text("--memory-gb").empty())
    c.memory_limit = std::llround(1e9 * options.number("--memory-gb", 1e-9, 1e9));
  c.margin = options.number("--tie-percent", 0, 1000) / 100;
  c.fastest = options.on("--fastest");
  if (c.fastest && !c.ends.empty()) fail("--fastest does not serve --documents");
  if (c.fastest && c.memory_limit > 0)
    fail("--fastest does not serve --memory-gb: it does not find out what the slower ways need");
  return c;
}

/// A list without what stands in it again.
template <class T>
std::vector<T> each_once(std::vector<T> const& list) {
  std::vector<T> once;
  for (T const& one : list)
    if (std::find(once.begin(), once.end(), one) == once.end()) once.push_back(one);
  return once;
}

/// The cases of all lists, the worlds outermost.
inline std::vector<Case> make_cases(Options const& options) {
  std::vector<Case> cases;
  for (std::int64_t const world : each_once(options.whole_numbers("--world", 1, most_ranks)))
    for (std::int64_t const seqlen : each_once(options.whole_numbers("--seqlen", 1, most_tokens)))
      for (std::int64_t const kv_heads : each_once(options.whole_numbers("--kv-heads", 1, most_heads)))
        cases.push_back(make_case(options, world, seqlen, kv_heads));
  return cases;
}

/// What is asked of degrees; no progress is heard.
inline DegreeQuestion degree_question(Options const& options, Case const& c) {
  return {.with_backward = c.with_backward(),
          .memory_limit = c.memory_limit,
          .rests = options.choice<std::vector<Rest>>(
              "--rest",
              {{"data", {Rest::data}}, {"tensor", {Rest::tensor}}, {"both", {Rest::data, Rest::tensor}}}),
          .activations = options.choice<bool>("--activations", {{"counted", true}, {"left-out", false}}),
          .margin = c.margin,
          .execution = c.execution};
}

/// What f(mask) returns for the mask that was asked for.
template <class F>
auto with_mask(Case const& c, F f) {
  using Result = decltype(f(Causal{}));
  if (!c.ends.empty()) {
    if (c.mask != Causal::name) fail("--mask is ", c.mask, ", but --documents are causal within");
    return f(Documents<Causal>(c.ends));
  }
  std::map<std::string, std::function<Result()>> masks;
  for_each_type<Masks>(
      [&]<class M>() { masks[std::string(M::name)] = [&] { return f(mask_seeing<M>(c.window)); }; });
  auto const found = masks.find(c.mask);
  if (found == masks.end()) fail("--mask is '", c.mask, "', it must be one of ", names_of<Masks>());
  return found->second();
}

/// What the pack is, in words.
inline std::string documents_text(Case const& c) {
  DocumentEnds const documents(c.ends);
  std::int64_t longest = 0;
  for (std::int64_t d = 0; d < documents.count(); ++d) longest = std::max(longest, documents.length(d));
  return sentence(documents.count(), " documents of up to ", longest, " tokens");
}

}  // namespace lightseq::simulator
