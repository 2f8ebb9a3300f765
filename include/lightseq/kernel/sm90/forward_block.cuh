// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/range.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/ptx.cuh"
#include "lightseq/kernel/sm90/barrier.cuh"
#include "lightseq/kernel/sm90/tile.cuh"
#include "lightseq/kernel/sm90/tma.cuh"
#include "lightseq/kernel/sm90/wgmma.cuh"
#include "lightseq/mask/mask.hpp"
#include "lightseq/softmax/online.cuh"

/// What a thread block of the forward kernel does. One warp loads queries and keys, one values, through the
/// copy engine; each other warpgroup holds 64 queries and, while the tensor cores multiply weights and values
/// of one tile, makes the softmax of the next. Thread blocks stay and take query tiles from a counter.
namespace lightseq::sm90 {

/// A Segment in the 32 bits that are ample for one launch.
struct Rows {
  int begin = 0;   ///< position of the first row
  int stride = 1;  ///< from one row's position to the next one's
  int count = 0;

  __device__ __forceinline__ int position(int row) const { return begin + row * stride; }
  __device__ __forceinline__ Range hull(int first, int rows) const {
    return {position(first), std::int64_t{position(first + rows - 1)} + 1};
  }
};

/// All that a launch is told. Element 0 and 1 of an array belong to the two segments of a shard, whose maps
/// begin at its first row: then the copy engine itself keeps to the segment.
template <class Out, Mask M>
struct ForwardLaunch {
  M mask;
  CUtensorMap q[2] = {}, k[2] = {}, v[2] = {}, o[2] = {};
  Rows queries[2] = {}, keys[2] = {};
  Tensor<float const> o_in = {};
  RowStats<float const> lse_in = {};
  Tensor<Out> o_out = {};
  RowStats<float> lse_out = {};
  int heads = 0, group = 0;  ///< query heads, and how many of them share a key/value head
  int batch_heads = 0;
  int section = 0;      ///< batches x heads whose tiles are taken together
  int query_tiles = 0;  ///< of one batch and head
  int tiles = 0;        ///< of all of them
  float scale = 0;      ///< with the factor log2(e)
  unsigned* counter = nullptr;
};

template <int HeadDim, class T, class Out, Mask M>
struct Forward {
  static constexpr ForwardTile tile = forward_tile(HeadDim);
  static constexpr int query_rows = tile.query_rows, key_rows = tile.key_rows, stages = tile.stages;
  static constexpr int warpgroups = query_rows / 64;
  static constexpr int threads = 128 * (warpgroups + 1);
  static constexpr int panels = (HeadDim + 63) / 64;
  static constexpr int query_panel = query_rows * 128, key_panel = key_rows * 128;  ///< bytes
  static constexpr int query_bytes = panels * query_panel, key_bytes = panels * key_panel;

  /// Elements leave through shared memory and the copy engine, floats straight from the registers.
  static constexpr bool stages_o = std::is_same_v<Out, T>;
  /// Where shared memory is short, a warpgroup's output takes the place of its queries.
  static constexpr bool o_over_q = stages_o && HeadDim > 128;
  static constexpr int o_bytes = stages_o && !o_over_q ? query_bytes : 0;

  /// What the scores' sum over a thread's part of a tile may reach before the reference must move: weights
  /// must fit in T.
  static constexpr float largest_sum = std::is_same_v<T, float16> ? 0x1p14f : 0x1p50f;

  /// A query tile as the loading warp announces it.
  struct QueryTile {
    int segment, first;  ///< segment and row in it
    int head, batch;
    int kind;
  };
  enum : int { no_keys, some_keys, no_more_tiles };  ///< QueryTile::kind

  /// A key tile as it lies in its stage.
  struct KeyTile {
    int position, stride;  ///< of its rows
    int rows;              ///< less than key_rows at the segment's end
    int flags;
  };
  /// KeyTile::flags. The key tile that follows is described here too: which code it needs must be known
  /// early.
  enum : int { masked = 1, more_masked = 2, more_unmasked = 4 };

  struct Control {
    Barrier q_full, q_empty, tile_full, tile_empty;
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

  using Launch = ForwardLaunch<Out, M>;

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
      control.tile_empty.init(4 * warpgroups + 1);
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
    } else {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(tile.compute_registers));
      compute(warpgroup - 1);
    }
  }

  /// The key tiles that some queries see, from the last to the first. A whole warp walks, and asks the mask
  /// about 32 tiles at a time.
  struct KeyWalk {
    Launch const& launch;
    Range queries;
    int segment = 2;
    int first = 0;       ///< the current tile's first row in `segment`
    bool tests = false;  ///< whether the current tile needs element tests
    int end = 0;         ///< the tiles from here on are behind us
    int scanned = 0;     ///< bit i of the two below is tile scanned - 1 - i
    unsigned visible = 0, partial = 0;

    __device__ __forceinline__ bool next() {
      while (visible == 0) {
        if (end == 0) {
          if (segment == 0) return false;
          --segment;
          end = (launch.keys[segment].count + key_rows - 1) / key_rows;
        } else {
          scan();
        }
      }
      int const bit = __ffs(static_cast<int>(visible)) - 1;
      visible &= visible - 1;
      first = (scanned - 1 - bit) * key_rows;
      tests = (partial >> bit & 1) != 0;
      return true;
    }

    __device__ __forceinline__ void scan() {
      Rows const& keys = launch.keys[segment];
      int const row = (end - 1 - static_cast<int>(threadIdx.x) % 32) * key_rows;
      int const rows = min(key_rows, keys.count - row);
      Cover const cover = row < 0 ? Cover::none : launch.mask.cover(queries, keys.hull(row, rows));
      visible = __ballot_sync(~0u, cover != Cover::none);
      partial = __ballot_sync(~0u, cover == Cover::partial || rows < key_rows);
      scanned = end;
      end = max(end - 32, 0);
    }
  };

  /// Where tile `index` of the grid lies. Long query tiles tend to come last in a shard and are taken first.
  __device__ __forceinline__ QueryTile locate(int index) const {
    int const per_section = launch.section * launch.query_tiles;
    int const section = index / per_section, rest = index % per_section;
    int const heads_here = min(launch.section, launch.batch_heads - section * launch.section);
    int const batch_head = section * launch.section + rest % heads_here;
    int const number = launch.query_tiles - 1 - rest / heads_here;
    int const in_first = (launch.queries[0].count + query_rows - 1) / query_rows;
    int const segment = number < in_first ? 0 : 1;
    return {segment, (number - segment * in_first) * query_rows, batch_head % launch.heads,
            batch_head / launch.heads, no_keys};
  }

  __device__ __forceinline__ KeyWalk walk_keys(QueryTile const& query_tile) const {
    Rows const& queries = launch.queries[query_tile.segment];
    int const rows = min(query_rows, queries.count - query_tile.first);
    return {launch, queries.hull(query_tile.first, rows)};
  }

  /// The warp that takes query tiles, announces them and loads queries and keys.
  __device__ __forceinline__ void load_keys() {
    bool const leads = threadIdx.x == 0;
    Ring<stages> ring;
    std::uint32_t tile_parity = 0;
    auto const announce = [&](QueryTile const& query_tile) {
      control.tile_empty.wait(tile_parity ^ 1);
      control.query_tile = query_tile;
      control.tile_full.arrive();
    };
    for (int index = static_cast<int>(blockIdx.x); index < launch.tiles;) {
      QueryTile query_tile = locate(index);
      int const kv_head = query_tile.head / launch.group;
      KeyWalk walk = walk_keys(query_tile);
      bool more = walk.next();
      query_tile.kind = more ? some_keys : no_keys;
      if (leads) announce(query_tile);
      if (leads && !more) {
        control.q_empty.wait(tile_parity ^ 1);
        control.q_full.arrive();
      }
      for (bool q_missing = true; more; q_missing = false) {
        Rows const& keys = launch.keys[walk.segment];
        CUtensorMap const& map = launch.k[walk.segment];
        int const first = walk.first;
        KeyTile key_tile{keys.position(first), keys.stride, min(key_rows, keys.count - first),
                         walk.tests ? masked : 0};
        more = walk.next();
        if (more) key_tile.flags |= walk.tests ? more_masked : more_unmasked;
        if (leads) {
          int const s = ring.stage;
          control.k_empty[s].wait(ring.parity ^ 1);
          control.key_tiles[s] = key_tile;
          load_rows(k_offset + s * key_bytes, key_panel, map, first, kv_head, query_tile.batch,
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
    if (leads) announce({.kind = no_more_tiles});
  }

  /// The warp that loads values: another one, so that keys never wait for room for values.
  __device__ __forceinline__ void load_values() {
    bool const leads = threadIdx.x % 32 == 0;
    Ring<stages> ring;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      control.tile_full.wait(tile_parity);
      QueryTile const query_tile = control.query_tile;
      __syncwarp();
      control.tile_empty.arrive_if(leads);
      if (query_tile.kind == no_more_tiles) return;
      int const kv_head = query_tile.head / launch.group;
      KeyWalk walk = walk_keys(query_tile);
      while (walk.next()) {
        int const s = ring.stage;
        if (leads) {
          control.v_empty[s].wait(ring.parity ^ 1);
          load_rows(v_offset + s * key_bytes, key_panel, launch.v[walk.segment], walk.first, kv_head,
                    query_tile.batch, control.v_full[s]);
        }
        __syncwarp();
        ring.advance();
      }
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
        Values::left_registers(o, p + 4 * i, v_base + stage * (key_bytes >> 4) + i * 128);
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
      __syncwarp();
      control.tile_empty.arrive_if(leads_warp);
      if (query_tile.kind == no_more_tiles) break;
      Rows const& queries = launch.queries[query_tile.segment];
      int const row = query_tile.first + warpgroup * 64 + warp * 16 + lane / 4;  ///< and row + 8

      OnlineSoftmax softmax;
      if (launch.o_in.data == nullptr) {
#pragma unroll
        for (int i = 0; i < HeadDim / 2; ++i) o[i] = 0;
      } else {
        resume(query_tile, row, softmax, o);
      }
      auto const rescale = [&] {
#pragma unroll
        for (int i = 0; i < HeadDim / 2; ++i) o[i] *= softmax.factor[i / 2 % 2];
      };

      control.q_full.wait(tile_parity);
      if (query_tile.kind == some_keys) {
        control.k_full[ring.stage].wait(ring.parity);
        begin_scores(ring.stage);
        KeyTile key_tile = control.key_tiles[ring.stage];
        int flags = ptx::uniform(key_tile.flags);
        wgmma_wait<0>();
        pin(s);
        control.k_empty[ring.stage].arrive_if(leads_warp);
        if (flags & masked) hide(s, key_tile, queries, row);
        if (softmax.add(s, scale) && launch.o_in.data != nullptr) rescale();
        pack_weights();
        Ring<stages> before = ring;
        ring.advance();

        // In turns, whoever comes first has waited for the tiles, and the barrier tells the others.
        bool const waits = !tile.takes_turns || warpgroup == 0;
        auto const step = [&](auto tests) {
          if (waits) control.k_full[ring.stage].wait(ring.parity);
          wait_turn();
          begin_scores(ring.stage);
          key_tile = control.key_tiles[ring.stage];
          flags = ptx::uniform(key_tile.flags);
          if (waits) control.v_full[before.stage].wait(before.parity);
          begin_values(before.stage);
          pass_turn();
          float offset[2] = {softmax.offset(0, scale), softmax.offset(1, scale)};
          pin(offset);
          wgmma_wait<1>();
          pin(s);
          bool moved = false;
          if constexpr (decltype(tests)::value) {
            hide(s, key_tile, queries, row);
            moved = softmax.add(s, scale);
          } else if (!softmax.add_fixed(s, scale, offset, largest_sum)) {
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
        control.v_full[before.stage].wait(before.parity);
        begin_values(before.stage);
        wgmma_wait<0>();
        pin(o);
        control.v_empty[before.stage].arrive_if(leads_warpgroup);
      } else if constexpr (!o_over_q) {
        control.q_empty.arrive_if(leads_warp);
      }
      finish(query_tile, row, warpgroup, softmax, o);
      tile_parity ^= 1;
    }
    if (stages_o && thread == 0) wait_stores();
  }

  /// Hides the pairs that the mask hides, and the rows behind the end of the keys.
  __device__ __forceinline__ void hide(float (&s)[key_rows / 2], KeyTile const& key_tile, Rows const& queries,
                                       int row) const {
    // Queries behind the end are given the last one's position: a mask is asked only about positions there
    // are.
    int const query[2] = {queries.position(min(row, queries.count - 1)),
                          queries.position(min(row + 8, queries.count - 1))};
    int const column = threadIdx.x % 4 * 2;
    int const rows = key_tile.rows - column;
    int const position = key_tile.position + column * key_tile.stride;
    int const last_position = key_tile.position + (key_tile.rows - 1) * key_tile.stride;
#pragma unroll
    for (int i = 0; i < key_rows / 2; ++i) {
      int const step = i / 4 * 8 + i % 2;
      int const key = min(position + step * key_tile.stride, last_position);
      bool const visible = launch.mask.visible(query[i / 2 % 2], key) & (step < rows);
      s[i] = visible ? s[i] : -OnlineSoftmax::infinity;
    }
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

  /// Loads the state of keys attended before.
  __device__ __forceinline__ void resume(QueryTile const& at, int row, OnlineSoftmax& softmax,
                                         float (&o)[HeadDim / 2]) const {
    int const lane = threadIdx.x % 32;
    int const offset = at.segment * launch.queries[0].count;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int const token = row + 8 * r;
      bool const exists = token < launch.queries[at.segment].count;
      float const lse =
          exists ? launch.lse_in.at(at.batch, at.head)[offset + token] : -OnlineSoftmax::infinity;
      bool const empty = lse == -OnlineSoftmax::infinity;
      softmax.resume(r, lse, launch.scale, lane % 4 == 0);
      float const* const from = launch.o_in.at(at.batch, offset + token, at.head) + lane % 4 * 2;
#pragma unroll
      for (int i = 0; i < HeadDim / 8; ++i) {
        float2 const pair = empty ? float2{0, 0} : *reinterpret_cast<float2 const*>(from + 8 * i);
        o[4 * i + 2 * r] = pair.x * OnlineSoftmax::carried_weight;
        o[4 * i + 2 * r + 1] = pair.y * OnlineSoftmax::carried_weight;
      }
    }
  }

  /// Writes o and lse.
  __device__ __forceinline__ void finish(QueryTile const& at, int row, int warpgroup,
                                         OnlineSoftmax const& softmax, float (&o)[HeadDim / 2]) const {
    int const thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
    int const offset = at.segment * launch.queries[0].count, count = launch.queries[at.segment].count;
    float* const lse_out = launch.lse_out.at(at.batch, at.head) + offset;
    float inverse[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float const lse = softmax.finish(r, launch.scale, inverse[r]);
      if (lane % 4 == 0 && row + 8 * r < count) lse_out[row + 8 * r] = lse;
    }
    if constexpr (!stages_o) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        if (row + 8 * r >= count) break;
        Out* const to = launch.o_out.at(at.batch, offset + row + 8 * r, at.head) + lane % 4 * 2;
#pragma unroll
        for (int i = 0; i < HeadDim / 8; ++i)
          *reinterpret_cast<float2*>(to + 8 * i) = {o[4 * i + 2 * r] * inverse[r],
                                                    o[4 * i + 2 * r + 1] * inverse[r]};
      }
    } else {
      constexpr int panel = o_over_q ? query_panel : 64 * 128;
      std::uint32_t const staging = ptx::shared_address(shared) +
                                    (o_over_q ? warpgroup * 64 * 128 : o_offset + warpgroup * panels * panel);
      if constexpr (!o_over_q) {
        if (thread == 0) wait_stores_read();
        ptx::barrier_sync(8 + warpgroup, 128);
      }
      std::uint32_t const to = staging + (warp * 16 + lane % 16) * 128;
#pragma unroll
      for (int i = 0; i < HeadDim / 16; ++i) {
        float const* const f = o + 8 * i;
        store_matrices(to + i / 4 * panel + ((i % 4 * 2 + lane / 16) ^ lane % 8) * 16,
                       ptx::pack<T>(f[0] * inverse[0], f[1] * inverse[0]),
                       ptx::pack<T>(f[2] * inverse[1], f[3] * inverse[1]),
                       ptx::pack<T>(f[4] * inverse[0], f[5] * inverse[0]),
                       ptx::pack<T>(f[6] * inverse[1], f[7] * inverse[1]));
      }
      fence_shared_writes();
      ptx::barrier_sync(8 + warpgroup, 128);
      if (thread == 0) {
        int const first = at.first + warpgroup * 64;
        if (first < count)
          for (int i = 0; i < panels; ++i)
            store_panel(launch.o[at.segment], 64 * i, first, at.head, at.batch, staging + i * panel);
        commit_stores();
        if constexpr (o_over_q) {
          wait_stores_read();
          control.q_empty.arrive();
        }
      }
    }
  }

  /// Stores four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
  __device__ __forceinline__ static void store_matrices(std::uint32_t address, std::uint32_t a,
                                                        std::uint32_t b, std::uint32_t c, std::uint32_t d) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a),
                 "r"(b), "r"(c), "r"(d)
                 : "memory");
  }
};

template <int HeadDim, class T, class Out, Mask M>
__global__ void __launch_bounds__(Forward<HeadDim, T, Out, M>::threads, 1)
    forward_kernel(__grid_constant__ ForwardLaunch<Out, M> const launch) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) std::uint8_t shared[];
  Forward<HeadDim, T, Out, M>(launch, shared).run();
#endif
}

}  // namespace lightseq::sm90
