// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>

#include "lightseq/core/error.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/predict/topology.hpp"
#include "lightseq/schedule/payload.hpp"

namespace lightseq {

/// What parts of a work take, in visible pairs of a work of which the mask hides nothing.
struct PairWeights {
  double hidden =
      1;  ///< a hidden pair of a visible tile: more than 1 where tiles that the mask cuts are slower
  double partial =
      1;  ///< a visible pair where the mask hides others: so causal works have a rate of their own
  /// A row besides its pairs, of the queries in the forward, of the keys in the backward. Beginnings and ends
  /// of tiles, and kernels over rows, make short sequences slower, however many there are: a launch does not.
  double row = 0;
};

/// How long a rank's device takes for a work and for a merge. Rates that are infinite, and seconds that are
/// zero, are left out of account.
struct ComputeModel {
  double forward_flops = std::numeric_limits<double>::infinity();   ///< of the pairs of a work, per second
  double backward_flops = std::numeric_limits<double>::infinity();  ///< the same of the backward
  double carry_bytes = std::numeric_limits<double>::infinity();     ///< per second, of partial results that
                                                                    ///< the forward continues
  double memory_bytes = std::numeric_limits<double>::infinity();    ///< per second, of merges and zeroing
  double launch = 0;           ///< seconds that every work and every merge takes besides
  double backward_launch = 0;  ///< seconds more that a work of the backward takes, which has several kernels
  int units = 0;  ///< multiprocessors, which compute whole tiles; 0: any work fills the device, pair by pair
  std::int64_t tile = 128;  ///< rows, of queries and of keys, that one of them takes at once
  PairWeights forward_weights = {}, backward_weights = {};
  double peak_flops = 0;  ///< what efficiency refers to; 0: forward_flops

  /// FLOPs of one visible pair: two matrix products in the forward, five in the backward.
  static double pair_flops(Extents const& extents, Pass pass) {
    double const dims = static_cast<double>(extents.batch * extents.heads * extents.head_dim);
    return (pass == Pass::forward ? 4 : 10) * dims;
  }

  /// What a work is made of.
  struct WorkSize {
    double pairs = 0;          ///< visible
    double hidden = 0;         ///< with units, the other pairs of tiles that are visible in part
    std::int64_t q_rows = 0;   ///< of the queries
    std::int64_t kv_rows = 0;  ///< of the keys
    bool continues = false;    ///< forward: adds to a partial result of earlier steps
    bool foreign_q = false;    ///< the queries are another rank's
    bool foreign_kv = false;   ///< the keys are

    /// Whether the mask hides nothing.
    bool full() const { return pairs >= static_cast<double>(q_rows) * static_cast<double>(kv_rows); }

    /// Of what a multiprocessor takes tiles in turn: of the queries, in the backward of the keys.
    std::int64_t rows(Pass pass) const { return pass == Pass::forward ? q_rows : kv_rows; }

    /// Takes note that so many tiles of `edge` x `edge` rows hold a visible pair. Where nothing is hidden
    /// rows that fill up a tile take as long as visible ones.
    void count_tiles(double tiles, std::int64_t edge) {
      double const all = tiles * static_cast<double>(edge) * static_cast<double>(edge);
      hidden = full() ? 0 : std::max(0.0, all - pairs);
      if (full()) pairs = all;
    }
  };

  /// Seconds of a work while an exchange takes `exchange_units` multiprocessors.
  double work_seconds(WorkSize const& work, Extents const& extents, Pass pass, int exchange_units) const {
    double const flops = computed_flops(work, extents, pass);
    double const rate = pass == Pass::forward ? forward_flops : backward_flops;
    return launch_seconds(pass) +
           (flops > 0 ? flops / (rate * occupancy(work, extents, pass, exchange_units)) : 0) +
           carry_seconds(work, extents, pass == Pass::forward);
  }

  PairWeights const& weights(Pass pass) const {
    return pass == Pass::forward ? forward_weights : backward_weights;
  }
  PairWeights& weights(Pass pass) { return pass == Pass::forward ? forward_weights : backward_weights; }

  /// Seconds that a work takes however small it is.
  double launch_seconds(Pass pass) const { return pass == Pass::forward ? launch : launch + backward_launch; }

  /// FLOPs that a work takes time for, in those of pairs of a work that is all visible.
  double computed_flops(WorkSize const& work, Extents const& extents, Pass pass) const {
    if (work.pairs <= 0) return 0;
    PairWeights const& w = weights(pass);
    double const partial = work.full() ? 1 : w.partial;
    return (partial * work.pairs + w.hidden * work.hidden + w.row * static_cast<double>(work.rows(pass))) *
           pair_flops(extents, pass);
  }

  /// The share of the multiprocessors that have a tile of the work, of those that the exchange leaves.
  double occupancy(WorkSize const& work, Extents const& extents, Pass pass, int exchange_units) const {
    if (units == 0) return 1;
    auto const tiles = static_cast<double>(extents.batch * extents.heads) *
                       static_cast<double>(tiles_of(work.rows(pass), tile));
    return std::min(static_cast<double>(units - exchange_units), tiles) / units;
  }

  /// Bytes of a partial result of the forward, read and written.
  static double carried_bytes(std::int64_t q_rows, Extents const& extents) {
    return 2 * sizeof(float) * wide(q_rows, extents, 1, 0);
  }

  /// Seconds of a merge: the part and the sum are read, the sum is written.
  double merge_seconds(Payload payload, std::int64_t rows, Extents const& extents) const {
    return launch + 3 * result_bytes(payload, rows, extents) / memory_bytes;
  }

  /// Seconds of zeroing the memory of a result by a kernel of its own.
  double zeroing_seconds(Payload payload, std::int64_t rows, Extents const& extents) const {
    return launch + result_bytes(payload, rows, extents) / memory_bytes;
  }

  /// Throws Error, with the numbers, on rates and times that make no sense.
  void check(int exchange_units) const {
    for (auto const& [what, rate] : {std::pair{"forward", forward_flops}, {"backward", backward_flops}})
      if (!(rate > 0)) fail("the ", what, " rate is ", rate, " FLOP/s, it must be positive");
    for (auto const& [what, rate] : {std::pair{"carry", carry_bytes}, {"memory", memory_bytes}})
      if (!(rate > 0)) fail("the ", what, " rate is ", rate, " bytes/s, it must be positive");
    for (double const seconds : {launch, backward_launch})
      if (!(seconds >= 0) || std::isinf(seconds))
        fail("a launch takes ", seconds, " s, it must be finite and not negative");
    check(forward_weights), check(backward_weights);
    if (units < 0 || tile < 1) fail("there are ", units, " multiprocessors and tiles of ", tile, " rows");
    if (units > 0 && exchange_units >= units)
      fail("the exchange takes ", exchange_units, " of ", units, " multiprocessors, which leaves none");
  }

 private:
  static void check(PairWeights const& w) {
    if (!(w.hidden >= 0) || std::isinf(w.hidden))
      fail("a hidden pair takes ", w.hidden, " times a visible one, it must be finite and not negative");
    if (!(w.partial > 0) || std::isinf(w.partial))
      fail("a visible pair of a partial work takes ", w.partial,
           " times one of a full work, it must be finite and positive");
    if (!(w.row >= 0) || std::isinf(w.row))
      fail("a row takes ", w.row, " times a visible pair, it must be finite and not negative");
  }

  static double wide(std::int64_t rows, Extents const& e, int per_q_head, int per_kv_head) {
    std::int64_t const heads = per_q_head * e.heads + per_kv_head * e.kv_heads;
    return static_cast<double>(e.batch * rows * e.head_dim * heads);
  }

  /// Bytes of a result's float tensors, without statistics.
  static double result_bytes(Payload payload, std::int64_t rows, Extents const& extents) {
    Parts const part = parts(payload, Pass::forward);
    return sizeof(float) * wide(rows, extents, part.per_q_head, part.per_kv_head);
  }

  /// What a step reads and writes besides attention over a whole sequence: the forward's partial result, the
  /// zeros in which the backward sums up for another rank.
  double carry_seconds(WorkSize const& w, Extents const& e, bool forward) const {
    if (forward) return w.continues ? carried_bytes(w.q_rows, e) / carry_bytes : 0;
    return (result_bytes(Payload::dq, w.foreign_q ? w.q_rows : 0, e) +
            result_bytes(Payload::dkv, w.foreign_kv ? w.kv_rows : 0, e)) /
           memory_bytes;
  }
};

/// An H100 with this library's kernels for head dim 128, as measured for long runs under a causal mask. The
/// carry is from bench_cuda_kernel at 8192 tokens and 32 heads, 25 us for 268 MB: other tiles hide most of
/// it.
inline ComputeModel h100() {
  return {.forward_flops = 654e12,
          .backward_flops = 570e12,
          .carry_bytes = 10.7e12,
          .memory_bytes = 2.8e12,
          .launch = 5e-6,
          .units = 132,
          .peak_flops = 989e12};
}

/// An H200 with this library's kernels for head dim 128, as measured for one causal sequence of 256k tokens
/// (bench_cuda_packing, 32 query and 8 key/value heads). Memory is what an H100 reaches, by the data sheets'
/// ratio of 4.8 to 3.35 TB/s; the rest is an H100's.
inline ComputeModel h200() {
  ComputeModel model = h100();
  model.forward_flops = 701e12;
  model.backward_flops = 627e12;
  model.memory_bytes = 4e12;
  return model;
}

/// An A100 of 80 GB with FlashAttention-2's kernels, for which github.com/zhuzilin/ring-flash-attention gives
/// 373.4 forwards and 94.7 forwards and backwards a second of 8192 tokens and 32 heads of 128: this library's
/// portable kernels have not been measured on one. Memory is what an H100 reaches, by the data sheets' ratio
/// of 2.04 to 3.35 TB/s, and so are carries.
inline ComputeModel a100() {
  return {.forward_flops = 205e12,
          .backward_flops = 174e12,
          .carry_bytes = 6.5e12,
          .memory_bytes = 1.7e12,
          .launch = 5e-6,
          .units = 108,
          .peak_flops = 312e12};
}

}  // namespace lightseq
