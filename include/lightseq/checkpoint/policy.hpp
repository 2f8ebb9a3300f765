// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/standard.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Nothing is kept: the backward repeats the projection, the attention and its messages.
struct SaveNone {
  static constexpr bool saves_qkv = false;
  static constexpr bool saves_output = false;
};

/// The checkpoint sits at attention's output (DistFlashAttn, arXiv 2310.03294, section 3.4): the backward
/// repeats the projection, never the attention or its messages.
struct SaveOutput {
  static constexpr bool saves_qkv = false;
  static constexpr bool saves_output = true;
};

/// Everything is kept, nothing is repeated.
struct SaveAll {
  static constexpr bool saves_qkv = true;
  static constexpr bool saves_output = true;
};

/// What a layer keeps from its forward to its backward.
template <class P>
concept CheckpointPolicy = requires {
  { P::saves_qkv } -> std::convertible_to<bool>;
  { P::saves_output } -> std::convertible_to<bool>;
};
static_assert(CheckpointPolicy<SaveNone> && CheckpointPolicy<SaveOutput> && CheckpointPolicy<SaveAll>);

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
