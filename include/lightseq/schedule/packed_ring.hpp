// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>

#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/partition/packing_cost.hpp"
#include "lightseq/schedule/chunk_ring.hpp"
#include "lightseq/schedule/schedule.hpp"

namespace lightseq {

/// The schedule for packed documents: each batch is dealt out to the ranks by balanced packing, or as a table
/// of the caller's says, and every rank then takes in the keys that it needs slot by slot; see PackedPlan.
/// Its values say how batches are dealt out.
struct PackedRing {
  static constexpr char const* name = "PackedRing";

  /// Tokens that a rank may own more or fewer than the others, so that few short documents are cut.
  std::int64_t slack = 0;
  /// Rows of the largest shard that a batch may have; 0: what balanced packing deals out at most.
  std::int64_t max_rows = 0;
  /// Pieces of all ranks that a batch may have; 0: what balanced packing deals out at most.
  std::int64_t max_pieces = 0;
  /// What balanced packing takes the work on tiles, pieces and rows to cost.
  PackingCost cost = {};

  /// Rows of the largest shard that a batch of at most so many tokens may have, and of a slot: a token more
  /// than its share where one document is dealt out as by Zigzag.
  std::int64_t shard_rows(std::int64_t tokens, int world) const {
    if (max_rows > 0) return max_rows;
    if (world == 1) return tokens;
    std::int64_t const share = tiles_of(tokens, world);
    return std::min(tokens, share + std::min(slack, share / 8) + 1);
  }

  std::int64_t digest() const {
    return digest_of(slack, max_rows, max_pieces, cost.tile, cost.piece, cost.rows, cost.keys);
  }
  void name_values(Fingerprint& fingerprint) const {
    fingerprint.add("the slack", slack);
    fingerprint.add("max_rows", max_rows);
    fingerprint.add("max_pieces", max_pieces);
  }
};

/// A schedule that plans anew for every batch of packed documents.
template <class S>
concept PackedSchedule = std::same_as<S, PackedRing>;

/// What a DistAttn may be given.
template <class S>
concept AnySchedule = Schedule<S> || PackedSchedule<S> || std::same_as<S, ChunkRing>;

}  // namespace lightseq
