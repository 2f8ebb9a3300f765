// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <limits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/error.hpp"
#include "lightseq/core/problem.hpp"

/// What the GPU kernels serve: head dims, and what they count in 32 bits.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Whether the GPU kernels serve a head dim: multiples of 16, from 16 to 256.
constexpr bool gpu_serves_head_dim(int head_dim) {
  return head_dim >= 16 && head_dim <= 256 && head_dim % 16 == 0;
}

/// The last position of a launch, so that sums of two of them fit as well.
inline constexpr std::int64_t max_launch_position = std::numeric_limits<int>::max() / 2;

/// Tiles of a launch, over all batches and heads.
inline constexpr std::int64_t max_launch_tiles = std::int64_t{1} << 30;

/// Throws Error, with the numbers, on a validated problem that some launch on shards of at most `max_rows`
/// tokens would refuse: one answer for all ranks, as none of it depends on the rank.
inline void check_launchable(Problem const& problem, std::int64_t max_rows) {
  if (problem.seqlen > max_launch_position)
    fail("seqlen is ", problem.seqlen, ", the GPU kernels serve at most ", max_launch_position);
  // The smallest tile has 32 rows, and each of a shard's two segments begins a tile of its own.
  std::int64_t const tiles = (max_rows + 31) / 32 + (max_rows > 1 ? 1 : 0);
  if (tiles > max_launch_tiles / problem.batch / problem.heads)
    fail("a shard of ", max_rows, " tokens has up to ", tiles, " tiles for each of ", problem.batch, " x ",
         problem.heads, " batches x heads, the GPU kernels serve at most ", max_launch_tiles, " in all");
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
