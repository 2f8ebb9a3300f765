// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <limits>
#include <new>
#include <numbers>
#include <optional>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/host/pack.hpp"
#include "lightseq/kernel/merge.hpp"
#include "lightseq/kernel/sink.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/score.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace host {

/// The head dims that the host kernels serve: multiples of 8, from 8 to 256.
constexpr bool serves_head_dim(int head_dim) { return head_dim >= 8 && head_dim <= 256 && head_dim % 8 == 0; }

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float log2e = std::numbers::log2e_v<float>;

/// A scale as a product of two numbers of about its root's size, so that one of any size takes no product out
/// of range. `power` is a power of two: it rounds nothing.
struct ScaleFactors {
  float power, rest;

  explicit ScaleFactors(float scale) {
    int exponent = 0;
    std::frexp(scale, &exponent);
    power = std::ldexp(1.0f, exponent / 2);
    rest = scale / power;
  }
};

/// The factor on q.k, besides the scale, that gives exponents of 2; rules take
/// natural scores.
template <Mask M>
inline constexpr float exponent_factor = HasRule<M> ? 1 : log2e;

/// Calls f(visible, i * Columns + j) for row i of `rows` and row j of `columns`: Row{mask, position of i}
/// says of the position of j whether it is.
template <int Columns, class Row, Mask M, class F>
void for_each_pair(M const& mask, ShardTile const& rows, ShardTile const& columns, F const& f) {
  for (int i = 0; i < rows.rows; ++i) {
    Row const visible{mask, rows.positions.position(i)};
    for (int j = 0; j < columns.rows; ++j) f(visible(columns.positions.position(j)), i * Columns + j);
  }
}

/// The forward pass. A group of query tiles is kept, transposed, with its running softmax; tiles of keys and
/// values come past. Scores are [key, query], so that a vector holds one key's scores of neighbouring queries
/// and the softmax needs no sum across a vector. Query tiles of all heads that share a key/value head are
/// in one list, so that each of these keys is packed once for all of them.
template <int HeadDim, int Width, Element T, class Result, Mask M>
class Forward {
  static constexpr Tiling tile = forward_tiling();
  static constexpr int columns = round_up(HeadDim, Width);
  static_assert(fits<Width>(tile));

  using Rows = Matrix<pitch<HeadDim>>;         // [row, dim]
  using Transposed = Matrix<tile.stationary>;  // [dim or key, query]

 public:
  /// A kept tile of queries. Logarithms are to base 2: `top` is the largest score so far.
  struct alignas(128) Kept {
    float queries[HeadDim * tile.stationary];   ///< [dim, query], times scale.rest * exponent_factor
    float o[tile.stationary * pitch<HeadDim>];  ///< [query, dim], to be divided by `sum`
    float top[tile.stationary];
    float sum[tile.stationary];
  };
  struct alignas(128) Scratch {
    Kept kept[tile.group];
    float k[tile.streaming * pitch<HeadDim>];  ///< times scale.power
    float v[tile.streaming * pitch<HeadDim>];
    float scores[tile.streaming * tile.stationary];  ///< [key, query]
  };

  Forward(ForwardCall<T, Result> const& call, M const& mask, std::byte* scratch)
      : call_(call.resolved(HeadDim)),
        mask_(mask),
        scale_(call.scale),
        scratch_(*::new (static_cast<void*>(scratch)) Scratch) {}

  void run() {
    std::int64_t const items = call_.heads / call_.kv_heads * tiles_of(call_.queries, tile.stationary);
    for (std::int64_t batch = 0; batch < call_.batch; ++batch)
      for (std::int64_t kv_head = 0; kv_head < call_.kv_heads; ++kv_head)
        for (std::int64_t item = 0; item < items; item += tile.group)
          attend_group(batch, kv_head, item,
                       static_cast<int>(std::min<std::int64_t>(tile.group, items - item)));
  }

 private:
  struct Item {
    std::int64_t head;
    ShardTile queries;
  };

  void attend_group(std::int64_t batch, std::int64_t kv_head, std::int64_t first, int count) {
    Item items[tile.group];
    std::int64_t const query_tiles = tiles_of(call_.queries, tile.stationary);
    RangePair bound;
    for (int i = 0; i < count; ++i) {
      std::int64_t const head = kv_head * (call_.heads / call_.kv_heads) + (first + i) / query_tiles;
      items[i] = {head, tile_at(call_.queries, tile.stationary, (first + i) % query_tiles)};
      begin(batch, items[i], scratch_.kept[i]);
      bound = bound.joined(key_ranges_within(mask_, items[i].queries.positions.hull()));
    }
    TileSpanPair<std::int64_t> const tiles = apart(tiles_within(call_.keys, tile.streaming, bound.first),
                                                   tiles_within(call_.keys, tile.streaming, bound.second));
    attend_tiles(batch, kv_head, items, count, tiles.first);
    attend_tiles(batch, kv_head, items, count, tiles.second);
    for (int i = 0; i < count; ++i) finish(batch, items[i], scratch_.kept[i]);
  }

  void attend_tiles(std::int64_t batch, std::int64_t kv_head, Item const* items, int count,
                    TileSpan<std::int64_t> const& key_tiles) {
    for (std::int64_t t = key_tiles.begin; t < key_tiles.end; ++t)
      attend_keys(batch, kv_head, items, count, tile_at(call_.keys, tile.streaming, t));
  }

  /// One key tile for all of a group that see some of it.
  void attend_keys(std::int64_t batch, std::int64_t kv_head, Item const* items, int count,
                   ShardTile const& keys) {
    bool packed = false;
    std::optional<bool> finite;  // values, which matters where pairs are hidden
    for (int i = 0; i < count; ++i) {
      Cover const cover = mask_.cover(items[i].queries.positions.hull(), keys.positions.hull());
      if (cover == Cover::none) continue;
      if (!packed) pack_keys(batch, kv_head, keys);
      packed = true;
      if (cover == Cover::full)
        attend(scratch_.kept[i], items[i], keys);
      else
        attend_visible(scratch_.kept[i], items[i], keys, finite);
    }
  }

  void pack_keys(std::int64_t batch, std::int64_t kv_head, ShardTile const& keys) {
    pack<HeadDim, tile.streaming>(keys.rows, call_.k.at(batch, keys.first, kv_head), call_.k.strides.token,
                                  scale_.power, scratch_.k);
    pack<HeadDim, tile.streaming>(keys.rows, call_.v.at(batch, keys.first, kv_head), call_.v.strides.token, 1,
                                  scratch_.v);
  }

  void begin(std::int64_t batch, Item const& item, Kept& kept) {
    ShardTile const& queries = item.queries;
    pack_transposed<HeadDim, tile.stationary>(queries.rows, call_.q.at(batch, queries.first, item.head),
                                              call_.q.strides.token, scale_.rest * exponent_factor<M>,
                                              kept.queries);
    std::fill(std::begin(kept.o), std::end(kept.o), 0.0f);
    std::fill(std::begin(kept.top), std::end(kept.top), -infinity);
    std::fill(std::begin(kept.sum), std::end(kept.sum), 0.0f);
    if (call_.carried.o.data == nullptr) return;
    std::copy_n(call_.carried.top.at(batch, item.head) + queries.first, queries.rows, kept.top);
    std::copy_n(call_.carried.sum.at(batch, item.head) + queries.first, queries.rows, kept.sum);
    for (int q = 0; q < queries.rows; ++q)
      std::copy_n(call_.carried.o.at(batch, queries.first + q, item.head), HeadDim,
                  kept.o + q * pitch<HeadDim>);
  }

  /// A tile without hidden pairs.
  void attend(Kept& kept, Item const& item, ShardTile const& keys) {
    multiply_queries(kept, item, keys);
    softmax(kept, keys.rows, Merge::least);
    add_values(kept, item.queries, keys);
  }

  /// A tile with hidden pairs. Their weights are 0, which hides only values that are finite.
  void attend_visible(Kept& kept, Item const& item, ShardTile const& keys, std::optional<bool>& finite) {
    ShardTile const& queries = item.queries;
    multiply_queries(kept, item, keys);
    for_each_pair<tile.stationary, SeeingQueries<M>>(mask_, keys, queries, [&](bool visible, int index) {
      float& score = scratch_.scores[index];
      float const seen = score < Merge::least ? Merge::least : score;
      score = visible ? seen : -infinity;
    });
    softmax(kept, keys.rows, -infinity);
    if (!finite) finite = all_finite<Width>(scratch_.v, tile.streaming * pitch<HeadDim>);
    if (*finite) return add_values(kept, queries, keys);
    gemm_of_visible<columns>(queries.rows, keys.rows, Transposed{scratch_.scores}.transposed(),
                             Rows{scratch_.v}, Rows{kept.o}, [&](int query, int key) {
                               return mask_.visible(queries.positions.position(query),
                                                    keys.positions.position(key));
                             });
  }

  void multiply_queries(Kept& kept, [[maybe_unused]] Item const& item, ShardTile const& keys) {
    gemm<Width, Store::assign, tile.stationary>(keys.rows, HeadDim, Rows{scratch_.k},
                                                Transposed{kept.queries}, Transposed{scratch_.scores});
    if constexpr (HasRule<M>)
      for (int k = 0; k < keys.rows; ++k)
        for (int q = 0; q < item.queries.rows; ++q) {
          float& score = scratch_.scores[k * tile.stationary + q];
          score = log2e * rule_at(mask_, item.queries.positions.position(q), keys.positions.position(k),
                                  static_cast<int>(item.head))
                              .score(score);
        }
  }

  void add_values(Kept& kept, ShardTile const& queries, ShardTile const& keys) {
    gemm<Width, Store::add, columns>(queries.rows, keys.rows, Transposed{scratch_.scores}.transposed(),
                                     Rows{scratch_.v}, Rows{kept.o});
  }

  /// Turns scores into exp2(score - top) and brings top, which is `least` at least, sum and o up to date.
  void softmax(Kept& kept, int keys, float least) {
    float rescale[tile.stationary];
    for (int q = 0; q < tile.stationary; q += Width) {
      float* const scores = scratch_.scores + q;
      simd::Floats<Width> const before = simd::load<Width>(kept.top + q);
      simd::Floats<Width> top = before > least ? before : simd::broadcast<Width>(least);
      for (int k = 0; k < keys; ++k) {
        auto const s = simd::load<Width>(scores + k * tile.stationary);
        top = s > top ? s : top;
      }
      // While a query has seen no key, top is -inf, and -inf - -inf would be NaN.
      simd::Floats<Width> const base = top == -infinity ? simd::Floats<Width>{} : top;
      simd::Floats<Width> const factor = simd::exp2<Width>(before - base);
      simd::Floats<Width> sum = {};
      for (int k = 0; k < keys; ++k) {
        auto const p = simd::exp2<Width>(simd::load<Width>(scores + k * tile.stationary) - base);
        simd::store<Width>(scores + k * tile.stationary, p);
        sum = sum + p;
      }
      simd::store<Width>(kept.top + q, top);
      simd::store<Width>(kept.sum + q, simd::load<Width>(kept.sum + q) * factor + sum);
      simd::store<Width>(rescale + q, factor);
    }
    for (int q = 0; q < tile.stationary; ++q) {
      if (rescale[q] == 1) continue;
      float* const o = kept.o + q * pitch<HeadDim>;
      for (int d = 0; d < columns; d += Width)
        simd::store<Width>(o + d, simd::load<Width>(o + d) * rescale[q]);
    }
  }

  void finish(std::int64_t batch, Item const& item, Kept const& kept) {
    ShardTile const& queries = item.queries;
    for (int q = 0; q < queries.rows; ++q) {
      float const* const from = kept.o + q * pitch<HeadDim>;
      auto* const o = call_.out.o.at(batch, queries.first + q, item.head);
      if constexpr (std::is_same_v<Result, Partial<float>>) {
        std::copy_n(from, HeadDim, o);
        call_.out.top.at(batch, item.head)[queries.first + q] = kept.top[q];
        call_.out.sum.at(batch, item.head)[queries.first + q] = kept.sum[q];
      } else {
        using Out = std::remove_reference_t<decltype(*o)>;
        RowEnd const end = row_end(call_.out, item.head, kept.top[q], kept.sum[q]);
        float const factor = end.factor * finished_factor(end.top, end.sum);
        for (int d = 0; d < HeadDim; ++d) o[d] = Out(from[d] * factor);
        call_.out.lse.at(batch, item.head)[queries.first + q] = finished_lse(end.top, end.sum);
      }
    }
  }

  ForwardCall<T, Result> call_;
  M const& mask_;
  ScaleFactors scale_;
  Scratch& scratch_;
};

/// The backward pass. A group of key tiles is kept, with the gradients of its keys and values; tiles of
/// queries and of the gradient of o come past. Scores are [query, key], so that a vector holds neighbouring
/// keys. The queries of all heads that share a key/value head come past the same kept tiles.
template <int HeadDim, int Width, Element T, Mask M>
class Backward {
  static constexpr Tiling tile = backward_tiling();
  static constexpr int columns = round_up(HeadDim, Width);
  static_assert(fits<Width>(tile));

  using Rows = Matrix<pitch<HeadDim>>;         // [row, dim]
  using Transposed = Matrix<tile.stationary>;  // [dim or query, key]

 public:
  /// A kept tile of keys.
  struct alignas(128) Kept {
    float k[tile.stationary * pitch<HeadDim>];      ///< [key, dim], times scale.power
    float k_transposed[HeadDim * tile.stationary];  ///< [dim, key], times scale.rest * exponent_factor
    float v_transposed[HeadDim * tile.stationary];  ///< [dim, key]
    float dk[tile.stationary * pitch<HeadDim>];     ///< [key, dim], to be multiplied by scale.rest
    float dv[tile.stationary * pitch<HeadDim>];     ///< [key, dim]
    bool finite;                                    ///< k is
  };
  struct alignas(128) Scratch {
    Kept kept[tile.group];
    float q[tile.streaming * pitch<HeadDim>];  ///< times scale.power
    float d_o[tile.streaming * pitch<HeadDim>];
    float dq[tile.streaming * pitch<HeadDim>];  ///< to be multiplied by scale.rest
    float lse[tile.streaming];                  ///< to base 2
    float delta[tile.streaming];
    float weights[tile.streaming * tile.stationary];   ///< [query, key]
    float d_scores[tile.streaming * tile.stationary];  ///< [query, key]
    /// The derivatives of scores by their rule, [query, key].
    float slopes[HasRule<M> ? tile.streaming * tile.stationary : 1];
  };

  Backward(BackwardCall<T> const& call, M const& mask, std::byte* scratch)
      : call_(call.resolved(HeadDim)),
        mask_(mask),
        scale_(call.scale),
        scratch_(*::new (static_cast<void*>(scratch)) Scratch) {}

  void run() {
    std::int64_t const key_tiles = tiles_of(call_.keys, tile.stationary);
    for (std::int64_t batch = 0; batch < call_.batch; ++batch)
      for (std::int64_t kv_head = 0; kv_head < call_.kv_heads; ++kv_head)
        for (std::int64_t first = 0; first < key_tiles; first += tile.group)
          attend_group(batch, kv_head, first,
                       static_cast<int>(std::min<std::int64_t>(tile.group, key_tiles - first)));
  }

 private:
  void attend_group(std::int64_t batch, std::int64_t kv_head, std::int64_t first, int count) {
    ShardTile keys[tile.group];
    Range bound;
    for (int i = 0; i < count; ++i) {
      keys[i] = tile_at(call_.keys, tile.stationary, first + i);
      begin(batch, kv_head, keys[i], scratch_.kept[i]);
      bound = bound.joined(queries_within(mask_, keys[i].positions.hull()));
    }
    TileSpan<std::int64_t> const query_tiles = tiles_within(call_.queries, tile.streaming, bound);
    std::int64_t const sharing = call_.heads / call_.kv_heads;
    for (std::int64_t head = kv_head * sharing; head < (kv_head + 1) * sharing; ++head)
      for (std::int64_t t = query_tiles.begin; t < query_tiles.end; ++t) {
        ShardTile const queries = tile_at(call_.queries, tile.streaming, t);
        bool packed = false;
        for (int i = 0; i < count; ++i) {
          Cover const cover = mask_.cover(queries.positions.hull(), keys[i].positions.hull());
          if (cover == Cover::none) continue;
          if (!packed) pack_queries(batch, head, queries);
          packed = true;
          attend(scratch_.kept[i], head, queries, keys[i], cover);
        }
        if (packed)
          add_rows(queries.rows, scratch_.dq, scale_.rest, call_.dq.at(batch, queries.first, head),
                   call_.dq.strides.token);
      }
    for (int i = 0; i < count; ++i) {
      Kept const& kept = scratch_.kept[i];
      add_rows(keys[i].rows, kept.dk, scale_.rest, call_.dk.at(batch, keys[i].first, kv_head),
               call_.dk.strides.token);
      add_rows(keys[i].rows, kept.dv, 1, call_.dv.at(batch, keys[i].first, kv_head), call_.dv.strides.token);
    }
  }

  void begin(std::int64_t batch, std::int64_t kv_head, ShardTile const& keys, Kept& kept) {
    T const* const k = call_.k.at(batch, keys.first, kv_head);
    T const* const v = call_.v.at(batch, keys.first, kv_head);
    pack<HeadDim, tile.stationary>(keys.rows, k, call_.k.strides.token, scale_.power, kept.k);
    pack_transposed<HeadDim, tile.stationary>(keys.rows, k, call_.k.strides.token,
                                              scale_.rest * exponent_factor<M>, kept.k_transposed);
    pack_transposed<HeadDim, tile.stationary>(keys.rows, v, call_.v.strides.token, 1, kept.v_transposed);
    kept.finite = all_finite<Width>(kept.k, tile.stationary * pitch<HeadDim>);
    std::fill(std::begin(kept.dk), std::end(kept.dk), 0.0f);
    std::fill(std::begin(kept.dv), std::end(kept.dv), 0.0f);
  }

  void pack_queries(std::int64_t batch, std::int64_t head, ShardTile const& queries) {
    pack<HeadDim, tile.streaming>(queries.rows, call_.q.at(batch, queries.first, head), call_.q.strides.token,
                                  scale_.power, scratch_.q);
    pack<HeadDim, tile.streaming>(queries.rows, call_.d_o.at(batch, queries.first, head),
                                  call_.d_o.strides.token, 1, scratch_.d_o);
    std::fill(std::begin(scratch_.dq), std::end(scratch_.dq), 0.0f);
    float const* const lse = call_.lse.at(batch, head) + queries.first;
    float const* const delta = call_.delta.at(batch, head) + queries.first;
    queries_finite_ = true;
    for (int q = 0; q < queries.rows; ++q) {
      bool const sees = lse[q] != -infinity;
      scratch_.lse[q] = sees ? lse[q] * log2e : 0.0f;
      scratch_.delta[q] = sees ? delta[q] : 0.0f;
      // What is not finite in q makes the LSE a NaN, and in d_o delta.
      if (!std::isfinite(scratch_.lse[q] + scratch_.delta[q])) queries_finite_ = false;
      if (sees) continue;
      // What a query holds that sees nothing does not matter; zeros add nothing.
      std::fill_n(scratch_.q + q * pitch<HeadDim>, HeadDim, 0.0f);
      std::fill_n(scratch_.d_o + q * pitch<HeadDim>, HeadDim, 0.0f);
    }
  }

  void attend(Kept& kept, std::int64_t head, ShardTile const& queries, ShardTile const& keys, Cover cover) {
    Transposed const weights{scratch_.weights}, d_scores{scratch_.d_scores};
    Rows const q{scratch_.q}, d_o{scratch_.d_o};
    gemm<Width, Store::assign, tile.stationary>(queries.rows, HeadDim, q, Transposed{kept.k_transposed},
                                                weights);
    gemm<Width, Store::assign, tile.stationary>(queries.rows, HeadDim, d_o, Transposed{kept.v_transposed},
                                                d_scores);
    follow_rule(head, queries, keys);
    if (cover == Cover::partial)
      for_each_pair<tile.stationary, KeysSeen<M>>(mask_, queries, keys, [&](bool visible, int index) {
        weights.data[index] = visible ? weights.data[index] : -infinity;
        d_scores.data[index] = visible ? d_scores.data[index] : 0.0f;
        if constexpr (HasRule<M>) scratch_.slopes[index] = visible ? scratch_.slopes[index] : 0.0f;
      });
    softmax(queries.rows);
    if (cover == Cover::partial && !(kept.finite && queries_finite_)) return add_visible(kept, queries, keys);
    gemm<Width, Store::add, columns>(keys.rows, queries.rows, weights.transposed(), d_o, Rows{kept.dv});
    gemm<Width, Store::add, columns>(keys.rows, queries.rows, d_scores.transposed(), q, Rows{kept.dk});
    gemm<Width, Store::add, columns>(queries.rows, keys.rows, d_scores, Rows{kept.k}, Rows{scratch_.dq});
  }

  /// Natural scores become those of the mask's rule, to base 2.
  void follow_rule([[maybe_unused]] std::int64_t head, [[maybe_unused]] ShardTile const& queries,
                   [[maybe_unused]] ShardTile const& keys) {
    if constexpr (HasRule<M>) {
      std::fill(std::begin(scratch_.slopes), std::end(scratch_.slopes), 0.0f);
      for (int q = 0; q < queries.rows; ++q)
        for (int k = 0; k < keys.rows; ++k) {
          int const index = q * tile.stationary + k;
          auto const rule = rule_at(mask_, queries.positions.position(q), keys.positions.position(k),
                                    static_cast<int>(head));
          float const natural = scratch_.weights[index];
          scratch_.weights[index] = log2e * rule.score(natural);
          scratch_.slopes[index] = rule.gradient(natural);
        }
    }
  }

  /// Adds what visible pairs give alone: the zeros of hidden ones hide nothing that is not finite.
  void add_visible(Kept& kept, ShardTile const& queries, ShardTile const& keys) {
    Transposed const weights{scratch_.weights}, d_scores{scratch_.d_scores};
    auto const visible = [&](int query, int key) {
      return mask_.visible(queries.positions.position(query), keys.positions.position(key));
    };
    auto const seen_by = [&](int key, int query) { return visible(query, key); };
    gemm_of_visible<columns>(keys.rows, queries.rows, weights.transposed(), Rows{scratch_.d_o}, Rows{kept.dv},
                             seen_by);
    gemm_of_visible<columns>(keys.rows, queries.rows, d_scores.transposed(), Rows{scratch_.q}, Rows{kept.dk},
                             seen_by);
    gemm_of_visible<columns>(queries.rows, keys.rows, d_scores, Rows{kept.k}, Rows{scratch_.dq}, visible);
  }

  /// Turns scores into weights and the gradients of the weights into gradients of the scores. A score may be
  /// above the LSE by what both were rounded: no weight is above 1.
  void softmax(int queries) {
    for (int q = 0; q < queries; ++q) {
      float* const weights = scratch_.weights + q * tile.stationary;
      float* const d_scores = scratch_.d_scores + q * tile.stationary;
      for (int k = 0; k < tile.stationary; k += Width) {
        auto const logarithm = simd::load<Width>(weights + k) - scratch_.lse[q];
        auto const p = simd::exp2<Width>(logarithm > 0 ? simd::Floats<Width>{} : logarithm);
        simd::store<Width>(weights + k, p);
        auto d_score = p * (simd::load<Width>(d_scores + k) - scratch_.delta[q]);
        if constexpr (HasRule<M>)
          d_score = d_score * simd::load<Width>(scratch_.slopes + q * tile.stationary + k);
        simd::store<Width>(d_scores + k, d_score);
      }
    }
  }

  static void add_rows(int rows, float const* from, float factor, float* to, std::int64_t stride) {
    for (int r = 0; r < rows; ++r, from += pitch<HeadDim>, to += stride)
      for (int d = 0; d < HeadDim; ++d) to[d] += from[d] * factor;
  }

  BackwardCall<T> call_;
  M const& mask_;
  ScaleFactors scale_;
  Scratch& scratch_;
  bool queries_finite_ = true;  // their lse and delta, of the packed tile
};

/// Bytes that forward() needs, whatever the element type and mask; the caller aligns them to 128.
template <int HeadDim>
constexpr std::int64_t forward_scratch_bytes() {
  return sizeof(typename Forward<HeadDim, simd::native_width, float, Finished<float>, Full>::Scratch);
}

/// Computes the call in one thread. `scratch` holds forward_scratch_bytes<HeadDim>() bytes, aligned to 128.
template <int HeadDim, int Width = simd::native_width, Element T, class Result, Mask M>
void forward(ForwardCall<T, Result> const& call, M const& mask, std::byte* scratch) noexcept {
  static_assert(serves_head_dim(HeadDim));
  Forward<HeadDim, Width, T, Result, M>(call, mask, scratch).run();
}

/// Bytes that backward() needs, whatever the element type; the caller aligns them to 128.
template <int HeadDim, Mask M = Full>
constexpr std::int64_t backward_scratch_bytes() {
  return sizeof(typename Backward<HeadDim, simd::native_width, float, M>::Scratch);
}

/// Computes the call in one thread. `scratch` holds backward_scratch_bytes<HeadDim, M>() bytes, aligned to
/// 128.
template <int HeadDim, int Width = simd::native_width, Element T, Mask M>
void backward(BackwardCall<T> const& call, M const& mask, std::byte* scratch) noexcept {
  static_assert(serves_head_dim(HeadDim));
  Backward<HeadDim, Width, T, M>(call, mask, scratch).run();
}

}  // namespace host
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
