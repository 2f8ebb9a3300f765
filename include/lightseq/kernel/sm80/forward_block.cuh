// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/compiled.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/key_tile_iterator.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/gpu/query_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/visible_pairs.cuh"
#include "lightseq/kernel/sm80/row_tile.cuh"
#include "lightseq/kernel/sm80/tile.hpp"
#include "lightseq/mask/mask.hpp"

/// What a thread block of the portable forward kernel does. All warps load together, the next key tile while
/// they attend the present one, and each attends its own queries. Thread blocks stay and take query tiles
/// from a counter.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm80 {

/// All that a launch is told. Element 0 and 1 of an array belong to the two segments of a shard.
template <class T, class Result, Mask M>
struct ForwardLaunch {
  M mask;
  Tensor<T const> q = {}, k = {}, v = {};
  LaunchSegment queries[2] = {}, keys[2] = {};
  Partial<float const> carried = {};
  Result out = {};
  QueryTileScheduler order = {};
  float scale = 0;  ///< with the factor log2(e)
  unsigned* counter = nullptr;
};

template <int HeadDim, class T, class Result, Mask M>
struct Forward {
  using Out = OutputOf<Result>;
  static constexpr ForwardTile tile = forward_tile(HeadDim);
  static constexpr int fragments = tile.fragments, key_rows = tile.key_rows;
  static constexpr int warp_rows = 16 * fragments, query_rows = warp_rows * tile.warps;
  static constexpr int threads = 32 * tile.warps;

  using QueryTile = RowTile<query_rows, HeadDim, threads>;
  using KeyTile = RowTile<key_rows, HeadDim, threads>;
  static constexpr int query_panel = QueryTile::panel, key_panel = KeyTile::panel;  ///< bytes
  static constexpr int query_bytes = QueryTile::bytes, key_bytes = KeyTile::bytes;
  static constexpr int k_offset = query_bytes, v_offset = k_offset + 2 * key_bytes;
  static constexpr int shared_bytes = v_offset + 2 * key_bytes;
  static_assert(shared_bytes <= 98 * 1024, "lightseq: the forward tile does not fit in shared memory");

  static_assert(HeadDim % 16 == 0 && HeadDim >= 16 && HeadDim <= 256,
                "lightseq: the head dim must be a multiple of 16, from 16 to 256");

  using Launch = ForwardLaunch<T, Result, M>;
  using Walk = KeyTileIterator<key_rows, M>;

  Launch const& launch;
  std::uint32_t const shared;  ///< address, a multiple of 128

  __device__ __forceinline__ void run() const {
    __shared__ int next[2];
    int index = static_cast<int>(blockIdx.x);
    for (int turn = 0; index < launch.order.tiles; turn ^= 1) {
      if (threadIdx.x == 0) next[turn] = static_cast<int>(atomicAdd(launch.counter, 1) + gridDim.x);
      attend(launch.order.locate(index, launch.queries[0].count, query_rows));
      __syncthreads();
      index = next[turn];
    }
  }

  /// Attends one query tile.
  __device__ __forceinline__ void attend(TilePlace const& place) const {
    LaunchSegment const queries = launch.queries[place.segment];
    int const query_offset = place.segment * launch.queries[0].count;
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int const kv_head = place.head / launch.order.group;
    auto const rows = [&](int fragment) {
      return RowPair{place.batch, place.head, query_offset,
                     place.first + warp * warp_rows + fragment * 16 + lane / 4, queries};
    };

    int const some_rows = min(query_rows, queries.count - place.first);
    auto const make_walk = [&] {
      return Walk{launch.mask, launch.keys, queries.hull(place.first, some_rows), 2, 0, -1};
    };
    Walk walk = make_walk();
    auto const load_tile = [&](int stage) {
      int const token = walk.segment * launch.keys[0].count + walk.first;
      int const count = launch.keys[walk.segment].count - walk.first;
      KeyTile::load(shared + k_offset + stage * key_bytes, launch.k, place.batch, token, kv_head, count);
      KeyTile::load(shared + v_offset + stage * key_bytes, launch.v, place.batch, token, kv_head, count);
    };
    bool more = walk.next();
    bool const some_keys = more;
    if (more) {
      QueryTile::load(shared, launch.q, place.batch, query_offset + place.first, place.head, some_rows);
      load_tile(0);
    }

    auto const start = [&](int fragment, OnlineSoftmax& softmax, float(&o)[HeadDim / 2]) {
      softmax = OnlineSoftmax();
      if (launch.carried.o.data == nullptr) {
#pragma unroll
        for (int i = 0; i < HeadDim / 2; ++i) o[i] = 0;
      } else {
        resume(launch.carried, rows(fragment), softmax, o);
      }
    };
    OnlineSoftmax softmax[fragments];
    float o[fragments][HeadDim / 2];
#pragma unroll
    for (int f = 0; f < fragments; ++f) start(f, softmax[f], o[f]);

    // Lane l names row l % 8 of matrix l / 8. The matrices of queries and of values follow each other down
    // the rows first, those of keys along the columns first.
    std::uint32_t const swap = lane % 8 * 16;
    std::uint32_t const q_lane =
        shared + (warp * warp_rows + lane % 16) * 128 + (static_cast<std::uint32_t>(lane) / 16 * 16 ^ swap);
    std::uint32_t const k_lane = shared + k_offset + (lane / 16 * 8 + lane % 8) * 128 +
                                 (static_cast<std::uint32_t>(lane) / 8 % 2 * 16 ^ swap);
    std::uint32_t const v_lane =
        shared + v_offset + lane % 16 * 128 + (static_cast<std::uint32_t>(lane) / 16 * 16 ^ swap);

    int stage = 0;
    auto const step = [&](auto tests) {
      int const segment = walk.segment, first = walk.first;
      ptx::wait_copies();
      __syncthreads();  // the tile is there for all, and nobody reads the other stage any more
      more = walk.next();
      if (more) load_tile(stage ^ 1);

      float s[fragments][key_rows / 2];
#pragma unroll
      for (int f = 0; f < fragments; ++f)
#pragma unroll
        for (int i = 0; i < key_rows / 2; ++i) s[f][i] = 0;
      std::uint32_t const k_stage = k_lane + stage * key_bytes;
#pragma unroll
      for (int i = 0; i < HeadDim / 16; ++i) {
        std::uint32_t a[fragments][4];
#pragma unroll
        for (int f = 0; f < fragments; ++f)
          ptx::load_matrices(a[f], (q_lane ^ i % 4 * 32) + i / 4 * query_panel + f * 16 * 128);
#pragma unroll
        for (int j = 0; j < key_rows / 16; ++j) {
          std::uint32_t b[4];
          ptx::load_matrices(b, (k_stage ^ i % 4 * 32) + i / 4 * key_panel + j * 16 * 128);
          multiply(s, 8 * j, a, b);
        }
      }

      if constexpr (decltype(tests)::value) {
        LaunchSegment const& keys = launch.keys[segment];
        LaunchSegment const tile_keys{keys.position(first), keys.stride, min(key_rows, keys.count - first)};
#pragma unroll
        for (int f = 0; f < fragments; ++f) hide(s[f], rows(f), tile_keys, launch.mask);
      }
      float top[fragments][2];
      bool outgrown = false;
#pragma unroll
      for (int f = 0; f < fragments; ++f) {
        softmax[f].find_top(s[f], top[f]);
        outgrown |= softmax[f].outgrown(top[f], launch.scale);
      }
      if (__any_sync(~0u, outgrown)) {
#pragma unroll
        for (int f = 0; f < fragments; ++f) {
          softmax[f].raise(top[f], launch.scale);
#pragma unroll
          for (int i = 0; i < HeadDim / 2; ++i) o[f][i] *= softmax[f].factor[i / 2 % 2];
        }
      }

      bool far = false;
#pragma unroll
      for (int f = 0; f < fragments; ++f) far |= softmax[f].any_far();
      far = __any_sync(~0u, far);
      OnlineSoftmax::Line line[fragments];
#pragma unroll
      for (int f = 0; f < fragments; ++f) line[f] = softmax[f].aim(s[f], launch.scale, far);

      // 16 keys at a time: the weights of the next ones are made while the tensor cores multiply.
      std::uint32_t const v_stage = v_lane + stage * key_bytes;
#pragma unroll
      for (int j = 0; j < key_rows / 16; ++j) {
        std::uint32_t p[fragments][4];
#pragma unroll
        for (int f = 0; f < fragments; ++f) {
          softmax[f].weigh_block(s[f] + 8 * j, line[f]);
#pragma unroll
          for (int i = 0; i < 4; ++i) p[f][i] = ptx::pack<T>(s[f][8 * j + 2 * i], s[f][8 * j + 2 * i + 1]);
        }
#pragma unroll
        for (int i = 0; i < HeadDim / 16; ++i) {
          std::uint32_t b[4];
          ptx::load_transposed(b, (v_stage ^ i % 4 * 32) + i / 4 * key_panel + j * 16 * 128);
          multiply(o, 8 * i, p, b);
        }
      }
      stage ^= 1;
    };
    while (more) {
#pragma unroll 1
      while (more && walk.tests) step(std::true_type{});
#pragma unroll 1
      while (more && !walk.tests) step(std::false_type{});
    }

    auto const segment = [&](int i) {
      std::int64_t const skip = i * launch.keys[0].count;
      return KeyRows<T>{launch.keys[i], launch.k.from(skip), launch.v.from(skip)};
    };
#pragma unroll
    for (int f = 0; f < fragments; ++f) {
      softmax[f].add_up();
      RowPair const pair = rows(f);
      if (some_keys && is_suspect(softmax[f], o[f])) {
        auto const restart = [&](OnlineSoftmax& s, float(&to)[HeadDim / 2]) { start(f, s, to); };
        VisiblePairs<HeadDim, key_rows, T, M>{launch.mask, pair, launch.q, kv_head, launch.scale}.mend(
            make_walk, segment, restart, softmax[f], o[f]);
      }
      finish(softmax[f], pair, launch.out, o[f]);
      if constexpr (is_finished<Result>) {
        stage_elements(warp * warp_rows + f * 16, o[f]);
      } else {
        store_floats(launch.out.o, pair, o[f]);
      }
    }
    if constexpr (is_finished<Result>) {
      int const first = place.first + warp * warp_rows;
      store_elements(warp * warp_rows, launch.out.o.at(place.batch, query_offset + first, place.head),
                     queries.count - first);
    }
  }

  /// Columns first, ..., first + 15 of d += a b, for all fragments.
  template <int Size>
  __device__ __forceinline__ static void multiply(float (&d)[fragments][Size], int first,
                                                  std::uint32_t const (&a)[fragments][4],
                                                  std::uint32_t const (&b)[4]) {
#pragma unroll
    for (int f = 0; f < fragments; ++f) {
      ptx::multiply<T>(d[f] + first, a[f], b[0], b[1]);
      ptx::multiply<T>(d[f] + first + 4, a[f], b[2], b[3]);
    }
  }

  /// Puts 16 rows of o where this warp's queries were.
  __device__ __forceinline__ void stage_elements(int first, float const (&o)[HeadDim / 2]) const {
    int const lane = threadIdx.x % 32;
    __syncwarp();
#pragma unroll
    for (int i = 0; i < HeadDim / 8; ++i)
#pragma unroll
      for (int r = 0; r < 2; ++r)
        asm volatile("st.shared.b32 [%0], %1;" ::"r"(shared + lane % 4 * 4 +
                                                     QueryTile::chunk_offset(first + lane / 4 + 8 * r, i)),
                     "r"(ptx::pack<T>(o[4 * i + 2 * r], o[4 * i + 2 * r + 1]))
                     : "memory");
  }

  /// Writes a warp's rows, of which there are `count`, from there to memory.
  __device__ __forceinline__ void store_elements(int first, Out* to, int count) const {
    int const lane = threadIdx.x % 32, chunk = lane % QueryTile::columns;
    __syncwarp();
    if (chunk >= QueryTile::chunks) return;
    to += chunk * 8;
#pragma unroll 4
    for (int row = lane / QueryTile::columns; row < min(count, warp_rows); row += 32 / QueryTile::columns) {
      uint4 value;
      asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                   : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                   : "r"(shared + QueryTile::chunk_offset(first + row, chunk))
                   : "memory");
      *reinterpret_cast<uint4*>(to + row * launch.out.o.strides.token) = value;
    }
  }
};

template <int HeadDim, class T, class Result, Mask M>
__global__ void __launch_bounds__(Forward<HeadDim, T, Result, M>::threads, forward_tile(HeadDim).blocks)
    forward_kernel(__grid_constant__ ForwardLaunch<T, Result, M> const launch) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(128) std::uint8_t shared[];
  Forward<HeadDim, T, Result, M>{launch, ptx::shared_address(shared)}.run();
#else
  refuse_portable_kernel<HeadDim>();
#endif
}

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
