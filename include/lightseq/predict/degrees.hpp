// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/predict/advice.hpp"
#include "lightseq/predict/collectives.hpp"
#include "lightseq/predict/head_share.hpp"
#include "lightseq/predict/topology.hpp"

/// Ways to give GPUs to sequences: how many share one, where they stand, and what the others do.
namespace lightseq {

/// What the GPUs do that a sequence is not split over.
enum class Rest {
  data,   ///< groups of as many GPUs work on other sequences of the batch
  tensor  ///< the same number of groups share the heads of all sequences
};

/// A cluster's GPUs in `groups` groups of `degree`; the ranks of a group hold one sequence.
struct Split {
  int degree = 1;
  int groups = 1;
  int ranks_per_node = 1;  ///< ranks of one group that share a node
  Rest rest = Rest::data;
};

/// All ways to split a cluster into groups of equal size, for each of `rests`: for each divisor of the world
/// with the ranks of a group as close together as can be and with those of a node in as many groups as can
/// be.
inline std::vector<Split> splits(int world, int ranks_per_node, std::vector<Rest> const& rests) {
  std::vector<Split> all;
  for (int degree = 1; degree <= world; ++degree) {
    if (world % degree != 0) continue;
    int const groups = world / degree;
    int const close = std::gcd(degree, ranks_per_node);
    int const apart = ranks_per_node / std::gcd(groups, ranks_per_node);
    for (Rest const rest : rests) {
      if (groups == 1 && rest != rests.front()) continue;
      all.push_back({degree, groups, close, rest});
      if (apart != close) all.push_back({degree, groups, apart, rest});
    }
  }
  return all;
}

/// What a rank of the busiest group has of the batch and of the heads.
struct Portion {
  Problem problem = {};             ///< with the group's sequences, and the heads of one rank
  int idle_groups = 0;              ///< that have no sequence, or no head
  std::int64_t computed_heads = 0;  ///< by all groups together, the padded ones too

  /// Data parallel: the sequences are dealt out. Tensor parallel: the heads are, see HeadShare.
  static Portion of(Split const& split, Problem const& whole) {
    Portion portion{whole, 0, whole.heads};
    Problem& p = portion.problem;
    if (split.rest == Rest::data) {
      p.batch = tiles_of(whole.batch, split.groups);
      portion.idle_groups = static_cast<int>(std::max<std::int64_t>(0, split.groups - whole.batch));
      return portion;
    }
    HeadShare const share = HeadShare::of(whole.heads, whole.kv_heads, split.groups);
    p.heads = share.heads;
    p.kv_heads = share.kv_heads;
    portion.idle_groups = split.groups - share.busy;
    portion.computed_heads = share.busy * share.heads;
    return portion;
  }
};

/// What lies between the ranks of a group while all groups but the idle ones send. Those of a node share its
/// port where its ranks do.
inline Topology topology_of(Split const& split, Topology cluster, int idle_groups = 0) {
  int const sharers = std::min(split.groups - idle_groups, cluster.ranks_per_node / split.ranks_per_node);
  if (cluster.sharing == Sharing::node) cluster.between.bytes_per_second /= sharers;
  cluster.ranks_per_node = split.ranks_per_node;
  return cluster;
}

/// Seconds in a pass of what tensor parallel layers send beside attention, beside no work: an all-gather of
/// the activations before the projections and a reduce-scatter after them. They join the ranks, one of each
/// group, that hold the same tokens. In a node there are as many such collectives as a group has ranks there:
/// these share its port where its ranks do.
inline double activation_seconds(Split const& split, Problem const& whole, int head_dim,
                                 std::int64_t element_bytes, Topology const& cluster) {
  if (split.rest != Rest::tensor || split.groups == 1) return 0;
  Topology links = cluster;
  links.ranks_per_node = cluster.ranks_per_node / split.ranks_per_node;
  if (links.sharing == Sharing::node) links.between.bytes_per_second /= split.ranks_per_node;
  RankGroup const holders(links, split.groups);
  double const rows = static_cast<double>(whole.batch) * static_cast<double>(whole.seqlen) / split.degree;
  double const bytes = rows * static_cast<double>(whole.heads * head_dim * element_bytes);
  return (all_gather(bytes, holders) + reduce_scatter(bytes, holders)).seconds;
}

/// A way to give GPUs to sequences, with the best schedule and route for it.
struct DegreeAdvice {
  Split split = {};
  Portion portion = {};
  Advice advice = {};             ///< of a rank of the busiest group
  double activation_seconds = 0;  ///< of all passes, see there
  double sequence_seconds = 0;    ///< for a batch of one sequence, with the best schedule and route for it
  double tokens_per_second = 0;   ///< of the whole batch
  bool fits = true;               ///< into the memory that a GPU has

  std::string why = {};  ///< a sentence

  /// Until the whole batch is done.
  double seconds() const { return advice.seconds() + activation_seconds; }

  /// Where the ranks of a group stand: "in a node", "8 in each of 2 nodes".
  std::string place() const {
    int const nodes = split.degree / split.ranks_per_node;
    return nodes == 1 ? "in a node" : sentence(split.ranks_per_node, " in each of ", nodes, " nodes");
  }

  /// "8 x 4 GPUs in a node", "8 tensor x 16 GPUs, 8 in each of 2 nodes"
  std::string gpus() const {
    std::string const groups =
        split.groups == 1 ? "" : sentence(split.groups, split.rest == Rest::tensor ? " tensor x " : " x ");
    return sentence(groups, split.degree,
                    split.degree == 1 ? " GPU"
                    : spread()        ? " GPUs, "
                                      : " GPUs ",
                    split.degree == 1 ? "" : place());
  }

  /// "8 x 4 GPUs in a node with ZigzagRing", "8 tensor x 16 GPUs, 8 in each of 2 nodes, with Balanced"
  std::string name() const { return sentence(gpus(), spread() ? ", with " : " with ", advice.name()); }

 private:
  bool spread() const { return split.degree > split.ranks_per_node; }
};

}  // namespace lightseq
