// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>

#include "lightseq/core/error.hpp"
#include "lightseq/core/range.hpp"

namespace lightseq {

/// Throws Error, with the number, unless it is 1 to 2^40: then no sum or product of two overflows on the way.
inline void check_size(char const* what, std::int64_t size) {
  constexpr std::int64_t most = std::int64_t{1} << 40;
  if (size < 1 || size > most) fail(what, ": ", size, ", must be 1 to ", most);
}

/// Heads of one rank where ranks share them. Key/value heads are dealt out with their query heads; where
/// there are more ranks than key/value heads several have a copy of one, and share its query heads. All ranks
/// have as many as the busiest, and on a rank as many query heads belong to each key/value head: so heads are
/// padded, and ranks may be left without one.
struct HeadShare {
  std::int64_t heads = 1, kv_heads = 1;
  int busy = 1;  ///< ranks that have heads

  /// Throws Error, with the numbers, on no head or rank, too many, and heads that do not divide.
  static HeadShare of(std::int64_t heads, std::int64_t kv_heads, int ranks) {
    if (ranks < 1) fail("heads are shared by ", ranks, " ranks, it must be at least 1");
    check_size("heads", heads);
    check_size("kv_heads", kv_heads);
    if (heads % kv_heads != 0)
      fail("there are ", heads, " heads, which must be a multiple of kv_heads, ", kv_heads);
    std::int64_t const group = heads / kv_heads;
    std::int64_t const copies = std::clamp<std::int64_t>(ranks / kv_heads, 1, group);
    std::int64_t const own_kv = tiles_of(kv_heads, ranks), own_group = tiles_of(group, copies);
    std::int64_t const busy = tiles_of(kv_heads * tiles_of(group, own_group), own_kv);
    return {own_kv * own_group, own_kv, static_cast<int>(busy)};
  }
};

}  // namespace lightseq
