// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/mask/data.hpp"
#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// What one row of queries sees, or who sees one of keys: rows of the other side, `begin` to before `end`.
struct RowSight {
  std::int32_t begin = 0, end = 0;

  /// Whether a row of the other side, 0 <= row < 2^31, is one of them: one comparison in 32 bits.
  LIGHTSEQ_HD constexpr bool operator()(std::int64_t row) const {
    return static_cast<std::uint32_t>(row) - static_cast<std::uint32_t>(begin) <
           static_cast<std::uint32_t>(end) - static_cast<std::uint32_t>(begin);
  }
  friend constexpr bool operator==(RowSight const&, RowSight const&) = default;
};

/// A mask between rows, of which one range a row is known, and of later rows it neither begins nor ends
/// earlier; a row that sees nothing has an empty one that keeps to this. It looks at the ranges of all rows,
/// which lie elsewhere, and answers with a few loads, whatever mask they come from: kernels see packed
/// documents so.
class RowSights {
 public:
  static constexpr bool exact_rows = true;
  static constexpr bool looks_elsewhere = true;

  RowSights() = default;
  LIGHTSEQ_HD constexpr RowSights(RowSight const* of_queries, RowSight const* of_keys)
      : queries_(of_queries), keys_(of_keys) {}

  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return queries_[query](key);
  }
  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    RowSight const first = queries_[queries.begin], last = queries_[queries.end - 1];
    if (first.begin >= keys.end || last.end <= keys.begin) return Cover::none;
    return last.begin <= keys.begin && keys.end <= first.end ? Cover::full : Cover::partial;
  }
  LIGHTSEQ_HD constexpr RowSight row(std::int64_t query) const { return queries_[query]; }
  LIGHTSEQ_HD constexpr RowSight column(std::int64_t key) const { return keys_[key]; }
  LIGHTSEQ_HD constexpr Range keys_of(Range queries) const { return hull(queries_, queries); }
  LIGHTSEQ_HD constexpr Range queries_of(Range keys) const { return hull(keys_, keys); }

 private:
  LIGHTSEQ_HD static constexpr Range hull(RowSight const* sights, Range const& rows) {
    return {sights[rows.begin].begin, sights[rows.end - 1].end};
  }

  RowSight const *queries_ = nullptr, *keys_ = nullptr;
};
static_assert(LooksElsewhere<RowSights> && BoundedMask<RowSights> && std::is_trivially_copyable_v<RowSights>);

}  // namespace lightseq
