// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>

#include "lightseq/core/error.hpp"
#include "lightseq/predict/topology.hpp"

/// Collectives in closed form: bandwidth and latency, no contention with anything else.
namespace lightseq {

/// What a collective costs each rank. Several of them, one after another, add up.
struct Collective {
  double seconds = 0;
  double bytes_sent = 0;  ///< by a rank

  Collective& operator+=(Collective const& other) {
    seconds += other.seconds;
    bytes_sent += other.bytes_sent;
    return *this;
  }
  friend Collective operator+(Collective a, Collective const& b) { return a += b; }
  friend Collective operator*(double times, Collective const& c) {
    return {times * c.seconds, times * c.bytes_sent};
  }
};

/// `ranks` ranks of consecutive numbers in a topology, from the first of a node on. Throws Error, with the
/// numbers, on an impossible topology, and where nodes would be filled in part.
class RankGroup {
 public:
  RankGroup(Topology const& topology, int ranks) : ranks_(ranks) {
    if (ranks < 1) fail("a collective has ", ranks, " ranks, it must have at least 1");
    Topology fitted = topology;
    if (fitted.ranks_per_node >= ranks) fitted.ranks_per_node = 0;
    topology_ = validated(fitted, ranks);
  }

  int ranks() const { return ranks_; }
  bool in_one_node() const { return topology_.ranks_per_node == ranks_; }
  /// Seconds until one message from rank to rank has come, without its bytes: the slowest link's.
  double latency() const {
    return in_one_node() ? topology_.inside.latency
                         : std::max(topology_.inside.latency, topology_.between.latency);
  }
  /// Bytes a second that go from rank to rank round rings, as many at once as a node has ports: where nodes
  /// share one, that port's.
  double ring_rate() const {
    double const inside = topology_.inside.bytes_per_second;
    if (in_one_node()) return inside;
    double const ports = topology_.sharing == Sharing::node ? 1 : topology_.ranks_per_node;
    return std::min(inside, ports * topology_.between.bytes_per_second);
  }
  /// Seconds in which every rank sends `bytes` to each other rank, inside and between nodes at once.
  double pairwise_seconds(double bytes) const {
    int const near = topology_.ranks_per_node, far = ranks_ - near;
    double const between = far == 0 ? 0 : bytes * far * sharers(near) / topology_.between.bytes_per_second;
    return std::max(bytes * (near - 1) / topology_.inside.bytes_per_second, between);
  }

 private:
  double sharers(int near) const { return topology_.sharing == Sharing::node ? near : 1; }
  int ranks_;
  Topology topology_;
};

/// Throws Error, with the number, unless it is finite and not negative.
inline void check_amount(char const* what, double amount) {
  if (!(amount >= 0) || std::isinf(amount)) fail(what, ": ", amount, ", must be finite and not negative");
}

/// All ranks get all parts of something of `bytes` bytes, round a ring: each rank sends all but a part.
inline Collective all_gather(double bytes, RankGroup const& group) {
  check_amount("bytes that are gathered", bytes);
  int const others = group.ranks() - 1;
  double const sent = bytes * others / group.ranks();
  return {others * group.latency() + sent / group.ring_rate(), sent};
}

/// Each rank gets its part of the sum of all ranks' `bytes` bytes: an all-gather the other way round.
inline Collective reduce_scatter(double bytes, RankGroup const& group) { return all_gather(bytes, group); }

/// All ranks get the sum of all ranks' `bytes` bytes: a reduce-scatter and an all-gather.
inline Collective all_reduce(double bytes, RankGroup const& group) {
  return reduce_scatter(bytes, group) + all_gather(bytes, group);
}

/// Each rank deals its `bytes` bytes out to all ranks in equal parts, and keeps one; all messages are on
/// their way at once.
inline Collective all_to_all(double bytes, RankGroup const& group) {
  check_amount("bytes that are dealt out", bytes);
  if (group.ranks() == 1) return {};
  double const part = bytes / group.ranks();
  return {group.latency() + group.pairwise_seconds(part), part * (group.ranks() - 1)};
}

}  // namespace lightseq
