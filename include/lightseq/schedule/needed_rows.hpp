// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <vector>

#include "lightseq/core/range.hpp"
#include "lightseq/partition/pieces.hpp"

namespace lightseq {

/// Under a causal mask within documents: the positions of a document that queries at a range of its positions
/// see. Of other masks there may be more than one range, see KeysInParts.
struct CausalKeys {
  constexpr Range operator()(Range const& queries) const { return {0, queries.end}; }
};

/// What some queries see, where that is more than one range: in any order, with how many tiles of queries see
/// some keys. See ChunkSight.
template <class S>
concept SightInParts = requires(S const sight, Range keys, void (*visit)(Range const&)) {
  { sight.touches(keys) } -> std::same_as<bool>;
  sight.for_each_within(keys, visit);
  { sight.tiles_seeing(keys, std::int64_t{1}) } -> std::same_as<std::int64_t>;
};

/// What tells it.
template <class KeysOf>
concept KeysInParts = SightInParts<std::invoke_result_t<KeysOf const&, Range>>;

/// Calls `visit(range)` with what is seen, as far as it may have some of these keys.
template <class Visit>
void for_each_within(Range const& seen, Range const& /*keys*/, Visit visit) {
  visit(seen);
}
template <SightInParts Sight, class Visit>
void for_each_within(Sight const& seen, Range const& keys, Visit visit) {
  seen.for_each_within(keys, visit);
}

/// How many tiles of queries, of which there are `all`, see some of these keys.
inline std::int64_t tiles_seeing(Range const& seen, Range const& keys, std::int64_t all, std::int64_t) {
  return seen.touches(keys) ? all : 0;
}
template <SightInParts Sight>
std::int64_t tiles_seeing(Sight const& seen, Range const& keys, std::int64_t, std::int64_t tile_rows) {
  return seen.tiles_seeing(keys, tile_rows);
}

/// Calls `visit(positions)` for each part of `keys` that queries of some pieces see, which are all of its
/// document. The parts come in the order of their positions, and no position is in two; where later queries
/// see earlier keys two may touch. `keys_of` is as CausalKeys. A pass over the queries for each part.
template <class KeysOf, class Visit>
void for_each_seen(Piece const& keys, std::span<Piece const> queries, KeysOf const& keys_of, Visit visit) {
  for (Range left = keys.positions(); !left.empty();) {
    Range part;
    std::int64_t end = left.begin;
    auto const add = [&](Range const& seen) {
      Range const wanted{std::max(seen.begin, left.begin), std::min(seen.end, left.end)};
      if (wanted.empty()) return;
      end = std::max(end, wanted.end);
      if (part.empty() || wanted.end < part.begin)
        part = wanted;
      else if (wanted.begin <= part.end)
        part = part.joined(wanted);
    };
    for (Piece const& piece : queries) for_each_within(keys_of(piece.positions()), left, add);
    if (!part.empty()) visit(part);
    left = {std::max(part.end, left.begin), end};
  }
}

/// Calls `visit(pieces)` for each document of a rank's pieces, with those of it.
template <class Visit>
void for_each_document(std::span<Piece const> pieces, Visit visit) {
  for (std::size_t first = 0, end = 0; first < pieces.size(); first = end) {
    while (end < pieces.size() && pieces[end].document == pieces[first].document) ++end;
    visit(pieces.subspan(first, end - first));
  }
}

/// Calls `visit(piece, positions, queries)` for each part of other ranks' pieces that a rank's queries see,
/// in the order of their tokens; `queries` are the rank's pieces of its document. No row is in two parts.
template <class KeysOf, class Visit>
void for_each_needed(Pieces const& pieces, int rank, KeysOf const& keys_of, Visit visit) {
  for_each_document(pieces.shared(rank), [&](std::span<Piece const> queries) {
    for (Piece const& keys : pieces.document(queries.front().document))
      if (keys.rank != rank)
        for_each_seen(keys, queries, keys_of, [&](Range const& part) { visit(keys, part, queries); });
  });
}

/// Adds the rows of `owner` whose keys `receiver`'s queries see, as parts of the owner's pieces in the order
/// of their tokens: the list of what the owner sends, which both ends derive alike. No row is there twice,
/// and none where both ranks are the same. Allocates nothing if `rows` has room for as many as both ranks
/// have shared pieces.
template <class KeysOf = CausalKeys>
void add_needed_rows(Pieces const& pieces, int receiver, int owner, std::vector<Piece>& rows,
                     KeysOf keys_of = {}) {
  if (receiver == owner) return;
  auto const shared = pieces.shared(receiver);
  auto first = shared.begin();
  for (Piece const& keys : pieces.shared(owner)) {
    while (first != shared.end() && first->document < keys.document) ++first;
    auto const end =
        std::find_if(first, shared.end(), [&](Piece const& p) { return p.document != keys.document; });
    for_each_seen(keys, std::span(first, end), keys_of,
                  [&](Range const& part) { rows.push_back(keys.slice(part)); });
  }
}

}  // namespace lightseq
