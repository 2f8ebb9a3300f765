// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lightseq/core/range.hpp"
#include "lightseq/partition/packing_cost.hpp"

namespace lightseq {

/// What of a document has no owner yet: its rows at the positions head, ..., tail - 1.
struct DocumentPart {
  std::int32_t document = 0;
  std::int64_t head = 0;
  std::int64_t tail = 0;
  std::int64_t cost = 0;  ///< see TileCost

  constexpr std::int64_t size() const { return tail - head; }
};

/// Takes `rows` rows of a part: the last ones, or, nested, half of them at either end, so that what is taken
/// and what is left see equally many keys a row, as under zigzag.
struct PartCut {
  Range head = {};
  Range tail = {};

  constexpr PartCut(DocumentPart const& part, std::int64_t rows, bool nested, std::int64_t tile) {
    std::int64_t first = nested && rows < part.size() ? rows / 2 : 0;
    if (rows >= tile) first = first / tile * tile;
    head = {part.head, part.head + first};
    tail = {part.tail - (rows - first), part.tail};
  }
  std::int64_t cost(TileCost const& cost) const { return cost.of(head) + cost.of(tail); }
};

/// Parts that have their document's beginning, by length, with the running sums of their tokens and costs. In
/// storage that is allocated once.
class PackingPool {
 public:
  explicit PackingPool(std::int64_t max_parts) {
    for (auto* list : {&documents_, &lengths_}) list->reserve(static_cast<std::size_t>(max_parts));
    for (auto* sums : {&tokens_, &costs_}) sums->reserve(static_cast<std::size_t>(max_parts) + 1);
    clear();
  }

  void clear() {
    for (auto* list : {&documents_, &lengths_}) list->clear();
    for (auto* sums : {&tokens_, &costs_}) sums->assign(1, 0);
  }

  /// Adds a part that is as long as the longest, or longer.
  void append(std::int32_t document, std::int64_t length, std::int64_t cost) {
    documents_.push_back(document);
    lengths_.push_back(static_cast<std::int32_t>(length));
    tokens_.push_back(tokens_.back() + length);
    costs_.push_back(costs_.back() + cost);
  }

  std::int64_t size() const { return std::ssize(documents_); }
  std::int64_t tokens() const { return tokens_.back(); }
  std::int64_t cost() const { return costs_.back(); }

  /// Of the parts first, ..., stop - 1.
  std::int64_t tokens(std::int64_t first, std::int64_t stop) const {
    return at(tokens_, stop) - at(tokens_, first);
  }
  std::int64_t cost(std::int64_t first, std::int64_t stop) const {
    return at(costs_, stop) - at(costs_, first);
  }

  std::int64_t length(std::int64_t i) const { return lengths_[static_cast<std::size_t>(i)]; }
  std::int64_t cost(std::int64_t i) const { return cost(i, i + 1); }
  std::int32_t document(std::int64_t i) const { return documents_[static_cast<std::size_t>(i)]; }
  DocumentPart part(std::int64_t i) const { return {document(i), 0, length(i), cost(i)}; }

  /// The first part of which `holds(i)` does not hold, where it holds of the shorter ones.
  template <class Holds>
  std::int64_t first_without(Holds holds) const {
    std::int64_t low = 0, high = size();
    while (low < high) {
      std::int64_t const middle = low + (high - low) / 2;
      if (holds(middle))
        low = middle + 1;
      else
        high = middle;
    }
    return low;
  }

  /// The first part of at least so many rows.
  std::int64_t first_of_length(std::int64_t rows) const {
    // As std::lower_bound, but no branch depends on a length: half of all guesses would be wrong.
    std::int32_t const* first = lengths_.data();
    std::size_t left = lengths_.size();
    for (; left > 1; left -= left / 2) first += first[left / 2 - 1] < rows ? left / 2 : 0;
    return first - lengths_.data() + (left == 1 && *first < rows ? 1 : 0);
  }

  /// The part after the last one that is whole among `rows` rows from part `first` on.
  std::int64_t whole_until(std::int64_t first, std::int64_t rows) const {
    return std::upper_bound(tokens_.begin() + first, tokens_.end(), at(tokens_, first) + rows) -
           tokens_.begin() - 1;
  }

  /// Cost of `rows` rows from part `first` on, of the last in proportion; INT64_MAX / 2 where the parts
  /// before `end` have fewer.
  std::int64_t run_cost(std::int64_t first, std::int64_t end, std::int64_t rows) const {
    if (rows <= 0) return 0;
    std::int64_t const stop = whole_until(first, rows), rest = rows - tokens(first, stop);
    if (stop > end || (stop == end && rest > 0)) return largest<std::int64_t> / 2;
    return cost(first, stop) + (rest > 0 ? proportion(cost(stop), rest, length(stop)) : 0);
  }

  void erase(std::int64_t first, std::int64_t stop) {
    std::int64_t const count = stop - first;
    if (count == 0) return;
    for (auto* list : {&documents_, &lengths_}) list->erase(list->begin() + first, list->begin() + stop);
    for (auto* sums : {&tokens_, &costs_}) {
      std::int64_t const gone = at(*sums, stop) - at(*sums, first);
      std::transform(sums->begin() + stop, sums->end(), sums->begin() + first,
                     [gone](std::int64_t sum) { return sum - gone; });
      sums->resize(sums->size() - static_cast<std::size_t>(count));
    }
  }

  void insert(DocumentPart const& part) {
    std::int64_t const i = first_of_length(part.tail);
    documents_.insert(documents_.begin() + i, part.document);
    lengths_.insert(lengths_.begin() + i, static_cast<std::int32_t>(part.tail));
    insert_sum(tokens_, i, part.tail);
    insert_sum(costs_, i, part.cost);
  }

  /// value * part / whole, of numbers whose product may be too large.
  static constexpr std::int64_t proportion(std::int64_t value, std::int64_t part, std::int64_t whole) {
    double const product = static_cast<double>(value) * static_cast<double>(part);
    return static_cast<std::int64_t>(product / static_cast<double>(whole));
  }

 private:
  static std::int64_t at(std::vector<std::int64_t> const& sums, std::int64_t i) {
    return sums[static_cast<std::size_t>(i)];
  }
  static void insert_sum(std::vector<std::int64_t>& sums, std::int64_t i, std::int64_t value) {
    sums.insert(sums.begin() + i, at(sums, i));
    for (auto sum = sums.begin() + i + 1; sum != sums.end(); ++sum) *sum += value;
  }

  std::vector<std::int32_t> documents_, lengths_;
  std::vector<std::int64_t> tokens_, costs_;  ///< [size() + 1]
};

}  // namespace lightseq
