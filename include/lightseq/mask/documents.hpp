// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "lightseq/core/document_ends.hpp"
#include "lightseq/core/error.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/data.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/mask/score.hpp"

namespace lightseq {

/// Documents packed one after another: what Documents is, over ends that lie elsewhere.
template <Mask Inner = Causal>
class DocumentsView {
 public:
  static constexpr bool looks_elsewhere = true;
  static constexpr bool exact_rows = HasExactRows<Inner>;

  DocumentsView() = default;
  LIGHTSEQ_HD constexpr DocumentsView(std::int64_t const* ends, int count, Inner const& inner)
      : ends_(ends), count_(count), inner_(inner) {
    while (first_step_ <= count / 2) first_step_ *= 2;
  }

  /// How many documents there are.
  LIGHTSEQ_HD constexpr int count() const { return count_; }

  /// The document of a position, which is not negative; count() after the last one.
  LIGHTSEQ_HD constexpr int document_of(std::int64_t position) const {
    // The same steps for every position: the threads of a warp do not part.
    int document = 0;
    for (int step = first_step_; step > 0; step /= 2) {
      int const next = document + step;
      if (next <= count_ && ends_[next - 1] <= position) document = next;
    }
    return document;
  }

  /// The positions of a document.
  LIGHTSEQ_HD constexpr Range positions(int document) const {
    return {document == 0 ? 0 : ends_[document - 1], ends_[document]};
  }

  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    int const document = document_of(query);
    if (document == count_) return false;
    Range const own = positions(document);
    return own.contains(key) && inner_.visible(query - own.begin, key - own.begin);
  }

  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    // The documents that have queries here, and keys.
    int const first = document_of(later(queries.begin, keys.begin));
    int const last = document_of(earlier(queries.end, keys.end) - 1);
    if (first == count_ || last < first) return Cover::none;
    Cover const cover_of_first = cover_in(first, queries, keys);
    if (first == last) {
      Range const own = positions(first);
      bool const within =
          own.begin <= earlier(queries.begin, keys.begin) && later(queries.end, keys.end) <= own.end;
      return cover_of_first == Cover::full && !within ? Cover::partial : cover_of_first;
    }
    bool const shown = cover_of_first != Cover::none || last > first + 1 ||
                       (last < count_ && cover_in(last, queries, keys) != Cover::none);
    return shown ? Cover::partial : Cover::none;
  }

  /// The rule of `Inner`, and the positions that it is asked with: those in the document.
  LIGHTSEQ_HD constexpr auto const& rule() const requires HasRule<Inner> { return inner_.rule(); }
  LIGHTSEQ_HD constexpr std::int64_t place_of_query(std::int64_t position) const requires HasRule<Inner> {
    int const document = document_of(position);
    return position - (document == 0 ? 0 : ends_[document - 1]);
  }
  LIGHTSEQ_HD constexpr std::int64_t place_of_key(std::int64_t position) const requires HasRule<Inner> {
    return place_of_query(position);
  }

  LIGHTSEQ_HD constexpr Range keys_of(Range queries) const {
    return bound(queries, [this](Range of) { return keys_within(inner_, of); });
  }
  LIGHTSEQ_HD constexpr Range queries_of(Range keys) const {
    return bound(keys, [this](Range of) { return queries_within(inner_, of); });
  }

 private:
  LIGHTSEQ_HD static constexpr std::int64_t earlier(std::int64_t a, std::int64_t b) { return a < b ? a : b; }
  LIGHTSEQ_HD static constexpr std::int64_t later(std::int64_t a, std::int64_t b) { return a > b ? a : b; }

  /// What of a range lies in a document, counted from its first position.
  LIGHTSEQ_HD static constexpr Range part(Range const& range, Range const& own) {
    return {later(range.begin, own.begin) - own.begin, earlier(range.end, own.end) - own.begin};
  }

  /// What `Inner` says of a document that has queries and keys here.
  LIGHTSEQ_HD constexpr Cover cover_in(int document, Range const& queries, Range const& keys) const {
    Range const own = positions(document);
    return inner_.cover(part(queries, own), part(keys, own));
  }

  /// From what the first document of a range sees to what the last one sees, by a bound of `Inner`.
  template <std::invocable<Range> Of>
  LIGHTSEQ_HD constexpr Range bound(Range const& range, Of inner_bound) const {
    int const first = document_of(range.begin), end = document_of(range.end - 1);
    if (first == count_) return {range.begin, range.begin};
    Range const head = positions(first), tail = positions(end < count_ ? end : count_ - 1);
    std::int64_t const begin = inner_bound(part(range, head)).begin,
                       last = inner_bound(part(range, tail)).end;
    return {head.begin + earlier(later(begin, 0), head.size()),
            tail.begin + earlier(later(last, 0), tail.size())};
  }

  std::int64_t const* ends_ = nullptr;
  int count_ = 0;
  int first_step_ = 1;  ///< a power of 2, at most the count
  // Not [[no_unique_address]]: of what holds it then, nvcc has another layout on the device than on the host.
  Inner inner_ = {};
};

/// Documents packed one after another: a query sees keys of its own document alone, namely those that `Inner`
/// shows it, a mask whose positions count from the document's first token. The first document begins at
/// position 0, and each one where the one before it ends. Positions after the last one belong to none: they
/// see nothing, nobody sees them, and they cost nothing. A DistAttn whose sequence is shorter than the
/// documents is an Error. All answers take O(log count) steps, and are as
/// exact as those of `Inner` if under it each query sees a key.
template <Mask Inner = Causal>
class Documents {
 public:
  static constexpr bool exact_rows = HasExactRows<Inner>;
  using View = DocumentsView<Inner>;

  /// Throws Error where there are no documents, or one has no token, with its number.
  explicit Documents(DocumentEnds const& ends, Inner const& inner = {}) : inner_(inner) {
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    if (Text const fault = ends.fault(std::numeric_limits<int>::max(), most); !fault.view().empty())
      fail("Documents: ", fault.view());
    ends_.reserve(static_cast<std::size_t>(ends.count()));
    for (std::int64_t i = 0; i < ends.count(); ++i) ends_.push_back(ends.end(i));
  }

  std::span<std::int64_t const> ends() const { return ends_; }
  Inner const& inner() const { return inner_; }

  /// The same mask over this one's own list.
  View view() const { return {ends_.data(), static_cast<int>(ends_.size()), inner_}; }

  bool visible(std::int64_t query, std::int64_t key) const { return view().visible(query, key); }
  Cover cover(Range queries, Range keys) const { return view().cover(queries, keys); }
  Range keys_of(Range queries) const { return view().keys_of(queries); }
  Range queries_of(Range keys) const { return view().queries_of(keys); }

  auto const& rule() const requires HasRule<Inner> { return inner_.rule(); }
  std::int64_t place_of_query(std::int64_t position) const requires HasRule<Inner> {
    return view().place_of_query(position);
  }
  std::int64_t place_of_key(std::int64_t position) const requires HasRule<Inner> {
    return view().place_of_key(position);
  }

  std::span<std::byte const> data() const { return std::as_bytes(ends()); }
  View view(std::byte const* data) const {
    return {reinterpret_cast<std::int64_t const*>(data), static_cast<int>(ends_.size()), inner_};
  }

  std::int64_t digest() const { return digest_of(ends_, inner_); }
  void name_values(Fingerprint& fingerprint) const {
    fingerprint.add("the number of documents", static_cast<std::int64_t>(ends_.size()));
    if constexpr (NamesValues<Inner>) inner_.name_values(fingerprint);
  }

  /// What is wrong with the inner mask's values.
  std::string fault() const {
    if constexpr (HasFault<Inner>) return inner_.fault();
    return {};
  }

  /// Which document ends after the sequence.
  std::string fault(std::int64_t seqlen) const {
    Text const fault = DocumentEnds(ends_).fault(std::numeric_limits<int>::max(), seqlen);
    return fault.empty() ? std::string() : sentence("Documents: ", fault);
  }

 private:
  std::vector<std::int64_t> ends_;
  [[no_unique_address]] Inner inner_;
};
static_assert(HasData<Documents<>> && BoundedMask<Documents<>> && BoundedMask<DocumentsView<>> &&
              Comparable<Documents<>> && NamesValues<Documents<>> && HasFaultIn<Documents<>>);

}  // namespace lightseq
