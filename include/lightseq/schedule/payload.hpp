// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>

#include "lightseq/core/standard.hpp"

namespace lightseq {

/// One way through a plan.
enum class Pass { forward, backward };

/// The pass's name, as in the enumeration.
constexpr char const* name(Pass pass) { return pass == Pass::forward ? "forward" : "backward"; }

/// Tensors of one shard that travel together.
enum class Payload {
  kv,   ///< K and V
  q,    ///< forward: Q; backward: Q, dO, LSE and delta
  out,  ///< forward: partial O, with its top and sum, all float
  dq,   ///< backward: partial dQ, float
  dkv   ///< backward: partial dK and dV, float
};
inline constexpr int payload_kinds = 5;

/// A result goes back to the shard's owner and is merged there; an input goes to the rank that needs it.
constexpr bool is_result(Payload payload) { return payload != Payload::kv && payload != Payload::q; }

/// The payload's name, as in the enumeration.
constexpr char const* name(Payload payload) {
  constexpr std::array<char const*, payload_kinds> names{"kv", "q", "out", "dq", "dkv"};
  return names[static_cast<std::size_t>(payload)];
}

/// How many tensors of each width a payload is made of.
struct Parts {
  int per_q_head = 0;   ///< [batch, row, heads, dim]
  int per_kv_head = 0;  ///< [batch, row, kv_heads, dim]
  int stats = 0;        ///< [batch, heads, row], float
};

/// What a payload is made of in a pass.
constexpr Parts parts(Payload payload, Pass pass) {
  switch (payload) {
    case Payload::kv:
      return {0, 2, 0};
    case Payload::q:
      return pass == Pass::forward ? Parts{1, 0, 0} : Parts{2, 0, 2};
    case Payload::out:
      return {1, 0, 2};
    case Payload::dq:
      return {1, 0, 0};
    case Payload::dkv:
      return {0, 2, 0};
  }
  return {};
}

/// The sizes that turn rows into bytes.
struct Extents {
  std::int64_t batch = 1;
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t head_dim = 1;
  std::int64_t element_bytes = 4;  ///< of an element of Q, K, V and dO; results are float

  /// Every tensor of a message starts at a multiple of this many bytes.
  static constexpr std::int64_t alignment = 128;
  static constexpr std::int64_t aligned(std::int64_t bytes) {
    return (bytes + alignment - 1) / alignment * alignment;
  }

  constexpr std::int64_t per_q_head_bytes(std::int64_t rows, std::int64_t element) const {
    return aligned(batch * rows * heads * head_dim * element);
  }
  constexpr std::int64_t per_kv_head_bytes(std::int64_t rows, std::int64_t element) const {
    return aligned(batch * rows * kv_heads * head_dim * element);
  }
  constexpr std::int64_t stats_bytes(std::int64_t rows) const {
    return aligned(batch * heads * rows * std::int64_t{sizeof(float)});
  }

  /// Bytes of a row of keys and values, or of their gradients, where rows lie one after another.
  constexpr std::int64_t kv_row_bytes(std::int64_t element) const {
    return 2 * batch * kv_heads * head_dim * element;
  }

  /// Bytes of one message that carries `rows` rows, each tensor rounded up to the alignment; results have
  /// `result_bytes` an element.
  constexpr std::int64_t message_bytes(Payload payload, Pass pass, std::int64_t rows,
                                       std::int64_t result_bytes = sizeof(float)) const {
    Parts const p = parts(payload, pass);
    std::int64_t const element = is_result(payload) ? result_bytes : element_bytes;
    return p.per_q_head * per_q_head_bytes(rows, element) + p.per_kv_head * per_kv_head_bytes(rows, element) +
           p.stats * stats_bytes(rows);
  }
};

}  // namespace lightseq
