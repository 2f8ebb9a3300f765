// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/range.hpp"

namespace lightseq {

/// How a host kernel cuts its work. A kernel keeps a group of tiles of one side in its scratch and brings
/// tiles of the other side past them.
struct HostTile {
  int held = 0;     ///< rows of a tile that is kept: queries forward, keys backward
  int passing = 0;  ///< rows of a tile that passes: keys forward, queries backward
  int group = 0;    ///< tiles kept at a time
};

constexpr HostTile host_forward_tile(int) { return {.held = 96, .passing = 64, .group = 4}; }
constexpr HostTile host_backward_tile(int) { return {.held = 96, .passing = 64, .group = 2}; }

/// Registers of the matrix product's innermost loop: `rows` x `vectors` sums.
struct HostRegisters {
  int rows = 0;
  int vectors = 0;
};

constexpr HostRegisters host_registers(int width) {
  if (width == 16) return {.rows = 8, .vectors = 3};
  return {.rows = 4, .vectors = 3};
}

/// Rows first, ..., first + rows - 1 of a shard, all of one segment.
struct Tile {
  std::int64_t first = 0;
  int rows = 0;
  Segment positions = {};
};

/// How many tiles of at most `size` rows the shard falls into; a tile never straddles its segments.
constexpr std::int64_t tile_count(Positions const& shard, int size) {
  return (shard.segments[0].rows + size - 1) / size + (shard.segments[1].rows + size - 1) / size;
}

/// Tile `index` of those.
constexpr Tile tile_at(Positions const& shard, int size, std::int64_t index) {
  std::int64_t const in_first = (shard.segments[0].rows + size - 1) / size;
  bool const second = index >= in_first;
  Segment const& segment = shard.segments[second ? 1 : 0];
  std::int64_t const skip = (second ? index - in_first : index) * size;
  std::int64_t const rows = segment.rows - skip < size ? segment.rows - skip : size;
  return {skip + (second ? shard.segments[0].rows : 0), static_cast<int>(rows), segment.slice(skip, rows)};
}

}  // namespace lightseq
