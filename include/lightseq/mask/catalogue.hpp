// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>
#include <tuple>

#include "lightseq/core/catalogue.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"

namespace lightseq {

/// The masks of the library: tests and tools go through this list, so that a new mask is a header and its
/// name here.
using Masks = std::tuple<Full, Causal, SlidingWindow>;

/// A mask that holds values and can be made from one number: `seeing(keys)` is a mask under which a query
/// sees at most `keys` keys, at least 1. Tests and tools make it so; other masks they make from nothing.
template <class M>
concept MadeToSee = Mask<M> && requires(std::int64_t keys) {
  { M::seeing(keys) } -> std::same_as<M>;
};

/// Such a mask, or any other by default.
template <Mask M>
constexpr M mask_seeing(std::int64_t keys) {
  if constexpr (MadeToSee<M>)
    return M::seeing(keys);
  else
    return M{};
}

}  // namespace lightseq
