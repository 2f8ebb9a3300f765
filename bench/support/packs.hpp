// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <span>
#include <string_view>
#include <vector>

#include "lightseq/core/document_ends.hpp"
#include "lightseq/partition/packing_cost.hpp"
#include "lightseq/partition/pieces.hpp"
#include "lightseq/schedule/needed_rows.hpp"

/// Packs of documents to plan for, and what a partition of one costs.
namespace lightseq::bench {

/// Kinds of random packs, then of packs that are nearly always the same.
inline constexpr std::array random_packs{"magi", "magi uncapped", "web",          "long_tail",
                                         "sft",  "powers of two", "k shards +- 1"};
inline constexpr std::array fixed_packs{"one document", "equal, 3/4 shard", "equal, 5/2 shard",
                                        "half + dust",  "two of 49 %",      "1-token documents",
                                        "3 documents"};

/// The ends of documents with these lengths, the last one cut where `tokens` end.
template <class Length>
std::vector<std::int64_t> ends_of(std::int64_t tokens, Length length) {
  std::vector<std::int64_t> ends;
  for (std::int64_t end = 0; end < tokens; ends.push_back(end))
    end += std::clamp<std::int64_t>(length(), 1, tokens - end);
  return ends;
}

/// Whole numbers around a median, log-normal.
class LogNormal {
 public:
  LogNormal(double median, double sigma) : distribution_(std::log(median), sigma) {}
  template <class Random>
  std::int64_t operator()(Random& random) {
    return static_cast<std::int64_t>(distribution_(random));
  }

 private:
  std::lognormal_distribution<double> distribution_;
};

/// Documents as in MagiAttention's benchmark, in random order; where `capped`, none is longer than a quarter
/// of the pack, and longer ones come in several.
template <class Random>
std::vector<std::int64_t> magi_pack(std::int64_t tokens, bool capped, Random& random) {
  constexpr std::array edges{0.,    10.,   50.,    100.,   200.,   500.,    1024.,  2048.,
                             4096., 8192., 16384., 32768., 65536., 131072., 196608.};
  std::discrete_distribution<std::size_t> bin({30254, 391188, 699596, 1377757, 3794735, 3316785, 2106566,
                                               988525, 410002, 173574, 115007, 18428, 22513, 18284});
  std::int64_t const cap = capped ? std::max<std::int64_t>(1, tokens / 4) : tokens;
  std::int64_t rest = 0;
  auto const ends = ends_of(tokens, [&] {
    std::size_t const b = bin(random);
    if (rest <= 0) rest = static_cast<std::int64_t>((edges[b] + edges[b + 1]) / 2);
    std::int64_t const length = std::min(rest, cap);
    rest -= length;
    return length;
  });
  std::vector<std::int64_t> lengths(ends);
  for (std::size_t i = ends.size() - 1; i > 0; --i) lengths[i] -= ends[i - 1];
  std::shuffle(lengths.begin(), lengths.end(), random);
  return ends_of(tokens, [next = lengths.begin()]() mutable { return *next++; });
}

/// The ends of the documents of a pack of this kind, for shards of tokens / world.
template <class Random>
std::vector<std::int64_t> pack(std::string_view kind, std::int64_t tokens, int world, Random& random) {
  if (kind.starts_with("magi")) return magi_pack(tokens, kind == "magi", random);
  std::int64_t const shard = std::max<std::int64_t>(1, tokens / world);
  std::uniform_real_distribution<double> uniform(0, 1);
  auto const below = [&](std::int64_t n) {
    return std::uniform_int_distribution<std::int64_t>(0, n - 1)(random);
  };
  LogNormal web(600, 1.2), sft(300, 0.8);
  std::int64_t n = 0;
  std::function<std::int64_t()> length = [] { return std::int64_t{1}; };
  if (kind == "web") length = [&] { return web(random); };
  if (kind == "sft") length = [&] { return sft(random); };
  if (kind == "long_tail")
    length = [&] {
      return uniform(random) < 0.95
                 ? web(random)
                 : static_cast<std::int64_t>(4096 * std::pow(1 - uniform(random), -1 / 1.1));
    };
  if (kind == "powers of two") length = [&] { return std::int64_t{1} << below(17); };
  if (kind == "k shards +- 1") length = [&] { return shard * (1 + below(4)) + below(3) - 1; };
  if (kind == "one document") length = [&] { return tokens; };
  if (kind == "equal, 3/4 shard") length = [&] { return shard * 3 / 4; };
  if (kind == "equal, 5/2 shard") length = [&] { return shard * 5 / 2; };
  if (kind == "half + dust") length = [&] { return n++ < 1 ? tokens / 2 : 1 + below(16); };
  if (kind == "two of 49 %") length = [&] { return n++ < 2 ? tokens * 49 / 100 : 1 + below(16); };
  if (kind == "3 documents") length = [&] { return tokens * (3 - n++) / 6 + 1; };
  return ends_of(tokens, length);
}

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
