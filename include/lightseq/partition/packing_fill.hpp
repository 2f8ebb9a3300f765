// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "lightseq/partition/packing_pool.hpp"
#include "lightseq/partition/packing_window.hpp"
#include "lightseq/partition/partition.hpp"
#include "lightseq/partition/pieces.hpp"

namespace lightseq {

/// Who owns which document, and the pieces of those that are cut.
struct PackingDraft {
  static constexpr std::int32_t nobody = -1, cut = -2;

  std::vector<std::int32_t> owners;  ///< of each document: a rank, nobody, or cut
  std::vector<Piece> cuts;           ///< of cut documents
  std::vector<std::int64_t> costs;   ///< of each rank, see TileCost

  PackingDraft(std::int64_t max_documents, int world) : costs(static_cast<std::size_t>(world)) {
    owners.reserve(static_cast<std::size_t>(max_documents));
    cuts.reserve(8 * static_cast<std::size_t>(world) + 8);
  }

  std::int64_t cost() const { return std::accumulate(costs.begin(), costs.end(), std::int64_t{0}); }

  void clear(std::int64_t documents) {
    owners.assign(static_cast<std::size_t>(documents), nobody);
    cuts.clear();
    std::fill(costs.begin(), costs.end(), 0);
  }
};

/// Fills ranks one after another, each with its tokens and its share of the cost that is left: first with
/// rows of documents that no rank can hold, then with the documents that WindowSearch finds. Where short
/// documents run out the longest and the shortest are dealt out together, and a document that alone is left
/// goes to all remaining ranks as a zigzag.
class PackingFill {
 public:
  /// How many tokens each rank is to own, and by how many more or fewer it may.
  struct Targets {
    std::span<std::int64_t const> tokens;
    std::int64_t slack = 0;

    bool even() const {
      auto const [least, most] = std::minmax_element(tokens.begin(), tokens.end());
      return *most - *least <= 1;
    }
  };

  PackingFill(std::int64_t max_documents, int world) : pool_(max_documents + 1) {
    open_.reserve(static_cast<std::size_t>(world) + 1);
    rest_.reserve(static_cast<std::size_t>(max_documents) + 1);
    for (auto* sums : {&rest_tokens_, &rest_costs_}) sums->reserve(rest_.capacity() + 1);
  }

  /// Fills `draft`, whose documents are all in `sorted`. `waste` is the cost that cuts are expected to add in
  /// a rank.
  void fill(PackingPool const& sorted, Targets const& targets, TileCost const& cost, std::int64_t waste,
            bool windows, PackingDraft& draft) {
    pool_ = sorted, open_.clear();
    targets_ = targets, cost_ = cost, waste_ = waste, draft_ = &draft;
    left_ = whole_ = pool_.cost(), left_tokens_ = pool_.tokens(), deviation_ = 0, started_ = false;
    draft.clear(pool_.size());
    for (rank_ = 0; windows && rank_ + 1 < world(); ++rank_) {
      start_rank();
      if (!take_long() || !take_window()) break;
      end_rank();
    }
    deal_rest();
  }

 private:
  int world() const { return static_cast<int>(std::ssize(targets_.tokens)); }

  /// What cuts add to the cost of a rank: as foretold, and more and more as in the ranks that are filled.
  std::int64_t expected_waste() const {
    constexpr std::int64_t foretold = 16;  // ranks
    return (foretold * waste_ + draft_->cost() + left_ - whole_) / (foretold + rank_);
  }

  void start_rank() {
    std::int64_t const target = targets_.tokens[static_cast<std::size_t>(rank_)], slack = targets_.slack;
    std::int64_t const aim = target - deviation_, targets = left_tokens_ + deviation_;
    std::int64_t const cost = left_ + expected_waste() * (world() - rank_ - 1);
    auto const within = [&](std::int64_t tokens) {
      return rank_ + 1 == world() ? left_tokens_ : std::clamp<std::int64_t>(tokens, 0, left_tokens_);
    };
    need_.least = within(std::max(target, aim) - slack);
    need_.wanted = within(aim);
    need_.most = within(std::min(target, aim) + slack);
    need_.share = need_.cost = targets > 0 ? PackingPool::proportion(cost, target, targets) : 0;
    need_.target = target;
  }

  void end_rank() { deviation_ -= need_.target, started_ = false; }

  void give(std::int32_t document, Range const& rows) {
    if (rows.empty()) return;
    draft_->owners[static_cast<std::size_t>(document)] = PackingDraft::cut;
    draft_->cuts.push_back({.rank = rank_, .document = document, .begin = rows.begin, .rows = rows.size()});
  }

  /// Counts what the rank takes, and what the document that it takes it from costs less.
  void count(std::int64_t rows, std::int64_t cost, std::int64_t less) {
    draft_->costs[static_cast<std::size_t>(rank_)] += cost;
    need_.take(rows, cost);
    left_tokens_ -= rows, deviation_ += rows, left_ -= less;
    started_ = true;
  }

  /// The rank takes all that is left of a document.
  void take_all(DocumentPart const& part) {
    std::int32_t& owner = draft_->owners[static_cast<std::size_t>(part.document)];
    if (owner == PackingDraft::nobody)
      owner = rank_;
    else
      give(part.document, {part.head, part.tail});
    count(part.size(), part.cost, part.cost);
  }

  /// The rank takes some rows of a part, which becomes what is left of it.
  void take(DocumentPart& part, std::int64_t rows, bool nested) {
    if (rows == part.size()) {
      take_all(part);
      part.head = part.tail;
      return;
    }
    PartCut const cut(part, rows, nested, cost_.tile_rows());
    give(part.document, cut.head);
    give(part.document, cut.tail);
    std::int64_t const before = part.cost;
    part.head = cut.head.end, part.tail = cut.tail.begin;
    part.cost = part.head == 0 ? cost_.of_document(part.tail) : cost_.of({part.head, part.tail});
    count(rows, cut.cost(cost_), before - part.cost);
  }

  /// Puts back what is left of a part.
  void keep(DocumentPart const& part) {
    if (part.size() == 0) return;
    if (part.head > 0)
      open_.push_back(part);
    else
      pool_.insert(part);
  }

  /// Gives the rank as much of the documents that no rank can hold as the shortest others leave room for, in
  /// whole tiles. False where even those others cost too much.
  bool take_long() {
    while (need_.least > 0) {
      std::int64_t const longest = pool_.size() - 1;
      bool const opened = !open_.empty();
      if (!opened &&
          (longest < 0 || (pool_.length(longest) <= need_.most && pool_.cost(longest) <= need_.cost)))
        break;
      DocumentPart part = opened ? open_.back() : pool_.part(longest);
      if (opened)
        open_.pop_back();
      else
        pool_.erase(longest, longest + 1);
      std::int64_t const rows = rows_that_fit(part);
      if (rows > 0) take(part, rows, true);
      bool const all = part.size() == 0;
      keep(part);
      if (rows < 0) return false;
      if (!all) break;
    }
    return true;
  }

  /// How many rows of a part the rank can take with the shortest others; -1 if there is no room for these.
  std::int64_t rows_that_fit(DocumentPart const& part) const {
    auto const fits = [&](std::int64_t rows) {
      std::int64_t const own =
          rows == part.size() ? part.cost : PartCut(part, rows, true, cost_.tile_rows()).cost(cost_);
      return own + pool_.run_cost(0, pool_.size(), need_.wanted - rows) <= need_.cost + need_.cost / 1000;
    };
    if (part.size() <= need_.most && fits(part.size())) return part.size();
    if (!fits(0)) return -1;
    std::int64_t low = 0, high = std::min(need_.wanted, part.size()) / cost_.tile_rows();
    while (low < high) {
      std::int64_t const middle = (low + high + 1) / 2;
      if (fits(middle * cost_.tile_rows()))
        low = middle;
      else
        high = middle - 1;
    }
    return low * cost_.tile_rows();
  }

  /// Gives the rank the documents that complete it. False where there are none.
  bool take_window() {
    if (need_.least <= 0) return true;
    WindowChoice const choice = WindowSearch(pool_, cost_, need_, open_.empty()).best();
    if (choice.score == WindowChoice::no_score) return false;
    for (std::int64_t i = choice.first; i < choice.stop; ++i)
      if (i != choice.without) take_all(pool_.part(i));
    DocumentPart extra, spared;
    if (choice.rows > 0) take(extra = pool_.part(choice.extra), choice.rows, choice.nested);
    if (choice.without >= 0) spared = pool_.part(choice.without);
    std::int64_t const shift = choice.rows > 0 && choice.extra < choice.first ? 1 : 0;
    if (choice.rows > 0) pool_.erase(choice.extra, choice.extra + 1);
    pool_.erase(choice.first - shift, choice.stop - shift);
    keep(spared);
    keep(extra);
    return true;
  }

  /// Deals out all that is left to the ranks that are left: as many rows of the costliest parts as the
  /// cheapest leave room for, every cut nested.
  void deal_rest() {
    list_rest();
    std::size_t low = 0, high = rest_.size();
    for (bool resumed = started_; rank_ < world(); ++rank_, resumed = false) {
      if (!resumed) start_rank();
      if (high - low == 1 && !resumed && deal_zigzag(rest_[low])) return;
      for (std::int64_t dense = dense_rows(low, high), rows = 0; dense > 0; dense -= rows) {
        rows = std::min(dense, rest_[high - 1].size());
        take(rest_[high - 1], rows, true);
        if (rest_[high - 1].size() == 0) --high;
      }
      while (need_.least > 0) {
        take(rest_[low], rest_[low].size() <= need_.most ? rest_[low].size() : need_.wanted, true);
        if (rest_[low].size() == 0) ++low;
      }
      end_rank();
    }
  }

  /// All parts, by the mean number of keys that a row of theirs sees.
  void list_rest() {
    auto const cheaper = [](DocumentPart const& a, DocumentPart const& b) {
      return a.head + a.tail < b.head + b.tail;
    };
    rest_.clear();
    for (std::int64_t i = 0; i < pool_.size(); ++i) rest_.push_back(pool_.part(i));
    for (DocumentPart const& part : open_)
      rest_.insert(std::upper_bound(rest_.begin(), rest_.end(), part, cheaper), part);
    rest_tokens_.assign(1, 0), rest_costs_.assign(1, 0);
    for (DocumentPart const& part : rest_) {
      rest_tokens_.push_back(rest_tokens_.back() + part.size());
      rest_costs_.push_back(rest_costs_.back() + part.cost);
    }
  }

  /// How many rows from the costly end of the rest the rank can take with others from the cheap end.
  std::int64_t dense_rows(std::size_t low, std::size_t high) const {
    std::int64_t const wanted = need_.wanted;
    std::int64_t rows = 0, most = wanted;
    if (end_cost(low, high, wanted, true) <= need_.cost + need_.cost / 500) return wanted;
    while (rows < most) {
      std::int64_t const middle = (rows + most + 1) / 2;
      if (end_cost(low, high, middle, true) + end_cost(low, high, wanted - middle, false) <= need_.cost)
        rows = middle;
      else
        most = middle - 1;
    }
    return rows;
  }

  /// Cost of `rows` rows from one end of the rest.
  std::int64_t end_cost(std::size_t low, std::size_t high, std::int64_t rows, bool dense) const {
    auto const take_from = [&](std::size_t i) {
      DocumentPart const& part = rest_[i];
      std::int64_t const cost =
          rows >= part.size() ? part.cost : PartCut(part, rows, true, cost_.tile_rows()).cost(cost_);
      rows -= std::min(rows, part.size());
      return cost;
    };
    if (rows <= 0 || low == high) return 0;
    std::int64_t const sum = take_from(dense ? high - 1 : low);
    if (rows == 0 || high - low == 1) return sum;
    // The parts between are as they were when they were summed up.
    auto const begin = rest_tokens_.begin(), first = begin + static_cast<std::ptrdiff_t>(low) + 1,
               end = begin + static_cast<std::ptrdiff_t>(high) - 1;
    auto const stop = dense ? std::lower_bound(first, end, *end - rows)
                            : std::upper_bound(first, end + 1, *first + rows) - 1;
    auto const costs = rest_costs_.begin();
    rows -= dense ? *end - *stop : *stop - *first;
    std::int64_t const whole =
        dense ? costs[end - begin] - costs[stop - begin] : costs[stop - begin] - costs[first - begin];
    return sum + whole + (rows > 0 ? take_from(static_cast<std::size_t>(stop - begin) - (dense ? 1 : 0)) : 0);
  }

  /// Deals a part to all ranks that are left, where they get equally much, as Zigzag does.
  bool deal_zigzag(DocumentPart const& part) {
    if (!targets_.even()) return false;
    std::int64_t const ranks = world() - rank_;
    for (std::int64_t first = 0; first < ranks; ++first, ++rank_) {
      std::int64_t cost = 0, rows = 0;
      for (std::int64_t const index : {first, 2 * ranks - 1 - first}) {
        Segment const chunk = even_chunk(index, 2 * ranks, part.size());
        give(part.document, {part.head + chunk.begin, part.head + chunk.begin + chunk.rows});
        rows += chunk.rows, cost += cost_.of({part.head + chunk.begin, part.head + chunk.begin + chunk.rows});
      }
      count(rows, cost, cost);
    }
    return true;
  }

  PackingPool pool_;
  std::vector<DocumentPart> open_, rest_;
  std::vector<std::int64_t> rest_tokens_, rest_costs_;  ///< running sums of the rest, as it was listed
  Targets targets_;
  TileCost cost_;
  PackingDraft* draft_ = nullptr;
  RankNeed need_;
  std::int64_t whole_ = 0, waste_ = 0, left_ = 0, left_tokens_ = 0, deviation_ = 0;
  int rank_ = 0;
  bool started_ = false;
};

}  // namespace lightseq
