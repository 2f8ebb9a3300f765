// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lightseq/mask/mask.hpp"

namespace lightseq::test {

/// How a mask's cover() answered for all rectangles of some positions.
struct CoverCount {
  std::int64_t wrong = 0;  ///< none or full, and it is not so
  std::int64_t lazy = 0;   ///< partial, where none or full would have been right
};

/// Asks for every rectangle of the positions first, ..., first + extent - 1.
template <Mask M>
CoverCount count_covers(M const& mask, std::int64_t extent, std::int64_t first = 0) {
  // below[q][k]: how many pairs left of and above (q, k) are visible.
  auto const side = static_cast<std::size_t>(extent) + 1;
  std::vector<std::vector<std::int64_t>> below(side, std::vector<std::int64_t>(side, 0));
  for (std::size_t q = 1; q < side; ++q)
    for (std::size_t k = 1; k < side; ++k) {
      auto const query = first + static_cast<std::int64_t>(q) - 1,
                 key = first + static_cast<std::int64_t>(k) - 1;
      below[q][k] =
          below[q - 1][k] + below[q][k - 1] - below[q - 1][k - 1] + (mask.visible(query, key) ? 1 : 0);
    }
  CoverCount count;
  for (std::size_t q0 = 0; q0 < side; ++q0)
    for (std::size_t q1 = q0 + 1; q1 < side; ++q1)
      for (std::size_t k0 = 0; k0 < side; ++k0)
        for (std::size_t k1 = k0 + 1; k1 < side; ++k1) {
          std::int64_t const visible = below[q1][k1] - below[q0][k1] - below[q1][k0] + below[q0][k0];
          auto const at = [first](std::size_t index) { return first + static_cast<std::int64_t>(index); };
          Cover const cover = mask.cover(Range{at(q0), at(q1)}, Range{at(k0), at(k1)});
          Cover const exact = visible == 0                                                  ? Cover::none
                              : visible == static_cast<std::int64_t>((q1 - q0) * (k1 - k0)) ? Cover::full
                                                                                            : Cover::partial;
          if (cover != exact) ++(cover == Cover::partial ? count.lazy : count.wrong);
        }
  return count;
}

/// How a mask's bounds answered for all ranges of some positions.
struct BoundCount {
  std::int64_t missed = 0;  ///< ranges outside of whose bounds a pair is visible
  std::int64_t wide = 0;    ///< ranges whose bounds, as far as these positions go, could be narrower
  std::int64_t grown = 0;   ///< ranges with a part whose bounds reach beyond theirs
};

/// Asks for every range of the positions first, ..., first + extent - 1, and for the parts of it that lack
/// the last position or the first one: so for all parts.
template <BoundedMask M>
BoundCount count_bounds(M const& mask, std::int64_t extent, std::int64_t first = 0) {
  BoundCount count;
  Range const all{first, first + extent};
  auto const ask = [&](auto const& bound_of, auto const& visible) {
    for (std::int64_t begin = all.begin; begin < all.end; ++begin)
      for (std::int64_t end = begin + 1; end <= all.end; ++end) {
        Range hull;  // of what is visible
        for (std::int64_t i = begin; i < end; ++i)
          for (std::int64_t j = all.begin; j < all.end; ++j)
            if (visible(i, j)) hull = hull.joined({j, j + 1});
        Range const bound = bound_of(Range{begin, end});
        Range const here{std::max(bound.begin, all.begin), std::min(bound.end, all.end)};
        if (!(here.joined(hull) == here)) ++count.missed;
        if (!(hull.joined(here) == hull)) ++count.wide;
        if (end - begin > 1)
          for (Range const& part : {Range{begin, end - 1}, Range{begin + 1, end}})
            if (!(bound.joined(bound_of(part)) == bound)) ++count.grown;
      }
  };
  ask([&](Range const& queries) { return mask.keys_of(queries); },
      [&](std::int64_t query, std::int64_t key) { return mask.visible(query, key); });
  ask([&](Range const& keys) { return mask.queries_of(keys); },
      [&](std::int64_t key, std::int64_t query) { return mask.visible(query, key); });
  return count;
}

/// The law of masks: none and full are exact, and bounds hold what is visible and grow with the range. If
/// `tight`, partial is not said where one of them would do, and bounds are as narrow as can be.
template <Mask M>
void check_mask(M const& mask, bool tight, std::int64_t extent = 24) {
  for (std::int64_t const first : {0, 17}) {
    CoverCount const count = count_covers(mask, extent, first);
    CHECK(count.wrong == 0);
    if (tight) CHECK(count.lazy == 0);
    if constexpr (BoundedMask<M>) {
      BoundCount const bounds = count_bounds(mask, extent, first);
      CHECK(bounds.missed == 0);
      CHECK(bounds.grown == 0);
      if (tight) CHECK(bounds.wide == 0);
    }
  }
}

}  // namespace lightseq::test
