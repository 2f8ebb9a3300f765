// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <limits>

#include "lightseq/core/error.hpp"

namespace lightseq {

/// How fast messages travel one way; the other way is a link of its own.
struct Link {
  double bytes_per_second = std::numeric_limits<double>::infinity();
  double latency = 0;  ///< seconds, of each message
};

/// Which messages of one direction share a link's bandwidth.
enum class Sharing {
  none,  ///< none: each message has all of it
  rank,  ///< those from, and those to, a rank: each rank has a port of its own
  node   ///< between nodes those from, and those to, all ranks of a node; inside a node as `rank`
};

/// A cluster: what lies between its ranks. Nodes hold ranks of consecutive numbers.
struct Topology {
  int ranks_per_node = 0;  ///< 0: all ranks are in one node
  Link inside = {};        ///< between ranks of a node
  Link between = {};       ///< between ranks of different nodes
  Sharing sharing = Sharing::rank;
  int exchange_units = 0;  ///< multiprocessors that the exchange takes from the work, see ComputeModel::units
  /// Whether a message ends no earlier than its receiver's work: so it is where ranks are threads of a Host,
  /// as the receiver copies.
  bool fetched_by_receiver = false;
};

/// The topology with its defaults filled in for a world. Throws Error, with the numbers, on an impossible
/// one.
inline Topology validated(Topology topology, int world) {
  if (world < 1) fail("world is ", world, ", it must be at least 1");
  if (topology.ranks_per_node == 0) topology.ranks_per_node = world;
  if (topology.ranks_per_node < 1 || world % topology.ranks_per_node != 0)
    fail("there are ", topology.ranks_per_node, " ranks in a node, which do not divide a world of ", world);
  auto const check = [](char const* where, Link const& link) {
    if (!(link.bytes_per_second > 0))
      fail("the bandwidth ", where, " nodes is ", link.bytes_per_second, " bytes/s, it must be positive");
    if (!(link.latency >= 0) || std::isinf(link.latency))
      fail("the latency ", where, " nodes is ", link.latency, " s, it must be finite and not negative");
  };
  check("inside", topology.inside);
  check("between", topology.between);
  if (topology.exchange_units < 0)
    fail("the exchange takes ", topology.exchange_units, " multiprocessors, it must not be less than none");
  return topology;
}

/// Nodes of 8 H100 GPUs with NVLink inside and one 400 Gb/s port for each GPU between them, at the rates that
/// NCCL reaches with large messages: of 450 and of 50 GB/s.
inline Topology h100_nodes() {
  return {.ranks_per_node = 8, .inside = {370e9, 5e-6}, .between = {45e9, 10e-6}, .exchange_units = 4};
}

/// Nodes of 8 H200 GPUs: NVLink at the rate that NCCL reached between two of them, ports between nodes as
/// those of h100_nodes().
inline Topology h200_nodes() {
  Topology nodes = h100_nodes();
  nodes.inside.bytes_per_second = 305e9;
  return nodes;
}

/// Nodes of 8 A100 GPUs with NVLink inside, at 200 of 300 GB/s, and four ports of 200 Gb/s for all of them,
/// at 91 of 100 GB/s: rates of NCCL that github.com/NVIDIA/nccl-tests' issues 149 and 100 report.
inline Topology a100_nodes() {
  return {.ranks_per_node = 8,
          .inside = {200e9, 5e-6},
          .between = {91e9, 10e-6},
          .sharing = Sharing::node,
          .exchange_units = 4};
}

}  // namespace lightseq
