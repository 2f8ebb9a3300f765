// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "lightseq/core/abi.hpp"

/// How the host kernels cut their work. The figures are GFLOP/s of one Zen 5 core with AVX-512 at head dim
/// 128, 4096 tokens, full mask, forward / backward; OpenBLAS's sgemm reached 207 beside them.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace host {

/// A kernel keeps a group of tiles of one side in its scratch and brings tiles of the other side past them.
struct Tiling {
  int stationary = 0;  ///< rows of a tile that is kept: queries forward, keys backward
  int streaming = 0;   ///< rows of a tile that passes: keys forward, queries backward
  int group = 0;       ///< tiles that are kept at a time
};

/// The forward's. Neither depends on the vector width: nor does the size of the scratch, then.
constexpr Tiling forward_tiling() {
  return {
      .stationary = 48,  // 205, as 96 and 192; the smallest wastes least on short and ragged shards
      .streaming = 64,   // 205; 32: 203, 96: 205, 128: 206
      .group = 4,        // 205; 1: 183, 8: 207 in nearly twice the memory
  };
}

/// The backward's.
constexpr Tiling backward_tiling() {
  return {
      .stationary = 48,  // 209; 96: 212, 192: 209
      .streaming = 64,   // 209; 32: 206, 96: 210, 128: 210
      .group = 2,        // 209; 1: 182, 4: 213 in nearly twice the memory
  };
}

/// Sums that the matrix product's innermost loop keeps in registers: `rows` x `vectors` of them.
struct Block {
  int rows = 0;
  int vectors = 0;
};

constexpr Block gemm_block(int width) {
  if (width == 16) return {.rows = 8, .vectors = 3};  // 205 / 209; 8 x 2: 192 / 195, 4 x 6: 153 / 160
  return {.rows = 4, .vectors = 3};                   // AVX2: 104 / 105; 6 x 2: 94 / 96, 2 x 4: 80 / 83
}

}  // namespace host
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
