// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/core/json.hpp"
#include "lightseq/trace/timeline.hpp"

namespace lightseq {

/// A timeline as Chrome-trace JSON, which https://ui.perfetto.dev opens: a process for each rank, with a
/// track for its work and as many for messages as are under way at once. Simulated or measured is all the
/// same.
inline std::string chrome_trace(Timeline timeline) {
  std::stable_sort(timeline.begin(), timeline.end(),
                   [](Span const& a, Span const& b) { return a.begin < b.begin; });
  constexpr std::size_t first_send = 1, first_receive = 10, first_exchange = 20;
  std::map<std::pair<int, std::size_t>, double> busy_until;  // of a rank's track
  JsonLines events;
  // Whole nanoseconds, as Perfetto counts: spans that touch must not overlap when they have been rounded.
  auto const nanoseconds = [](double seconds) { return std::round(1e9 * seconds); };
  for (Span const& span : timeline) {
    std::size_t track = span.activity == Activity::send       ? first_send
                        : span.activity == Activity::receive  ? first_receive
                        : span.activity == Activity::exchange ? first_exchange
                                                              : 0;
    if (track > 0)
      while (busy_until.contains({span.rank, track}) && busy_until[{span.rank, track}] > span.begin) ++track;
    busy_until[{span.rank, track}] = span.end;
    events.add(JsonObject()
                   .add("ph", "X")
                   .add("pid", span.rank)
                   .add("tid", track)
                   .add("ts", nanoseconds(span.begin) / 1e3)
                   .add("dur", (nanoseconds(span.end) - nanoseconds(span.begin)) / 1e3)
                   .add("name", text(span))
                   .add("cat", name(span.activity))
                   .add("args", JsonObject().add("step", span.step)));
  }
  int named = -1;
  for (auto const& entry : busy_until) {
    auto const [rank, track] = entry.first;
    auto const label = [&](char const* what, std::string const& value) {
      events.add(JsonObject()
                     .add("ph", "M")
                     .add("pid", entry.first.first)
                     .add("tid", entry.first.second)
                     .add("name", what)
                     .add("args", JsonObject().add("name", value)));
    };
    if (rank != named) label("process_name", "rank " + std::to_string(rank));
    named = rank;
    label("thread_name", track == 0               ? "work"
                         : track < first_receive  ? "sends"
                         : track < first_exchange ? "receives"
                                                  : "exchange");
  }
  return JsonObject().add("displayTimeUnit", "ms").add("traceEvents", events).text() + "\n";
}

}  // namespace lightseq
