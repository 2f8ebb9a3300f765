// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>

#include "lightseq/mask/mask.hpp"

/// Visible pairs, counted in O(1) by what a mask says of itself.
namespace lightseq {

/// A sum on the way to which 63 bits are not enough.
__extension__ typedef __int128 WideInt;

/// The number, or the nearest that 63 bits hold.
constexpr std::int64_t saturated(WideInt number) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  return number > most ? most : static_cast<std::int64_t>(number);
}

/// How many pairs of a query and a key, of segments with one stride, have the key at most `reach` positions
/// after the query; before it if that is negative.
constexpr WideInt pairs_up_to(Segment const& queries, Segment const& keys, std::int64_t reach) {
  // Row i sees clamp(i + first, 0, keys.rows) keys, so this is a difference of two sums over all lower rows.
  constexpr std::int64_t far = std::int64_t{1} << 62;  // positions are below
  std::int64_t const distance = queries.begin - keys.begin + std::clamp(reach, -far, far);
  std::int64_t const stride = queries.stride;
  std::int64_t const nearest = distance >= 0 ? distance / stride + 1 : (distance + 1) / stride;
  std::int64_t const first = std::clamp(nearest, -queries.rows, keys.rows);  // beyond, rows see none or all
  auto const sum_up_to = [&](std::int64_t row) {
    if (row <= 0) return WideInt{0};
    std::int64_t const ramp = std::min(row, keys.rows);
    return WideInt{ramp} * (WideInt{ramp} + 1) / 2 + WideInt{row - ramp} * keys.rows;
  };
  return sum_up_to(queries.rows - 1 + first) - sum_up_to(first - 1);
}

/// How many pairs of two segments are visible, at most 2^63 - 1, where the mask says it in O(1): by its
/// reach, of segments with one stride, or by its pairs(), of rows that lie side by side.
template <Mask M>
constexpr std::optional<std::int64_t> known_pairs(M const& mask, Segment const& queries,
                                                  Segment const& keys) {
  static_assert(
      HasReach<M> || !requires { mask.reach(); },
      "lightseq: reach() of a mask is constant and returns a lightseq::Reach");
  static_assert(
      HasPairs<M> || !requires { mask.pairs(Range{}, Range{}); },
      "lightseq: pairs() of a mask is constant and returns a std::int64_t");
  if (queries.rows == 0 || keys.rows == 0) return 0;
  if constexpr (HasReach<M>)
    if (queries.stride == keys.stride) {
      Reach const reach = mask.reach();
      return saturated(pairs_up_to(queries, keys, reach.right) - pairs_up_to(queries, keys, -reach.left - 1));
    }
  if constexpr (HasPairs<M>)
    if (queries.stride == 1 && keys.stride == 1) return mask.pairs(queries.hull(), keys.hull());
  return std::nullopt;
}

}  // namespace lightseq
