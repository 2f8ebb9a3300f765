// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/abi.hpp"
#include "lightseq/core/standard.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm80 {

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

/// How the portable backward kernel cuts its work. A thread block's warps lie in rows of `columns` warps.
/// Those of a row have the same keys: of their scores each computes some queries', of their gradients some
/// dims'. The gradients of queries are added to global memory once for each tile of keys, which on an H100
/// costs more than all else unless tiles have 128 keys, of which no thread block of 4 warps can hold the
/// gradients beyond head dim 64.
struct BackwardTile {
  int warps = 4;      ///< of a thread block
  int fragments = 2;  ///< of 16 key rows, for each warp
  int columns = 2;    ///< warps that share their keys
  int query_rows = 64;
  int dq_columns = 2;  ///< warps that share their queries in the gradients of these, each for some dims
  int d_o_stages = 1;  ///< 1 or 2
  int blocks = 2;      ///< that a multiprocessor should hold

  friend constexpr bool operator==(BackwardTile const&, BackwardTile const&) = default;
};

/// A `large` tile fits in the 163 KB that an A100 gives a thread block, any other in the 99 KB of the
/// smallest GPUs. Measured on an H100 in bf16, the kernel alone, full / causal, in TFLOP/s: head dim 64 with
/// 32 queries 303 / 305, with 48 324 / 312, with 128 and 8 warps 276 / 275; head dim 128 with 64 keys 287 /
/// 265, with 128 319 / 313, but 279 full where each warp has 16 of them to itself; head dim 256 with 32 keys
/// 165 / 169, with 64 189 / 197.
constexpr BackwardTile backward_tile(int head_dim, bool large) {
  if (head_dim <= 64) return {.columns = 1, .query_rows = 48, .dq_columns = 4};
  if (head_dim <= 128) {
    if (large) return {.warps = 8, .dq_columns = 4, .d_o_stages = 2, .blocks = 1};
    return {};
  }
  if (large)
    return {.warps = 8, .fragments = 1, .query_rows = 32, .dq_columns = 4, .d_o_stages = 2, .blocks = 1};
  return {.fragments = 1, .query_rows = 32};
}

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
