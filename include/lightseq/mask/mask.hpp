// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>

#include "lightseq/core/range.hpp"

namespace lightseq {

/// What a rectangle of the attention matrix looks like under a mask.
enum class Cover {
  none,     ///< no pair is visible: the rectangle costs nothing
  partial,  ///< anything: every pair is asked for
  full      ///< every pair is visible: no pair is asked for
};

/// Which keys a query sees. `visible(q, k)` answers for one pair of global positions; `cover(queries, keys)`
/// for a rectangle of two ranges that are not empty. `none` and `full` must be exact, `partial` is always
/// allowed; laws::first_fault(mask, n) finds where they are not. A mask may hold values; it is copied into
/// kernels. Ranks compare these values, byte by byte; one that holds floats, padding, lists or addresses has,
/// in place of that, `std::int64_t digest() const`: a number that equal masks share, see digest_of(). Values
/// may make no sense, see HasFault, and may have names, see NamesValues.
template <class M>
concept Mask = std::copyable<M> && requires(M const mask, std::int64_t position, Range range) {
  { mask.visible(position, position) } -> std::same_as<bool>;
  { mask.cover(range, range) } -> std::same_as<Cover>;
};

}  // namespace lightseq
