// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>

#include "lightseq/core/error.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/value.hpp"

namespace lightseq {

/// The schedule for any mask: the sequence in equal chunks, as many on each rank, dealt out by what they cost
/// under the mask and by the keys that they see, see BalancedChunks; every rank then takes in the keys that
/// it needs slot by slot, see PackedPlan.
struct ChunkRing {
  static constexpr char const* name = "ChunkRing";

  /// Tokens of a chunk at most: 128 to 1024 are many enough for a GPU, and few enough to balance with.
  std::int64_t rows = 512;
  /// Queries, and keys, of the tiles that costs are counted in.
  std::int64_t tile = 128;

  std::string fault() const {
    if (rows > 0 && tile > 0) return {};
    return sentence("ChunkRing{", rows, ", ", tile, "}: chunks and tiles have at least a row");
  }
  void name_values(Fingerprint& fingerprint) const {
    fingerprint.add("the rows of a chunk", rows);
    fingerprint.add("the rows of a tile", tile);
  }
};
static_assert(HasFault<ChunkRing> && NamesValues<ChunkRing> && Comparable<ChunkRing>);

}  // namespace lightseq
