// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/standard.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// How the forward kernel cuts its work. A thread block is one warpgroup that loads and one per 64 query
/// rows.
struct ForwardTile {
  int query_rows = 0;           ///< a multiple of 64
  int key_rows = 0;             ///< a multiple of 16
  int stages = 2;               ///< tiles of keys, and of values, in shared memory
  bool takes_turns = false;     ///< the warpgroups issue their matrix products one after another
  int load_registers = 40;      ///< a thread of the loading warpgroup
  int compute_registers = 232;  ///< a thread of the others; all together at most 65536
};

constexpr ForwardTile forward_tile(int head_dim) {
  if (head_dim <= 64)
    return {.query_rows = 192,
            .key_rows = 128,
            .takes_turns = true,
            .load_registers = 32,
            .compute_registers = 160};
  if (head_dim <= 128) return {.query_rows = 128, .key_rows = 128};
  if (head_dim <= 192) return {.query_rows = 128, .key_rows = 112};
  return {.query_rows = 128, .key_rows = 80};
}

/// How the backward kernel cuts its work. A thread block is one warpgroup that moves data and two that
/// compute. Up to a head dim of 128 each of these holds half of the keys, beyond that half of the dims.
struct BackwardTile {
  int query_rows = 0;           ///< a multiple of 16
  int key_rows = 0;             ///< 64 for each part of the keys
  int stages = 2;               ///< tiles of queries in shared memory
  int held_k = 0, held_v = 0;   ///< pieces of 16 dims that a warpgroup keeps in registers
  int move_registers = 24;      ///< a thread of the moving warpgroup
  int compute_registers = 240;  ///< a thread of the others; all together at most 65536
};

/// Where scores follow a rule, weights are packed before the gradients of scores are known, which takes
/// registers.
constexpr BackwardTile backward_tile(int head_dim, bool follows_rule = false) {
  if (follows_rule && head_dim <= 64) return {.query_rows = 128, .key_rows = 128};
  if (follows_rule && head_dim <= 128) return {.query_rows = 64, .key_rows = 128};
  // The first piece of k is not kept: its product is what the sums begin with.
  if (head_dim <= 64)
    return {.query_rows = 128,
            .key_rows = 128,
            .held_k = std::min(2, head_dim / 16 - 1),
            .held_v = std::min(3, head_dim / 16)};
  if (head_dim <= 128) return {.query_rows = 80, .key_rows = 128};
  return {.query_rows = 64, .key_rows = 64, .stages = head_dim <= 192 ? 2 : 1};
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
