// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/data.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/mask/row_sights.hpp"
#include "lightseq/mask/score.hpp"
#include "lightseq/mask/scored.hpp"

namespace lightseq {

/// Neighbouring rows of queries, or of keys, that are neighbours in one document too. The runs of a side are
/// in the order of their rows; those of a document lie together, without rows between them, in the order of
/// their positions.
struct RowRun {
  std::int32_t row = 0, rows = 0;   ///< the first row, and how many
  std::int32_t position = 0;        ///< of the first row, within its document
  std::int32_t first = 0, end = 0;  ///< which runs of the other side are of this document: at least one

  LIGHTSEQ_HD constexpr Range all_rows() const { return {row, std::int64_t{row} + rows}; }
  LIGHTSEQ_HD constexpr Range positions() const { return {position, std::int64_t{position} + rows}; }

  /// Positions of those of some rows that are in the run.
  LIGHTSEQ_HD constexpr Range positions(Range const& of) const {
    Range const own = all_rows();
    return {position + (of.begin > own.begin ? of.begin : own.begin) - row,
            position + (of.end < own.end ? of.end : own.end) - row};
  }
  friend constexpr bool operator==(RowRun const&, RowRun const&) = default;
};
static_assert(std::is_trivially_copyable_v<RowRun> && sizeof(RowRun) == 20);

/// The runs of a side, which lie elsewhere.
class RowRuns {
 public:
  RowRuns() = default;
  LIGHTSEQ_HD constexpr RowRuns(RowRun const* runs, int count) : runs_(runs), count_(count) {
    while (first_step_ <= count / 2) first_step_ *= 2;
  }

  LIGHTSEQ_HD constexpr int count() const { return count_; }
  LIGHTSEQ_HD constexpr RowRun const& operator[](int run) const { return runs_[run]; }

  /// How many runs begin before a row.
  LIGHTSEQ_HD constexpr int begun(std::int64_t row) const {
    // The same steps for every row: the threads of a warp do not part.
    int begun = 0;
    for (int step = first_step_; step > 0; step /= 2) {
      int const next = begun + step;
      if (next <= count_ && runs_[next - 1].row < row) begun = next;
    }
    return begun;
  }

  /// The run that a row is in, or -1.
  LIGHTSEQ_HD constexpr int run_of(std::int64_t row) const {
    int const last = begun(row + 1) - 1;
    return last >= 0 && runs_[last].all_rows().contains(row) ? last : -1;
  }

  /// Which runs some rows touch, `first` to before `end`.
  struct Some {
    int first, end;
    LIGHTSEQ_HD constexpr int count() const { return end - first; }
  };
  LIGHTSEQ_HD constexpr Some touched(Range const& rows) const {
    int const before = begun(rows.begin);
    bool const inside = before > 0 && runs_[before - 1].all_rows().contains(rows.begin);
    return {inside ? before - 1 : before, begun(rows.end)};
  }

  /// The first row of a document's runs, `first` to before `end`, at this position or later; the row after
  /// them where there is none.
  LIGHTSEQ_HD constexpr std::int64_t row_at(std::int64_t position, int first, int end) const {
    int run = first;
    while (run < end - 1 && runs_[run].positions().end <= position) ++run;
    RowRun const& in = runs_[run];
    if (position <= in.position) return in.row;  // which may be any number, as bounds of masks are
    std::int64_t const skipped = position - in.position;
    return in.row + (skipped < in.rows ? skipped : in.rows);
  }

 private:
  RowRun const* runs_ = nullptr;
  int count_ = 0;
  int first_step_ = 1;  ///< a power of 2, at most the count
};

/// Packed documents as kernels see them when a rank attends its pieces of them to keys of one slot: positions
/// are rows, of queries on one side and of keys on the other, and a query sees the keys of its own document
/// that `Inner` shows it by their positions within the document. Rows in no run see nothing, and nobody sees
/// them. The documents come in the same order on both sides. It owns neither list. All answers take
/// O(log runs) steps and one for each run that a document has in the slot, and are as exact as Documents'.
template <Mask Inner = Causal>
class PackedRows {
 public:
  static constexpr bool exact_rows = HasExactRows<Inner>;
  static constexpr bool looks_elsewhere = true;

  PackedRows() = default;
  LIGHTSEQ_HD constexpr PackedRows(RowRuns const& queries, RowRuns const& keys, Inner const& inner)
      : queries_(queries), keys_(keys), inner_(inner) {}

  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    int const q = queries_.run_of(query), k = keys_.run_of(key);
    if (q < 0 || k < queries_[q].first || k >= queries_[q].end) return false;
    return inner_.visible(queries_[q].position + query - queries_[q].row,
                          keys_[k].position + key - keys_[k].row);
  }

  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    if (!keys_of(queries).touches(keys)) return Cover::none;
    RowRuns::Some const some = queries_.touched(queries);
    if (some.count() != 1) return Cover::partial;
    RowRun const& q = queries_[some.first];
    RowRun const &first = keys_[q.first], &last = keys_[q.end - 1];
    bool whole = q.row <= queries.begin && queries.end <= q.all_rows().end && first.row <= keys.begin &&
                 keys.end <= last.all_rows().end;
    bool shown = false;
    for (int k = q.first; k < q.end; ++k) {
      if (!keys_[k].all_rows().touches(keys)) continue;
      Cover const cover = inner_.cover(q.positions(queries), keys_[k].positions(keys));
      whole = whole && cover == Cover::full;
      shown = shown || cover != Cover::none;
    }
    return whole ? Cover::full : shown ? Cover::partial : Cover::none;
  }

  /// The rule of `Inner`, and the positions that it is asked with: those in the document.
  LIGHTSEQ_HD constexpr auto const& rule() const requires HasRule<Inner> { return inner_.rule(); }
  LIGHTSEQ_HD constexpr std::int64_t place_of_query(std::int64_t row) const requires HasRule<Inner> {
    return place(queries_, row);
  }
  LIGHTSEQ_HD constexpr std::int64_t place_of_key(std::int64_t row) const requires HasRule<Inner> {
    return place(keys_, row);
  }

  LIGHTSEQ_HD constexpr Range keys_of(Range queries) const {
    return bound(queries_, keys_, queries, [this](Range of) { return keys_within(inner_, of); });
  }
  LIGHTSEQ_HD constexpr Range queries_of(Range keys) const {
    return bound(keys_, queries_, keys, [this](Range of) { return queries_within(inner_, of); });
  }

  /// The rows of what `Inner` shows in two ranges, where the queries are of one document.
  LIGHTSEQ_HD constexpr RangePair key_ranges_of(Range queries) const requires HasKeyRanges<Inner> {
    RowRuns::Some const some = queries_.touched(queries);
    if (some.count() <= 0) return {};
    RowRun const &head = queries_[some.first], &tail = queries_[some.end - 1];
    if (head.first != tail.first) return {keys_of(queries), {}};
    RangePair const seen = inner_.key_ranges_of({head.positions(queries).begin, tail.positions(queries).end});
    auto const rows = [&](Range const& of) {
      return Range{keys_.row_at(of.begin, head.first, head.end), keys_.row_at(of.end, head.first, head.end)};
    };
    if (seen.second.empty()) return {rows(seen.first), {}};
    return {rows(seen.first), rows(seen.second)};
  }

  /// The keys that one row of queries sees, and who sees one of keys, where `Inner` looks up once what all
  /// pairs of a row share.
  template <class Answer>
  struct RowAnswer {
    RowRuns other;
    int first, end;  ///< which runs there are of its document
    Answer answer;
    LIGHTSEQ_HD constexpr bool operator()(std::int64_t row) const {
      int const run = other.run_of(row);
      return first <= run && run < end && answer(other[run].position + row - other[run].row);
    }
  };
  LIGHTSEQ_HD constexpr auto row(std::int64_t query) const requires HasRows<Inner> {
    return answer(queries_, keys_, query, [this](std::int64_t position) { return inner_.row(position); });
  }
  LIGHTSEQ_HD constexpr auto column(std::int64_t key) const requires HasRows<Inner> {
    return answer(keys_, queries_, key, [this](std::int64_t position) { return inner_.column(position); });
  }

  /// What RowSights is to know of one row of queries, and of keys, where `Inner` shows later queries no
  /// earlier keys.
  LIGHTSEQ_HD constexpr RowSight sight_of_query(std::int64_t query) const {
    return sight(queries_, keys_, query, [this](Range of) { return keys_within(inner_, of); });
  }
  LIGHTSEQ_HD constexpr RowSight sight_of_key(std::int64_t key) const {
    return sight(keys_, queries_, key, [this](Range of) { return queries_within(inner_, of); });
  }

 private:
  /// The position of a row in its document; any number for a row of none.
  LIGHTSEQ_HD static constexpr std::int64_t place(RowRuns const& runs, std::int64_t row) {
    int const run = runs.run_of(row);
    return run < 0 ? row : runs[run].position + row - runs[run].row;
  }

  /// From what the first document among some rows sees to what the last one sees, by a bound of `Inner`.
  template <std::invocable<Range> Of>
  LIGHTSEQ_HD static constexpr Range bound(RowRuns const& own, RowRuns const& other, Range const& rows,
                                           Of inner_bound) {
    RowRuns::Some const some = own.touched(rows);
    if (some.count() <= 0) return {};
    RowRun const &head = own[some.first], &tail = own[some.end - 1];
    std::int64_t const begin = head.positions(rows).begin, end = tail.positions(rows).end;
    if (head.first == tail.first) {  // Later rows may see less, or what comes earlier.
      Range const seen = inner_bound({begin, end});
      return {other.row_at(seen.begin, head.first, head.end), other.row_at(seen.end, head.first, head.end)};
    }
    Range const first{begin, own[other[head.first].end - 1].positions().end},
        last{own[other[tail.first].first].position, end};
    return {other.row_at(inner_bound(first).begin, head.first, head.end),
            other.row_at(inner_bound(last).end, tail.first, tail.end)};
  }

  /// A row in no run sees nothing.
  template <std::invocable<std::int64_t> Of>
  LIGHTSEQ_HD static constexpr auto answer(RowRuns const& own, RowRuns const& other, std::int64_t row,
                                           Of inner_answer) {
    using Answer = RowAnswer<decltype(inner_answer(row))>;
    int const run = own.run_of(row);
    if (run < 0) return Answer{other, 0, 0, inner_answer(0)};
    RowRun const& of = own[run];
    return Answer{other, of.first, of.end, inner_answer(of.position + row - of.row)};
  }

  /// A row in no run sees nothing, where the next document's rows begin.
  template <std::invocable<Range> Of>
  LIGHTSEQ_HD static constexpr RowSight sight(RowRuns const& own, RowRuns const& other, std::int64_t row,
                                              Of inner_bound) {
    int const run = own.run_of(row), next = own.begun(row);
    if (run < 0) {
      std::int64_t const at = next < own.count()  ? other[own[next].first].row
                              : other.count() > 0 ? other[other.count() - 1].all_rows().end
                                                  : 0;
      return {static_cast<std::int32_t>(at), static_cast<std::int32_t>(at)};
    }
    RowRun const& of = own[run];
    Range const seen = inner_bound(of.positions({row, row + 1}));
    return {static_cast<std::int32_t>(other.row_at(seen.begin, of.first, of.end)),
            static_cast<std::int32_t>(other.row_at(seen.end, of.first, of.end))};
  }

  RowRuns queries_, keys_;
  // Not [[no_unique_address]]: of what holds it then, nvcc has another layout on the device than on the host.
  Inner inner_ = {};
};
static_assert(LooksElsewhere<PackedRows<>> && BoundedMask<PackedRows<>> &&
              std::is_trivially_copyable_v<PackedRows<>>);

/// What kernels see of packed documents under a mask within them: the sights of all rows, where distance
/// alone decides, so that they rise, with the rule if the mask has one that does not ask where; else the
/// runs.
template <Mask Inner>
inline constexpr bool has_sights = HasReach<Inner>&& HasExactRows<Inner> && !is_placed<Inner>;
template <Mask Inner>
struct PackedViewOf {
  using type = std::conditional_t<has_sights<Inner>, RowSights, PackedRows<Inner>>;
};
template <Mask Inner>
requires(has_sights<Inner>&& HasRule<Inner>) struct PackedViewOf<Inner> {
  using type = Scored<RowSights, RuleOf<Inner>>;
};
template <Mask Inner>
using PackedView = typename PackedViewOf<Inner>::type;

}  // namespace lightseq
