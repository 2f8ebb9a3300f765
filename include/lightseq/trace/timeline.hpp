// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

#include "lightseq/schedule/plan.hpp"
#include "lightseq/schedule/text.hpp"

namespace lightseq {

/// What a rank is seen doing.
enum class Activity {
  work,      ///< attention of a step
  send,      ///< a message from when both ends are there until it has passed
  receive,   ///< the same at the other end
  exchange,  ///< all messages of a step together, where they are not seen one by one
  merge,     ///< the results that have come home are added up
  wait       ///< nothing: messages or peers are late
};
inline constexpr int activities = 6;

/// The activity's name, as in the enumeration.
constexpr char const* name(Activity activity) {
  constexpr std::array<char const*, activities> names{"work", "send", "receive", "exchange", "merge", "wait"};
  return names[static_cast<std::size_t>(activity)];
}

/// A rank does something from `begin` to `end`, in seconds from when the pass began.
struct Span {
  Activity activity = Activity::work;
  int rank = 0;
  int step = 0;
  double begin = 0;
  double end = 0;
  Work work = {};         ///< of a work
  Transfer message = {};  ///< of a send or receive
};

/// All that was seen, simulated or measured.
using Timeline = std::vector<Span>;

/// Whose spans a simulation keeps, which are many: of all ranks or of none, given as a bool, or of the first.
struct TimelineOf {
  int ranks = 0;

  constexpr TimelineOf(bool all) : ranks(all ? std::numeric_limits<int>::max() : 0) {}
  static constexpr TimelineOf first(int ranks) {
    TimelineOf some = false;
    some.ranks = ranks;
    return some;
  }
};

/// What a span is about: "q 3 x kv 1", "kv of shard 1 from rank 2", "merge".
inline std::string text(Span const& span) {
  switch (span.activity) {
    case Activity::work:
      return std::string(text(span.work).view());
    case Activity::send:
    case Activity::receive:
      return std::string(text(span.message, span.activity == Activity::send).view());
    default:
      return name(span.activity);
  }
}

}  // namespace lightseq
