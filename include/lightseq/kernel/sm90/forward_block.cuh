// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/compiled.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/key_tile_iterator.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/gpu/query_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/visible_pairs.cuh"
#include "lightseq/kernel/merge.hpp"
#include "lightseq/kernel/sm90/arrival.cuh"
#include "lightseq/kernel/sm90/barrier.cuh"
#include "lightseq/kernel/sm90/output_stage.cuh"
#include "lightseq/kernel/sm90/tile.hpp"
#include "lightseq/kernel/sm90/tma.cuh"
#include "lightseq/kernel/sm90/wgmma.cuh"
#include "lightseq/mask/mask.hpp"

/// What a thread block of the forward kernel does. One warp loads queries and keys, one values, and one moves
/// outputs, through TMA; each other warpgroup holds 64 queries and, while the tensor cores
/// multiply weights and values of one tile, makes the softmax of the next. Thread blocks stay and take query
/// tiles from a counter.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// All that a launch is told. The elements of an array belong to the segments of the queries or, in the order
/// in which they are attended, to those of the keys. A segment's maps begin at its first row: then the copy
/// engine itself keeps to the segment.
template <class T, class Result, Mask M, int KeySegments>
struct ForwardLaunch {
  M mask;
  CUtensorMap q[2] = {}, o[2] = {}, carried_o[2] = {};
  CUtensorMap k[KeySegments] = {}, v[KeySegments] = {};
  LaunchSegment queries[2] = {}, keys[KeySegments] = {};
  std::uint32_t const* arrived[KeySegments] = {};  ///< as KeyChunk::arrived
  int key_segments = 0;                            ///< how many there are
  Partial<float const> carried = {};
  Result out = {};
  QueryTileScheduler order = {};
  float scale = 0;  ///< with the factor log2(e)
  unsigned* counter = nullptr;

  // What the maps describe, for VisiblePairs: all queries, and each segment's keys and values.
  Tensor<T const> queries_at = {}, keys_at[KeySegments] = {}, values_at[KeySegments] = {};
};

/// KeySegments is the most that a launch can have; beyond the two of a shard, they may arrive meanwhile.
template <int HeadDim, class T, class Result, Mask M, int KeySegments>
struct Forward {
  using Out = OutputOf<Result>;
  static constexpr bool awaits_keys = KeySegments > Positions::max_segments;
  static_assert(KeySegments <= 32, "lightseq: a word has a bit for each segment that has arrived");
  static constexpr ForwardTile tile = forward_tile(HeadDim);
  static constexpr int query_rows = tile.query_rows, key_rows = tile.key_rows, stages = tile.stages;
  static constexpr int warpgroups = query_rows / 64;
  static constexpr int threads = 128 * (warpgroups + 1);
  static constexpr int panels = (HeadDim + 63) / 64;
  static constexpr int query_panel = query_rows * 128, key_panel = key_rows * 128;  ///< bytes
  static constexpr int query_bytes = panels * query_panel, key_bytes = panels * key_panel;

  /// Whether outputs have shared memory of their own. Where it is too short for that, elements leave in place
  /// of the warpgroup's queries, and floats come to and leave from the registers.
  static constexpr bool stages_o = HeadDim <= 128;
  static constexpr bool o_over_q = !stages_o && is_finished<Result>;
  using OutputStage = sm90::OutputStage<HeadDim, T>;
  static constexpr int o_bytes = stages_o ? warpgroups * OutputStage::bytes : 0;

  /// What the weights' sum over a thread's part of a tile may reach before the offset must move: weights
  /// must fit in T.
  static constexpr float largest_sum = std::is_same_v<T, float16> ? 0x1p14f : 0x1p50f;

  /// A query tile as the loading warp announces it.
  struct QueryTile : TilePlace {
    int kind;
  };
  enum : int { no_keys, some_keys, no_more_tiles };  ///< QueryTile::kind

  /// A key tile as it lies in its stage.
  struct KeyTile : LaunchSegment {
    int flags;
  };
  /// KeyTile::flags. The key tile that follows is described here too: which code it needs must be known
  /// early.
  enum : int { masked = 1, more_masked = 2, more_unmasked = 4 };

  struct Control {
    Barrier q_full, q_empty, tile_full, tile_empty, o_full, o_empty;
    Barrier k_full[stages], k_empty[stages], v_full[stages], v_empty[stages];
    alignas(16) KeyTile key_tiles[stages];
    QueryTile query_tile;
  };
  static constexpr int k_offset = query_bytes;
  static constexpr int v_offset = k_offset + stages * key_bytes;
  static constexpr int o_offset = v_offset + stages * key_bytes;
  static constexpr int control_offset = o_offset + o_bytes;
  static constexpr int shared_bytes = control_offset + static_cast<int>(sizeof(Control));
  static_assert(shared_bytes <= 232448, "lightseq: the forward tile does not fit in shared memory");
  static_assert(HeadDim % 16 == 0 && HeadDim >= 16 && HeadDim <= 256,
                "lightseq: the head dim must be a multiple of 16, from 16 to 256");

  using Launch = ForwardLaunch<T, Result, M, KeySegments>;

  Launch const& launch;
  std::uint8_t* const shared;  ///< 1024-byte aligned
  Control& control;

  __device__ __forceinline__ Forward(Launch const& l, std::uint8_t* s)
      : launch(l), shared(s), control(*reinterpret_cast<Control*>(s + control_offset)) {}

  __device__ __forceinline__ void run() {
    if (threadIdx.x == 0) {
      control.q_full.init(1);
      control.q_empty.init(o_over_q ? warpgroups : 4 * warpgroups);
      control.tile_full.init(1);
      control.tile_empty.init(128 * warpgroups + 32 + (stages_o ? 1 : 0));
      control.o_full.init(4 * warpgroups);
      control.o_empty.init(1);
      for (int i = 0; i < stages; ++i) {
        control.k_full[i].init(1);
        control.k_empty[i].init(4 * warpgroups);  // each warp may have to read the keys again
        control.v_full[i].init(1);
        control.v_empty[i].init(warpgroups);
      }
      fence_barrier_init();
    }
    __syncthreads();
    int const warpgroup = ptx::uniform(static_cast<int>(threadIdx.x) / 128);
    if (warpgroup == 0) {
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(tile.load_registers));
      int const warp = ptx::uniform(static_cast<int>(threadIdx.x) / 32);
      if (warp == 0) load_keys();
      if (warp == 1) load_values();
      if (warp == 2 && stages_o) move_outputs();
    } else {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(tile.compute_registers));
      compute(warpgroup - 1);
    }
  }

  __device__ __forceinline__ QueryTile locate(int index) const {
    return {launch.order.locate(index, launch.queries[0].count, query_rows), no_keys};
  }

  using Walk = KeyTileIterator<key_rows, M>;

  /// The key tiles that a query tile's queries see, in the order of the segments.
  __device__ __forceinline__ Walk walk_keys(QueryTile const& query_tile) const {
    return walk_keys(launch.queries[query_tile.segment], query_tile.first);
  }
  __device__ __forceinline__ Walk walk_keys(LaunchSegment const& queries, int first) const {
    int const rows = min(query_rows, queries.count - first);
    return {launch.mask, launch.keys, queries.hull(first, rows), -1, launch.key_segments - 1, 1};
  }

  /// The warp that takes query tiles, announces them and loads queries and keys.
  __device__ __forceinline__ void load_keys() {
    bool const leads = threadIdx.x == 0;
    Ring<stages> ring;
    std::uint32_t tile_parity = 0, arrived = 0;
    auto const announce = [&](QueryTile const& query_tile) {
      control.tile_empty.wait(tile_parity ^ 1);
      control.query_tile = query_tile;
      control.tile_full.arrive();
    };
    for (int index = static_cast<int>(blockIdx.x); index < launch.order.tiles;) {
      QueryTile query_tile = locate(index);
      int const kv_head = query_tile.head / launch.order.group;
      Walk walk = walk_keys(query_tile);
      bool more = walk.next();
      query_tile.kind = more ? some_keys : no_keys;
      if (leads) announce(query_tile);
      if (leads && !more) {
        control.q_empty.wait(tile_parity ^ 1);
        control.q_full.arrive();
      }
      for (bool q_missing = true; more; q_missing = false) {
        int const segment = walk.segment, first = walk.first;
        LaunchSegment const& keys = launch.keys[segment];
        KeyTile key_tile{{keys.position(first), keys.stride, min(key_rows, keys.count - first)},
                         walk.tests ? masked : 0};
        more = walk.next();
        if (more) key_tile.flags |= walk.tests ? more_masked : more_unmasked;
        if (leads) {
          int const s = ring.stage;
          control.k_empty[s].wait(ring.parity ^ 1);
          control.key_tiles[s] = key_tile;
          await(segment, arrived);
          load_rows(k_offset + s * key_bytes, key_panel, launch.k[segment], first, kv_head, query_tile.batch,
                    control.k_full[s]);
          if (q_missing) {
            control.q_empty.wait(tile_parity ^ 1);
            load_rows(0, query_panel, launch.q[query_tile.segment], query_tile.first, query_tile.head,
                      query_tile.batch, control.q_full);
          }
        }
        __syncwarp();
        ring.advance();
      }
      if (leads) index = static_cast<int>(atomicAdd(launch.counter, 1) + gridDim.x);
      index = ptx::uniform(index);
      tile_parity ^= 1;
    }
    if (leads) announce({{}, no_more_tiles});
  }

  /// The warp that loads values: another one, so that keys never wait for room for values.
  __device__ __forceinline__ void load_values() {
    bool const leads = threadIdx.x % 32 == 0;
    Ring<stages> ring;
    std::uint32_t arrived = 0;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      control.tile_full.wait(tile_parity);
      QueryTile const query_tile = control.query_tile;
      control.tile_empty.arrive();
      if (query_tile.kind == no_more_tiles) return;
      int const kv_head = query_tile.head / launch.order.group;
      Walk walk = walk_keys(query_tile);
      while (walk.next()) {
        int const s = ring.stage;
        if (leads) {
          control.v_empty[s].wait(ring.parity ^ 1);
          await(walk.segment, arrived);
          load_rows(v_offset + s * key_bytes, key_panel, launch.v[walk.segment], walk.first, kv_head,
                    query_tile.batch, control.v_full[s]);
        }
        __syncwarp();
        ring.advance();
      }
    }
  }

  /// The warp that, before a tile's output is there, brings what it continues, and then takes it away.
  __device__ __forceinline__ void move_outputs() {
    if (threadIdx.x % 32 != 0) return;
    constexpr int panel_bytes = OutputStage::panel_bytes;
    constexpr int carried_panels = OutputStage::template panels<float>;
    constexpr int out_panels = OutputStage::template panels<Out>;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      control.tile_full.wait(tile_parity);
      QueryTile const at = control.query_tile;
      control.tile_empty.arrive();
      if (at.kind == no_more_tiles) break;
      if (launch.carried.o.data == nullptr) {
        control.o_empty.arrive();
      } else {
        control.o_empty.arrive_and_expect(o_bytes);
#pragma unroll 1
        for (int i = 0; i < warpgroups * carried_panels; ++i)
          load_panel(shared + o_offset + i * panel_bytes, launch.carried_o[at.segment],
                     i % carried_panels * 32, at.first + i / carried_panels * 64, at.head, at.batch,
                     control.o_empty);
      }
      control.o_full.wait(tile_parity);
      int const rows = launch.queries[at.segment].count - at.first;
#pragma unroll 1
      for (int i = 0; i < warpgroups && 64 * i < rows; ++i)
        for (int j = 0; j < out_panels; ++j)
          store_panel(launch.o[at.segment], j * static_cast<int>(128 / sizeof(Out)), at.first + 64 * i,
                      at.head, at.batch,
                      ptx::shared_address(shared + o_offset + i * OutputStage::bytes + j * panel_bytes));
      commit_stores();
      wait_stores_read();
    }
    wait_stores();
  }

  /// Waits until a segment's keys and values may be read. `arrived` has a bit for each that is known to be.
  __device__ __forceinline__ void await(int segment, std::uint32_t& arrived) const {
    if constexpr (awaits_keys) {
      if ((arrived >> segment & 1) != 0) return;
      if (launch.arrived[segment] != nullptr) wait_arrived(launch.arrived[segment]);
      arrived |= 1u << segment;
    }
  }

  /// Loads a tile, panel by panel, to `offset` in shared memory.
  __device__ __forceinline__ void load_rows(int offset, int panel, CUtensorMap const& map, int first,
                                            int head, int batch, Barrier const& done) const {
    done.arrive_and_expect(panels * panel);
    for (int i = 0; i < panels; ++i)
      load_panel(shared + offset + i * panel, map, 64 * i, first, head, batch, done);
  }

  __device__ __forceinline__ void compute(int warpgroup) {
    using Scores = Wgmma<key_rows, T>;
    using Values = Wgmma<HeadDim, T>;
    int const thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
    std::uint32_t const leads_warp = lane == 0, leads_warpgroup = thread == 0;
    std::uint32_t const q_base = descriptor(ptx::shared_address(shared) + warpgroup * 64 * 128);
    std::uint32_t const k_base = descriptor(ptx::shared_address(shared + k_offset));
    std::uint32_t const v_base = descriptor(ptx::shared_address(shared + v_offset), key_panel);
    float scale = launch.scale;
    pin(scale);

    float o[HeadDim / 2], s[key_rows / 2];
    std::uint32_t p[key_rows / 4];
    Ring<stages> ring;
    std::uint32_t tile_parity = 0;

    auto const begin_scores = [&](int stage) {
      pin(s);
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < HeadDim / 16; ++i) {
        std::uint32_t const q_step = q_base + ((i / 4 * query_panel + i % 4 * 32) >> 4);
        std::uint32_t const k_step =
            k_base + stage * (key_bytes >> 4) + ((i / 4 * key_panel + i % 4 * 32) >> 4);
        if (i == 0) {
          Scores::template both_shared<false>(s, q_step, k_step);
        } else {
          Scores::template both_shared<true>(s, q_step, k_step);
        }
      }
      wgmma_commit();
    };
    auto const begin_values = [&](int stage) {
      pin(o);
      pin(p);
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < key_rows / 16; ++i)
        Values::template left_registers<true>(o, p + 4 * i, v_base + stage * (key_bytes >> 4) + i * 128);
      wgmma_commit();
    };
    auto const pack_weights = [&] {
#pragma unroll
      for (int i = 0; i < key_rows / 4; ++i) p[i] = ptx::pack<T>(s[2 * i], s[2 * i + 1]);
    };
    auto const wait_turn = [&] {
      if constexpr (tile.takes_turns) ptx::barrier_sync(1 + warpgroup, 256);
    };
    auto const pass_turn = [&] {
      if constexpr (tile.takes_turns) ptx::barrier_arrive(1 + (warpgroup + 1) % warpgroups, 256);
    };
    if (tile.takes_turns && warpgroup == 0) ptx::barrier_arrive(1, 256);

    while (true) {
      control.tile_full.wait(tile_parity);
      QueryTile query_tile = control.query_tile;
      query_tile.kind = ptx::uniform(query_tile.kind);
      control.tile_empty.arrive();
      if (query_tile.kind == no_more_tiles) break;
      RowPair const rows{query_tile.batch, query_tile.head, query_tile.segment * launch.queries[0].count,
                         query_tile.first + warpgroup * 64 + warp * 16 + lane / 4,
                         launch.queries[query_tile.segment]};

      bool const continues = launch.carried.o.data != nullptr;
      auto const start = [&](OnlineSoftmax& first, float(&to)[HeadDim / 2]) {
        first = OnlineSoftmax(largest_sum);
        if (stages_o || !continues) {
#pragma unroll
          for (int i = 0; i < HeadDim / 2; ++i) to[i] = 0;
        } else {
          resume(launch.carried, rows, first, to);
        }
      };
      OnlineSoftmax softmax;
      start(softmax, o);
      RowSum carried[2] = {};
      auto const load_carried = [&] {
        if constexpr (stages_o) {
          if (!continues) return;
#pragma unroll
          for (int r = 0; r < 2; ++r) carried[r] = load_sum(launch.carried, rows, r);
        }
      };
      auto const rescale = [&] {
#pragma unroll
        for (int i = 0; i < HeadDim / 2; ++i) o[i] *= softmax.factor[i / 2 % 2];
      };

      control.q_full.wait(tile_parity);
      if (query_tile.kind == some_keys) {
        control.k_full[ring.stage].wait(ring.parity);
        begin_scores(ring.stage);
        int flags = ptx::read_first(control.key_tiles[ring.stage].flags);
        wgmma_wait<0>();
        pin(s);
        if (flags & masked)
          hide(s, rows, ptx::read_first<LaunchSegment>(control.key_tiles[ring.stage]), launch.mask);
        control.k_empty[ring.stage].arrive_if(leads_warp);
        if (softmax.add(s, scale) && !stages_o && continues) rescale();
        pack_weights();
        Ring<stages> before = ring;
        ring.advance();

        // In turns, whoever comes first has waited for the tiles, and the barrier tells the others.
        bool const waits = !tile.takes_turns || warpgroup == 0;
        auto const step = [&](auto tests) {
          if (waits) control.k_full[ring.stage].wait(ring.parity);
          wait_turn();
          begin_scores(ring.stage);
          flags = ptx::read_first(control.key_tiles[ring.stage].flags);
          if (waits) control.v_full[before.stage].wait(before.parity);
          begin_values(before.stage);
          pass_turn();
          wgmma_wait<1>();
          pin(s);
          bool moved = false;
          if constexpr (decltype(tests)::value) {
            hide(s, rows, ptx::read_first<LaunchSegment>(control.key_tiles[ring.stage]), launch.mask);
            moved = softmax.add(s, scale);
          } else if (!softmax.add_fixed(s, scale)) {
            score_again(s, warpgroup, ring.stage);
            moved = softmax.add(s, scale);
          }
          control.k_empty[ring.stage].arrive_if(leads_warp);
          wgmma_wait<0>();
          pin(o);
          pin(p);
          control.v_empty[before.stage].arrive_if(leads_warpgroup);
          pack_weights();
          if (moved) rescale();
          before = ring;
          ring.advance();
        };
        while (flags & (more_masked | more_unmasked)) {
#pragma unroll 1
          while (flags & more_masked) step(std::true_type{});
#pragma unroll 1
          while (flags & more_unmasked) step(std::false_type{});
        }
        if constexpr (!o_over_q) control.q_empty.arrive_if(leads_warp);
        load_carried();
        control.v_full[before.stage].wait(before.parity);
        begin_values(before.stage);
        wgmma_wait<0>();
        pin(o);
        control.v_empty[before.stage].arrive_if(leads_warpgroup);
        softmax.add_up();
        if (is_suspect(softmax, o)) mend(rows, warpgroup, start, softmax, o);
      } else {
        if constexpr (!o_over_q) control.q_empty.arrive_if(leads_warp);
        load_carried();
        softmax.add_up();
      }
      if constexpr (stages_o) {
        OutputStage const stage{shared + o_offset + warpgroup * OutputStage::bytes};
        float own[2] = {1, 1}, other[2] = {};
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          RowSum row{softmax.offset[r], softmax.sum[r]};
          if (continues) {
            Merge const both = merge(row.top, carried[r].top);
            row = {both.top, both.a * row.sum + both.b * carried[r].sum};
            own[r] = both.a, other[r] = both.b;
          }
          store_sum(launch.out, rows, r, row);
          if constexpr (is_finished<Result>) {
            float const inverse = inverse_of(row.top, row.sum);
            own[r] *= inverse, other[r] *= inverse;
          }
        }
        control.o_empty.wait(tile_parity);
        if (continues) {
          stage.add_to(o, own, other);
        } else if constexpr (is_finished<Result>) {
#pragma unroll
          for (int i = 0; i < HeadDim / 2; ++i) o[i] *= own[i / 2 % 2];
        }
        stage.write(o, Out{});
        fence_shared_writes();
        __syncwarp();
        control.o_full.arrive_if(leads_warp);
      } else {
        finish(softmax, rows, launch.out, o);
        if constexpr (o_over_q) {
          store_over_queries(query_tile, warpgroup, o);
        } else {
          store_floats(launch.out.o, rows, o);
        }
      }
      tile_parity ^= 1;
    }
    if (o_over_q && thread == 0) wait_stores();
  }

  /// See VisiblePairs. The tile's memory is free again: all is read from where the maps take it.
  template <class Start>
  __device__ __forceinline__ void mend(RowPair const& rows, int warpgroup, Start const& start,
                                       OnlineSoftmax& softmax, float (&o)[HeadDim / 2]) const {
    int const row = warpgroup * 64 + threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4;
    int const first = ptx::uniform(rows.row - row);
    auto const make_walk = [&] { return walk_keys(rows.segment, first); };
    auto const segment = [&](int i) {
      return KeyRows<T>{launch.keys[i], launch.keys_at[i], launch.values_at[i]};
    };
    VisiblePairs<HeadDim, key_rows, T, M>{launch.mask, rows, launch.queries_at,
                                          rows.head / launch.order.group, launch.scale}
        .mend(make_walk, segment, start, softmax, o);
  }

  /// Computes this warp's scores once more, with the instruction that needs no whole warpgroup.
  __device__ __forceinline__ void score_again(float (&s)[key_rows / 2], int warpgroup, int stage) const {
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, r = lane % 8;
    std::uint32_t const q_row = ptx::shared_address(shared) + (warpgroup * 64 + warp * 16 + lane % 16) * 128;
    std::uint32_t const k_row =
        ptx::shared_address(shared + k_offset) + stage * key_bytes + (lane / 16 * 8 + r) * 128;
#pragma unroll
    for (int i = 0; i < key_rows / 2; ++i) s[i] = 0;
#pragma unroll 1
    for (int i = 0; i < HeadDim / 16; ++i) {
      int const chunk = i % 4 * 2;
      std::uint32_t a[4], b[4];
      ptx::load_matrices(a, q_row + i / 4 * query_panel + ((chunk + lane / 16) ^ r) * 16);
#pragma unroll
      for (int j = 0; j < key_rows / 16; ++j) {
        ptx::load_matrices(b, k_row + i / 4 * key_panel + j * 16 * 128 + ((chunk + lane / 8 % 2) ^ r) * 16);
        ptx::multiply<T>(s + 8 * j, a, b[0], b[1]);
        ptx::multiply<T>(s + 8 * j + 4, a, b[2], b[3]);
      }
    }
  }

  /// Writes a warpgroup's rows of o, which take the place of its queries.
  __device__ __forceinline__ void store_over_queries(QueryTile const& at, int warpgroup,
                                                     float const (&o)[HeadDim / 2]) const {
    std::uint8_t* const staging = shared + warpgroup * 64 * 128;
    write_elements<T>(staging, query_panel, o);
    fence_shared_writes();
    ptx::barrier_sync(8 + warpgroup, 128);
    if (threadIdx.x % 128 == 0) {
      int const first = at.first + warpgroup * 64;
      if (first < launch.queries[at.segment].count)
        for (int i = 0; i < panels; ++i)
          store_panel(launch.o[at.segment], 64 * i, first, at.head, at.batch,
                      ptx::shared_address(staging + i * query_panel));
      commit_stores();
      wait_stores_read();
      control.q_empty.arrive();
    }
  }
};

template <int HeadDim, class T, class Result, Mask M, int KeySegments>
__global__ void __launch_bounds__(Forward<HeadDim, T, Result, M, KeySegments>::threads, 1)
    forward_kernel(__grid_constant__ ForwardLaunch<T, Result, M, KeySegments> const launch) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) std::uint8_t shared[];
  Forward<HeadDim, T, Result, M, KeySegments>(launch, shared).run();
#else
  refuse_hopper_kernel();
#endif
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
