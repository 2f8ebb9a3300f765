// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <span>

#include "lightseq/core/text.hpp"

namespace lightseq {

/// Where the documents of a pack end, in tokens from the start of the sequence: a view of the caller's list,
/// which is the int32 `cu_seqlens` with its leading 0 that FlashAttention takes, or int64 ends; either may
/// have the leading 0 or not. Documents are not empty: ends rise. What follows the last end belongs to no
/// document.
class DocumentEnds {
 public:
  constexpr DocumentEnds() = default;
  constexpr DocumentEnds(std::span<std::int64_t const> ends) : long_(ends.data()), size_(ends.size()) {
    skip_leading_zero();
  }
  constexpr DocumentEnds(std::span<std::int32_t const> ends) : short_(ends.data()), size_(ends.size()) {
    skip_leading_zero();
  }

  /// A vector of either type, or what else a span can view.
  template <std::ranges::contiguous_range List>
  requires(
      std::same_as<std::ranges::range_value_t<List>, std::int64_t> ||
      std::same_as<std::ranges::range_value_t<List>, std::int32_t>) constexpr DocumentEnds(List const& ends)
      : DocumentEnds(std::span<std::ranges::range_value_t<List> const>(ends)) {}

  /// How many documents there are.
  constexpr std::int64_t count() const { return static_cast<std::int64_t>(size_) - leading_; }

  /// The token after the last one of a document, 0 <= document < count().
  constexpr std::int64_t end(std::int64_t document) const {
    auto const at = static_cast<std::size_t>(document + leading_);
    return long_ != nullptr ? long_[at] : short_[at];
  }

  /// The first token of a document.
  constexpr std::int64_t begin(std::int64_t document) const { return document > 0 ? end(document - 1) : 0; }

  /// The tokens of a document.
  constexpr std::int64_t length(std::int64_t document) const { return end(document) - begin(document); }

  /// The tokens of all documents.
  constexpr std::int64_t tokens() const { return count() > 0 ? end(count() - 1) : 0; }

  /// The document that a token belongs to, 0 <= token < tokens(). O(log count()).
  constexpr std::int64_t document_of(std::int64_t token) const {
    std::int64_t low = 0, high = count() - 1;
    while (low < high) {
      std::int64_t const middle = low + (high - low) / 2;
      if (end(middle) > token)
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  }

  /// Why these are not the documents of a pack of at most `max_documents` and `max_tokens`: a sentence with
  /// the document and the numbers, or empty.
  constexpr Text fault(std::int64_t max_documents, std::int64_t max_tokens) const {
    if (count() <= 0) return "the list of documents is empty";
    if (count() > max_documents)
      return Text("there are ") + count() + " documents, and max_documents is " + max_documents;
    for (std::int64_t d = 0; d < count(); ++d)
      if (end(d) <= begin(d))
        return Text("document ") + d + " ends at token " + end(d) + ", but begins at token " + begin(d);
    if (tokens() > max_tokens)
      return Text("document ") + document_of(max_tokens) + " ends at token " + end(document_of(max_tokens)) +
             ", but the sequence has " + max_tokens + " tokens";
    return {};
  }

 private:
  constexpr void skip_leading_zero() {
    leading_ = size_ > 0 && (long_ != nullptr ? long_[0] : std::int64_t{short_[0]}) == 0 ? 1 : 0;
  }

  std::int64_t const* long_ = nullptr;
  std::int32_t const* short_ = nullptr;
  std::size_t size_ = 0;
  std::int64_t leading_ = 0;
};

}  // namespace lightseq
