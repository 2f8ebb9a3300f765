// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <chrono>
#include <cstddef>
#include <span>

#include "lightseq/trace/timeline.hpp"

namespace lightseq {

/// The default trace, which records nothing and costs nothing. A call tells its trace each span that begins
/// on the device's queue; begin() returns a token, and the call passes the token to end() when the span is
/// over.
struct NoTrace {
  struct Token {};
  static constexpr Token begin(auto const& /*queue*/, Span const&) { return {}; }
  static constexpr void end(auto const& /*queue*/, Token) {}
};
inline constexpr NoTrace no_trace{};

/// What a rank did in a call, as the host's clock saw it, written into memory of the caller: when each work,
/// each step's exchange and its merges began and ended. On a Host that is when they ran; for a GPU there is
/// CudaTrace. Seconds from `origin`, which the ranks of one process may share.
class HostTrace {
 public:
  using Clock = std::chrono::steady_clock;
  using Time = Clock::time_point;
  using Token = std::size_t;

  explicit HostTrace(std::span<Span> memory, Time origin = Clock::now()) : memory_(memory), origin_(origin) {}

  Token begin(auto const& /*queue*/, Span const& span) noexcept {
    std::size_t const at = noted_++;
    if (at < memory_.size()) {
      memory_[at] = span;
      memory_[at].begin = now();
    }
    return at;
  }
  void end(auto const& /*queue*/, Token at) noexcept {
    if (at < memory_.size()) memory_[at].end = now();
  }

  /// What was noted, in the order in which it began.
  std::span<Span const> spans() const { return memory_.first(std::min(noted_, memory_.size())); }

  /// Whether all that was to be noted had room: at most three spans for each step of the plan.
  bool complete() const { return noted_ <= memory_.size(); }

 private:
  double now() const { return std::chrono::duration<double>(Clock::now() - origin_).count(); }

  std::span<Span> memory_;
  Time origin_;
  std::size_t noted_ = 0;
};

}  // namespace lightseq
