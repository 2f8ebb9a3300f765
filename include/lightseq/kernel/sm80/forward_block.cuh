// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/compiled.cuh"
#include "lightseq/kernel/gpu/follow_rule.cuh"
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
template <class T, ForwardResult Result, Mask M>
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

template <int HeadDim, class T, ForwardResult Result, Mask M>
struct Forward {
  using Out = OutputOf<Result>;
  static constexpr ForwardTile tile = forward_tile(HeadDim);
  static constexpr int fragments = tile.fragments, key_rows = tile.key_rows;
  static constexpr int warp_rows = 16 * fragments, query_rows = warp_rows * tile.warps;
  static constexpr int threads = 32 * tile.warps;

  using QueryTile = RowTile<query_rows, HeadDim, threads>;
  using KeyTile = RowTile<key_rows, HeadDim, threads>;
  static constexpr int query_panel = QueryTile::panel, key_panel = KeyTile::panel;  ///< bytes
  static constexpr int key_bytes = KeyTile::bytes;

  /// The thread block's shared memory, 128-byte aligned: a tile of queries, two stages of keys and values.
  struct Memory {
    std::uint8_t q[QueryTile::bytes];
    std::uint8_t k[2][KeyTile::bytes], v[2][KeyTile::bytes];
  };
  static constexpr int shared_bytes = static_cast<int>(sizeof(Memory));
  static_assert(shared_bytes <= 98 * 1024, "lightseq: the forward tile does not fit in shared memory");

  static_assert(gpu_serves_head_dim(HeadDim),
                "lightseq: the head dim must be a multiple of 16, from 16 to 256");

  using Launch = ForwardLaunch<T, Result, M>;
  using Walk = KeyTileIterator<key_rows, M>;

  Launch const& launch;
  Memory& memory;

  __device__ __forceinline__ void run() const {
    __shared__ int next[2];
    int index = static_cast<int>(blockIdx.x);
    for (int turn = 0; index < launch.order.tiles; turn ^= 1) {
      if (threadIdx.x == 0) next[turn] = static_cast<int>(atomicAdd(launch.counter, 1) + gridDim.x);
      Attention(*this, launch.order.locate(index, launch.queries[0].count, query_rows)).run();
      __syncthreads();
      index = next[turn];
    }
  }

 private:
  /// A warp's share of one query tile: `fragments` times 16 of its rows.
  struct Attention {
    Launch const& launch;
    Memory& memory;
    TilePlace place;
    LaunchSegment queries;
    int query_offset;  ///< of the segment's rows in the tensor's tokens
    int lane, warp, kv_head;
    int some_rows;  ///< queries that there are
    Walk walk;
    bool more;                             ///< whether `walk` is at a key tile, which is being loaded
    std::uint32_t q_lane, k_lane, v_lane;  ///< the addresses that a lane names, of the first stages
    int stage = 0;                         ///< of the key tile that `walk` is at

    /// What registers hold. Arrays are no members of Attention: the compiler would keep the numbers beside
    /// them in memory until it has unrolled all loops, and find worse code.
    struct Sums {
      OnlineSoftmax softmax[fragments];
      float o[fragments][HeadDim / 2];
    };

    __device__ __forceinline__ Attention(Forward const& block, TilePlace const& at)
        : launch(block.launch),
          memory(block.memory),
          place(at),
          queries(launch.queries[place.segment]),
          query_offset(place.segment * launch.queries[0].count),
          lane(threadIdx.x % 32),
          warp(threadIdx.x / 32),
          kv_head(place.head / launch.order.group),
          some_rows(min(query_rows, queries.count - place.first)),
          walk(make_walk()),
          more(walk.next()) {
      // Lane l names row l % 8 of matrix l / 8. The matrices of queries and of values follow each other down
      // the rows first, those of keys along the columns first.
      std::uint32_t const swap = lane % 8 * 16;
      q_lane = ptx::shared_address(memory.q) + (warp * warp_rows + lane % 16) * 128 +
               (static_cast<std::uint32_t>(lane) / 16 * 16 ^ swap);
      k_lane = ptx::shared_address(memory.k) + (lane / 16 * 8 + lane % 8) * 128 +
               (static_cast<std::uint32_t>(lane) / 8 % 2 * 16 ^ swap);
      v_lane = ptx::shared_address(memory.v) + lane % 16 * 128 +
               (static_cast<std::uint32_t>(lane) / 16 * 16 ^ swap);
    }

    __device__ __forceinline__ void run() {
      bool const some_keys = more;
      if (more) {
        QueryTile::load(ptx::shared_address(memory.q), launch.q, place.batch, query_offset + place.first,
                        place.head, some_rows);
        load_tile(0);
      }
      Sums sums;
#pragma unroll
      for (int f = 0; f < fragments; ++f) start(f, sums.softmax[f], sums.o[f]);
      while (more) {
#pragma unroll 1
        while (more && walk.tests) step<true>(sums);
#pragma unroll 1
        while (more && !walk.tests) step<false>(sums);
      }
#pragma unroll
      for (int f = 0; f < fragments; ++f) end(f, some_keys, sums.softmax[f], sums.o[f]);
      if constexpr (is_finished<Result>) {
        int const first = place.first + warp * warp_rows;
        store_elements(warp * warp_rows, launch.out.o.at(place.batch, query_offset + first, place.head),
                       queries.count - first);
      }
    }

   private:
    __device__ __forceinline__ RowPair rows(int fragment) const {
      return {place.batch, place.head, query_offset,
              place.first + warp * warp_rows + fragment * 16 + lane / 4, queries};
    }

    __device__ __forceinline__ Walk make_walk() const {
      return {launch.mask, launch.keys, queries.hull(place.first, some_rows), 2, 0, -1};
    }

    /// Begins to load the key tile that `walk` is at.
    __device__ __forceinline__ void load_tile(int to) const {
      int const token = walk.segment * launch.keys[0].count + walk.first;
      int const count = launch.keys[walk.segment].count - walk.first;
      KeyTile::load(ptx::shared_address(memory.k) + to * key_bytes, launch.k, place.batch, token, kv_head,
                    count);
      KeyTile::load(ptx::shared_address(memory.v) + to * key_bytes, launch.v, place.batch, token, kv_head,
                    count);
    }

    /// What rows start from: no keys, or the result that they continue.
    __device__ __forceinline__ void start(int fragment, OnlineSoftmax& softmax,
                                          float (&o)[HeadDim / 2]) const {
      softmax = OnlineSoftmax();
      if (launch.carried.o.data == nullptr) {
#pragma unroll
        for (int i = 0; i < HeadDim / 2; ++i) o[i] = 0;
      } else {
        resume(launch.carried, rows(fragment), softmax, o);
      }
    }

    /// Attends one key tile, and begins to load the next one.
    template <bool Tested>
    __device__ __forceinline__ void step(Sums& sums) {
      int const segment = walk.segment, first = walk.first;
      ptx::wait_copies();
      __syncthreads();  // the tile is there for all, and nobody reads the other stage any more
      more = walk.next();
      if (more) load_tile(stage ^ 1);
      float s[fragments][key_rows / 2];
      multiply_keys(s);
      if constexpr (Tested || HasRule<M>) {
        LaunchSegment const& keys = launch.keys[segment];
        LaunchSegment const tile_keys{keys.position(first), keys.stride, min(key_rows, keys.count - first)};
#pragma unroll
        for (int f = 0; f < fragments; ++f) {
          if constexpr (HasRule<M>) follow_rule(s[f], rows(f), tile_keys, launch.scale, launch.mask);
          if constexpr (Tested) hide(s[f], rows(f), tile_keys, launch.mask);
        }
      }
      raise_tops(sums, s);
      multiply_values(sums, s);
      stage ^= 1;
    }

    /// The scores of the present key tile.
    __device__ __forceinline__ void multiply_keys(float (&s)[fragments][key_rows / 2]) const {
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
    }

    /// Moves the offsets of the weights where scores have outgrown them.
    __device__ __forceinline__ void raise_tops(Sums& sums, float const (&s)[fragments][key_rows / 2]) const {
      float top[fragments][2];
      bool outgrown = false;
#pragma unroll
      for (int f = 0; f < fragments; ++f) {
        sums.softmax[f].find_top(s[f], top[f]);
        outgrown |= sums.softmax[f].outgrown(top[f], score_scale<M>(launch.scale));
      }
      if (!__any_sync(~0u, outgrown)) return;
#pragma unroll
      for (int f = 0; f < fragments; ++f) {
        sums.softmax[f].raise(top[f], score_scale<M>(launch.scale));
#pragma unroll
        for (int i = 0; i < HeadDim / 2; ++i) sums.o[f][i] *= sums.softmax[f].factor[i / 2 % 2];
      }
    }

    /// Makes weights of the scores and adds weights times values, 16 keys at a time: the weights of the next
    /// ones are made while the tensor cores multiply.
    __device__ __forceinline__ void multiply_values(Sums& sums, float (&s)[fragments][key_rows / 2]) const {
      bool far = false;
#pragma unroll
      for (int f = 0; f < fragments; ++f) far |= sums.softmax[f].any_far();
      far = __any_sync(~0u, far);
      OnlineSoftmax::Line line[fragments];
#pragma unroll
      for (int f = 0; f < fragments; ++f)
        line[f] = sums.softmax[f].aim(s[f], score_scale<M>(launch.scale), far);
      std::uint32_t const v_stage = v_lane + stage * key_bytes;
#pragma unroll
      for (int j = 0; j < key_rows / 16; ++j) {
        std::uint32_t p[fragments][4];
#pragma unroll
        for (int f = 0; f < fragments; ++f) {
          sums.softmax[f].weigh_block(s[f] + 8 * j, line[f]);
#pragma unroll
          for (int i = 0; i < 4; ++i) p[f][i] = ptx::pack<T>(s[f][8 * j + 2 * i], s[f][8 * j + 2 * i + 1]);
        }
#pragma unroll
        for (int i = 0; i < HeadDim / 16; ++i) {
          std::uint32_t b[4];
          ptx::load_transposed(b, (v_stage ^ i % 4 * 32) + i / 4 * key_panel + j * 16 * 128);
          multiply(sums.o, 8 * i, p, b);
        }
      }
    }

    /// The epilogue of 16 rows: mends them if need be, and writes them or lays them where queries were.
    __device__ __forceinline__ void end(int f, bool some_keys, OnlineSoftmax& softmax,
                                        float (&o)[HeadDim / 2]) const {
      softmax.add_up();
      RowPair const pair = rows(f);
      if (some_keys && is_suspect(softmax, o)) {
        auto const segment = [&](int i) {
          std::int64_t const skip = i * launch.keys[0].count;
          return SegmentKeys<T>{launch.keys[i], launch.k.from(skip), launch.v.from(skip)};
        };
        auto const walks = [&] { return make_walk(); };
        auto const restart = [&](OnlineSoftmax& s, float(&to)[HeadDim / 2]) { start(f, s, to); };
        VisiblePairs<HeadDim, key_rows, T, M>{launch.mask, pair, launch.q, kv_head, launch.scale}.mend(
            walks, segment, restart, softmax, o);
      }
      finish(softmax, pair, launch.out, o);
      if constexpr (is_finished<Result>) {
        stage_elements(warp * warp_rows + f * 16, o);
      } else {
        store_floats(launch.out.o, pair, o);
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
      int const thread = threadIdx.x % 32;  // with `lane`, ptxas spills more
      __syncwarp();
#pragma unroll
      for (int i = 0; i < HeadDim / 8; ++i)
#pragma unroll
        for (int r = 0; r < 2; ++r)
          asm volatile(
              "st.shared.b32 [%0], %1;" ::"r"(ptx::shared_address(memory.q) + thread % 4 * 4 +
                                              QueryTile::chunk_offset(first + thread / 4 + 8 * r, i)),
              "r"(ptx::pack<T>(o[4 * i + 2 * r], o[4 * i + 2 * r + 1]))
              : "memory");
    }

    /// Writes a warp's rows, of which there are `count`, from there to memory.
    __device__ __forceinline__ void store_elements(int first, Out* to, int count) const {
      int const thread = threadIdx.x % 32, chunk = thread % QueryTile::columns;
      __syncwarp();
      if (chunk >= QueryTile::chunks) return;
      to += chunk * 8;
#pragma unroll 4
      for (int row = thread / QueryTile::columns; row < min(count, warp_rows);
           row += 32 / QueryTile::columns) {
        uint4 value;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                     : "r"(ptx::shared_address(memory.q) + QueryTile::chunk_offset(first + row, chunk))
                     : "memory");
        *reinterpret_cast<uint4*>(to + row * launch.out.o.strides.token) = value;
      }
    }
  };
};

template <int HeadDim, class T, ForwardResult Result, Mask M>
__global__ void __launch_bounds__(Forward<HeadDim, T, Result, M>::threads, forward_tile(HeadDim).blocks)
    forward_kernel(__grid_constant__ ForwardLaunch<T, Result, M> const launch) {
#if __CUDA_ARCH__ >= 800
  extern __shared__ __align__(128) std::uint8_t shared[];
  using Block = Forward<HeadDim, T, Result, M>;
  Block{launch, *reinterpret_cast<typename Block::Memory*>(shared)}.run();
#else
  refuse_portable_kernel<HeadDim>();
#endif
}

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
