// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/query_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/segment.cuh"
#include "lightseq/mask/data.hpp"
#include "lightseq/mask/mask.hpp"

/// In which order the backward kernels take tiles of keys, and for each of them tiles of queries.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// What is read of a backward call about the gradients of queries: BackwardCall.
template <class Call>
concept BackwardAttentionCall = AttentionCall<Call> && requires(Call const& call) {
  call.dq;
  call.dq_out;
  { call.dq_zero } -> std::convertible_to<bool>;
};

/// The order in which a launch takes its key tiles, and how many there are.
struct KeyTileScheduler {
  int kv_heads = 0, group = 0;  ///< key/value heads, and how many query heads share one
  int batch_heads = 0;          ///< batches x key/value heads
  int section = 0;              ///< batches x key/value heads whose tiles are taken together
  int key_tiles = 0;            ///< of one batch and head
  int tiles = 0;                ///< of all of them
  int from_last = 0;            ///< in so many tiles, the first ones, a head's last keys come first

  /// The number in its batch and head of the key tile that is taken at `turn`, and the other way round.
  __device__ __forceinline__ int number_at(int turn, bool last) const {
    return last ? key_tiles - 1 - turn : turn;
  }
  __device__ __forceinline__ int number_at(int turn) const { return number_at(turn, from_last > 0); }

  /// The turn in its batch and head of tile `index`.
  __device__ __forceinline__ int turn(int index) const {
    int const per_section = section * key_tiles;
    int const number_of_section = index / per_section;
    return index % per_section / heads_in(number_of_section);
  }

  /// Where tile `index` lies.
  __device__ __forceinline__ TilePlace locate(int index, int rows_of_first, int key_rows) const {
    int const per_section = section * key_tiles;
    int const number_of_section = index / per_section, rest = index % per_section;
    int const batch_head = number_of_section * section + rest % heads_in(number_of_section);
    TilePlace place = place_of(number_at(turn(index), index < from_last), rows_of_first, key_rows);
    place.head = batch_head % kv_heads, place.batch = batch_head / kv_heads;
    return place;
  }

  /// The segment and row where tile `number` of a head lies.
  __device__ __forceinline__ static TilePlace place_of(int number, int rows_of_first, int key_rows) {
    int const in_first = (rows_of_first + key_rows - 1) / key_rows;
    int const segment = number < in_first ? 0 : 1;
    return {segment, (number - segment * in_first) * key_rows};
  }

  /// The order of a call's tiles of `key_rows` keys, `at_once` of which are worked on at a time. Where the
  /// gradients of queries are added up in the order of the key tiles (`in_turns`), key tiles that fewer
  /// queries see come first: each tile then finds the parts that it waits for done, if it takes the queries
  /// in their order. With `turns_back` the last section goes the other way, from the first keys and the last
  /// queries on: its longest tiles would otherwise come last and leave most multiprocessors idle.
  template <AttentionCall Call, Mask M>
  static Status make(KeyTileScheduler& order, Call const& call, M const& mask, int head_dim, int key_rows,
                     int at_once, bool in_turns, bool turns_back = false) {
    bool uneven = false;
    std::int64_t key_tiles = 0;
    for (Segment const& keys : call.keys.segments) {
      key_tiles += (keys.rows + key_rows - 1) / key_rows;
      for (Segment const& queries : call.queries.segments)
        if (queries.rows > 0 && keys.rows > 0)
          uneven |= cover_at_launch(mask, queries.hull(), keys.hull()) != Cover::full;
    }
    // Even tiles: one head after another. Uneven ones: the long ones of many heads first, but of no more
    // heads than are begun together, or keep their queries and gradients in the L2 cache, 40 MB of them; in
    // turns half as much, as measured fastest.
    std::int64_t const group = call.heads / call.kv_heads, batch_heads = call.batch * call.kv_heads;
    std::int64_t const head_bytes = std::max<std::int64_t>(1, call.queries.rows() * group * head_dim * 8);
    std::int64_t const most_bytes = in_turns && uneven ? 20'000'000 : 40'000'000;
    std::int64_t section = 1;
    while ((uneven || in_turns) && section < batch_heads &&
           (section * 2 * key_tiles <= at_once || section * 2 * head_bytes <= most_bytes))
      section *= 2;
    constexpr std::int64_t most = max_launch_tiles;
    if (key_tiles > most / std::max<std::int64_t>(1, batch_heads))
      return {.code = Code::too_large,
              .subject = "keys",
              .other = "tile count",
              .have = key_tiles * batch_heads,
              .need = most};
    std::int64_t const last_section = std::max<std::int64_t>(0, batch_heads - 1) / section * section;
    std::int64_t const from_last = !in_turns || !uneven ? 0 : turns_back ? last_section : batch_heads;
    order = {static_cast<int>(call.kv_heads),
             static_cast<int>(group),
             static_cast<int>(batch_heads),
             static_cast<int>(std::min(section, batch_heads)),
             static_cast<int>(key_tiles),
             static_cast<int>(key_tiles * batch_heads),
             static_cast<int>(key_tiles * from_last)};
    return {};
  }

  /// The section that tile `index` belongs to, and the batches x key/value heads of one.
  __device__ __forceinline__ int section_of(int index) const { return index / (section * key_tiles); }
  __device__ __forceinline__ int heads_in(int number_of_section) const {
    return min(section, batch_heads - number_of_section * section);
  }
};

/// The tiles of `QueryRows` queries that see some keys, from the first to the last or `backwards`. A whole
/// warp walks, and asks the mask about 32 tiles at a time of those within its bounds. Keys is what a Range
/// can be made from.
template <int QueryRows, Mask M, std::convertible_to<Range> Keys = Range>
struct QueryTileIterator {
  M const& mask;
  LaunchSegment const* queries;  ///< two segments
  Keys keys;
  bool backwards = false;
  int segment = -1;  ///< the current tile's
  int first = 0;     ///< the current tile's first row in `segment`
  bool cut = false;  ///< whether the mask hides some of the current tile
  int tiles = 0;     ///< of the segment, that the mask has yet to be asked about
  int scanned = 0;   ///< bit i of the two below is tile scanned + i
  unsigned visible = 0, partial = 0;

  /// Goes to the next tile, if there is one.
  __device__ __forceinline__ bool next() {
    while (visible == 0)
      if (!scan()) return false;
    int const bit = backwards ? 31 - __clz(static_cast<int>(visible)) : __ffs(static_cast<int>(visible)) - 1;
    visible &= ~(1u << bit);
    first = (scanned + bit) * QueryRows;
    cut = (partial >> bit & 1) != 0;
    return true;
  }

  /// Goes to the next tile of which the mask hides some, if there is one.
  __device__ __forceinline__ bool next_cut() {
    do {
      visible &= partial;
    } while (visible == 0 && scan());
    return visible != 0 && next();
  }

  /// The tiles to come: how many there are, and which of them, from `begin` to before `end`, are the first in
  /// a row of which the mask hides nothing.
  struct Count {
    int tiles, whole_begin, whole_end;
  };
  __device__ __forceinline__ Count count() {
    Count sum{};
    bool begun = false, ended = false;
    while (scan()) {
      // Bit i is tile i on the way, from the lowest.
      unsigned const seen = backwards ? __brev(visible) : visible;
      unsigned const part = backwards ? __brev(partial) : partial;
      unsigned open = ~0u;  // not yet judged
      if (!begun) {
        unsigned const before = below(seen & ~part);
        sum.whole_begin += __popc(seen & before);
        sum.whole_end = sum.whole_begin;
        begun = before != ~0u;
        open = ~before;
      }
      if (begun && !ended) {
        unsigned const before = below(seen & part & open);
        sum.whole_end += __popc(seen & open & before);
        ended = before != ~0u;
      }
      sum.tiles += __popc(seen);
    }
    return sum;
  }

 private:
  /// The bits below the lowest one of `bits`; all where there is none.
  __device__ __forceinline__ static unsigned below(unsigned bits) { return ~bits & (bits - 1); }

  /// queries_within(), which the host calls too: there nvcc only warns of a mask's function that is the
  /// host's.
  __device__ __forceinline__ Range bound() const {
    if constexpr (is_bounded<M>)
      return mask.queries_of(Range(keys));
    else
      return Range::everything();
  }

  __device__ __forceinline__ bool scan() {
    while (tiles <= 0) {
      if (segment == (backwards ? 0 : 1)) return false;
      segment = segment < 0 ? (backwards ? 1 : 0) : 1 - segment;
      TileSpan<int> const within = queries[segment].tiles_within(QueryRows, bound());
      tiles = within.size(), scanned = backwards ? within.end : within.begin - 32;
    }
    scanned += backwards ? -32 : 32;
    int const lane = static_cast<int>(threadIdx.x) % 32, row = (scanned + lane) * QueryRows;
    int const rows = min(QueryRows, queries[segment].count - row);
    bool const asked = backwards ? lane >= 32 - tiles : lane < tiles;
    tiles -= 32;
    Cover const cover =
        asked ? cover_within(mask, queries[segment].hull(row, rows), Range(keys)) : Cover::none;
    visible = __ballot_sync(~0u, cover != Cover::none);
    // The rows that a short tile lacks are hidden too: zeros times a key that is not finite are NaN.
    partial = __ballot_sync(~0u, cover == Cover::partial || (cover == Cover::full && rows < QueryRows));
    return true;
  }
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
