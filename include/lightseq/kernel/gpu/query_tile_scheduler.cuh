// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>
#include <span>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/launch_limits.hpp"
#include "lightseq/mask/data.hpp"
#include "lightseq/mask/mask.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// What schedulers read of a call: ForwardCall, BackwardCall.
template <class Call>
concept AttentionCall = requires(Call const& call) {
  { call.queries } -> std::convertible_to<Positions const&>;
  { call.keys } -> std::convertible_to<Positions const&>;
  { call.batch } -> std::convertible_to<std::int64_t>;
  { call.heads } -> std::convertible_to<std::int64_t>;
  { call.kv_heads } -> std::convertible_to<std::int64_t>;
};

/// Where a query tile lies.
struct TilePlace {
  int segment = 0, first = 0;  ///< segment, and row in it
  int head = 0, batch = 0;
};

/// The order in which a launch takes its query tiles, and how many there are.
struct QueryTileScheduler {
  int heads = 0, group = 0;  ///< query heads, and how many of them share a key/value head
  int batch_heads = 0;
  int section = 0;      ///< batches x heads whose tiles are taken together
  int query_tiles = 0;  ///< of one batch and head
  int tiles = 0;        ///< of all of them

  /// Where tile `index` lies. Long query tiles tend to come last in a shard and are taken first.
  __device__ __forceinline__ TilePlace locate(int index, int rows_of_first, int query_rows) const {
    int const per_section = section * query_tiles;
    int const number_of_section = index / per_section, rest = index % per_section;
    int const heads_here = min(section, batch_heads - number_of_section * section);
    int const batch_head = number_of_section * section + rest % heads_here;
    int const number = query_tiles - 1 - rest / heads_here;
    int const in_first = (rows_of_first + query_rows - 1) / query_rows;
    int const segment = number < in_first ? 0 : 1;
    return {segment, (number - segment * in_first) * query_rows, batch_head % heads, batch_head / heads};
  }

  /// The order of a call's tiles of `query_rows` queries.
  template <AttentionCall Call, Mask M>
  static Status make(QueryTileScheduler& order, Call const& call, M const& mask, int head_dim,
                     int query_rows) {
    return make(order, call, std::span(&call.keys, 1), mask, head_dim, query_rows);
  }

  /// The same where these keys take the place of the call's.
  template <AttentionCall Call, Mask M>
  static Status make(QueryTileScheduler& order, Call const& call, std::span<Positions const> chunks,
                     M const& mask, int head_dim, int query_rows) {
    bool uneven = false;
    std::int64_t key_rows = 0;
    for (Positions const& positions : chunks) {
      key_rows += positions.rows();
      for (Segment const& queries : call.queries.segments)
        for (Segment const& keys : positions.segments)
          if (queries.rows > 0 && keys.rows > 0)
            uneven |= cover_at_launch(mask, queries.hull(), keys.hull()) != Cover::full;
    }
    // Even tiles: one head after another. Uneven ones: the long ones of many heads first, but of no more
    // heads than keep their keys and values in the L2 cache, 32 MB of them.
    std::int64_t const head_bytes = std::max<std::int64_t>(1, key_rows * head_dim * 4);
    std::int64_t const batch_heads = call.batch * call.heads, group = call.heads / call.kv_heads;
    std::int64_t kv_heads = 1;
    while (uneven && kv_heads * 2 * head_bytes <= 32'000'000 && kv_heads * group < batch_heads) kv_heads *= 2;
    std::int64_t query_tiles = 0;
    for (Segment const& queries : call.queries.segments)
      query_tiles += (queries.rows + query_rows - 1) / query_rows;
    constexpr std::int64_t most = max_launch_tiles;
    if (query_tiles > most / batch_heads)
      return {.code = Code::too_large,
              .subject = "queries",
              .other = "tile count",
              .have = query_tiles * batch_heads,
              .need = most};
    order = {
        static_cast<int>(call.heads),  static_cast<int>(group),
        static_cast<int>(batch_heads), static_cast<int>(uneven ? std::min(kv_heads * group, batch_heads) : 1),
        static_cast<int>(query_tiles), static_cast<int>(query_tiles * batch_heads)};
    return {};
  }
};

/// Whether a tensor of this shape lets its rows be read and written in units of `unit` elements. The stride
/// of a single batch or head means nothing and may be anything.
template <class T>
Status check_aligned(Tensor<T> const& tensor, Shape const& shape, std::int64_t unit, char const* name) {
  auto const misaligned = [&](char const* what, std::int64_t have, std::int64_t need) {
    return Status{.code = Code::misaligned, .subject = name, .other = what, .have = have, .need = need};
  };
  Strides const& strides = tensor.strides;
  if (strides.token % unit != 0) return misaligned("token stride", strides.token, unit);
  if (shape.heads > 1 && strides.head % unit != 0) return misaligned("head stride", strides.head, unit);
  if (shape.batch > 1 && strides.batch % unit != 0) return misaligned("batch stride", strides.batch, unit);
  std::int64_t const bytes = unit * std::int64_t{sizeof(T)};
  auto const rest = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(tensor.data) %
                                              static_cast<std::uintptr_t>(bytes));
  return rest == 0 ? Status{} : misaligned("address", rest, bytes);
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
