// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/error.hpp"
#include "lightseq/core/problem.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/exec/device.hpp"
#include "lightseq/kernel/host/attention.hpp"
#include "lightseq/kernel/host/row_ops.hpp"
#include "lightseq/mask/packed_rows.hpp"
#include "lightseq/schedule/plan.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// The CPU as a device: every operation runs in the calling thread and is done when it returns.
struct Host {
  /// Where a call's work is enqueued: nowhere, it is done at once.
  struct Stream {};

  /// What addresses and strides of a call's tensors must be multiples of, in bytes.
  static constexpr std::int64_t alignment = 1;

  /// The head dims that it serves: multiples of 8, from 8 to 256.
  static constexpr bool serves_head_dim(int head_dim) { return host::serves_head_dim(head_dim); }

  /// What a DistAttn prepares once, for its shards of at most `max_rows` rows.
  template <int HeadDim, Mask M, class Traits>
  struct Kernels {
    static constexpr int max_chunks = 0;  ///< that one launch can attend as they arrive

    /// Throws Error where the compiler was told that there are no infinities.
    Kernels(Problem const&, std::int64_t /*max_rows*/) {
      float volatile const nothing = -std::numeric_limits<float>::infinity();
      if (!std::isinf(nothing))
        fail("this was compiled with a flag like -fno-honor-infinities, under which the results are wrong");
    }

    static constexpr std::int64_t forward_scratch_bytes() { return host::forward_scratch_bytes<HeadDim>(); }
    static constexpr std::int64_t backward_scratch_bytes() {
      return host::backward_scratch_bytes<HeadDim, M>();
    }

    /// The operations of one call.
    struct Queue {
      using Final = FinalOf<Traits>;
      /// Whether backward() can write final gradients of keys and values, besides adding to floats.
      static constexpr bool writes_key_gradients = false;
      /// Whether it serves BackwardCall's dkv_zero, dq_zero and dq_out.
      static constexpr bool zeroes_and_rounds = false;

      template <class Transport>
      Queue(Kernels&, Stream const&, Transport&) {}

      /// The first failure of an operation.
      static constexpr Status status() { return {}; }

      /// What profilers show of a step: nothing.
      struct StepRange {
        constexpr StepRange(Plan const&, std::size_t /*step*/, std::int64_t /*bytes*/) {}
      };

      /// Around a step: messages that start() begins find what was enqueued before fork(), and what is
      /// enqueued after join() finds what finish() has waited for.
      static constexpr void fork() {}
      static constexpr void join() {}

      /// What was enqueued is done.
      static constexpr Status wait(auto&) { return {}; }

      template <class Call>
      static void forward(Call const& call, M const& mask, std::byte* scratch) noexcept {
        host::forward<HeadDim>(call, mask, scratch);
      }
      template <class Call>
      static void backward(Call const& call, M const& mask, std::byte* scratch) noexcept {
        host::backward<HeadDim>(call, mask, scratch);
      }
      /// Writes what the rows of two ranges see, and who sees them, at the rows' places.
      template <Mask Inner>
      static void look(PackedRows<Inner> const& mask, Range const& queries, Range const& keys,
                       RowSight* of_queries, RowSight* of_keys) noexcept {
        for (std::int64_t row = queries.begin; row < queries.end; ++row)
          of_queries[row] = mask.sight_of_query(row);
        for (std::int64_t row = keys.begin; row < keys.end; ++row) of_keys[row] = mask.sight_of_key(row);
      }
      static void copy(auto const&... arguments) noexcept { host::copy(arguments...); }
      static void zero(auto const&... arguments) noexcept { host::zero(arguments...); }
      static void clear(auto const&... arguments) noexcept { host::clear(arguments...); }
      static void add(auto const&... arguments) noexcept { host::add(arguments...); }
      static void delta(auto const&... arguments) noexcept { host::delta(arguments...); }
      static void merge(auto const&... arguments) noexcept { host::merge(arguments...); }
      static void finish(auto const&... arguments) noexcept { host::finish(arguments...); }
      static void sink_gradients(auto const&... arguments) noexcept { host::sink_gradients(arguments...); }
    };
  };
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
