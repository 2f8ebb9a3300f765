// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

#include "lightseq/core/host_device.hpp"
#include "lightseq/core/value.hpp"
#include "lightseq/mask/catalogue.hpp"
#include "lightseq/mask/documents.hpp"
#include "lightseq/mask/intervals.hpp"
#include "lightseq/mask/pairs.hpp"

/// The masks that everything is tested under: those of the catalogue, and some as a user would write them.
namespace lightseq::test {

/// Every query sees the first `prefix` keys, and all up to itself.
struct PrefixLm {
  static constexpr char const* name = "PrefixLm";
  std::int64_t prefix = 0;

  constexpr bool visible(std::int64_t query, std::int64_t key) const { return key <= query || key < prefix; }
  constexpr Cover cover(Range queries, Range keys) const {
    if (keys.begin >= queries.end && keys.begin >= prefix) return Cover::none;
    return keys.end <= queries.begin + 1 || keys.end <= prefix ? Cover::full : Cover::partial;
  }
  constexpr Range keys_of(Range queries) const { return {0, std::max(queries.end, prefix)}; }
  constexpr Range queries_of(Range keys) const {
    return {keys.begin < prefix ? 0 : keys.begin, Range::everything().end};
  }
  constexpr std::int64_t pairs(Range queries, Range keys) const {
    std::int64_t const split = std::clamp(prefix, keys.begin, keys.end);
    Segment const later{split, keys.end - split}, rows{queries.begin, queries.size()};
    return saturated(WideInt{queries.size()} * (split - keys.begin) + *known_pairs(Causal{}, rows, later));
  }
};
static_assert(BoundedMask<PrefixLm> && HasPairs<PrefixLm>);

/// Documents of `length` tokens, one behind the other: a query sees its own document, all of it or, if
/// `causal`, up to itself.
struct EqualDocuments {
  static constexpr char const* name = "EqualDocuments";
  std::int64_t length = 1;
  bool causal = false;

  constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return query / length == key / length && (!causal || key <= query);
  }
  constexpr Cover cover(Range queries, Range keys) const {
    std::int64_t const first_q = queries.begin / length, last_q = (queries.end - 1) / length;
    std::int64_t const first_k = keys.begin / length, last_k = (keys.end - 1) / length;
    if (last_k < first_q || first_k > last_q || (causal && keys.begin >= queries.end)) return Cover::none;
    bool const one = first_q == last_q && first_k == last_k && first_q == first_k;
    return one && (!causal || keys.end <= queries.begin + 1) ? Cover::full : Cover::partial;
  }
  constexpr std::int64_t digest() const { return digest_of(length, causal); }
};
static_assert(Mask<EqualDocuments>);

/// Every query sees the keys that are at least `distance` back, so never itself.
struct FarBack {
  static constexpr char const* name = "FarBack";
  std::int64_t distance = 1;

  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return query - key >= distance;
  }
  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    if (queries.end - 1 - keys.begin < distance) return Cover::none;
    return queries.begin - (keys.end - 1) >= distance ? Cover::full : Cover::partial;
  }
};
static_assert(Mask<FarBack>);

/// Padding: these queries see these keys, up to themselves if `causal`, and all others nothing.
struct Within {
  static constexpr char const* name = "Within";
  Range queries = {}, keys = {};
  std::int64_t causal = 0;

  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return queries.begin <= query && query < queries.end && keys.begin <= key && key < keys.end &&
           (causal == 0 || key <= query);
  }
  LIGHTSEQ_HD constexpr Cover cover(Range q, Range k) const {
    bool const apart = q.end <= queries.begin || queries.end <= q.begin || k.end <= keys.begin ||
                       keys.end <= k.begin || (causal != 0 && q.end <= k.begin);
    return apart ? Cover::none : Cover::partial;
  }
};
static_assert(Mask<Within>);

/// The same with bounds, which are empty where nothing is seen.
struct BoundedWithin : Within {
  static constexpr char const* name = "BoundedWithin";

  LIGHTSEQ_HD constexpr Range keys_of(Range q) const { return queries.touches(q) ? keys : Range{}; }
  LIGHTSEQ_HD constexpr Range queries_of(Range k) const { return keys.touches(k) ? queries : Range{}; }
};
static_assert(BoundedMask<BoundedWithin>);

/// Every query sees the keys about as far before `length` as it is after 0: later queries see earlier keys.
struct Mirrored {
  static constexpr char const* name = "Mirrored";
  std::int64_t length = 1, reach = 0;

  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    std::int64_t const distance = length - 1 - query - key;
    return -reach <= distance && distance <= reach;
  }
  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    return keys_of(queries).touches(keys) ? Cover::partial : Cover::none;
  }
  LIGHTSEQ_HD constexpr Range keys_of(Range queries) const {
    std::int64_t const begin = length - queries.end - reach, end = length - queries.begin + reach;
    return {begin > 0 ? begin : 0, end > 0 ? end : 0};
  }
  LIGHTSEQ_HD constexpr Range queries_of(Range keys) const { return keys_of(keys); }
};
static_assert(BoundedMask<Mirrored>);

/// Values of a mask to test it with.
template <class M>
std::vector<M> samples() {
  if constexpr (MadeToSee<M>) return {M::seeing(1), M::seeing(4), M::seeing(41)};
  return {M{}};
}
template <>
inline std::vector<SlidingWindow> samples<SlidingWindow>() {
  return {{0, 0}, {3, 0}, {40, 0}, {2, 5}};
}
template <>
inline std::vector<PrefixLm> samples<PrefixLm>() {
  return {{10}};
}
template <>
inline std::vector<EqualDocuments> samples<EqualDocuments>() {
  return {{7, false}, {30, true}};
}
template <>
inline std::vector<FarBack> samples<FarBack>() {
  return {{1}, {6}, {40}};
}
template <>
inline std::vector<Within> samples<Within>() {
  return {{{0, 17}, {0, 17}, 1}, {{0, 1000}, {5, 1000}, 1}, {{9, 21}, {3, 40}, 0}};
}
template <>
inline std::vector<BoundedWithin> samples<BoundedWithin>() {
  return {{{{0, 17}, {0, 17}}}, {{{0, 1000}, {5, 1000}}}, {{{9, 21}, {3, 40}}}};
}
template <>
inline std::vector<Mirrored> samples<Mirrored>() {
  return {{40, 3}, {25, 0}, {15, 60}};
}

/// Masks as a user would write them.
using UsersMasks = std::tuple<PrefixLm, EqualDocuments, FarBack, Within>;

/// Calls `f(mask, name)` with every sample of every mask.
template <class F>
void for_each_mask(F f) {
  auto const each = [&]<class M>() {
    for (M const& mask : samples<M>()) f(mask, std::string(name_of<M>()).c_str());
  };
  for_each_type<Masks>(each);
  for_each_type<UsersMasks>(each);
}

/// A mask for a sequence of so many tokens: documents and intervals are cut where it ends.
template <Mask M>
M within(M const& mask, std::int64_t) {
  return mask;
}
template <Mask Inner>
Documents<Inner> within(Documents<Inner> const& documents, std::int64_t seqlen) {
  std::vector<std::int64_t> ends;
  for (std::int64_t const end : documents.ends())
    if (ends.empty() || ends.back() < seqlen) ends.push_back(std::min(end, seqlen));
  return Documents<Inner>(ends, documents.inner());
}

inline Intervals within(Intervals const& intervals, std::int64_t seqlen) {
  std::vector<Intervals::Row> rows;
  for (std::int64_t query = 0; query < seqlen; ++query) {
    auto const [first, second] = intervals.view().row(query);
    rows.push_back({first, second});
    for (Range& range : rows.back()) range = {std::min(range.begin, seqlen), std::min(range.end, seqlen)};
  }
  return Intervals(rows);
}

/// Whether no query sees a later key, as Balanced demands; asked of the first 256 positions.
template <Mask M>
bool is_causal(M const& mask) {
  for (std::int64_t q = 0; q < 256; ++q)
    for (std::int64_t k = q + 1; k < 256; ++k)
      if (mask.visible(q, k)) return false;
  return true;
}

}  // namespace lightseq::test
