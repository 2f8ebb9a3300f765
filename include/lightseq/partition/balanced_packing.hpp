// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>
#include <vector>

#include "lightseq/core/document_ends.hpp"
#include "lightseq/core/error.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/partition/packing_cost.hpp"
#include "lightseq/partition/packing_fill.hpp"
#include "lightseq/partition/pieces.hpp"

namespace lightseq {

/// The largest pack that a BalancedPacking serves.
struct PackingLimits {
  std::int64_t documents = 0;  ///< at most 2^31 - 1
  std::int64_t tokens = 0;     ///< of all documents, at most 2^31 - 1
  int world = 1;               ///< ranks, which every pack is dealt out to
};

/// What a pack's partition is to be like.
struct PackingOptions {
  /// Tokens that each rank is to own: as many numbers as ranks, whose sum is the tokens of the pack. A rank's
  /// share of the cost is its share of these. None: equally many.
  std::span<std::int64_t const> targets = {};
  /// A rank may own up to so many tokens more or fewer, so that few short documents are cut. More than an
  /// eighth of a rank's mean number of tokens counts as that.
  std::int64_t slack = 0;
  PackingCost cost = {};
};

/// Deals out packs of documents, each of which attends causally within itself, so that every rank has its
/// tokens and the same cost, and few rows travel. One document is dealt out exactly as Zigzag does, which may
/// give a rank a token more or fewer than its target. The result is a function of the arguments alone, the
/// same on every machine; the object is storage, allocated once, for one call at a time.
class BalancedPacking {
 public:
  /// The room that Pieces need for a pack of so many documents.
  static constexpr std::int64_t max_pieces(std::int64_t documents, int world) {
    return documents + 4 * std::int64_t{world};
  }

  /// Throws Error, with the numbers, where a limit is not positive or too large.
  explicit BalancedPacking(PackingLimits const& limits)
      : limits_(checked(limits)),
        sorted_(limits.documents),
        fill_(limits.documents, limits.world),
        best_(limits.documents, limits.world),
        next_(limits.documents, limits.world) {
    auto const documents = static_cast<std::size_t>(limits.documents);
    for (auto* keys : {&keys_, &other_keys_}) keys->resize(documents);
    even_.resize(static_cast<std::size_t>(limits.world));
    table_.reserve(documents + best_.cuts.capacity());
  }

  /// Fills `pieces`, which has the same world. Gives a sentence with the numbers, and leaves `pieces` empty,
  /// where the documents, targets or costs cannot be served; else nothing. Allocates nothing.
  [[nodiscard]] Text partition(DocumentEnds const& documents, Pieces& pieces,
                               PackingOptions const& options = {}) noexcept {
    Text const fault = this->fault(documents, pieces, options);
    if (!fault.empty()) return pieces.clear(), fault;
    TileCost const cost(options.cost);
    sort(documents, cost);
    std::int64_t const tokens = documents.tokens();
    improve({.tokens = options.targets.empty() ? even_targets(tokens) : options.targets,
             .slack = std::min(options.slack, tokens / limits_.world / 8)},
            cost);
    list(documents);
    return pieces.assign(documents, table_);
  }

 private:
  /// The costliest rank over the mean at which no better partition is looked for.
  static constexpr double good_enough = 1.01;
  static constexpr int max_tries = 3;

  /// Documents times ranks above which there is a try less, as it takes 0.3 ms.
  static constexpr std::int64_t large = 1 << 17;
  /// Where the costliest rank has more than this of its share dealing out without windows is tried too; among
  /// many ranks that takes longer, and seldom helps.
  static constexpr double uneven = 1.025, uneven_for_many = 1.05;
  static constexpr int many_ranks = 17;

  static PackingLimits const& checked(PackingLimits const& limits) {
    constexpr std::int64_t most = largest<std::int32_t>;
    if (limits.documents < 1 || limits.documents > most || limits.tokens < 1 || limits.tokens > most ||
        limits.world < 1)
      fail("balanced packing cannot serve ", limits.documents, " documents of ", limits.tokens, " tokens on ",
           limits.world, " ranks");
    return limits;
  }

  Text fault(DocumentEnds const& documents, Pieces const& pieces, PackingOptions const& options) const {
    if (pieces.world() != limits_.world)
      return Text("the table of pieces is for ") + pieces.world() + " ranks, the packing for " +
             limits_.world;
    if (Text const bad = documents.fault(limits_.documents, limits_.tokens); !bad.empty()) return bad;
    if (Text const bad = options.cost.fault(documents.tokens()); !bad.empty()) return bad;
    if (options.slack < 0) return Text("a slack of ") + options.slack + " tokens is negative";
    if (options.targets.empty()) return {};
    if (std::ssize(options.targets) != limits_.world)
      return Text("there are ") + std::ssize(options.targets) + " targets for " + limits_.world + " ranks";
    std::int64_t left = documents.tokens();
    for (int rank = 0; rank < limits_.world; ++rank) {
      std::int64_t const target = options.targets[static_cast<std::size_t>(rank)];
      if (target < 0 || target > left)
        return Text("rank ") + rank + " is to own " + target + " tokens, and " + left + " of " +
               documents.tokens() + " are left";
      left -= target;
    }
    if (left > 0)
      return Text("the ranks are to own ") + (documents.tokens() - left) + " tokens, but document " +
             (documents.count() - 1) + " ends at token " + documents.tokens();
    return {};
  }

  std::span<std::int64_t const> even_targets(std::int64_t tokens) {
    for (int rank = 0; rank < limits_.world; ++rank)
      even_[static_cast<std::size_t>(rank)] = even_chunk(rank, limits_.world, tokens).rows;
    return even_;
  }

  /// Lists the documents by length, and by number where they are as long: digit by digit.
  void sort(DocumentEnds const& documents, TileCost const& cost) {
    constexpr int digit = 11;
    std::uint64_t longest = 0;
    auto const count = static_cast<std::size_t>(documents.count());
    for (std::size_t d = 0; d < count; ++d) {
      auto const length = static_cast<std::uint64_t>(documents.length(static_cast<std::int64_t>(d)));
      longest = std::max(longest, length);
      keys_[d] = length << 32 | d;
    }
    for (int shift = 32; longest >> (shift - 32) > 0; shift += digit) {
      std::array<std::uint32_t, 1 << digit> places = {};
      auto const digit_of = [shift](std::uint64_t key) { return (key >> shift) % (1 << digit); };
      for (std::size_t i = 0; i < count; ++i) ++places[digit_of(keys_[i])];
      std::uint32_t sum = 0;
      for (std::uint32_t& place : places) sum += std::exchange(place, sum);
      for (std::size_t i = 0; i < count; ++i) other_keys_[places[digit_of(keys_[i])]++] = keys_[i];
      keys_.swap(other_keys_);
    }
    sorted_.clear();
    for (std::size_t i = 0; i < count; ++i) {
      auto const length = static_cast<std::int64_t>(keys_[i] >> 32);
      sorted_.append(static_cast<std::int32_t>(keys_[i] & 0xffffffff), length, cost.of_document(length));
    }
  }

  /// Deals out some times, each told how much the cuts of the time before have added, and keeps the evenest.
  /// Where all these are uneven, as there are few windows to choose from, the last time deals out without
  /// them.
  void improve(PackingFill::Targets const& targets, TileCost const& cost) {
    double const whole = static_cast<double>(sorted_.cost());
    double least = 0;
    std::int64_t waste = 0;
    auto const attempt = [&](bool windows) {
      fill_.fill(sorted_, targets, cost, waste, windows, next_);
      double const worst = unevenness(targets, next_);
      waste = (next_.cost() - sorted_.cost()) / limits_.world;
      if (least > 0 && worst >= (windows ? least : least * 0.99)) return;
      least = worst;
      std::swap(best_, next_);
    };
    auto const max_over_mean = [&] { return least * whole / static_cast<double>(best_.cost()); };
    int const tries = sorted_.size() * limits_.world > large ? max_tries - 1 : max_tries;
    for (int i = 0; i < tries && (i == 0 || max_over_mean() > good_enough); ++i) {
      std::int64_t const before = waste;
      attempt(true);
      if (std::abs(waste - before) * limits_.world < sorted_.cost() / 50000) break;
    }
    if (least > (limits_.world < many_ranks ? uneven : uneven_for_many)) attempt(false);
  }

  /// The cost of the costliest rank over its share of what uncut documents cost.
  double unevenness(PackingFill::Targets const& targets, PackingDraft const& draft) const {
    double most = 0;
    for (std::size_t rank = 0; rank < targets.tokens.size(); ++rank)
      if (targets.tokens[rank] > 0)
        most = std::max(most,
                        static_cast<double>(draft.costs[rank]) / static_cast<double>(targets.tokens[rank]));
    return most * static_cast<double>(sorted_.tokens()) / static_cast<double>(sorted_.cost());
  }

  /// Writes the best draft as a table, in the order of the tokens.
  void list(DocumentEnds const& documents) {
    std::sort(best_.cuts.begin(), best_.cuts.end(), [](Piece const& a, Piece const& b) {
      return std::pair(a.document, a.begin) < std::pair(b.document, b.begin);
    });
    table_.clear();
    auto cut = best_.cuts.begin();
    for (std::int32_t document = 0; document < documents.count(); ++document) {
      std::int32_t const owner = best_.owners[static_cast<std::size_t>(document)];
      if (owner != PackingDraft::cut)
        table_.push_back({.rank = owner, .document = document, .rows = documents.length(document)});
      else
        for (; cut != best_.cuts.end() && cut->document == document; ++cut) table_.push_back(*cut);
    }
  }

  PackingLimits limits_;
  PackingPool sorted_;
  PackingFill fill_;
  PackingDraft best_, next_;
  std::vector<std::uint64_t> keys_, other_keys_;
  std::vector<std::int64_t> even_;
  std::vector<Piece> table_;
};

}  // namespace lightseq
