// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/backward_order.cuh"
#include "lightseq/kernel/backward_turns.cuh"
#include "lightseq/kernel/fragment.cuh"
#include "lightseq/kernel/ptx.cuh"
#include "lightseq/kernel/sm80/row_tile.cuh"
#include "lightseq/kernel/sm80/tile.cuh"
#include "lightseq/kernel/tile_order.cuh"
#include "lightseq/mask/mask.hpp"
#include "lightseq/softmax/online.cuh"

/// What a thread block of the portable backward kernel does. It keeps a tile of keys and values, brings the
/// query tiles that see it past them, and has the gradients of its keys and values in registers. Scores are
/// held transposed, keys down and queries across: as they lie they are the left operands of those gradients.
/// The gradients of queries are sums over all keys, so each thread block adds its part to global memory.
namespace lightseq::sm80 {

/// All that a launch is told. Element 0 and 1 of an array belong to the two segments of a shard.
template <class T, class KeyGrad, Mask M>
struct BackwardLaunch {
  M mask;
  Tensor<T const> q = {}, k = {}, v = {}, d_o = {};
  RowStats<float const> lse = {}, delta = {};
  Tensor<float> dq = {};
  Tensor<KeyGrad> dk = {}, dv = {};
  LaunchSegment queries[2] = {}, keys[2] = {};
  KeyTileOrder order = {};
  float scale = 0;
  unsigned* counter = nullptr;  ///< of key tiles that have been taken
  unsigned* turns = nullptr;
};

/// Adds four floats to those at `to`, a multiple of 16 bytes.
__device__ __forceinline__ void add_four(float* to, float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(a), "f"(b), "f"(c),
               "f"(d)
               : "memory");
#else
  atomicAdd(to, a);
  atomicAdd(to + 1, b);
  atomicAdd(to + 2, c);
  atomicAdd(to + 3, d);
#endif
}

template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
struct Backward {
  static constexpr BackwardTile tile = backward_tile(HeadDim);
  static constexpr int fragments = tile.fragments, parts = tile.parts, query_rows = tile.query_rows;
  static constexpr int warp_keys = 16 * fragments, key_rows = warp_keys * tile.warps / parts;
  static constexpr int threads = 32 * tile.warps;
  static_assert(HeadDim % 16 == 0 && HeadDim >= 16 && HeadDim <= 256,
                "lightseq: the head dim must be a multiple of 16, from 16 to 256");

  /// Dims in blocks of 16: all of them, those of a part of dk and dv, and those of a half of dq. Where a half
  /// has one too many, what is computed for it is dropped.
  static constexpr int blocks = HeadDim / 16, part_blocks = (blocks + parts - 1) / parts;
  static constexpr int half_blocks = (blocks + 1) / 2;
  /// Fragments of 16 queries whose dq a warp computes, one half of their dims.
  static constexpr int dq_fragments = query_rows / 16 / (tile.warps / 2);

  /// Shared memory: keys, values, two stages of queries, one of output gradients, the scores' gradients with
  /// a key in each row of 128 bytes, and two stages of two numbers for each query.
  using QueryTile = RowTile<query_rows, HeadDim, threads>;
  using KeyTile = RowTile<key_rows, HeadDim, threads>;
  static constexpr int query_panel = QueryTile::panel, key_panel = KeyTile::panel;  ///< bytes
  static constexpr int v_offset = KeyTile::bytes, q_offset = v_offset + KeyTile::bytes;
  static constexpr int d_o_offset = q_offset + 2 * QueryTile::bytes;
  static constexpr int ds_offset = d_o_offset + QueryTile::bytes, stats_offset = ds_offset + key_rows * 128;
  static constexpr int stats_bytes = query_rows * 8;
  static constexpr int shared_bytes = stats_offset + 2 * stats_bytes;
  static_assert(shared_bytes <= 98 * 1024, "lightseq: the backward tile does not fit in shared memory");

  using Launch = BackwardLaunch<T, KeyGrad, M>;
  using Turns = BackwardTurns<query_rows, key_rows, M>;
  using Walk = QueryWalk<query_rows, M>;

  Launch const& launch;
  std::uint32_t const shared;  ///< address, a multiple of 128

  __device__ __forceinline__ void run() const {
    __shared__ int taken;
    while (true) {
      __syncthreads();  // nobody is in the tile before any more
      // A tile is attended as soon as it is taken: others may wait for it.
      if (threadIdx.x == 0) taken = static_cast<int>(atomicAdd(launch.counter, 1));
      __syncthreads();
      int const index = taken;
      if (index >= launch.order.tiles) return;
      attend(launch.order.locate(index, launch.keys[0].count, key_rows), launch.order.turn(index));
    }
  }

  /// The query tiles that see a key tile, head after head.
  struct Steps {
    int head, last_head;
    Walk walk;

    __device__ __forceinline__ bool next() {
      while (!walk.next()) {
        if (head == last_head) return false;
        ++head;
        walk.segment = -1;
        walk.tiles = walk.scanned = 0;
      }
      return true;
    }
  };

  /// Attends one key tile.
  __device__ __forceinline__ void attend(TilePlace const& place, int turn) const {
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int const part = warp % parts, key_warp = warp / parts;
    LaunchSegment const keys = launch.keys[place.segment];
    int const key_offset = place.segment * launch.keys[0].count;
    int const some_keys = min(key_rows, keys.count - place.first);
    auto const rows = [&](int fragment) {
      return RowPair{place.batch, place.head, key_offset,
                     place.first + key_warp * warp_keys + fragment * 16 + lane / 4, keys};
    };
    Range const hull = keys.hull(place.first, some_keys);
    int const group = launch.order.group;
    Steps steps{place.head * group, place.head * group + group - 1, Walk{launch.mask, launch.queries, hull}};
    Turns const turns{launch.mask, launch.order, launch.queries, launch.keys, launch.turns};

    auto const load = [&](int offset, Tensor<T const> const& tensor) {
      int const token = steps.walk.segment * launch.queries[0].count + steps.walk.first;
      QueryTile::load(shared + offset, tensor, place.batch, token, steps.head,
                      launch.queries[steps.walk.segment].count - steps.walk.first);
    };
    /// A query's -lse * log2(e) and -delta. -inf is what makes its weights zero.
    auto const load_stats = [&] {
      float2 stats{-OnlineSoftmax::infinity, 0};
      int const row = steps.walk.first + static_cast<int>(threadIdx.x);
      if (threadIdx.x < query_rows && row < launch.queries[steps.walk.segment].count) {
        int const token = steps.walk.segment * launch.queries[0].count + row;
        float const lse = launch.lse.at(place.batch, steps.head)[token];
        if (lse != -OnlineSoftmax::infinity)
          stats = {-lse * OnlineSoftmax::log2_e, -launch.delta.at(place.batch, steps.head)[token]};
      }
      return stats;
    };
    auto const store_stats = [&](int stage, float2 const& stats) {
      if (threadIdx.x < query_rows) {
        std::uint32_t const to = shared + stats_offset + stage * stats_bytes + threadIdx.x * 4;
        asm volatile("st.shared.f32 [%0], %1;" ::"r"(to), "f"(stats.x) : "memory");
        asm volatile("st.shared.f32 [%0], %1;" ::"r"(to + query_rows * 4), "f"(stats.y) : "memory");
      }
    };
    bool more = steps.next();
    if (more) {
      int const token = key_offset + place.first;
      KeyTile::load(shared, launch.k, place.batch, token, place.head, some_keys);
      KeyTile::load(shared + v_offset, launch.v, place.batch, token, place.head, some_keys);
      load(q_offset, launch.q);
      load(d_o_offset, launch.d_o);
      store_stats(0, load_stats());
    }

    // Lane l names row l % 8 of matrix l / 8. The matrices follow each other down the rows first, or along
    // the columns first.
    std::uint32_t const swap = lane % 8 * 16;
    std::uint32_t const down = lane % 16 * 128 + (static_cast<std::uint32_t>(lane) / 16 * 16 ^ swap);
    std::uint32_t const along =
        (lane / 16 * 8 + lane % 8) * 128 + (static_cast<std::uint32_t>(lane) / 8 % 2 * 16 ^ swap);
    int const dq_half = warp % 2, dq_first = warp / 2 * dq_fragments;

    float dk[fragments][part_blocks * 8], dv[fragments][part_blocks * 8];
    clear(dk);
    clear(dv);
    float const scale = launch.scale * OnlineSoftmax::log2_e;
    unsigned* passed = nullptr;
    int stage = 0;
#pragma unroll 1
    while (more) {
      int const segment = steps.walk.segment, first = steps.walk.first, head = steps.head;
      bool const tests = steps.walk.cut || some_keys < key_rows;
      ptx::wait_copies();
      __syncthreads();  // the tile is there for all, and nobody is in the step before any more
      if constexpr (Deterministic)
        if (threadIdx.x == 0 && passed != nullptr) Turns::pass(passed, turn);
      more = steps.next();
      float2 stats{};
      if (more) {
        load(q_offset + (stage ^ 1) * QueryTile::bytes, launch.q);
        stats = load_stats();
      }
      std::uint32_t const q_stage = shared + q_offset + stage * QueryTile::bytes;
      std::uint32_t const row_stats = shared + stats_offset + stage * stats_bytes + lane % 4 * 8;

      float s[fragments][query_rows / 2];
      clear(s);
      multiply_rows(s, shared + key_warp * warp_keys * 128 + down, q_stage + along);
      if (tests) {
#pragma unroll
        for (int f = 0; f < fragments; ++f)
          hide_keys(s[f], rows(f), launch.queries[segment], first, launch.mask);
      }
#pragma unroll
      for (int j = 0; j < query_rows / 8; ++j) {
        float2 const lse = pair_at(row_stats + j * 32);
#pragma unroll
        for (int f = 0; f < fragments; ++f)
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            float& weight = s[f][4 * j + i];
            weight = exp2_approx(fmaf(weight, scale, i % 2 == 0 ? lse.x : lse.y));
          }
      }

      float ds[fragments][query_rows / 2];
#pragma unroll
      for (int j = 0; j < query_rows / 8; ++j) {
        float2 const delta = pair_at(row_stats + query_rows * 4 + j * 32);
#pragma unroll
        for (int f = 0; f < fragments; ++f)
#pragma unroll
          for (int i = 0; i < 4; ++i) ds[f][4 * j + i] = i % 2 == 0 ? delta.x : delta.y;
      }
      multiply_rows(ds, shared + v_offset + key_warp * warp_keys * 128 + down, shared + d_o_offset + along);

      std::uint32_t p_packed[fragments][query_rows / 4], ds_packed[fragments][query_rows / 4];
#pragma unroll
      for (int f = 0; f < fragments; ++f)
#pragma unroll
        for (int i = 0; i < query_rows / 4; ++i) {
          ds_packed[f][i] = ptx::pack<T>(ds[f][2 * i] * s[f][2 * i], ds[f][2 * i + 1] * s[f][2 * i + 1]);
          p_packed[f][i] = ptx::pack<T>(s[f][2 * i], s[f][2 * i + 1]);
        }
      if (part == 0) {
#pragma unroll
        for (int f = 0; f < fragments; ++f)
#pragma unroll
          for (int i = 0; i < query_rows / 4; ++i) {
            int const row = key_warp * warp_keys + f * 16 + i % 2 * 8 + lane / 4;
            asm volatile("st.shared.b32 [%0], %1;" ::"r"(shared + ds_offset + row * 128 +
                                                         ((i / 2 ^ lane / 4) & 7) * 16 + lane % 4 * 4),
                         "r"(ds_packed[f][i])
                         : "memory");
          }
      }
      multiply_columns(dv, p_packed, shared + d_o_offset + down, part * part_blocks);
      if constexpr (Deterministic) {
        passed = turns.at(place.batch, head, segment, first);
        LaunchSegment const& queries = launch.queries[segment];
        if (warp == 0) turns.wait(passed, queries.hull(first, min(query_rows, queries.count - first)), turn);
      }
      __syncthreads();  // ds is there for all, and nobody reads d_o any more
      if (more) {
        load(d_o_offset, launch.d_o);
        store_stats(stage ^ 1, stats);
      }

      float dq[dq_fragments][half_blocks * 8];
      clear(dq);
#pragma unroll
      for (int j = 0; j < key_rows / 16; ++j) {
        std::uint32_t a[dq_fragments][4];
#pragma unroll
        for (int f = 0; f < dq_fragments; ++f)
          ptx::load_transposed(a[f], (shared + ds_offset + along ^ (dq_first + f) * 32) + j * 16 * 128);
#pragma unroll
        for (int i = 0; i < half_blocks; ++i) {
          std::uint32_t b[4];
          ptx::load_transposed(b,
                               block_at<key_panel>(shared + down, dq_half * half_blocks + i) + j * 16 * 128);
          multiply(dq, 8 * i, a, b);
        }
      }
      add_dq(dq, launch.dq, place.batch, segment, first + dq_first * 16, head, dq_half * half_blocks);
      multiply_columns(dk, ds_packed, q_stage + down, part * part_blocks);
      stage ^= 1;
    }
    if constexpr (Deterministic) {
      __syncthreads();
      if (threadIdx.x == 0 && passed != nullptr) Turns::pass(passed, turn);
    }

#pragma unroll
    for (int f = 0; f < fragments; ++f) {
      store(launch.dk, rows(f), part * part_blocks, dk[f], launch.scale);
      store(launch.dv, rows(f), part * part_blocks, dv[f], 1);
    }
  }

 private:
  template <int Fragments, int Size>
  __device__ __forceinline__ static void clear(float (&x)[Fragments][Size]) {
#pragma unroll
    for (int f = 0; f < Fragments; ++f)
#pragma unroll
      for (int i = 0; i < Size; ++i) x[f][i] = 0;
  }

  __device__ __forceinline__ static float2 pair_at(std::uint32_t address) {
    float2 pair;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(pair.x), "=f"(pair.y) : "r"(address) : "memory");
    return pair;
  }

  /// Where 16 columns begin in a row of panels whose first chunk, swapped, is at `address`.
  template <int Panel>
  __device__ __forceinline__ static std::uint32_t block_at(std::uint32_t address, int block) {
    return (address ^ block % 4 * 32) + block / 4 * Panel;
  }

  /// Columns first, ..., first + 15 of d += a b, for all fragments.
  template <int Fragments, int Size>
  __device__ __forceinline__ static void multiply(float (&d)[Fragments][Size], int first,
                                                  std::uint32_t const (&a)[Fragments][4],
                                                  std::uint32_t const (&b)[4]) {
#pragma unroll
    for (int f = 0; f < Fragments; ++f) {
      ptx::multiply<T>(d[f] + first, a[f], b[0], b[1]);
      ptx::multiply<T>(d[f] + first + 4, a[f], b[2], b[3]);
    }
  }

  /// d += a b^T, for a warp's rows of keys or values at `a_lane` and the queries or output gradients at
  /// `b_lane`.
  __device__ __forceinline__ static void multiply_rows(float (&d)[fragments][query_rows / 2],
                                                       std::uint32_t a_lane, std::uint32_t b_lane) {
#pragma unroll
    for (int i = 0; i < blocks; ++i) {
      std::uint32_t a[fragments][4];
#pragma unroll
      for (int f = 0; f < fragments; ++f)
        ptx::load_matrices(a[f], block_at<key_panel>(a_lane, i) + f * 16 * 128);
#pragma unroll
      for (int j = 0; j < query_rows / 16; ++j) {
        std::uint32_t b[4];
        ptx::load_matrices(b, block_at<query_panel>(b_lane, i) + j * 16 * 128);
        multiply(d, 8 * j, a, b);
      }
    }
  }

  /// d += a b, for packed weights a and some blocks of the columns of b, the first of them `first`.
  __device__ __forceinline__ static void multiply_columns(
      float (&d)[fragments][part_blocks * 8], std::uint32_t const (&packed)[fragments][query_rows / 4],
      std::uint32_t b_lane, int first) {
#pragma unroll
    for (int j = 0; j < query_rows / 16; ++j) {
      std::uint32_t a[fragments][4];
#pragma unroll
      for (int f = 0; f < fragments; ++f)
#pragma unroll
        for (int i = 0; i < 4; ++i) a[f][i] = packed[f][4 * j + i];
#pragma unroll
      for (int i = 0; i < part_blocks; ++i) {
        std::uint32_t b[4];
        ptx::load_transposed(b, block_at<query_panel>(b_lane, first + i) + j * 16 * 128);
        multiply(d, 8 * i, a, b);
      }
    }
  }

  /// Adds dq to the rows from `first` of a segment on. Two neighbours exchange half of what they have: then
  /// each has four floats in a row.
  __device__ __forceinline__ void add_dq(float const (&dq)[dq_fragments][half_blocks * 8],
                                         Tensor<float> const& to, int batch, int segment, int first, int head,
                                         int first_block) const {
    int const lane = threadIdx.x % 32;
    bool const odd = lane % 2 != 0;
    int const count = launch.queries[segment].count;
    int const offset = segment * launch.queries[0].count;
#pragma unroll
    for (int f = 0; f < dq_fragments; ++f) {
      int const row = first + f * 16 + lane / 4 + (odd ? 8 : 0);
      float* const at = to.at(batch, offset + row, head) + first_block * 16 + lane / 2 % 2 * 4;
#pragma unroll
      for (int i = 0; i < half_blocks * 2; ++i) {
        float const* const own = dq[f] + 4 * i;
        float const c = __shfl_xor_sync(~0u, odd ? own[0] : own[2], 1) * launch.scale;
        float const d = __shfl_xor_sync(~0u, odd ? own[1] : own[3], 1) * launch.scale;
        float const a = (odd ? own[2] : own[0]) * launch.scale, b = (odd ? own[3] : own[1]) * launch.scale;
        if (row < count && first_block + i / 2 < blocks)
          odd ? add_four(at + 8 * i, c, d, a, b) : add_four(at + 8 * i, a, b, c, d);
      }
    }
  }

  /// Adds the rows times `scale` to floats, or writes them as elements.
  __device__ __forceinline__ static void store(Tensor<KeyGrad> const& tensor, RowPair const& rows,
                                               int first_block, float const (&x)[part_blocks * 8],
                                               float scale) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!rows.exists(r)) break;
      KeyGrad* const to =
          tensor.at(rows.batch, rows.token(r), rows.head) + first_block * 16 + threadIdx.x % 4 * 2;
#pragma unroll
      for (int i = 0; i < part_blocks * 2; ++i) {
        if (first_block + i / 2 >= blocks) break;
        float const a = x[4 * i + 2 * r] * scale, b = x[4 * i + 2 * r + 1] * scale;
        if constexpr (std::is_same_v<KeyGrad, float>) {
          float2& pair = *reinterpret_cast<float2*>(to + 8 * i);
          pair = {pair.x + a, pair.y + b};
        } else {
          *reinterpret_cast<std::uint32_t*>(to + 8 * i) = ptx::pack<T>(a, b);
        }
      }
    }
  }
};

template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
__global__ void __launch_bounds__(Backward<HeadDim, T, KeyGrad, M, Deterministic>::threads,
                                  backward_tile(HeadDim).blocks)
    backward_kernel(__grid_constant__ BackwardLaunch<T, KeyGrad, M> const launch) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(128) std::uint8_t shared[];
  Backward<HeadDim, T, KeyGrad, M, Deterministic>{launch, ptx::shared_address(shared)}.run();
#endif
}

}  // namespace lightseq::sm80
