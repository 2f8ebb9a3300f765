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

#include "lightseq/kernel/kernel.hpp"
#include "lightseq/kernel/pack.hpp"
#include "lightseq/mask/full.hpp"

namespace lightseq::host {

inline constexpr float infinity = std::numeric_limits<float>::infinity();
inline constexpr float log2e = std::numbers::log2e_v<float>;

/// Makes the scores of hidden pairs -inf. Score (i, j) belongs to row i of `rows` and row j of `columns`;
/// `visible` takes their positions in this order.
template <int Columns, class Visible>
void hide(Tile const& rows, Tile const& columns, Matrix<Columns> scores, Visible const& visible) {
  for (int i = 0; i < rows.rows; ++i) {
    std::int64_t const at = rows.positions.position(i);
    for (int j = 0; j < columns.rows; ++j)
      if (!visible(at, columns.positions.position(j))) scores.data[i * Columns + j] = -infinity;
  }
}

/// The forward pass. A group of query tiles is kept, transposed, with its running softmax; tiles of keys and
/// values come past. Scores are [key, query], so that a vector holds one key's scores of neighbouring queries
/// and the softmax needs no sum across a vector. Query tiles of all heads that share a key/value head are
/// in one list, so that each of these keys is packed once for all of them.
template <int HeadDim, int Width, Element T, class Out, Mask M>
class Forward {
  static constexpr Tiling tile = forward_tiling();
  static constexpr int columns = round_up(HeadDim, Width);
  static_assert(fits<Width>(tile));

  using Rows = Matrix<pitch<HeadDim>>;   // [row, dim]
  using Transposed = Matrix<tile.held>;  // [dim or key, query]

 public:
  /// A kept tile of queries. Logarithms are to base 2: `top` is the largest score so far.
  struct alignas(128) Kept {
    float queries[HeadDim * tile.held];   ///< [dim, query], times scale * log2(e)
    float o[tile.held * pitch<HeadDim>];  ///< [query, dim], to be divided by `sum`
    float top[tile.held];
    float sum[tile.held];
  };
  struct alignas(128) Scratch {
    Kept kept[tile.group];
    float k[tile.passing * pitch<HeadDim>];
    float v[tile.passing * pitch<HeadDim>];
    float scores[tile.passing * tile.held];  ///< [key, query]
  };

  Forward(ForwardCall<T, Out> const& call, M const& mask, std::byte* scratch)
      : call_(call), mask_(mask), scratch_(*::new (static_cast<void*>(scratch)) Scratch) {
    Shape const queries{call.batch, call.queries.rows(), call.heads, HeadDim};
    Shape const keys{call.batch, call.keys.rows(), call.kv_heads, HeadDim};
    call_.q = call.q.resolved(queries);
    call_.k = call.k.resolved(keys);
    call_.v = call.v.resolved(keys);
    call_.o = call.o.resolved(queries);
    call_.o_in = call.o_in.resolved(queries);
  }

  void run() {
    std::int64_t const items = call_.heads / call_.kv_heads * tile_count(call_.queries, tile.held);
    for (std::int64_t batch = 0; batch < call_.batch; ++batch)
      for (std::int64_t kv_head = 0; kv_head < call_.kv_heads; ++kv_head)
        for (std::int64_t item = 0; item < items; item += tile.group)
          attend_group(batch, kv_head, item,
                       static_cast<int>(std::min<std::int64_t>(tile.group, items - item)));
  }

 private:
  struct Item {
    std::int64_t head;
    Tile queries;
  };

  void attend_group(std::int64_t batch, std::int64_t kv_head, std::int64_t first, int count) {
    Item items[tile.group];
    std::int64_t const query_tiles = tile_count(call_.queries, tile.held);
    Range bound;
    for (int i = 0; i < count; ++i) {
      std::int64_t const head = kv_head * (call_.heads / call_.kv_heads) + (first + i) / query_tiles;
      items[i] = {head, tile_at(call_.queries, tile.held, (first + i) % query_tiles)};
      begin(batch, items[i], scratch_.kept[i]);
      bound = bound.joined(keys_within(mask_, items[i].queries.positions.hull()));
    }
    TileSpan<std::int64_t> const key_tiles = tiles_within(call_.keys, tile.passing, bound);
    for (std::int64_t t = key_tiles.begin; t < key_tiles.end; ++t) {
      Tile const keys = tile_at(call_.keys, tile.passing, t);
      bool packed = false;
      for (int i = 0; i < count; ++i) {
        Cover const cover = mask_.cover(items[i].queries.positions.hull(), keys.positions.hull());
        if (cover == Cover::none) continue;
        if (!packed) {
          pack<HeadDim, tile.passing>(keys.rows, call_.k.at(batch, keys.first, kv_head),
                                      call_.k.strides.token, scratch_.k);
          pack<HeadDim, tile.passing>(keys.rows, call_.v.at(batch, keys.first, kv_head),
                                      call_.v.strides.token, scratch_.v);
          packed = true;
        }
        attend(scratch_.kept[i], items[i].queries, keys, cover);
      }
    }
    for (int i = 0; i < count; ++i) finish(batch, items[i], scratch_.kept[i]);
  }

  void begin(std::int64_t batch, Item const& item, Kept& kept) {
    Tile const& queries = item.queries;
    pack_transposed<HeadDim, tile.held>(queries.rows, call_.q.at(batch, queries.first, item.head),
                                        call_.q.strides.token, call_.scale * log2e, kept.queries);
    std::fill(std::begin(kept.o), std::end(kept.o), 0.0f);
    std::fill(std::begin(kept.top), std::end(kept.top), -infinity);
    std::fill(std::begin(kept.sum), std::end(kept.sum), 0.0f);
    if (call_.o_in.data == nullptr) return;
    float const* const lse = call_.lse_in.at(batch, item.head) + queries.first;
    for (int q = 0; q < queries.rows; ++q) {
      if (lse[q] == -infinity) continue;
      // In double, so that a sequence attended in many parts has the error of one attended at once.
      double const exact = lse[q] * std::numbers::log2e;
      kept.top[q] = static_cast<float>(exact);
      kept.sum[q] = static_cast<float>(std::exp2(exact - kept.top[q]));
      float const* const o = call_.o_in.at(batch, queries.first + q, item.head);
      for (int d = 0; d < HeadDim; ++d) kept.o[q * pitch<HeadDim> + d] = o[d] * kept.sum[q];
    }
  }

  void attend(Kept& kept, Tile const& queries, Tile const& keys, Cover cover) {
    Transposed const scores{scratch_.scores};
    gemm<Width, Store::assign, tile.held>(keys.rows, HeadDim, Rows{scratch_.k}, Transposed{kept.queries},
                                          scores);
    if (cover == Cover::partial)
      hide(keys, queries, scores,
           [&](std::int64_t key, std::int64_t query) { return mask_.visible(query, key); });
    softmax(kept, keys.rows);
    gemm<Width, Store::add, columns>(queries.rows, keys.rows, scores.transposed(), Rows{scratch_.v},
                                     Rows{kept.o});
  }

  /// Turns scores into exp2(score - top) and brings top, sum and o up to date.
  void softmax(Kept& kept, int keys) {
    float rescale[tile.held];
    for (int q = 0; q < tile.held; q += Width) {
      float* const scores = scratch_.scores + q;
      simd::Floats<Width> const before = simd::load<Width>(kept.top + q);
      simd::Floats<Width> top = before;
      for (int k = 0; k < keys; ++k) {
        auto const s = simd::load<Width>(scores + k * tile.held);
        top = s > top ? s : top;
      }
      // While a query has seen no key, top is -inf, and -inf - -inf would be NaN.
      simd::Floats<Width> const base = top == -infinity ? simd::Floats<Width>{} : top;
      simd::Floats<Width> const factor = simd::exp2<Width>(before - base);
      simd::Floats<Width> sum = {};
      for (int k = 0; k < keys; ++k) {
        auto const p = simd::exp2<Width>(simd::load<Width>(scores + k * tile.held) - base);
        simd::store<Width>(scores + k * tile.held, p);
        sum = sum + p;
      }
      simd::store<Width>(kept.top + q, top);
      simd::store<Width>(kept.sum + q, simd::load<Width>(kept.sum + q) * factor + sum);
      simd::store<Width>(rescale + q, factor);
    }
    for (int q = 0; q < tile.held; ++q) {
      if (rescale[q] == 1) continue;
      float* const o = kept.o + q * pitch<HeadDim>;
      for (int d = 0; d < columns; d += Width)
        simd::store<Width>(o + d, simd::load<Width>(o + d) * rescale[q]);
    }
  }

  void finish(std::int64_t batch, Item const& item, Kept const& kept) {
    float* const lse = call_.lse.at(batch, item.head) + item.queries.first;
    for (int q = 0; q < item.queries.rows; ++q) {
      float const sum = kept.sum[q];
      lse[q] =
          sum == 0 ? -infinity : static_cast<float>(kept.top[q] * std::numbers::ln2 + std::log(double{sum}));
      float const factor = sum == 0 ? 0.0f : 1 / sum;
      Out* const o = call_.o.at(batch, item.queries.first + q, item.head);
      for (int d = 0; d < HeadDim; ++d) o[d] = Out(kept.o[q * pitch<HeadDim> + d] * factor);
    }
  }

  ForwardCall<T, Out> call_;
  M const& mask_;
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

  using Rows = Matrix<pitch<HeadDim>>;   // [row, dim]
  using Transposed = Matrix<tile.held>;  // [dim or query, key]

 public:
  /// A kept tile of keys. The transposed blocks carry the factors, so that their products with q and d_o are
  /// scores to base 2 and gradients that need no scale.
  struct alignas(128) Kept {
    float k[tile.held * pitch<HeadDim>];      ///< [key, dim]
    float k_transposed[HeadDim * tile.held];  ///< [dim, key], times scale * log2(e)
    float v_transposed[HeadDim * tile.held];  ///< [dim, key], times scale
    float dk[tile.held * pitch<HeadDim>];     ///< [key, dim]
    float dv[tile.held * pitch<HeadDim>];     ///< [key, dim]
  };
  struct alignas(128) Scratch {
    Kept kept[tile.group];
    float q[tile.passing * pitch<HeadDim>];
    float d_o[tile.passing * pitch<HeadDim>];
    float dq[tile.passing * pitch<HeadDim>];
    float lse[tile.passing];                   ///< to base 2
    float delta[tile.passing];                 ///< times scale
    float weights[tile.passing * tile.held];   ///< [query, key]
    float d_scores[tile.passing * tile.held];  ///< [query, key]
  };

  Backward(BackwardCall<T> const& call, M const& mask, std::byte* scratch)
      : call_(call), mask_(mask), scratch_(*::new (static_cast<void*>(scratch)) Scratch) {
    Shape const queries{call.batch, call.queries.rows(), call.heads, HeadDim};
    Shape const keys{call.batch, call.keys.rows(), call.kv_heads, HeadDim};
    call_.q = call.q.resolved(queries);
    call_.d_o = call.d_o.resolved(queries);
    call_.dq = call.dq.resolved(queries);
    call_.k = call.k.resolved(keys);
    call_.v = call.v.resolved(keys);
    call_.dk = call.dk.resolved(keys);
    call_.dv = call.dv.resolved(keys);
  }

  void run() {
    std::int64_t const key_tiles = tile_count(call_.keys, tile.held);
    for (std::int64_t batch = 0; batch < call_.batch; ++batch)
      for (std::int64_t kv_head = 0; kv_head < call_.kv_heads; ++kv_head)
        for (std::int64_t first = 0; first < key_tiles; first += tile.group)
          attend_group(batch, kv_head, first,
                       static_cast<int>(std::min<std::int64_t>(tile.group, key_tiles - first)));
  }

 private:
  void attend_group(std::int64_t batch, std::int64_t kv_head, std::int64_t first, int count) {
    Tile keys[tile.group];
    Range bound;
    for (int i = 0; i < count; ++i) {
      keys[i] = tile_at(call_.keys, tile.held, first + i);
      begin(batch, kv_head, keys[i], scratch_.kept[i]);
      bound = bound.joined(queries_within(mask_, keys[i].positions.hull()));
    }
    TileSpan<std::int64_t> const query_tiles = tiles_within(call_.queries, tile.passing, bound);
    std::int64_t const sharing = call_.heads / call_.kv_heads;
    for (std::int64_t head = kv_head * sharing; head < (kv_head + 1) * sharing; ++head)
      for (std::int64_t t = query_tiles.begin; t < query_tiles.end; ++t) {
        Tile const queries = tile_at(call_.queries, tile.passing, t);
        bool packed = false;
        for (int i = 0; i < count; ++i) {
          Cover const cover = mask_.cover(queries.positions.hull(), keys[i].positions.hull());
          if (cover == Cover::none) continue;
          if (!packed) pack_queries(batch, head, queries);
          packed = true;
          attend(scratch_.kept[i], queries, keys[i], cover);
        }
        if (packed)
          add_rows(queries.rows, scratch_.dq, call_.dq.at(batch, queries.first, head),
                   call_.dq.strides.token);
      }
    for (int i = 0; i < count; ++i) {
      Kept const& kept = scratch_.kept[i];
      add_rows(keys[i].rows, kept.dk, call_.dk.at(batch, keys[i].first, kv_head), call_.dk.strides.token);
      add_rows(keys[i].rows, kept.dv, call_.dv.at(batch, keys[i].first, kv_head), call_.dv.strides.token);
    }
  }

  void begin(std::int64_t batch, std::int64_t kv_head, Tile const& keys, Kept& kept) {
    T const* const k = call_.k.at(batch, keys.first, kv_head);
    T const* const v = call_.v.at(batch, keys.first, kv_head);
    pack<HeadDim, tile.held>(keys.rows, k, call_.k.strides.token, kept.k);
    pack_transposed<HeadDim, tile.held>(keys.rows, k, call_.k.strides.token, call_.scale * log2e,
                                        kept.k_transposed);
    pack_transposed<HeadDim, tile.held>(keys.rows, v, call_.v.strides.token, call_.scale, kept.v_transposed);
    std::fill(std::begin(kept.dk), std::end(kept.dk), 0.0f);
    std::fill(std::begin(kept.dv), std::end(kept.dv), 0.0f);
  }

  void pack_queries(std::int64_t batch, std::int64_t head, Tile const& queries) {
    pack<HeadDim, tile.passing>(queries.rows, call_.q.at(batch, queries.first, head), call_.q.strides.token,
                                scratch_.q);
    pack<HeadDim, tile.passing>(queries.rows, call_.d_o.at(batch, queries.first, head),
                                call_.d_o.strides.token, scratch_.d_o);
    std::fill(std::begin(scratch_.dq), std::end(scratch_.dq), 0.0f);
    float const* const lse = call_.lse.at(batch, head) + queries.first;
    float const* const delta = call_.delta.at(batch, head) + queries.first;
    for (int q = 0; q < queries.rows; ++q) {
      bool const sees = lse[q] != -infinity;
      scratch_.lse[q] = sees ? lse[q] * log2e : 0.0f;
      scratch_.delta[q] = sees ? delta[q] * call_.scale : 0.0f;
      if (sees) continue;
      // What a query holds that sees nothing does not matter; zeros add nothing.
      std::fill_n(scratch_.q + q * pitch<HeadDim>, HeadDim, 0.0f);
      std::fill_n(scratch_.d_o + q * pitch<HeadDim>, HeadDim, 0.0f);
    }
  }

  void attend(Kept& kept, Tile const& queries, Tile const& keys, Cover cover) {
    Transposed const weights{scratch_.weights}, d_scores{scratch_.d_scores};
    Rows const q{scratch_.q}, d_o{scratch_.d_o};
    gemm<Width, Store::assign, tile.held>(queries.rows, HeadDim, q, Transposed{kept.k_transposed}, weights);
    gemm<Width, Store::assign, tile.held>(queries.rows, HeadDim, d_o, Transposed{kept.v_transposed},
                                          d_scores);
    if (cover == Cover::partial)
      hide(queries, keys, weights,
           [&](std::int64_t query, std::int64_t key) { return mask_.visible(query, key); });
    softmax(queries.rows);
    gemm<Width, Store::add, columns>(keys.rows, queries.rows, weights.transposed(), d_o, Rows{kept.dv});
    gemm<Width, Store::add, columns>(keys.rows, queries.rows, d_scores.transposed(), q, Rows{kept.dk});
    gemm<Width, Store::add, columns>(queries.rows, keys.rows, d_scores, Rows{kept.k}, Rows{scratch_.dq});
  }

  /// Turns scores into weights and the gradients of the weights into those of the scores.
  void softmax(int queries) {
    for (int q = 0; q < queries; ++q) {
      float* const weights = scratch_.weights + q * tile.held;
      float* const d_scores = scratch_.d_scores + q * tile.held;
      for (int k = 0; k < tile.held; k += Width) {
        auto const p = simd::exp2<Width>(simd::load<Width>(weights + k) - scratch_.lse[q]);
        simd::store<Width>(weights + k, p);
        simd::store<Width>(d_scores + k, p * (simd::load<Width>(d_scores + k) - scratch_.delta[q]));
      }
    }
  }

  static void add_rows(int rows, float const* from, float* to, std::int64_t stride) {
    for (int r = 0; r < rows; ++r, from += pitch<HeadDim>, to += stride)
      for (int d = 0; d < HeadDim; ++d) to[d] += from[d];
  }

  BackwardCall<T> call_;
  M const& mask_;
  Scratch& scratch_;
};

/// Bytes that forward() needs, whatever the element type and mask; the caller aligns them to 128.
template <int HeadDim>
constexpr std::int64_t forward_scratch_bytes() {
  return sizeof(typename Forward<HeadDim, simd::native_width, float, float, Full>::Scratch);
}

/// Computes the call in one thread. `scratch` holds forward_scratch_bytes<HeadDim>() bytes, aligned to 128.
template <int HeadDim, int Width = simd::native_width, Element T, class Out, Mask M>
void forward(ForwardCall<T, Out> const& call, M const& mask, std::byte* scratch) noexcept {
  static_assert(is_head_dim(HeadDim));
  Forward<HeadDim, Width, T, Out, M>(call, mask, scratch).run();
}

/// Bytes that backward() needs, whatever the element type and mask; the caller aligns them to 128.
template <int HeadDim>
constexpr std::int64_t backward_scratch_bytes() {
  return sizeof(typename Backward<HeadDim, simd::native_width, float, Full>::Scratch);
}

/// Computes the call in one thread. `scratch` holds backward_scratch_bytes<HeadDim>() bytes, aligned to 128.
template <int HeadDim, int Width = simd::native_width, Element T, Mask M>
void backward(BackwardCall<T> const& call, M const& mask, std::byte* scratch) noexcept {
  static_assert(is_head_dim(HeadDim));
  Backward<HeadDim, Width, T, M>(call, mask, scratch).run();
}

}  // namespace lightseq::host
