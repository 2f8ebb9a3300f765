// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "examples/support/packs.hpp"
#include "lightseq/core/document_ends.hpp"
#include "lightseq/partition/packing_cost.hpp"
#include "lightseq/partition/pieces.hpp"
#include "lightseq/schedule/needed_rows.hpp"

/// What a partition of a pack of documents costs.
namespace lightseq::bench {

using support::ends_of, support::fixed_packs, support::pack, support::random_packs;

/// What a partition of a pack costs, in tiles of 128 x 128 and 1 a piece.
struct PackFigures {
  double max_over_mean = 0;  ///< cost of the costliest rank
  double largest_tile = 0;   ///< the costliest tile of queries, over the mean cost of a rank
  double received = 0;       ///< rows of other ranks, in mean shards, mean over ranks
  double most_received = 0;
  double most_sent = 0;
  double pieces = 0;  ///< mean over ranks, short documents that share a tile counted as one
};

/// Tiles and pieces, or what they cost.
struct TilesAndPieces {
  double tiles = 0, pieces = 0;
  double cost() const { return tiles + pieces; }
};

/// Of short documents that share tiles of queries.
inline TilesAndPieces shared_tiles(std::vector<std::int64_t> lengths) {
  std::sort(lengths.begin(), lengths.end());
  TilesAndPieces sum;
  std::int64_t filled = 128;
  for (std::int64_t const rows : lengths) {
    if (filled + rows > 128) filled = 0, sum.tiles += 1, sum.pieces += 1;
    filled += rows;
  }
  return sum;
}

/// Of a rank against its own keys.
inline TilesAndPieces local_tiles(DocumentEnds const& documents, std::span<Piece const> shard) {
  std::vector<std::int64_t> shorts;
  TilesAndPieces sum;
  std::int64_t earlier = 0, document = -1;
  for (Piece const& piece : shard) {
    if (piece.document != document) earlier = 0, document = piece.document;
    if (piece.rows <= 64 && piece.rows == documents.length(document)) {
      shorts.push_back(piece.rows);
      continue;
    }
    std::int64_t const n = tiles_of(piece.rows, 128);
    sum.tiles += static_cast<double>(n * tiles_of(earlier, 128) + n * (n + 1) / 2), sum.pieces += 1;
    earlier += piece.rows;
  }
  TilesAndPieces const of_shorts = shared_tiles(shorts);
  return {sum.tiles + of_shorts.tiles, sum.pieces + of_shorts.pieces};
}

/// Cost of a rank's shared pieces against the keys of one owner, which lie together by document.
inline double remote_cost(std::span<Piece const> queries, std::vector<Piece> const& keys) {
  double cost = 0;
  for (Piece const& q : queries) {
    std::int64_t seen = 0;
    for (Piece const& k : keys)
      if (k.document == q.document && k.begin < q.begin) seen += k.rows;
    if (seen > 0) cost += static_cast<double>(tiles_of(q.rows, 128) * tiles_of(seen, 128)) + 1;
  }
  return cost;
}

/// Measures a partition.
inline PackFigures figures(DocumentEnds const& documents, Pieces const& pieces) {
  auto const world = static_cast<std::size_t>(pieces.world());
  double const shard = static_cast<double>(pieces.tokens()) / static_cast<double>(world);
  std::vector<double> cost(world), in(world), out(world);
  PackFigures result;
  std::vector<Piece> keys;
  for (int rank = 0; rank < pieces.world(); ++rank) {
    auto const r = static_cast<std::size_t>(rank);
    TilesAndPieces const local = local_tiles(documents, pieces.shard(rank));
    cost[r] = local.cost();
    result.pieces += local.pieces / static_cast<double>(world);
    for (Piece const& p : pieces.shard(rank))
      result.largest_tile =
          std::max(result.largest_tile, static_cast<double>(tiles_of(p.begin + p.rows, 128)));
    for (int owner = 0; owner < pieces.world(); ++owner) {
      keys.clear();
      add_needed_rows(pieces, rank, owner, keys);
      for (Piece const& k : keys) {
        in[r] += static_cast<double>(k.rows) / shard;
        out[static_cast<std::size_t>(owner)] += static_cast<double>(k.rows) / shard;
      }
      if (!keys.empty()) cost[r] += remote_cost(pieces.shared(rank), keys);
    }
    result.received += in[r] / static_cast<double>(world);
  }
  double sum = 0;
  for (double const c : cost) sum += c / static_cast<double>(world);
  result.max_over_mean = *std::max_element(cost.begin(), cost.end()) / sum;
  result.largest_tile /= sum;
  result.most_received = *std::max_element(in.begin(), in.end());
  result.most_sent = *std::max_element(out.begin(), out.end());
  return result;
}

}  // namespace lightseq::bench
