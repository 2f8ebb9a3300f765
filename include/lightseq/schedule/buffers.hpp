// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>

#include "lightseq/schedule/plan.hpp"

namespace lightseq {

/// What message buffers hold: this rank's own tensors, packed for others; what others send; and results for
/// them.
enum class Buffers { own, incoming, outgoing };

/// The step whose work a message of `step` belongs to: inputs come a step before, results leave a step after.
constexpr int work_of(Transfer const& transfer, int step) {
  return is_result(transfer.payload) ? step - 1 : step + 1;
}

/// Two slots of each kind serve a plan of any length: what the work of a step takes in or puts out is in this
/// one, and while it is read or sent only the other one is written. So the workspace does not grow with the
/// world.
constexpr int slot_of(int work) { return work & 1; }

/// Calls `visit(buffers, payload, place)` for each message that a step of `rank` keeps in a buffer: the place
/// of an own tensor is its Rows, and of others the step of their work.
template <class Visit>
constexpr void for_each_buffer(int rank, int step, Step const& s, Visit visit) {
  for (Transfer const& t : s.sends)
    if (is_result(t.payload))
      visit(Buffers::outgoing, t.payload, work_of(t, step));
    else if (t.shard == rank)
      visit(Buffers::own, t.payload, static_cast<int>(t.rows));
  for (Transfer const& t : s.recvs) visit(Buffers::incoming, t.payload, work_of(t, step));
}

/// Rows of a message buffer: an own tensor has some of the rank's `rows`, others may have the rows of the
/// largest shard.
constexpr std::int64_t buffer_rows(Buffers buffers, int place, std::int64_t rows, std::int64_t max_rows) {
  return buffers == Buffers::own ? row_span(static_cast<Rows>(place), rows).count : max_rows;
}

/// Bytes of what a pass sums up in float, for `rows` rows of a rank. Where the elements are float the
/// caller's own tensors hold the sums of o, dq, dk and dv.
struct Accumulators {
  std::int64_t q_bytes = 0;      ///< of o, or dq
  std::int64_t kv_bytes = 0;     ///< of dk, and of dv
  std::int64_t stats_bytes = 0;  ///< of top, of sum, of delta

  constexpr Accumulators(Extents const& extents, std::int64_t rows) : stats_bytes(extents.stats_bytes(rows)) {
    if (extents.element_bytes == sizeof(float)) return;
    q_bytes = extents.per_q_head_bytes(rows, sizeof(float));
    kv_bytes = extents.per_kv_head_bytes(rows, sizeof(float));
  }

  constexpr std::int64_t bytes(Pass pass) const {
    return pass == Pass::forward ? q_bytes + 2 * stats_bytes : q_bytes + 2 * kv_bytes + stats_bytes;
  }
};

/// The message buffers that a rank's steps need, found step by step so that no plan is kept.
class BufferSet {
 public:
  /// Takes a step of `rank` into account.
  constexpr void add(int rank, int step, Step const& s) {
    for_each_buffer(rank, step, s, [this](Buffers buffers, Payload payload, int place) {
      int const slot = buffers == Buffers::own ? place : slot_of(place);
      needed_ |= bit(static_cast<int>(buffers), static_cast<int>(payload), slot);
    });
  }

  /// Bytes of the buffers of a pass. The rank owns `rows` rows, the largest shard has `max_rows`.
  constexpr std::int64_t bytes(Extents const& extents, Pass pass, std::int64_t rows,
                               std::int64_t max_rows) const {
    std::int64_t sum = 0;
    for (int buffers = 0; buffers < 3; ++buffers)
      for (int kind = 0; kind < payload_kinds; ++kind)
        for (int slot = 0; slot < 3; ++slot)
          if ((needed_ & bit(buffers, kind, slot)) != 0)
            sum += extents.message_bytes(static_cast<Payload>(kind), pass,
                                         buffer_rows(static_cast<Buffers>(buffers), slot, rows, max_rows));
    return sum;
  }

 private:
  static constexpr std::uint64_t bit(int buffers, int payload, int slot) {
    return std::uint64_t{1} << ((buffers * payload_kinds + payload) * 3 + slot);
  }

  std::uint64_t needed_ = 0;
};

}  // namespace lightseq
