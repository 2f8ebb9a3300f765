// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace lightseq::sm80 {

/// How the portable forward kernel cuts its work. A warp that holds two fragments of 16 queries uses whatever
/// it loads of keys and values twice, which counts because shared memory feeds mma.sync but barely; the
/// outputs of two fragments fit in its registers up to head dim 128.
struct ForwardTile {
  int warps = 4;      ///< of a thread block
  int fragments = 2;  ///< of 16 query rows, for each warp
  int key_rows = 64;  ///< a multiple of 16
  int blocks = 2;     ///< that a multiprocessor should hold
};

/// Every tile fits in the 99 KB that the smallest GPUs give a thread block.
constexpr ForwardTile forward_tile(int head_dim) {
  if (head_dim <= 64) return {.key_rows = 96};
  if (head_dim <= 128) return {};
  if (head_dim <= 192) return {.fragments = 1, .key_rows = 32, .blocks = 3};
  return {.fragments = 1, .key_rows = 32};
}

/// How the portable backward kernel cuts its work. A warp holds the gradients of its keys and of their values
/// in registers, of which 128 a thread are for them; beyond head dim 128 two warps share their keys, and each
/// holds half of the dims.
struct BackwardTile {
  int warps = 4;        ///< of a thread block
  int fragments = 1;    ///< of 16 key rows, for each warp
  int parts = 1;        ///< of the dims
  int query_rows = 64;  ///< 32 or 64
  int blocks = 2;       ///< that a multiprocessor should hold
};

constexpr BackwardTile backward_tile(int head_dim) {
  if (head_dim <= 64) return {.fragments = 2, .query_rows = 32};
  if (head_dim <= 128) return {};
  return {.parts = 2, .query_rows = 32};
}

}  // namespace lightseq::sm80
