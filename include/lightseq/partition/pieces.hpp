// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>
#include <vector>

#include "lightseq/core/document_ends.hpp"
#include "lightseq/core/error.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/core/text.hpp"

namespace lightseq {

/// Neighbouring tokens of one document that one rank owns. Who writes a table gives the first four members;
/// Pieces fills in the others.
struct Piece {
  std::int32_t rank = 0;      ///< the owner
  std::int32_t document = 0;  ///< its number in the pack
  std::int64_t begin = 0;     ///< position of the first token within its document: what RoPE counts by
  std::int64_t rows = 0;      ///< how many tokens
  std::int64_t token = 0;     ///< position of the first token in the sequence
  std::int64_t row = 0;       ///< row of the first token in the owner's shard

  /// Positions within the document.
  constexpr Range positions() const { return {begin, begin + rows}; }

  /// Positions in the sequence.
  constexpr Segment tokens() const { return {token, rows, 1}; }

  /// The part of the piece at these positions within the document, which it has.
  constexpr Piece slice(Range const& wanted) const {
    std::int64_t const skipped = wanted.begin - begin;
    return {rank, document, wanted.begin, wanted.size(), token + skipped, row + skipped};
  }
  friend constexpr bool operator==(Piece const&, Piece const&) = default;
};

/// Which tokens of a packed sequence each rank owns: a table of pieces, in storage that is allocated once.
/// Every token of a document has one owner. A rank's rows begin with the documents that others own tokens of
/// too, and those that it has as a whole follow, either in the order of their tokens; its pieces are in the
/// same order. Neighbouring ones of a document are one piece. A data loader and RoPE go through
/// `for (Piece const& piece : pieces.shard(rank))`.
class Pieces {
 public:
  /// An empty table with room for `max_pieces`. Throws Error where a number is not positive.
  Pieces(int world, std::int64_t max_pieces) : world_(world), max_pieces_(max_pieces) {
    if (world < 1 || max_pieces < 1)
      fail("a table of pieces needs a world and room, not ", world, " ranks and ", max_pieces, " pieces");
    for (auto* list : {&by_token_, &by_rank_}) list->reserve(static_cast<std::size_t>(max_pieces));
    for (auto* list : {&shards_, &shared_ends_, &ends_}) list->resize(static_cast<std::size_t>(world) + 1);
    for (auto* list : {&rows_, &shared_rows_}) list->resize(static_cast<std::size_t>(world));
  }

  /// Takes a table in any order; pieces without rows count for nothing. Gives a sentence with the numbers and
  /// leaves the table empty where the documents are none, where a piece is not of a rank or a document, or a
  /// token has no owner or two; else nothing. Allocates nothing. O(n) for a table in the order of the tokens.
  [[nodiscard]] Text assign(DocumentEnds const& documents, std::span<Piece const> table) noexcept {
    clear();
    Text fault = documents.fault(largest<std::int32_t>, largest<std::int64_t>);
    if (fault.empty()) fault = take(documents, table);
    if (fault.empty()) fault = check(documents);
    if (!fault.empty()) return clear(), fault;
    tokens_ = documents.tokens();
    deal();
    return {};
  }

  /// Empties the table.
  void clear() noexcept {
    tokens_ = 0;
    for (auto* list : {&by_token_, &by_rank_}) list->clear();
    for (auto* list : {&shards_, &shared_ends_}) std::fill(list->begin(), list->end(), 0);
    for (auto* list : {&rows_, &shared_rows_}) std::fill(list->begin(), list->end(), 0);
  }

  int world() const { return world_; }
  std::int64_t max_pieces() const { return max_pieces_; }

  /// The tokens of all documents; those after them are nobody's.
  std::int64_t tokens() const { return tokens_; }

  /// The rows of a rank's shard.
  std::int64_t rows(int rank) const { return rows_[index(rank)]; }

  /// How many of them, the first ones, are of documents that other ranks own tokens of too.
  std::int64_t shared_rows(int rank) const { return shared_rows_[index(rank)]; }

  /// The rows of the largest shard.
  std::int64_t max_rows() const { return *std::max_element(rows_.begin(), rows_.end()); }

  /// A rank's pieces.
  std::span<Piece const> shard(int rank) const {
    return std::span(by_rank_).subspan(shards_[index(rank)], shards_[index(rank) + 1] - shards_[index(rank)]);
  }

  /// The first of them, of documents that other ranks own tokens of too: only they need messages.
  std::span<Piece const> shared(int rank) const {
    return shard(rank).first(shared_ends_[index(rank)] - shards_[index(rank)]);
  }

  /// All ranks' pieces, in the order of their tokens.
  std::span<Piece const> all() const { return by_token_; }

  /// All ranks' pieces of a document, in the order of their tokens. O(log pieces).
  std::span<Piece const> document(std::int32_t number) const {
    auto const [first, end] =
        std::equal_range(by_token_.begin(), by_token_.end(), Piece{.document = number},
                         [](Piece const& a, Piece const& b) { return a.document < b.document; });
    return {first, end};
  }

  /// Position in the sequence of a rank's row, 0 <= row < rows(rank). O(log pieces).
  std::int64_t token(int rank, std::int64_t row) const {
    auto const pieces = shard(rank);
    Piece const& piece =
        *(std::partition_point(pieces.begin(), pieces.end(), [row](Piece const& p) { return p.row <= row; }) -
          1);
    return piece.token + row - piece.row;
  }

  /// A token's place: which row of which rank's shard it is.
  struct Place {
    int rank = 0;
    std::int64_t row = 0;
    friend constexpr bool operator==(Place const&, Place const&) = default;
  };

  /// Where a token is, 0 <= token < tokens(). O(log pieces).
  Place place(std::int64_t token) const {
    Piece const& piece = *(std::partition_point(by_token_.begin(), by_token_.end(),
                                                [token](Piece const& p) { return p.token <= token; }) -
                           1);
    return {piece.rank, piece.row + token - piece.token};
  }

 private:
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  /// Copies the pieces that have rows, sorts them and joins neighbours.
  Text take(DocumentEnds const& documents, std::span<Piece const> table) {
    for (Piece const& piece : table) {
      if (piece.rows == 0) continue;
      if (Text const fault = fault_of(documents, piece); !fault.empty()) return fault;
      if (std::ssize(by_token_) == max_pieces_)
        return Text("document ") + piece.document + " needs another piece, and max_pieces is " + max_pieces_;
      by_token_.push_back(piece);
      by_token_.back().token = documents.begin(piece.document) + piece.begin;
    }
    auto const earlier = [](Piece const& a, Piece const& b) {
      return std::tie(a.token, a.rank) < std::tie(b.token, b.rank);
    };
    if (!std::is_sorted(by_token_.begin(), by_token_.end(), earlier))
      std::sort(by_token_.begin(), by_token_.end(), earlier);
    return {};
  }

  Text fault_of(DocumentEnds const& documents, Piece const& piece) const {
    if (piece.rank < 0 || piece.rank >= world_)
      return Text("a piece of document ") + piece.document + " is of rank " + piece.rank + " in a world of " +
             world_;
    if (piece.document < 0 || piece.document >= documents.count())
      return Text("rank ") + piece.rank + " has a piece of document " + piece.document + ", and there are " +
             documents.count();
    std::int64_t const length = documents.length(piece.document);
    if (piece.rows < 0 || piece.begin < 0 || piece.begin > length || piece.rows > length - piece.begin)
      return Text("rank ") + piece.rank + " has " + piece.rows + " tokens from position " + piece.begin +
             " on of document " + piece.document + ", which has " + length;
    return {};
  }

  /// Whether each token has one owner. Joins neighbours.
  Text check(DocumentEnds const& documents) {
    std::int64_t next = 0;
    std::size_t kept = 0;
    for (Piece const& piece : by_token_) {
      if (piece.token > next) break;
      if (piece.token < next)
        return Text("token ") + piece.token + ", in document " + piece.document + ", belongs to rank " +
               by_token_[kept - 1].rank + " and to rank " + piece.rank;
      next += piece.rows;
      if (kept > 0 && by_token_[kept - 1].rank == piece.rank &&
          by_token_[kept - 1].document == piece.document)
        by_token_[kept - 1].rows += piece.rows;
      else
        by_token_[kept++] = piece;
    }
    if (next < documents.tokens())
      return Text("token ") + next + ", in document " + documents.document_of(next) + ", belongs to no rank";
    by_token_.resize(kept);
    return {};
  }

  bool is_shared(std::size_t i) const {
    std::int32_t const document = by_token_[i].document;
    return (i > 0 && by_token_[i - 1].document == document) ||
           (i + 1 < by_token_.size() && by_token_[i + 1].document == document);
  }

  /// Lists the pieces by rank, and numbers their rows.
  void deal() {
    for (Piece const& piece : by_token_) ++shards_[index(piece.rank) + 1];
    for (std::size_t rank = 0; rank < rows_.size(); ++rank) {
      shards_[rank + 1] += shards_[rank];
      shared_ends_[rank] = shards_[rank];
    }
    by_rank_.resize(by_token_.size());
    for (bool const shared : {true, false}) {
      for (std::size_t i = 0; i < by_token_.size(); ++i) {
        if (is_shared(i) != shared) continue;
        Piece& piece = by_token_[i];
        std::size_t const rank = index(piece.rank);
        piece.row = rows_[rank];
        rows_[rank] += piece.rows;
        by_rank_[(shared ? shared_ends_ : ends_)[rank]++] = piece;
      }
      if (shared) ends_ = shared_ends_, shared_rows_ = rows_;
    }
  }

  int world_ = 0;
  std::int64_t max_pieces_ = 0, tokens_ = 0;
  std::vector<Piece> by_token_, by_rank_;
  std::vector<std::size_t> shards_;              ///< where a rank's pieces begin
  std::vector<std::size_t> shared_ends_, ends_;  ///< where its shared ones end, and all of them
  std::vector<std::int64_t> rows_, shared_rows_;
};

}  // namespace lightseq
