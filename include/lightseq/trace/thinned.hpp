// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>
#include <tuple>
#include <utility>

#include "lightseq/trace/timeline.hpp"

namespace lightseq {

/// Whether a work's queries are another rank's.
inline bool is_for_another(Span const& span) {
  return span.activity == Activity::work && span.work.q != span.rank;
}

/// What a rank does at a time stands in one of three lanes: works, waits and merges in 0, sends in 1,
/// receives in 2.
inline int lane_of(Activity activity) {
  if (activity == Activity::send || activity == Activity::exchange) return 1;
  return activity == Activity::receive ? 2 : 0;
}

/// Makes a timeline drawable, however many spans it has: shorter spans than `unit` seconds become one, in
/// each lane of each rank, with those that begin within `unit` of the first of them. It is what they are for
/// most of the time. So a lane has at most 2 * (makespan / unit + 1) spans.
class Thinning {
 public:
  static Timeline thinned(Timeline timeline, double unit) {
    auto const place = [](Span const& s) { return std::tuple(s.rank, lane_of(s.activity), s.begin); };
    std::stable_sort(timeline.begin(), timeline.end(),
                     [&](Span const& a, Span const& b) { return place(a) < place(b); });
    Thinning thinning(unit);
    for (Span const& span : timeline) thinning.add(span);
    thinning.close();
    return std::move(thinning.result_);
  }

 private:
  /// An activity, or work for another rank.
  static constexpr std::size_t kinds = activities + 1;
  static std::size_t kind(Span const& s) {
    return is_for_another(s) ? std::size_t{activities} : static_cast<std::size_t>(s.activity);
  }

  explicit Thinning(double unit) : unit_(unit) {}

  static bool same_lane(Span const& a, Span const& b) {
    return a.rank == b.rank && lane_of(a.activity) == lane_of(b.activity);
  }

  void add(Span const& span) {
    bool const short_one = span.end - span.begin < unit_;
    if (open_ && (!short_one || !same_lane(*open_, span) || span.begin >= open_->begin + unit_)) close();
    if (!short_one) return result_.push_back(span);
    if (!open_) {
      open_ = span;
      seconds_.fill(0);
    }
    open_->end = std::max(open_->end, span.end);
    double& of_kind = seconds_[kind(span)];
    of_kind += span.end - span.begin;
    if (of_kind < *std::max_element(seconds_.begin(), seconds_.end())) return;
    Span most = span;
    most.begin = open_->begin;
    most.end = open_->end;
    open_ = most;
  }

  void close() {
    if (open_) result_.push_back(*open_);
    open_.reset();
  }

  double unit_;
  std::optional<Span> open_;             ///< short spans so far, as what they are for most of the time
  std::array<double, kinds> seconds_{};  ///< that they are of each kind
  Timeline result_;
};

}  // namespace lightseq
