// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>

#include "lightseq/partition/packing_pool.hpp"

namespace lightseq {

/// What a rank still needs.
struct RankNeed {
  std::int64_t least = 0;   ///< tokens: the fewest
  std::int64_t wanted = 0;  ///< what it aims at
  std::int64_t most = 0;
  std::int64_t cost = 0;    ///< what it still wants
  std::int64_t share = 0;   ///< the whole cost that it was to have
  std::int64_t target = 0;  ///< the whole number of tokens

  constexpr void take(std::int64_t rows, std::int64_t cost_of_rows) {
    least -= rows, wanted -= rows, most -= rows, cost -= cost_of_rows;
  }
};

/// Parts first, ..., stop - 1 of the pool whole, but not part `without`, and `rows` rows of part `extra`.
struct WindowChoice {
  static constexpr std::int64_t no_score = largest<std::int64_t>;

  std::int64_t first = 0, stop = 0, without = -1, extra = -1, rows = 0;
  bool nested = false;
  std::int64_t score = no_score;  ///< the error in cost, and what the cut makes travel, as cost

  bool cuts(PackingPool const& pool) const { return rows > 0 && rows < pool.length(extra); }
};

/// Finds the whole documents, next to each other in length, that give a rank its tokens and its cost. What
/// lacks comes from a document of that length, from the exchange of one document, or from a cut.
class WindowSearch {
 public:
  WindowSearch(PackingPool const& pool, TileCost const& cost, RankNeed const& need, bool may_nest)
      : pool_(pool), cost_(cost), need_(need), may_nest_(may_nest) {
    end_ = pool.first_without(
        [&](std::int64_t i) { return pool.length(i) <= need.most && pool.cost(i) <= need.cost; });
    enough_ = pool.tokens(0, end_) >= need.least;
    if (!enough_) return;
    std::int64_t low = 0, high = std::max<std::int64_t>(end_ - 1, 0);
    while (low < high) {
      std::int64_t const middle = (low + high + 1) / 2;
      if (pool.run_cost(middle, end_, need.wanted) <= need.cost)
        low = middle;
      else
        high = middle - 1;
    }
    densest_ = low;
  }

  /// The best choice; with no_score where there is none.
  WindowChoice best() {
    if (!enough_) return {};
    for_windows(windows_before, [this](WindowChoice const& window) {
      complete(window);
      if (window.stop > window.first) complete({.first = window.first, .stop = window.stop - 1});
    });
    if (best_.score < WindowChoice::no_score && best_.cuts(pool_))
      for_windows(windows_after, [this](WindowChoice const& window) { exchange(window); });
    return best_;
  }

 private:
  // Fewer windows made packs of 4 to 64 ranks less even: 3 before the densest 1.0276 in the mean over all
  // kinds, 4 1.0271, 6 1.0266.
  static constexpr std::int64_t windows_before = 6, windows_after = 2, most_exchanges = 64;

  /// What a cut counts for, in thousandths of the rank's share of the cost; what a short document that is
  /// left or taken adds to it; and what a cut counts for where tokens have slack, as it is to spare cuts.
  static constexpr std::int64_t cut_penalty = 3, short_penalty = 5, slack_penalty = 15;

  /// Visits the longest windows that begin at most `before` parts before the densest, and windows_after after
  /// it.
  template <class Visit>
  void for_windows(std::int64_t before, Visit visit) const {
    std::int64_t first = std::max<std::int64_t>(0, densest_ - before);
    std::int64_t stop = std::min(end_, pool_.whole_until(first, need_.most));
    for (; first < std::min(end_, densest_ + windows_after + 1); ++first) {
      stop = std::max(first, stop);
      while (stop < end_ && pool_.tokens(first, stop + 1) <= need_.most) ++stop;
      visit(WindowChoice{.first = first, .stop = stop});
    }
  }

  /// Tries what may complete a window.
  void complete(WindowChoice const& window) {
    std::int64_t const tokens = pool_.tokens(window.first, window.stop);
    std::int64_t const rest = need_.cost - pool_.cost(window.first, window.stop);
    if (tokens >= need_.least) return score(std::abs(rest), window);
    std::int64_t const exact = pool_.first_of_length(need_.least - tokens);
    if (exact < pool_.size() && pool_.length(exact) <= need_.most - tokens)
      add(window, exact, pool_.length(exact), rest);
    std::int64_t const rows = need_.wanted - tokens;
    std::int64_t const near = pool_.first_of_length(cost_.begin_for(rows, rest) + rows);
    for (std::int64_t const extra : {window.stop, near, near - 1}) {
      add(window, extra, rows, rest);
      if (may_nest_ && rows >= 2 * cost_.tile_rows()) add(window, extra, rows, rest, true);
    }
  }

  /// Tries to exchange a document of a window for one that is as much longer as tokens lack.
  void exchange(WindowChoice choice) {
    std::int64_t const tokens = pool_.tokens(choice.first, choice.stop);
    std::int64_t const rest = need_.cost - pool_.cost(choice.first, choice.stop);
    std::int64_t const stop = std::min(choice.stop, choice.first + most_exchanges);
    std::int64_t extra = -1;
    for (choice.without = choice.first; choice.without < stop; ++choice.without) {
      std::int64_t const length = pool_.length(choice.without);
      extra = next_of_length(extra, length + need_.least - tokens);
      std::int64_t const outside = extra >= choice.first && extra < choice.stop ? choice.stop : extra;
      if (outside < pool_.size() && pool_.length(outside) <= length + need_.most - tokens)
        add(choice, outside, pool_.length(outside), rest + pool_.cost(choice.without));
    }
  }

  /// As first_of_length(), of more rows than those that gave `before`; often that is near.
  std::int64_t next_of_length(std::int64_t before, std::int64_t rows) const {
    if (before < 0) return pool_.first_of_length(rows);
    for (int step = 0; step < 4; ++step, ++before)
      if (before == pool_.size() || pool_.length(before) >= rows) return before;
    return pool_.first_of_length(rows);
  }

  /// Tries a window with `rows` rows of part `extra`, where it has as many and is not in the window; `rest`
  /// is the cost that the window lacks.
  void add(WindowChoice const& window, std::int64_t extra, std::int64_t rows, std::int64_t rest,
           bool nested = false) {
    if (extra < 0 || extra >= pool_.size() || (extra >= window.first && extra < window.stop)) return;
    std::int64_t const left = pool_.length(extra) - rows;
    if (left < 0) return;
    std::int64_t moved = 0, cost = pool_.cost(extra);
    if (left > 0) {
      cost = PartCut(pool_.part(extra), rows, nested, cost_.tile_rows()).cost(cost_);
      std::int64_t const thousandths = (need_.most > need_.least ? slack_penalty : cut_penalty) +
                                       (cost_.is_short(std::min(rows, left)) ? short_penalty : 0);
      moved =
          need_.share * thousandths / 1000 + PackingPool::proportion(need_.share / 100, left, need_.target);
    }
    score(std::abs(rest - cost) + moved, window, extra, rows, nested);
  }

  /// Keeps the best choice.
  void score(std::int64_t score, WindowChoice const& window, std::int64_t extra = -1, std::int64_t rows = 0,
             bool nested = false) {
    if (score >= best_.score) return;
    best_ = window;
    best_.extra = extra, best_.rows = rows, best_.nested = nested, best_.score = score;
  }

  PackingPool const& pool_;
  TileCost const& cost_;
  RankNeed const& need_;
  bool may_nest_;
  bool enough_ = false;
  std::int64_t end_ = 0;      ///< the parts from here on are too long, or too costly
  std::int64_t densest_ = 0;  ///< the window from here on is the densest that is not too costly
  WindowChoice best_;
};

}  // namespace lightseq
