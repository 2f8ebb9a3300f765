// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string_view>

#include "lightseq/core/error.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/schedule/ring.hpp"

namespace lightseq {

/// A ring of rings (the double ring of LoongTrain, arXiv 2406.18485): keys and values go round inside a node,
/// and once in `ranks_per_node` steps each rank hands what it holds to the rank of its own place in the next
/// node. With Route::neighbour one step in `ranks_per_node` crosses nodes, and then on all ranks' links at
/// once, where the flat ring crosses at every step. Serves every mask, in every world that `ranks_per_node`
/// divides; with one node, or one rank in each, it is the flat ring.
///
///   world 4    step 0   step 1   step 2   step 3
///   rank 0       0.0      0.1      0.3      0.2        q.kv   own queries; nodes {0, 1} and {2, 3}
///   rank 1       1.1      1.0      1.2      1.3
///   rank 2       2.2      2.3      2.1      2.0
///   rank 3       3.3      3.2      3.0      3.1
template <class P>
struct TwoLevelRingOver {
  /// The letters of the name.
  static constexpr Text label = Text("TwoLevel") + RingOver<P>::name;
  static constexpr std::string_view name = label.view();
  using Partition = P;
  int ranks_per_node = 2;

  /// Throws Error where the ranks of a node do not divide the world.
  constexpr int steps(int world) const {
    if (ranks_per_node < 1 || world % ranks_per_node != 0)
      fail("the two-level ring has ", ranks_per_node, " ranks in a node, which do not divide a world of ",
           world);
    return world;
  }
  constexpr Work at(int rank, int step, int world) const {
    int const round = step / ranks_per_node;
    return {rank, moved(rank, -round, round % ranks_per_node - step % ranks_per_node, world)};
  }
  constexpr int reader(int shard, int step, int world) const {
    int const round = step / ranks_per_node;
    return moved(shard, round, step % ranks_per_node - round % ranks_per_node, world);
  }
  constexpr int predecessor(int rank, int step, int world) const {
    bool const next_round = step % ranks_per_node == 0;
    return next_round ? moved(rank, -1, 0, world) : moved(rank, 0, -1, world);
  }
  constexpr int successor(int rank, int step, int world) const {
    bool const next_round = step % ranks_per_node == 0;
    return next_round ? moved(rank, 1, 0, world) : moved(rank, 0, 1, world);
  }
  void name_values(Fingerprint& fingerprint) const {
    fingerprint.add("the schedule's ranks_per_node", ranks_per_node);
  }

 private:
  /// The rank so many nodes, and so many places inside its node, further on; both go round at most once.
  /// Simulations ask this some ten times a step, so it divides little.
  constexpr int moved(int rank, int nodes, int places, int world) const {
    int const place = rank % ranks_per_node, begin_of_node = rank - place;
    return wrap(begin_of_node + nodes * ranks_per_node, world) + wrap(place + places, ranks_per_node);
  }
};

using TwoLevelRing = TwoLevelRingOver<Contiguous>;
using TwoLevelZigzagRing = TwoLevelRingOver<Zigzag>;
using TwoLevelStripedRing = TwoLevelRingOver<Striped>;
static_assert(HasReader<TwoLevelRing> && HasRelay<TwoLevelRing> && HasNodes<TwoLevelRing>);

}  // namespace lightseq
