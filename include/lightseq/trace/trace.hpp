// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <span>

#include "lightseq/trace/timeline.hpp"

namespace lightseq {

/// What a call tells when its works, exchanges and merges run: begin() gets each span that begins on the
/// device's queue and returns a token, which end() gets when the span is over. Neither throws or waits.
template <class T, class Queue>
concept Trace = requires(T& trace, Queue const& queue, Span const& span, typename T::Token token) {
  { trace.begin(queue, span) }
  noexcept->std::same_as<typename T::Token>;
  { trace.end(queue, token) }
  noexcept;
};

/// The default trace, which records nothing and costs nothing.
struct NoTrace {
  struct Token {};
  static constexpr Token begin(auto const& /*queue*/, Span const&) noexcept { return {}; }
  static constexpr void end(auto const& /*queue*/, Token) noexcept {}
};
static_assert(Trace<NoTrace const, int>);
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
static_assert(Trace<HostTrace, int>);

}  // namespace lightseq
