// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <utility>

#include "lightseq/kernel/host.hpp"
#include "lightseq/kernel/host_rows.hpp"

namespace lightseq {

/// The CPU as a device: every operation runs in the calling thread and is done when it returns.
struct Host {
  template <int HeadDim>
  static constexpr std::int64_t forward_scratch_bytes() {
    return host::forward_scratch_bytes<HeadDim>();
  }

  template <int HeadDim>
  static constexpr std::int64_t backward_scratch_bytes() {
    return host::backward_scratch_bytes<HeadDim>();
  }

  template <int HeadDim, class Call, Mask M>
  static void forward(Call const& call, M const& mask, std::byte* scratch) noexcept {
    host::forward<HeadDim>(call, mask, scratch);
  }

  template <int HeadDim, class Call, Mask M>
  static void backward(Call const& call, M const& mask, std::byte* scratch) noexcept {
    host::backward<HeadDim>(call, mask, scratch);
  }

  static void copy(auto const&... arguments) noexcept { host::copy(arguments...); }
  static void zero(auto const&... arguments) noexcept { host::zero(arguments...); }
  static void clear(auto const&... arguments) noexcept { host::clear(arguments...); }
  static void add(auto const&... arguments) noexcept { host::add(arguments...); }
  static void delta(auto const&... arguments) noexcept { host::delta(arguments...); }
  static void merge(auto const&... arguments) noexcept { host::merge(arguments...); }
};

}  // namespace lightseq
