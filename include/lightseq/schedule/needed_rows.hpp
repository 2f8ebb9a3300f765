// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "lightseq/core/range.hpp"
#include "lightseq/partition/pieces.hpp"

namespace lightseq {

/// Under a causal mask within documents: the positions of a document that queries at a range of its positions
/// see.
struct CausalKeys {
  constexpr Range operator()(Range const& queries) const { return {0, queries.end}; }
};

/// Adds the rows of `owner` whose keys `receiver`'s queries see, as parts of the owner's pieces in the order
/// of their tokens: the list of what the owner sends, which both ends derive alike. `keys_of` is as
/// CausalKeys: of later queries it begins no earlier. No row is there twice, and none where both ranks are
/// the same. Allocates nothing if `rows` has room for as many as both ranks have shared pieces.
template <class KeysOf = CausalKeys>
void add_needed_rows(Pieces const& pieces, int receiver, int owner, std::vector<Piece>& rows,
                     KeysOf keys_of = {}) {
  if (receiver == owner) return;
  auto const queries = pieces.shared(receiver);
  auto first = queries.begin();
  for (Piece const& keys : pieces.shared(owner)) {
    while (first != queries.end() && first->document < keys.document) ++first;
    std::int64_t next = keys.begin;  // the first position that is not in the list
    for (auto q = first; q != queries.end() && q->document == keys.document; ++q) {
      Range const seen = keys_of(q->positions());
      Range const wanted{std::max(seen.begin, next), std::min(seen.end, keys.positions().end)};
      if (wanted.empty()) continue;
      if (next > keys.begin && wanted.begin == next)
        rows.back().rows += wanted.size();
      else
        rows.push_back(keys.slice(wanted));
      next = wanted.end;
    }
  }
}

}  // namespace lightseq
