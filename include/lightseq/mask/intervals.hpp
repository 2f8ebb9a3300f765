// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/core/document_ends.hpp"
#include "lightseq/core/error.hpp"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/data.hpp"
#include "lightseq/mask/interval_runs.hpp"
#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// Two ranges of keys a query: what Intervals is, over runs that lie elsewhere.
class IntervalsView {
 public:
  static constexpr bool looks_elsewhere = true;

  IntervalsView() = default;

  /// `rows` runs of queries, whose ranges are of keys, and after them `columns` runs of keys, whose first
  /// range reaches from the first query that sees the key to the last one. The first run of each begins at 0.
  LIGHTSEQ_HD constexpr IntervalsView(IntervalRun const* runs, int rows, int columns)
      : rows_(runs, rows), columns_(runs + rows, columns) {}

  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const { return row(query)(key); }

  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    bool none = true, full = true;
    rows_.for_each(queries, [&](IntervalRun const& run, std::int64_t first, std::int64_t last) {
      bool seen = false, all = false;
      for (int which = 0; which < 2; ++which) {
        Range const common = run.of_all(which, first, last);
        seen |= run.of_any(which, first, last).touches(keys);
        all |= common.begin <= keys.begin && keys.end <= common.end;
      }
      none &= !seen, full &= all;
      return none || full;
    });
    return none ? Cover::none : full ? Cover::full : Cover::partial;
  }

  LIGHTSEQ_HD constexpr Range keys_of(Range queries) const { return rows_.of_any(queries).hull(); }
  LIGHTSEQ_HD constexpr RangePair key_ranges_of(Range queries) const { return rows_.of_any(queries); }
  LIGHTSEQ_HD constexpr Range queries_of(Range keys) const { return columns_.of_any(keys).hull(); }

  /// The keys that one query sees.
  struct RowAnswer {
    Range first, second;
    LIGHTSEQ_HD constexpr bool operator()(std::int64_t key) const {
      return first.contains(key) || second.contains(key);
    }
  };
  LIGHTSEQ_HD constexpr RowAnswer row(std::int64_t query) const {
    IntervalRun const& run = rows_.at(query);
    return {run.range(0, query), run.range(1, query)};
  }

  /// The queries that see one key.
  struct ColumnAnswer;
  LIGHTSEQ_HD constexpr ColumnAnswer column(std::int64_t key) const;

 private:
  IntervalRuns rows_, columns_;
};

struct IntervalsView::ColumnAnswer {
  Range range;
  bool whole;  ///< all queries of the range see the key
  std::int64_t key;
  IntervalsView mask;
  LIGHTSEQ_HD constexpr bool operator()(std::int64_t query) const {
    return range.contains(query) && (whole || mask.visible(query, key));
  }
};

LIGHTSEQ_HD constexpr IntervalsView::ColumnAnswer IntervalsView::column(std::int64_t key) const {
  IntervalRun const& run = columns_.at(key);
  return {run.range(0, key), run.whole(), key, *this};
}

/// Each query sees the keys of two ranges of its own: prefixes that several documents share, blocks that see
/// earlier blocks, windows beside a few first tokens, and most masks that are published. Neighbouring queries
/// whose bounds stay or move on by 1 alike are kept together, as a run: about one a document, of 24 bytes,
/// and as many for the columns. All answers are exact. They take a search among the runs, O(log runs), and a
/// step for each run of the positions that are asked about. To construct one takes time in proportion to the
/// rows.
class Intervals {
 public:
  using View = IntervalsView;

  /// The keys that one query sees: two ranges in any order, which may overlap. Either may be empty.
  using Row = std::array<Range, 2>;

  /// Row i is for the query at position i; queries after the last row see nothing, and rows beyond the
  /// sequence must not see anything either. Throws Error, with the row and the numbers, where a range ends
  /// before it begins or is not within the rows, or where there are none.
  explicit Intervals(std::span<Row const> rows) {
    build(std::ssize(rows), [&](std::int64_t row) { return rows[static_cast<std::size_t>(row)]; });
  }

  /// The same from a tensor [rows, 2 ranges, begin and end].
  explicit Intervals(std::span<std::int64_t const> bounds) { build(bounds); }
  explicit Intervals(std::span<std::int32_t const> bounds) { build(bounds); }

  /// Documents one after another, causal each. Document d sees all of document `prefixes[d]` as well, an
  /// earlier one, or itself if that is d; without `prefixes` all see the first one. So answers share a
  /// prompt.
  static Intervals shared_prefix(DocumentEnds const& ends, std::span<std::int32_t const> prefixes = {}) {
    check(ends, "shared_prefix");
    if (!prefixes.empty()) check_prefixes(ends, prefixes, "shared_prefix");
    for (std::size_t d = 0; d < prefixes.size(); ++d)
      if (prefixes[d] < 0 || prefixes[d] > static_cast<std::int64_t>(d))
        fail("Intervals::shared_prefix: document ", d, " has document ", prefixes[d],
             " for its prefix, it must be an earlier one or itself");
    return Intervals(ends.tokens(), [&](std::int64_t query) {
      std::int64_t const document = ends.document_of(query),
                         prefix = prefixes.empty() ? 0 : prefixes[static_cast<std::size_t>(document)];
      Range const own{ends.begin(document), query + 1};
      return Row{own, prefix == document ? Range{} : Range{ends.begin(prefix), ends.end(prefix)}};
    });
  }

  /// `rows` tokens in blocks of `block` tokens: each sees its own block and all earlier ones.
  static Intervals block_causal(std::int64_t block, std::int64_t rows) {
    if (block < 1) fail("Intervals::block_causal: a block has ", block, " tokens, it must have at least 1");
    return Intervals(rows, [&](std::int64_t query) {
      std::int64_t const begin = query / block * block;
      return Row{Range{0, rows - begin < block ? rows : begin + block}};
    });
  }

  /// Documents one after another, causal each, but all tokens of document d see its first `prefixes[d]`.
  static Intervals prefix_lm(DocumentEnds const& ends, std::span<std::int32_t const> prefixes) {
    check(ends, "prefix_lm");
    check_prefixes(ends, prefixes, "prefix_lm");
    for (std::size_t d = 0; d < prefixes.size(); ++d)
      if (std::int64_t const length = ends.length(static_cast<std::int64_t>(d));
          prefixes[d] < 0 || prefixes[d] > length)
        fail("Intervals::prefix_lm: document ", d, " has ", length, " tokens, but a prefix of ", prefixes[d]);
    return Intervals(ends.tokens(), [&](std::int64_t query) {
      std::int64_t const document = ends.document_of(query), begin = ends.begin(document);
      std::int64_t const prefix = begin + prefixes[static_cast<std::size_t>(document)];
      return Row{Range{begin, query < prefix ? prefix : query + 1}};
    });
  }

  /// The queries up to the last one that sees a key.
  std::int64_t rows() const { return runs_[static_cast<std::size_t>(row_runs_ - 1)].begin; }

  /// The same mask over this one's own runs.
  View view() const { return over(runs_.data()); }

  bool visible(std::int64_t query, std::int64_t key) const { return view().visible(query, key); }
  Cover cover(Range queries, Range keys) const { return view().cover(queries, keys); }
  Range keys_of(Range queries) const { return view().keys_of(queries); }
  RangePair key_ranges_of(Range queries) const { return view().key_ranges_of(queries); }
  Range queries_of(Range keys) const { return view().queries_of(keys); }

  std::span<std::byte const> data() const { return std::as_bytes(std::span(runs_)); }
  View view(std::byte const* data) const { return over(reinterpret_cast<IntervalRun const*>(data)); }

  std::int64_t digest() const {
    return digest_of(std::span(runs_).first(static_cast<std::size_t>(row_runs_)));
  }
  void name_values(Fingerprint& fingerprint) const {
    fingerprint.add("the last query that sees a key", rows() - 1);
  }

  /// Which query or key is beyond the sequence.
  std::string fault(std::int64_t seqlen) const {
    std::int64_t const keys = keys_of({0, rows()}).end;
    if (rows() > seqlen)
      return sentence("Intervals: query ", rows() - 1, " sees keys, but the sequence has ", seqlen,
                      " tokens");
    if (keys > seqlen)
      return sentence("Intervals: key ", keys - 1, " is seen, but the sequence has ", seqlen, " tokens");
    return {};
  }

 private:
  template <std::invocable<std::int64_t> RowOf>
  Intervals(std::int64_t rows, RowOf const& row_of) {
    build(rows, row_of);
  }

  View over(IntervalRun const* runs) const {
    return {runs, row_runs_, static_cast<int>(std::ssize(runs_)) - row_runs_};
  }

  static void check(DocumentEnds const& ends, char const* builder) {
    constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
    if (Text const fault = ends.fault(most, most); !fault.empty())
      fail("Intervals::", builder, ": ", fault.view());
  }
  static void check_prefixes(DocumentEnds const& ends, std::span<std::int32_t const> prefixes,
                             char const* builder) {
    if (std::ssize(prefixes) != ends.count())
      fail("Intervals::", builder, ": there are ", ends.count(), " documents, but ", prefixes.size(),
           " prefixes");
  }

  /// Joins ranges that overlap or touch; the first one is empty only if both are.
  static Row ordered(Row row) {
    for (Range& range : row)
      if (range.empty()) range = {};
    auto& [first, second] = row;
    if (first.empty() || (!second.empty() && second.begin < first.begin)) std::swap(first, second);
    if (!second.empty() && second.begin <= first.end) first = first.joined(std::exchange(second, Range{}));
    return row;
  }

  static void check(Row const& row, std::int64_t query, std::int64_t rows) {
    for (Range const& range : row) {
      if (range.begin > range.end)
        fail("Intervals: a range of row ", query, " begins at key ", range.begin, ", but ends at key ",
             range.end);
      if (range.begin < 0) fail("Intervals: a range of row ", query, " begins at key ", range.begin);
      if (range.end > rows)
        fail("Intervals: a range of row ", query, " ends at key ", range.end, ", but there are ", rows,
             " rows");
    }
  }

  template <std::integral Int>
  void build(std::span<Int const> bounds) {
    if (bounds.size() % IntervalRun::bounds != 0)
      fail("Intervals: there are ", bounds.size(), " bounds, but a row has ", IntervalRun::bounds);
    build(std::ssize(bounds) / IntervalRun::bounds, [&](std::int64_t row) {
      auto const own = bounds.subspan(static_cast<std::size_t>(row) * IntervalRun::bounds);
      return Row{Range{own[0], own[1]}, Range{own[2], own[3]}};
    });
  }

  template <std::invocable<std::int64_t> RowOf>
  void build(std::int64_t rows, RowOf const& row_of) {
    if (rows < 1) fail("Intervals: the list of rows is empty");
    if (rows > IntervalRunWriter::most)
      fail("Intervals: there are ", rows, " rows, it must be at most ", IntervalRunWriter::most);
    IntervalRunWriter runs;
    for (std::int64_t query = 0; query < rows; ++query) {
      Row const row = row_of(query);
      check(row, query, rows);
      auto const [first, second] = ordered(row);
      runs.add(first, second);
    }
    runs_ = runs.finish();
    row_runs_ = static_cast<int>(std::ssize(runs_));
    add_columns();
  }

  /// Calls `f(query, range)` with each range of each query, in their order or backwards.
  template <class F>
  void for_each_range(bool backwards, F const& f) const {
    std::int64_t const end = rows();
    for (std::int64_t i = 0; i < end; ++i) {
      std::int64_t const query = backwards ? end - 1 - i : i;
      auto const [first, second] = view().row(query);
      for (Range const& range : {first, second})
        if (!range.empty()) f(query, range);
    }
  }

  /// For each key the first query that sees it, or, backwards, the last one; -1 if none does.
  std::vector<std::int64_t> seen_by(std::int64_t keys, bool backwards) const {
    std::vector<std::int64_t> seen(static_cast<std::size_t>(keys), -1);
    std::vector<std::int64_t> next(seen.size() + 1);  // towards the next key without a query
    std::iota(next.begin(), next.end(), 0);
    auto const unseen = [&](std::int64_t key) {
      auto at = static_cast<std::size_t>(key);
      while (next[at] != static_cast<std::int64_t>(at))
        at = static_cast<std::size_t>(next[at] = next[static_cast<std::size_t>(next[at])]);
      return static_cast<std::int64_t>(at);
    };
    for_each_range(backwards, [&](std::int64_t query, Range const& range) {
      for (std::int64_t key = unseen(range.begin); key < range.end; key = unseen(key)) {
        seen[static_cast<std::size_t>(key)] = query;
        next[static_cast<std::size_t>(key)] = key + 1;
      }
    });
    return seen;
  }

  /// For each key how many queries see it, as the difference from the key before.
  std::vector<std::int64_t> changes(std::int64_t keys) const {
    std::vector<std::int64_t> changes(static_cast<std::size_t>(keys) + 1, 0);
    for_each_range(false, [&](std::int64_t, Range const& range) {
      ++changes[static_cast<std::size_t>(range.begin)];
      --changes[static_cast<std::size_t>(range.end)];
    });
    return changes;
  }

  void add_columns() {
    std::int64_t const keys = view().keys_of({0, rows() + 1}).end;
    std::vector<std::int64_t> const first = seen_by(keys, false), last = seen_by(keys, true),
                                    change = changes(keys);
    IntervalRunWriter columns;
    std::int64_t count = 0;
    for (std::size_t key = 0; key < first.size(); ++key) {
      count += change[key];
      Range const queries = count == 0 ? Range{} : Range{first[key], last[key] + 1};
      columns.add(queries, {}, count == queries.size());
    }
    std::vector<IntervalRun> const runs = columns.finish();
    runs_.insert(runs_.end(), runs.begin(), runs.end());
  }

  std::vector<IntervalRun> runs_;  ///< of the rows, then of the columns
  int row_runs_ = 0;
};
static_assert(HasData<Intervals> && HasFaultIn<Intervals> && HasKeyRanges<Intervals> &&
              HasKeyRanges<IntervalsView> && HasRows<IntervalsView> && Comparable<Intervals> &&
              NamesValues<Intervals>);

}  // namespace lightseq
