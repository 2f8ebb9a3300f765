// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <optional>
#include <vector>

#include "lightseq/schedule/payload.hpp"
#include "lightseq/schedule/schedule.hpp"

namespace lightseq {

/// One message: `rows` of the payload of `shard`, to or from `peer`.
struct Transfer {
  Payload payload = Payload::kv;
  int shard = 0;
  Rows rows = Rows::all;
  int peer = 0;
  friend constexpr bool operator==(Transfer const&, Transfer const&) = default;
};

/// The exchange (sends and receives, one group) runs beside the work. Both ends list the messages between
/// them in the same order.
struct Step {
  std::optional<Work> work;
  std::vector<Transfer> sends;
  std::vector<Transfer> recvs;

  constexpr bool empty() const { return !work && sends.empty() && recvs.empty(); }
};

/// All that one rank does in one pass.
struct Plan {
  /// A group of more messages than this may be cut differently on different ranks by NCCL, and hang.
  static constexpr int max_group = 6;

  int rank = 0;
  int world = 1;
  Pass pass = Pass::forward;
  std::vector<Step> steps;
};

/// From whom inputs come.
enum class Route {
  owner,     ///< always from the rank that owns the shard
  neighbour  ///< from the neighbour, where it held the same payload a step ago: the classic ring relay
};

/// Adds the ranks that a plan's rank sends to and receives from, once for each message.
inline void add_peers(Plan const& plan, std::vector<int>& to, std::vector<int>& from) {
  for (Step const& step : plan.steps) {
    for (Transfer const& t : step.sends) to.push_back(t.peer);
    for (Transfer const& t : step.recvs) from.push_back(t.peer);
  }
}

}  // namespace lightseq
