// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/mask/pairs.hpp"

/// What makes a mask right.
namespace lightseq::laws {

/// Looks for rectangles of a mask for which cover() answers `none` or `full` against visible(), for those
/// that its bounds leave out against it, and for those whose pairs it counts wrong.
template <Mask M>
class MaskSearch {
 public:
  MaskSearch(M const& mask, std::int64_t positions, std::uint64_t seed)
      : mask_(mask), positions_(std::min(positions, std::int64_t{1} << 62)), random_(seed) {}

  /// See first_fault().
  std::string run() {
    std::int64_t const side = std::min(positions_, block);
    search_block(0, 0, 24);
    for (std::int64_t const q : {std::int64_t{0}, positions_ - side})
      for (std::int64_t const k : {std::int64_t{0}, positions_ - side}) search_block(q, k);
    for (int i = 0; i < blocks; ++i) {
      std::int64_t const q = below(positions_), near = q + below(2 * block) - block;
      search_block(q, near);
      search_block(q, below(positions_));
    }
    for (int i = 0; i < edges; ++i) {
      search_open();
      search_edge();
    }
    search_chunks();
    if constexpr (HasExactRows<M>)
      for (int i = 0; i < samples; ++i) search_row(below(positions_));
    return fault_;
  }

 private:
  static constexpr std::int64_t block = 256;  // positions of the squares in which every pair is asked
  static constexpr int blocks = 12;           // squares of each kind
  static constexpr std::int64_t small_block = 64;
  static constexpr int edges = 150;        // places of each kind at the mask's edge, a small square each
  static constexpr int rectangles = 2000;  // of any size, in a square; a small one has a tenth
  static constexpr int samples = 64;       // pairs of a rectangle that is larger than a square

  struct Pair {
    std::int64_t query = 0, key = 0;
  };

  std::int64_t below(std::int64_t bound) {
    return std::uniform_int_distribution<std::int64_t>(0, std::max<std::int64_t>(0, bound - 1))(random_);
  }
  Range some_of(std::int64_t first, std::int64_t count) {
    std::int64_t const begin = below(count), size = 1 + below(count - begin);
    return {first + begin, first + begin + size};
  }

  /// Who says what a rectangle looks like: of the bounds those that leave it out say `none`, else nothing.
  enum class Judge { cover, keys_of, queries_of, key_ranges_of };
  static constexpr auto judges = [] {
    if constexpr (HasKeyRanges<M>)
      return std::array{Judge::cover, Judge::keys_of, Judge::queries_of, Judge::key_ranges_of};
    else
      return std::array{Judge::cover, Judge::keys_of, Judge::queries_of};
  }();
  Cover said(Judge judge, Range const& queries, Range const& keys) const {
    if (judge == Judge::cover) return mask_.cover(queries, keys);
    bool const open = judge == Judge::keys_of      ? keys_within(mask_, queries).touches(keys)
                      : judge == Judge::queries_of ? queries_within(mask_, keys).touches(queries)
                                                   : key_ranges_within(mask_, queries).touches(keys);
    return open ? Cover::partial : Cover::none;
  }

  /// Looks for keys in the bound of one query that it does not see, where the mask says that there are none,
  /// and for such queries in the bound of one key.
  void search_row(std::int64_t position) {
    if (!fault_.empty()) return;
    Range const row{position, position + 1};
    for (bool const of_query : {true, false}) {
      Range const bound = of_query ? keys_within(mask_, row) : queries_within(mask_, row);
      Range const here{std::max<std::int64_t>(bound.begin, 0), std::min(bound.end, positions_)};
      for (int i = 0; i < 4 && !here.empty(); ++i) {
        std::int64_t const other = i == 0   ? here.begin
                                   : i == 1 ? here.end - 1
                                            : here.begin + below(here.size());
        if (of_query ? mask_.visible(position, other) : mask_.visible(other, position)) continue;
        fault_ = sentence("exact_rows is true, but query ", of_query ? position : other, " does not see key ",
                          of_query ? other : position, ", which lies in ",
                          of_query ? "keys_of" : "queries_of", "([", row.begin, ", ", row.end, "))");
        return;
      }
    }
  }

  /// Whether a pair is what was said of a rectangle around it that none of its pairs were.
  bool contradicts(Cover cover, Pair const& pair) const {
    return cover != Cover::partial && mask_.visible(pair.query, pair.key) == (cover == Cover::none);
  }

  /// Takes note of a contradiction, in the smallest rectangle around it that is judged the same.
  void note(Judge judge, Range queries, Range keys, Cover cover, Pair const& pair) {
    for (std::int64_t step = std::max(queries.size(), keys.size()); step > 0; step /= 2) {
      cut(judge, queries, keys, queries.begin, step, pair.query, cover);
      cut(judge, queries, keys, queries.end, -step, pair.query + 1, cover);
      cut(judge, queries, keys, keys.begin, step, pair.key, cover);
      cut(judge, queries, keys, keys.end, -step, pair.key + 1, cover);
    }
    if (judge == Judge::key_ranges_of) {
      auto const [first, second] = key_ranges_within(mask_, queries);
      fault_ = sentence("key_ranges_of([", queries.begin, ", ", queries.end, ")) are [", first.begin, ", ",
                        first.end, ") and [", second.begin, ", ", second.end, "), but query ", pair.query,
                        " sees key ", pair.key);
      return;
    }
    if (judge != Judge::cover) {
      bool const of_queries = judge == Judge::keys_of;
      Range const of = of_queries ? queries : keys,
                  bound = of_queries ? keys_within(mask_, queries) : queries_within(mask_, keys);
      fault_ = sentence(of_queries ? "keys_of([" : "queries_of([", of.begin, ", ", of.end, ")) is [",
                        bound.begin, ", ", bound.end, "), but query ", pair.query, " sees key ", pair.key);
      return;
    }
    fault_ = sentence("cover([", queries.begin, ", ", queries.end, "), [", keys.begin, ", ", keys.end,
                      ")) is ", cover == Cover::none ? "none" : "full", ", but query ", pair.query,
                      cover == Cover::none ? " sees key " : " does not see key ", pair.key);
  }
  void cut(Judge judge, Range const& queries, Range const& keys, std::int64_t& side, std::int64_t step,
           std::int64_t limit, Cover cover) const {
    for (;;) {
      std::int64_t const before = side;
      side += step;
      bool const inside = step > 0 ? side <= limit : side >= limit;
      if (inside && said(judge, queries, keys) == cover) continue;
      side = before;
      return;
    }
  }

  /// Judges rectangles inside a square: all within its first `all` positions, tiles as kernels cut them, and
  /// any others.
  void search_block(std::int64_t first_q, std::int64_t first_k, std::int64_t all = 8, bool small = false) {
    if (!fault_.empty()) return;
    std::int64_t const side = std::min(positions_, small ? small_block : block);
    first_q_ = std::clamp<std::int64_t>(first_q, 0, positions_ - side);
    first_k_ = std::clamp<std::int64_t>(first_k, 0, positions_ - side);
    side_ = side;
    count_pairs();
    std::int64_t const few = std::min(all, side);
    for (std::int64_t rows = 1; rows <= few; ++rows)
      for (std::int64_t columns = 1; columns <= few; ++columns)
        for (std::int64_t q = 0; q + rows <= few; ++q)
          for (std::int64_t k = 0; k + columns <= few; ++k) judge_inside({q, q + rows}, {k, k + columns});
    for (std::int64_t const rows : tiles)
      for (std::int64_t const columns : tiles)
        for (std::int64_t q = 0; q < side; q += rows)
          for (std::int64_t k = 0; k < side; k += columns)
            judge_inside({q, std::min(side, q + rows)}, {k, std::min(side, k + columns)});
    for (int i = 0; i < (small ? rectangles / 10 : rectangles); ++i)
      judge_inside(some_of(0, side), some_of(0, side));
  }
  static constexpr std::array<std::int64_t, 9> tiles = {16, 32, 48, 64, 80, 96, 112, 128, 192};

  /// Fills below_: how many pairs of the square before a query and a key are visible.
  void count_pairs() {
    below_.assign(static_cast<std::size_t>((side_ + 1) * (side_ + 1)), 0);
    for (std::int64_t q = 0; q < side_; ++q)
      for (std::int64_t k = 0; k < side_; ++k) {
        judge_reach({first_q_ + q, first_k_ + k});
        judge_row({first_q_ + q, first_k_ + k});
        at(q + 1, k + 1) =
            at(q, k + 1) + at(q + 1, k) - at(q, k) + (mask_.visible(first_q_ + q, first_k_ + k) ? 1 : 0);
      }
  }
  std::int32_t& at(std::int64_t q, std::int64_t k) {
    return below_[static_cast<std::size_t>(q * (side_ + 1) + k)];
  }

  /// Judges a rectangle of the square, whose first position is 0 here.
  void judge_inside(Range q, Range k) {
    if (!fault_.empty()) return;
    Range const queries{first_q_ + q.begin, first_q_ + q.end}, keys{first_k_ + k.begin, first_k_ + k.end};
    std::int64_t const visible =
        at(q.end, k.end) - at(q.begin, k.end) - at(q.end, k.begin) + at(q.begin, k.begin);
    if (std::int64_t const counted = pairs(queries, keys).value_or(visible); counted != visible)
      return note_count(queries, keys, counted, visible);
    for (Judge const judge : judges) {
      Cover const cover = said(judge, queries, keys);
      if (cover == Cover::partial || visible == (cover == Cover::none ? 0 : queries.size() * keys.size()))
        continue;
      for (std::int64_t query = queries.begin; query < queries.end; ++query)
        for (std::int64_t key = keys.begin; key < keys.end; ++key)
          if (contradicts(cover, {query, key})) return note(judge, queries, keys, cover, {query, key});
    }
  }

  /// Judges a rectangle of any size by its corners and some of its pairs.
  void judge_samples(Range queries, Range keys) {
    if (!fault_.empty() || queries.empty() || keys.empty()) return;
    judge_parts(queries, keys);
    for (std::int64_t const query : {queries.begin, queries.end - 1})
      for (std::int64_t const key : {keys.begin, keys.end - 1}) judge_reach({query, key});
    for (Judge const judge : judges) {
      Cover const cover = said(judge, queries, keys);
      if (cover == Cover::partial) continue;
      auto const ask = [&](Pair const& pair) {
        if (fault_.empty() && contradicts(cover, pair)) note(judge, queries, keys, cover, pair);
      };
      for (std::int64_t const query : {queries.begin, queries.end - 1})
        for (std::int64_t const key : {keys.begin, keys.end - 1}) ask({query, key});
      for (int i = 0; i < samples; ++i)
        ask({queries.begin + below(queries.size()), keys.begin + below(keys.size())});
    }
  }

  /// How many pairs of a rectangle the mask says that it shows, if it does.
  std::optional<std::int64_t> pairs(Range const& queries, Range const& keys) const {
    return known_pairs(mask_, Segment{queries.begin, queries.size()}, Segment{keys.begin, keys.size()});
  }
  void note_count(Range const& queries, Range const& keys, std::int64_t counted, std::int64_t visible) {
    fault_ = sentence("[", queries.begin, ", ", queries.end, ") x [", keys.begin, ", ", keys.end, ") has ",
                      counted, " pairs by the mask's count, but ", visible, " are visible");
  }

  /// Judges whether the pairs of two parts of a rectangle are those of the whole, as far as 62 bits hold
  /// them.
  void judge_parts(Range const& queries, Range const& keys) {
    std::optional<std::int64_t> const whole = pairs(queries, keys);
    if (!whole || *whole >= std::int64_t{1} << 62) return;
    std::int64_t const cut = queries.begin + below(queries.size());
    std::int64_t const parts = *pairs({queries.begin, cut}, keys) + *pairs({cut, queries.end}, keys);
    if (parts != *whole) note_count(queries, keys, *whole, parts);
  }

  /// Judges whether a pair is visible just where it is in reach.
  void judge_reach(Pair const& pair) {
    if constexpr (HasReach<M>) {
      Reach const reach = mask_.reach();
      bool const within = pair.query - pair.key <= reach.left && pair.key - pair.query <= reach.right;
      if (!fault_.empty() || within == mask_.visible(pair.query, pair.key)) return;
      fault_ = sentence("reach() is ", reach.left, " before and ", reach.right, " after, but query ",
                        pair.query, within ? " does not see key " : " sees key ", pair.key);
    }
  }

  /// Judges whether the pair's row and column show it just where it is visible.
  void judge_row(Pair const& pair) {
    if constexpr (HasRows<M>) {
      bool const visible = mask_.visible(pair.query, pair.key);
      for (bool const of_query : {true, false}) {
        bool const shown = of_query ? mask_.row(pair.query)(pair.key) : mask_.column(pair.key)(pair.query);
        if (!fault_.empty() || shown == visible) continue;
        fault_ = sentence(of_query ? "row(" : "column(", of_query ? pair.query : pair.key, ")(",
                          of_query ? pair.key : pair.query, ") is ", shown ? "true" : "false", ", but query ",
                          pair.query, visible ? " sees key " : " does not see key ", pair.key);
      }
    }
  }

  /// Goes from the whole square of positions to one of its quarters, again and again, rather to those that
  /// cover() leaves open, and searches where it ends: where visible pairs meet hidden ones.
  void search_open() {
    Range queries{0, positions_}, keys{0, positions_};
    while (fault_.empty() && std::max(queries.size(), keys.size()) > small_block) {
      Range next_queries, next_keys;
      for (int tries = 0; tries < 16; ++tries) {
        next_queries = half_of(queries), next_keys = half_of(keys);
        judge_samples(next_queries, next_keys);
        if (mask_.cover(next_queries, next_keys) == Cover::partial) break;
      }
      queries = next_queries, keys = next_keys;
    }
    // The square lies so that whichever pair is left may be anywhere in it.
    auto const shifted = [&](Range const& range) {
      return range.begin + below(small_block) - small_block / 2;
    };
    search_block(shifted(queries), shifted(keys), 6, true);
  }

  /// Searches where a visible pair has a hidden one beside it, whatever cover() says.
  void search_edge() {
    std::int64_t const fixed = below(positions_);
    bool const by_query = below(2) == 0;
    auto const seen = [&](std::int64_t other) {
      return by_query ? mask_.visible(other, fixed) : mask_.visible(fixed, other);
    };
    std::int64_t one = fixed, two = below(positions_);
    for (int tries = 0; tries < 8 && seen(one) == seen(two); ++tries) two = below(positions_);
    while (std::max(one, two) - std::min(one, two) > 1) {
      std::int64_t const middle = one / 2 + two / 2 + (one % 2 + two % 2) / 2;
      (seen(middle) == seen(one) ? one : two) = middle;
    }
    for (std::int64_t const other : {one, two})
      by_query ? judge_corners({other, fixed}) : judge_corners({fixed, other});
    std::int64_t const at_edge = one - below(small_block), beside = fixed - below(small_block);
    by_query ? search_block(at_edge, beside, 6, true) : search_block(beside, at_edge, 6, true);
  }

  /// Judges rectangles of any size that have the pair in a corner: cover() of those is wrong where it
  /// mistakes where the edge lies.
  void judge_corners(Pair const& pair) {
    auto const beside = [&](std::int64_t position) {
      std::int64_t const size = 1 + below(std::int64_t{1} << below(octaves_));
      if (below(2) == 0) return Range{position, position + std::min(size, positions_ - position)};
      return Range{position + 1 - std::min(size, position + 1), position + 1};
    };
    for (int i = 0; i < samples && fault_.empty(); ++i) {
      Range const queries = beside(pair.query), keys = beside(pair.key);
      for (Judge const judge : judges)
        if (Cover const cover = said(judge, queries, keys); contradicts(cover, pair))
          return note(judge, queries, keys, cover, pair);
    }
  }

  Range half_of(Range const& range) {
    std::int64_t const middle = range.begin + range.size() / 2;
    return below(2) == 0 || middle == range.begin ? Range{middle, range.end} : Range{range.begin, middle};
  }

  /// Judges pairs of chunks, as shards are: contiguous ones, and others of any size.
  void search_chunks() {
    for (std::int64_t const chunks : {1, 2, 3, 4, 5, 8, 16})
      for (std::int64_t q = 0; q < chunks; ++q)
        for (std::int64_t k = 0; k < chunks; ++k) judge_samples(chunk(q, chunks), chunk(k, chunks));
    for (int i = 0; i < rectangles; ++i) judge_samples(some_of(0, positions_), some_of(0, positions_));
  }
  Range chunk(std::int64_t index, std::int64_t chunks) const {
    std::int64_t const rows = positions_ / chunks, longer = positions_ % chunks;
    std::int64_t const begin = index * rows + std::min(index, longer);
    return {begin, begin + rows + (index < longer ? 1 : 0)};
  }

  M const& mask_;
  std::int64_t positions_;
  std::mt19937_64 random_;
  std::int64_t octaves_ = static_cast<std::int64_t>(std::bit_width(static_cast<std::uint64_t>(positions_)));
  std::int64_t first_q_ = 0, first_k_ = 0, side_ = 0;  // the square
  std::vector<std::int32_t> below_;
  std::string fault_;
};

/// The first contradiction that is found between a mask's visible() and its cover(), its bounds, its reach()
/// or its pairs(), as a sentence: "cover([0, 8), [8, 16)) is none, but query 3 sees key 9", "keys_of([3, 4))
/// is [0, 3), but query 3 sees key 3"; or what its fault() says. Empty if there is none. A mask of one's own
/// is tested so, with the values and as many positions as it is used with, at least 1. Small rectangles, and
/// those of tiles, shards and any other size at places of all kinds, are judged pair by pair up to 256 x 256
/// and by samples beyond: some 4 million questions however many positions there are. `seed` chooses the
/// places; a test that gives another each time finds more.
template <Mask M>
std::string first_fault(M const& mask, std::int64_t positions, std::uint64_t seed = 1) {
  if (positions < 1) fail("a mask is tested with ", positions, " positions, it must be at least 1");
  if (std::string fault = fault_of(mask); !fault.empty()) return fault;
  return MaskSearch<M>(mask, positions, seed).run();
}

}  // namespace lightseq::laws
