// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "lightseq/core/range.hpp"

/// Two ranges for each of many positions, in little memory.
namespace lightseq {

/// Two ranges a position, for the positions from `begin` to the next run's: each of the four bounds stays, or
/// moves on by 1 from position to position.
struct IntervalRun {
  static constexpr int bounds = 4;  ///< first.begin, first.end, second.begin, second.end

  std::int32_t begin = 0;
  std::int32_t at[bounds] = {};  ///< a bound, or, of one that moves, its distance from the position
  std::uint32_t flags = 0;       ///< bit i: bound i moves; bit 4: all that lies in the ranges is meant

  LIGHTSEQ_HD constexpr bool moves(int i) const { return (flags >> i & 1) != 0; }
  LIGHTSEQ_HD constexpr bool whole() const { return moves(bounds); }
  LIGHTSEQ_HD constexpr std::int64_t bound(int i, std::int64_t position) const {
    return at[i] + (moves(i) ? position : 0);
  }
  LIGHTSEQ_HD constexpr Range range(int which, std::int64_t position) const {
    return {bound(2 * which, position), bound(2 * which + 1, position)};
  }

  /// What any of the positions first, ..., last of this run has in its first or second range, and what all
  /// have there. Ranges that are not empty grow or move by 1 at most: their union has no hole.
  LIGHTSEQ_HD constexpr Range of_any(int which, std::int64_t first, std::int64_t last) const {
    return {bound(2 * which, first), bound(2 * which + 1, last)};
  }
  LIGHTSEQ_HD constexpr Range of_all(int which, std::int64_t first, std::int64_t last) const {
    return {bound(2 * which, last), bound(2 * which + 1, first)};
  }
};

/// Runs that hold every position: the last one has no end.
class IntervalRuns {
 public:
  IntervalRuns() = default;
  LIGHTSEQ_HD constexpr IntervalRuns(IntervalRun const* runs, int count) : runs_(runs), count_(count) {
    while (first_step_ <= (count - 1) / 2) first_step_ *= 2;
  }

  /// The run of a position, which is not negative.
  LIGHTSEQ_HD constexpr IntervalRun const& at(std::int64_t position) const {
    return runs_[index_of(position)];
  }

  /// Calls `f(run, first, last)` with each run of a range and its positions there, as long as it returns
  /// true.
  template <class F>
  LIGHTSEQ_HD constexpr void for_each(Range range, F const& f) const {
    std::int64_t first = range.begin;
    for (int i = index_of(first); first < range.end; ++i) {
      bool const ends = i + 1 < count_ && runs_[i + 1].begin < range.end;
      std::int64_t const end = ends ? runs_[i + 1].begin : range.end;
      if (!f(runs_[i], first, end - 1)) return;
      first = end;
    }
  }

  /// What holds the ranges of all positions of a range.
  LIGHTSEQ_HD constexpr RangePair of_any(Range range) const {
    RangePair all;
    for_each(range, [&](IntervalRun const& run, std::int64_t first, std::int64_t last) {
      all = all.joined({run.of_any(0, first, last), run.of_any(1, first, last)});
      return true;
    });
    return all;
  }

 private:
  LIGHTSEQ_HD constexpr int index_of(std::int64_t position) const {
    // The same steps for every position: the threads of a warp do not part.
    int index = 0;
    for (int step = first_step_; step > 0; step /= 2) {
      int const next = index + step;
      if (next < count_ && runs_[next].begin <= position) index = next;
    }
    return index;
  }

  IntervalRun const* runs_ = nullptr;
  int count_ = 0;
  int first_step_ = 1;  ///< a power of 2, less than the count if that is not 1
};

/// Puts positions, given in their order from 0 on, into runs: the same positions always into the same ones.
class IntervalRunWriter {
 public:
  static constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() / 2;  ///< positions

  /// Adds the next position. An empty range is {0, 0}.
  void add(Range const& first, Range const& second, bool whole = true) {
    auto const narrow = [](std::int64_t bound) { return static_cast<std::int32_t>(bound); };
    IntervalRun const next{
        .begin = count_++,
        .at = {narrow(first.begin), narrow(first.end), narrow(second.begin), narrow(second.end)},
        .flags = whole ? 1u << IntervalRun::bounds : 0};
    if (runs_.empty() || !joins(next)) runs_.push_back(next);
  }

  /// All runs, the last of them without any range.
  std::vector<IntervalRun> finish() {
    if (runs_.empty() || !runs_.back().range(0, count_ - 1).empty()) add({}, {});
    return std::move(runs_);
  }

 private:
  /// Whether the last run takes this position, too; its second one says which bounds move.
  bool joins(IntervalRun const& next) {
    IntervalRun run = runs_.back();
    if (run.whole() != next.whole()) return false;
    if (next.begin == run.begin + 1)
      for (int i = 0; i < IntervalRun::bounds; ++i)
        if (next.at[i] != run.at[i]) run.flags |= 1u << i, run.at[i] -= run.begin;
    for (int i = 0; i < IntervalRun::bounds; ++i)
      if (run.bound(i, next.begin) != next.at[i]) return false;
    runs_.back() = run;
    return true;
  }

  std::vector<IntervalRun> runs_;
  std::int32_t count_ = 0;
};

}  // namespace lightseq
