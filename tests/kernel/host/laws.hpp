// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include "kernel/host/case.hpp"

namespace lightseq::test {

/// Single precision, with room for some hundred roundings in a row.
inline constexpr double tolerance = 2e-6;

/// The kernels of one head dim give what the oracle gives: for every mask and layout, in turn for several
/// batches and numbers of heads.
template <int D, Element T>
void equals_oracle(std::int64_t most_rows) {
  struct Heads {
    std::int64_t batch, heads, kv_heads;
  };
  Heads const turns[] = {{1, 1, 1}, {2, 2, 1}, {1, 3, 3}, {1, 6, 2}};
  std::size_t turn = static_cast<std::size_t>(random_between(0, 3));
  for (AnyMask const& mask : all_masks())
    for (Layout const& layout : all_layouts(most_rows)) {
      Heads const& h = turns[turn++ % 4];
      Case<D, T> const c(layout.queries, layout.keys, h.batch, h.heads, h.kv_heads);
      INFO("seed ", run_seed(), ", mask ", mask.name(), ", ", layout.name, ", ", c.queries.rows(),
           " queries, ", c.keys.rows(), " keys, ", h.heads, " over ", h.kv_heads, " heads");
      CHECK(worst_error(c, run(c, mask), oracle(c, mask)) < tolerance);
    }
}

}  // namespace lightseq::test
