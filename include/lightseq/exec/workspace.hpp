// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lightseq/core/abi.hpp"
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

/// Where one rank keeps its messages in one pass. Two slots of each kind serve a plan of any length: what the
/// work of step t takes in or puts out is in slot t % 2, and while it is read or sent only the other slot is
/// written. So the workspace does not grow with the world, unless all that comes in shall stay.
class MessageBuffers {
 public:
  MessageBuffers() = default;

  /// The buffers of `plan`, taken from `arena`; `rows(shard)` gives a shard's rows. With `keeps_all` each
  /// step has slots of its own for what comes in.
  template <class ShardRows>
  MessageBuffers(Plan const& plan, Extents const& extents, std::int64_t max_rows, ShardRows rows,
                 Arena& arena, bool keeps_all = false) {
    std::size_t const slots = keeps_all && plan.steps.size() > 2 ? plan.steps.size() : 2;
    for (auto& incoming : incoming_) incoming.resize(slots);
    auto const need = [&](Buffer& buffer, Payload payload, std::int64_t count) {
      if (buffer.bytes == 0) buffer = arena.take(extents.message_bytes(payload, plan.pass, count));
    };
    for (std::size_t step = 0; step < plan.steps.size(); ++step) {
      for (Transfer const& t : plan.steps[step].sends) {
        if (is_result(t.payload)) need(outgoing(t.payload, step - 1), t.payload, max_rows);
        if (!is_result(t.payload) && t.shard == plan.rank)
          need(own(t.payload, t.rows), t.payload, row_span(t.rows, rows(t.shard)).count);
      }
      for (Transfer const& t : plan.steps[step].recvs)
        need(incoming(t.payload, is_result(t.payload) ? step - 1 : step + 1), t.payload, max_rows);
    }
  }

  /// This rank's own tensors, packed once a pass for whoever asks for them.
  Buffer const& own(Payload payload, Rows rows) const {
    return own_[index(payload)][static_cast<std::size_t>(rows)];
  }

  /// What others sent for the work, or from their work, of a step.
  Buffer const& incoming(Payload payload, std::size_t step) const {
    auto const& slots = incoming_[index(payload)];
    return slots[step % slots.size()];
  }

  /// The results of the work of a step for another rank.
  Buffer const& outgoing(Payload payload, std::size_t step) const {
    return outgoing_[index(payload)][step % 2];
  }

 private:
  static constexpr std::size_t index(Payload payload) { return static_cast<std::size_t>(payload); }
  Buffer& own(Payload payload, Rows rows) { return own_[index(payload)][static_cast<std::size_t>(rows)]; }
  Buffer& incoming(Payload payload, std::size_t step) {
    auto& slots = incoming_[index(payload)];
    return slots[step % slots.size()];
  }
  Buffer& outgoing(Payload payload, std::size_t step) { return outgoing_[index(payload)][step % 2]; }

  std::array<std::array<Buffer, 3>, payload_kinds> own_{};
  std::array<std::vector<Buffer>, payload_kinds> incoming_{};
  std::array<std::array<Buffer, 2>, payload_kinds> outgoing_{};
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
