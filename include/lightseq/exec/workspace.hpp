// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lightseq/core/abi.hpp"
#include "lightseq/schedule/buffers.hpp"
#include "lightseq/schedule/plan.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// A buffer inside the workspace; one that the plan does not need has no bytes.
struct Buffer {
  std::int64_t offset = 0;
  std::int64_t bytes = 0;
};

/// Lays buffers out one after another, each at a multiple of Extents::alignment.
class Arena {
 public:
  constexpr Buffer take(std::int64_t bytes) {
    Buffer const buffer{bytes_, bytes};
    bytes_ += Extents::aligned(bytes);
    return buffer;
  }

  /// What a caller must provide, with room to align the first byte.
  constexpr std::int64_t bytes() const { return bytes_ == 0 ? 0 : bytes_ + Extents::alignment; }

 private:
  std::int64_t bytes_ = 0;
};

/// The first aligned byte of a workspace.
inline std::byte* aligned_base(std::byte* workspace) {
  auto const address = reinterpret_cast<std::uintptr_t>(workspace);
  auto const mask = static_cast<std::uintptr_t>(Extents::alignment) - 1;
  return workspace + (((address + mask) & ~mask) - address);
}

/// Where one rank keeps its messages in one pass: see slot_of(). Where all that comes in shall stay, each
/// step has slots of its own for it.
class MessageBuffers {
 public:
  MessageBuffers() = default;

  /// The buffers of `plan`, taken from `arena`. The rank owns `rows` rows, the largest shard has `max_rows`.
  MessageBuffers(Plan const& plan, Extents const& extents, std::int64_t rows, std::int64_t max_rows,
                 Arena& arena, bool keeps_all = false) {
    if (keeps_all) slots_ = std::max(slots_, plan.steps.size());
    buffers_.resize(payload_kinds * (own_slots + 2 + slots_));
    for (std::size_t step = 0; step < plan.steps.size(); ++step)
      for_each_buffer(plan.rank, static_cast<int>(step), plan.steps[step],
                      [&](Buffers buffers, Payload payload, int place) {
                        Buffer& buffer = buffers_[at(buffers, payload, static_cast<std::size_t>(place))];
                        if (buffer.bytes == 0)
                          buffer = arena.take(extents.message_bytes(
                              payload, plan.pass, buffer_rows(buffers, place, rows, max_rows)));
                      });
  }

  /// This rank's own tensors, packed once a pass for whoever asks for them.
  Buffer const& own(Payload payload, Rows rows) const {
    return buffers_[at(Buffers::own, payload, static_cast<std::size_t>(rows))];
  }

  /// What others sent for the work, or from their work, of a step.
  Buffer const& incoming(Payload payload, std::size_t work) const {
    return buffers_[at(Buffers::incoming, payload, work)];
  }

  /// The results of the work of a step for another rank.
  Buffer const& outgoing(Payload payload, std::size_t work) const {
    return buffers_[at(Buffers::outgoing, payload, work)];
  }

 private:
  static constexpr std::size_t own_slots = 3;  // a slot for each of Rows

  /// Where in `buffers_`: first own tensors, then what goes out, then what comes in.
  std::size_t at(Buffers buffers, Payload payload, std::size_t place) const {
    auto const kind = static_cast<std::size_t>(payload);
    if (buffers == Buffers::own) return kind * own_slots + place;
    auto const slot = static_cast<std::size_t>(slot_of(static_cast<int>(place)));
    if (buffers == Buffers::outgoing) return payload_kinds * own_slots + kind * 2 + slot;
    return payload_kinds * (own_slots + 2) + kind * slots_ + (slots_ > 2 ? place % slots_ : slot);
  }

  std::size_t slots_ = 2;  // of each payload that comes in
  std::vector<Buffer> buffers_;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
