// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <locale>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/trace/timeline.hpp"

namespace lightseq {

/// A timeline as Chrome-trace JSON, which https://ui.perfetto.dev opens: a process for each rank, with a
/// track for its work and as many for messages as are under way at once. Simulated or measured is all the
/// same. The global locale has no say in it.
inline std::string chrome_trace(Timeline timeline) {
  std::stable_sort(timeline.begin(), timeline.end(),
                   [](Span const& a, Span const& b) { return a.begin < b.begin; });
  constexpr std::size_t first_send = 1, first_receive = 10, first_exchange = 20;
  std::map<std::pair<int, std::size_t>, double> busy_until;  // of a rank's track
  std::ostringstream json;
  json.imbue(std::locale::classic());
  json.precision(15);
  // Whole nanoseconds, as Perfetto counts: spans that touch must not overlap when they have been rounded.
  auto const nanoseconds = [](double seconds) { return std::round(1e9 * seconds); };
  json << "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [";
  char const* separator = "\n";
  for (Span const& span : timeline) {
    std::size_t track = span.activity == Activity::send       ? first_send
                        : span.activity == Activity::receive  ? first_receive
                        : span.activity == Activity::exchange ? first_exchange
                                                              : 0;
    if (track > 0)
      while (busy_until[{span.rank, track}] > span.begin) ++track;
    busy_until[{span.rank, track}] = span.end;
    json << separator << "{\"ph\": \"X\", \"pid\": " << span.rank << ", \"tid\": " << track
         << ", \"ts\": " << nanoseconds(span.begin) / 1e3
         << ", \"dur\": " << (nanoseconds(span.end) - nanoseconds(span.begin)) / 1e3 << ", \"name\": \""
         << text(span) << "\", \"cat\": \"" << name(span.activity) << "\", \"args\": {\"step\": " << span.step
         << "}}";
    separator = ",\n";
  }
  int named = -1;
  for (auto const& entry : busy_until) {
    auto const [rank, track] = entry.first;
    auto const label = [&](char const* what, std::string const& value) {
      json << separator << "{\"ph\": \"M\", \"pid\": " << entry.first.first
           << ", \"tid\": " << entry.first.second << ", \"name\": \"" << what << "\", \"args\": {\"name\": \""
           << value << "\"}}";
      separator = ",\n";
    };
    if (rank != named) label("process_name", "rank " + std::to_string(rank));
    named = rank;
    label("thread_name", track == 0               ? "work"
                         : track < first_receive  ? "sends"
                         : track < first_exchange ? "receives"
                                                  : "exchange");
  }
  json << "\n]}\n";
  return json.str();
}

}  // namespace lightseq
