// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <span>

#include "lightseq/schedule/timeline.hpp"

namespace lightseq {

/// Takes no note of anything, and costs nothing: what calls are given where nobody asks for more.
struct NoTrace {
  struct Time {};
  static constexpr Time now() { return {}; }
  static constexpr void note(Activity, int /*rank*/, std::size_t /*step*/, Time /*begin*/, Work const& = {}) {
  }
};
inline constexpr NoTrace no_trace{};

/// What a rank did in a call, as the host's clock saw it, written into memory of the caller: when each work,
/// each step's exchange and its merges began and ended. On a Host that is when they ran. Seconds from
/// `origin`, which the ranks of one process may share.
class HostTrace {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;

  explicit HostTrace(std::span<Span> memory, Time origin = Clock::now()) : memory_(memory), origin_(origin) {}

  static Time now() noexcept { return Clock::now(); }

  /// Notes what has just ended, if there is room.
  void note(Activity activity, int rank, std::size_t step, Time begin, Work const& work = {}) noexcept {
    Time const end = now();
    ++noted_;
    if (noted_ > memory_.size()) return;
    memory_[noted_ - 1] = {activity, rank, static_cast<int>(step), seconds(begin), seconds(end), work, {}};
  }

  /// What was noted, the oldest first.
  std::span<Span const> spans() const { return memory_.first(std::min(noted_, memory_.size())); }

  /// Whether all that was to be noted had room: at most three spans for each step of the plan.
  bool complete() const { return noted_ <= memory_.size(); }

 private:
  double seconds(Time time) const { return std::chrono::duration<double>(time - origin_).count(); }

  std::span<Span> memory_;
  Time origin_;
  std::size_t noted_ = 0;
};

}  // namespace lightseq
