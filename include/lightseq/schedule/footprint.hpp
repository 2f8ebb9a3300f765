// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>

#include "lightseq/schedule/plan.hpp"

namespace lightseq {

/// Which message buffers a rank's steps need, found step by step so that no plan is kept: a buffer for each
/// of its own tensors that others ask for, and two for each kind of payload that comes in or goes out.
class Footprint {
 public:
  /// Takes a step of `rank` into account.
  void add(int rank, int step, Step const& s) {
    for (Transfer const& t : s.sends)
      if (is_result(t.payload))
        need(Buffers::outgoing, t.payload, (step + 1) % 2);
      else if (t.shard == rank)
        need(Buffers::own, t.payload, static_cast<int>(t.rows));
    for (Transfer const& t : s.recvs) need(Buffers::incoming, t.payload, (step + 1) % 2);
  }

  /// Bytes of the workspace of a pass without the kernels' scratch: message buffers and float accumulators.
  /// The rank owns `rows` rows, the largest shard has `max_rows`.
  std::int64_t bytes(Extents const& extents, Pass pass, std::int64_t rows, std::int64_t max_rows) const {
    std::int64_t sum = 0;
    for (int kind = 0; kind < payload_kinds; ++kind) {
      auto const payload = static_cast<Payload>(kind);
      for (Rows const half : {Rows::all, Rows::lower, Rows::upper})
        if (needs(Buffers::own, payload, static_cast<int>(half)))
          sum += extents.message_bytes(payload, pass, row_span(half, rows).count);
      for (Buffers const buffers : {Buffers::incoming, Buffers::outgoing})
        for (int slot = 0; slot < 2; ++slot)
          if (needs(buffers, payload, slot)) sum += extents.message_bytes(payload, pass, max_rows);
    }
    std::int64_t const q_bytes = extents.per_q_head_bytes(rows, sizeof(float));
    std::int64_t const kv_bytes = extents.per_kv_head_bytes(rows, sizeof(float));
    bool const in_place = extents.element_bytes == sizeof(float);
    if (pass == Pass::forward) return sum + 2 * extents.stats_bytes(rows) + (in_place ? 0 : q_bytes);
    return sum + extents.stats_bytes(rows) + (in_place ? 0 : q_bytes + 2 * kv_bytes);
  }

 private:
  enum class Buffers { own, incoming, outgoing };

  static std::uint64_t bit(Buffers buffers, Payload payload, int slot) {
    return std::uint64_t{1} << ((static_cast<int>(buffers) * payload_kinds + static_cast<int>(payload)) * 3 +
                                slot);
  }
  void need(Buffers buffers, Payload payload, int slot) { used_ |= bit(buffers, payload, slot); }
  bool needs(Buffers buffers, Payload payload, int slot) const {
    return (used_ & bit(buffers, payload, slot)) != 0;
  }

  std::uint64_t used_ = 0;
};

}  // namespace lightseq
