// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/backward_care.cuh"
#include "lightseq/kernel/gpu/compiled.cuh"
#include "lightseq/kernel/gpu/dq_semaphore.cuh"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/gpu/key_tile_scheduler.cuh"
#include "lightseq/kernel/gpu/online_softmax.cuh"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm90/backward_fragment.cuh"
#include "lightseq/kernel/sm90/backward_split_dims.cuh"
#include "lightseq/kernel/sm90/backward_split_keys.cuh"
#include "lightseq/kernel/sm90/barrier.cuh"
#include "lightseq/kernel/sm90/dq_zero_round.cuh"
#include "lightseq/kernel/sm90/output_stage.cuh"
#include "lightseq/kernel/sm90/tile.hpp"
#include "lightseq/kernel/sm90/tma.cuh"
#include "lightseq/kernel/sm90/wgmma.cuh"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/mask.hpp"

/// What a thread block of the backward kernel does. It takes a tile of keys and values from a counter, keeps
/// their gradients in registers, and steps through the tiles of queries that see them, in every head that
/// shares the keys. One warp loads, two add gradients of queries to memory, and two warpgroups compute.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// All that a launch is told. The elements of an array belong to the segments; a segment's maps begin at its
/// first row: then TMA itself keeps to the segment.
template <int HeadDim, class T, Mask M>
struct BackwardLaunch {
  M mask;
  CUtensorMap q[2] = {}, d_o[2] = {}, dq[2] = {};
  CUtensorMap k[2] = {}, v[2] = {}, dk[2] = {}, dv[2] = {};
  LaunchSegment queries[2] = {}, keys[2] = {};
  KeyTileScheduler order = {};
  int query_tiles = 0;  ///< of one batch and head
  float scale = 0;
  float late_scale = 1;          ///< the factor that weights lack where they should carry `scale`
  float value_scale = 1;         ///< the factor that frees the gradients of values from what weights carry
  bool dkv_zero = false;         ///< as BackwardCall's
  float const* stats = nullptr;  ///< what backward_stats writes
  unsigned* counter = nullptr;   ///< of key tiles that have been taken
  /// For each batch, head and query tile: the turn, plus 1, of the key tile that has added its part last.
  unsigned* semaphores = nullptr;
  DqZeroRound<HeadDim, T, backward_tile(HeadDim).query_rows> sums = {};
};

template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
struct Backward {
  static constexpr BackwardTile tile = backward_tile(HeadDim);
  static constexpr int query_rows = tile.query_rows, key_rows = tile.key_rows, stages = tile.stages;
  static constexpr int threads = 384;
  static constexpr int panels = (HeadDim + 63) / 64;
  static constexpr int query_panel = query_rows * 128, key_panel = key_rows * 128;  ///< bytes
  static constexpr int query_bytes = panels * query_panel, key_bytes = panels * key_panel;
  static constexpr int ds_bytes = key_rows / 64 * query_panel;

  /// The dims are too many for one warpgroup's registers: each has half of them.
  static constexpr bool splits_dims = HeadDim > 128;
  /// The gradients of queries come as [64 dims of the group, queries]: more tiles of queries fit so.
  static constexpr bool dq_transposed = HeadDim > 64 && !splits_dims;
  /// The gradients of queries of a step are computed in the next one: the warpgroups need not meet in each
  /// step. Where they leave in turn and the turns come late, this only delays them.
  static constexpr bool dq_late =
      HeadDim <= 64 || (dq_transposed && (!Deterministic || std::is_same_v<M, Full>));

  /// How a warpgroup's sums of 64 rows pass through shared memory.
  using Stage = OutputStage<splits_dims ? 128 : HeadDim, T>;
  static constexpr int dq_rows = dq_transposed ? query_rows : 64;  ///< of a panel of 32 dims
  static constexpr int dq_panels = dq_transposed ? 2 : Stage::template panels<float>;
  static constexpr int dq_bytes = dq_panels * dq_rows * 128;  ///< of a warpgroup

  /// A key tile as the loading warp announces it. It stays where it is until the next one has been taken: the
  /// warps that move data have few registers, and read of it what they need when they need it.
  struct KeyTile : TilePlace {
    int unit, turn;  ///< unit of DqZeroRound
    bool from_last;  ///< whether later keys were taken earlier; if not, its queries are taken backwards
    int steps;       ///< query tiles of all heads, or -1: no more key tiles
  };
  /// A query tile.
  struct Step {
    int segment, first, head;
    int tests;  ///< the sum of those below that hold
  };
  static constexpr int cut = 1;          ///< pairs must be tested
  static constexpr int scales = 2;       ///< weights do not carry the factor that they should carry
  static constexpr int steps_known = 8;  ///< a step is forgotten when its sums have long left

  struct Control {
    Barrier tile_full, tile_empty, kv_full, kv_empty, k_finite;
    Barrier q_full[stages], q_empty[stages], d_o_full[stages], d_o_empty[stages];
    Barrier ds_full[2], ds_empty[2];
    Barrier dq_full[2][2], dq_empty[2];  ///< [even or odd step][warpgroup], and [warpgroup]
    alignas(16) float stats[stages][stats_floats<query_rows>];  ///< as backward_stats writes them
    alignas(16) Step steps[steps_known];
    Barrier step_full[steps_known];  ///< only where gradients of queries leave in turn
    KeyTile key_tiles[2];
  };
  static constexpr int v_offset = key_bytes;
  static constexpr int q_offset = v_offset + key_bytes;
  static constexpr int d_o_offset = q_offset + stages * query_bytes;
  static constexpr int ds_offset = d_o_offset + stages * query_bytes;
  static constexpr int dq_offset = ds_offset + 2 * ds_bytes;
  static constexpr int control_offset = dq_offset + 2 * dq_bytes;
  static constexpr int shared_bytes = control_offset + static_cast<int>(sizeof(Control));
  static_assert(shared_bytes <= 232448, "lightseq: the backward tile does not fit in shared memory");
  static_assert(HeadDim % 16 == 0 && HeadDim >= 16 && HeadDim <= 256,
                "lightseq: the head dim must be a multiple of 16, from 16 to 256");

  BackwardLaunch<HeadDim, T, M> const& launch;
  std::uint8_t* const shared;  ///< 1024-byte aligned
  Control& control;

  __device__ __forceinline__ Backward(BackwardLaunch<HeadDim, T, M> const& l, std::uint8_t* s)
      : launch(l), shared(s), control(*reinterpret_cast<Control*>(s + control_offset)) {}

  __device__ __forceinline__ void run() {
    if (threadIdx.x == 0) {
      control.tile_full.init(1);
      control.tile_empty.init(8 + 2);
      control.kv_full.init(1);
      control.kv_empty.init(2 + 2);
      control.k_finite.init(2);
      for (int i = 0; i < stages; ++i) {
        control.q_full[i].init(1);
        control.q_empty[i].init(256);  // each thread has read the step and its statistics by itself
        control.d_o_full[i].init(1);
        control.d_o_empty[i].init(2);
      }
      for (int i = 0; i < 2; ++i) {
        control.ds_full[i].init(8);
        control.ds_empty[i].init(2);
        control.dq_full[i][0].init(4);
        control.dq_full[i][1].init(4);
        control.dq_empty[i].init(1);
      }
      for (Barrier& full : control.step_full) full.init(1);
      fence_barrier_init();
    }
    __syncthreads();
    int const warpgroup = ptx::uniform(static_cast<int>(threadIdx.x) / 128);
    if (warpgroup == 0) {
      asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(tile.move_registers));
      int const warp = ptx::uniform(static_cast<int>(threadIdx.x) / 32);
      if (warp == 0) load();
      if (warp == 1 || warp == 2) add_dq(warp - 1);
      if (warp == 3) zero_and_round<1>();
    } else {
      asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(tile.compute_registers));
      if constexpr (splits_dims) {
        compute_split_dims<HeadDim, T>(*this, warpgroup - 1);
      } else {
        compute_split_keys<HeadDim, T>(*this, warpgroup - 1);
      }
      if (threadIdx.x % 128 == 0) wait_stores();
      __syncwarp();
      zero_and_round<4>();
    }
  }

  /// Zeroes gradients of queries before parts are added to them, and rounds them afterwards.
  template <int Loads>
  __device__ __forceinline__ void zero_and_round() const {
    launch.sums.template zero_and_round<Loads>(launch.order, launch.counter, [&](int segment, int first) {
      // In turns, the first part is written: what is left are queries that no key of this launch sees.
      return !Deterministic ||
             semaphore().last_before(query_hull(segment, first), launch.order.key_tiles, false) < 0;
    });
  }

  /// The positions of a key tile's keys.
  struct KeyHull {
    Backward const& block;
    KeyTile const& tile;
    __device__ __forceinline__ operator Range() const { return block.key_hull(tile); }
  };
  using Walk = QueryTileIterator<query_rows, M, KeyHull>;
  using Semaphore = DqSemaphore<query_rows, key_rows, M>;

  /// The query tiles that see a key tile.
  __device__ __forceinline__ Walk walk_queries(KeyTile const& key_tile) const {
    return {launch.mask, launch.queries, {*this, key_tile}, Deterministic && !key_tile.from_last};
  }
  __device__ __forceinline__ Range key_hull(TilePlace const& at) const {
    LaunchSegment const& keys = launch.keys[at.segment];
    return keys.hull(at.first, min(key_rows, keys.count - at.first));
  }
  __device__ __forceinline__ Range query_hull(int segment, int first) const {
    LaunchSegment const& queries = launch.queries[segment];
    return queries.hull(first, min(query_rows, queries.count - first));
  }
  __device__ __forceinline__ Semaphore semaphore() const {
    return {launch.mask, launch.order, launch.queries, launch.keys, launch.semaphores};
  }

  /// The warp that takes key tiles, announces them and loads keys, values, queries and what belongs to them.
  __device__ __forceinline__ void load() {
    bool const leads = threadIdx.x == 0;
    int number = 0;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      int index = leads ? static_cast<int>(atomicAdd(launch.counter, 1)) : 0;
      index = ptx::uniform(index);
      KeyTile& key_tile = control.key_tiles[tile_parity];
      control.tile_empty.wait(tile_parity ^ 1);
      if (leads && index < launch.order.tiles) {
        static_cast<TilePlace&>(key_tile) = launch.order.locate(index, launch.keys[0].count, key_rows);
        key_tile.unit = launch.sums.unit_of_tile(launch.order, index);
        key_tile.turn = launch.order.turn(index);
        key_tile.from_last = index < launch.order.from_last;
      }
      __syncwarp();
      int const steps = index < launch.order.tiles ? walk_queries(key_tile).count() * launch.order.group : -1;
      if (leads) {
        key_tile.steps = steps;
        control.tile_full.arrive();
      }
      if (steps < 0) return;
      if (leads) {
        control.kv_empty.wait(tile_parity ^ 1);
        control.kv_full.arrive_and_expect(2 * key_bytes);
        load_rows(0, key_panel, launch.k[key_tile.segment], key_tile.first, key_tile.head, key_tile.batch,
                  control.kv_full);
        load_rows(v_offset, key_panel, launch.v[key_tile.segment], key_tile.first, key_tile.head,
                  key_tile.batch, control.kv_full);
      }
      for (int i = 0; i < launch.order.group; ++i) {
        Walk walk = walk_queries(key_tile);
        while (walk.next()) {
          if (leads) {
            bool const short_tile = launch.keys[key_tile.segment].count - key_tile.first < key_rows;
            int const tests = (walk.cut || short_tile ? cut : 0) + (launch.late_scale != 1 ? scales : 0);
            load_step({walk.segment, walk.first, key_tile.head * launch.order.group + i, tests},
                      key_tile.batch, number);
          }
          __syncwarp();
          ++number;
        }
      }
    }
  }

  /// The number of a query tile among the tiles of all batches and heads; 31 bits hold more tiles than memory
  /// does.
  __device__ __forceinline__ int tile_number(Step const& step, int batch) const {
    int const in_first = (launch.queries[0].count + query_rows - 1) / query_rows;
    int const head = batch * launch.order.kv_heads * launch.order.group + step.head;
    return head * launch.query_tiles + step.segment * in_first + step.first / query_rows;
  }

  /// Loads the queries of a step, the gradients of their outputs and their statistics.
  __device__ __forceinline__ void load_step(Step const& next, int batch, int number) const {
    int const s = number % stages;
    std::uint32_t const parity = number / stages & 1;
    constexpr int stats_bytes = static_cast<int>(sizeof(control.stats[s]));
    // Before any wait: each instruction after a wait delays the copies.
    Step& step = control.steps[number % steps_known];
    step = next;
    if constexpr (Deterministic) control.step_full[number % steps_known].arrive();
    // The gradients of outputs are needed later, but their place is free earlier.
    control.d_o_empty[s].wait(parity ^ 1);
    control.d_o_full[s].arrive_and_expect(query_bytes);
    load_rows(d_o_offset + s * query_bytes, query_panel, launch.d_o[step.segment], step.first, step.head,
              batch, control.d_o_full[s]);
    control.q_empty[s].wait(parity ^ 1);
    control.q_full[s].arrive_and_expect(query_bytes + stats_bytes);
    load_rows(q_offset + s * query_bytes, query_panel, launch.q[step.segment], step.first, step.head, batch,
              control.q_full[s]);
    std::int64_t const stats = std::int64_t{tile_number(step, batch)} * stats_floats<query_rows>;
    load_bytes(control.stats[s], launch.stats + stats, stats_bytes, control.q_full[s]);
  }

  /// Loads a tile, panel by panel, to `offset` in shared memory.
  __device__ __forceinline__ void load_rows(int offset, int panel, CUtensorMap const& map, int first,
                                            int head, int batch, Barrier const& done) const {
    for (int i = 0; i < panels; ++i)
      load_panel(shared + offset + i * panel, map, 64 * i, first, head, batch, done);
  }

  /// A warp that makes half of each tile's keys finite, and adds gradients of queries to memory: the part of
  /// one warpgroup or, in turn, the odd or the even steps. One warp would be too slow for that: it waits
  /// until they have arrived.
  __device__ __forceinline__ void add_dq(int which) {
    std::uint32_t const leads = threadIdx.x % 32 == 0;
    int number = 0;
    for (std::uint32_t tile_parity = 0;; tile_parity ^= 1) {
      control.tile_full.wait(tile_parity);
      KeyTile const& key_tile = control.key_tiles[tile_parity];
      int const steps = key_tile.steps;
      __syncwarp();
      control.tile_empty.arrive_if(leads);
      if (steps < 0) break;
      control.kv_full.wait(tile_parity);
      make_finite<T, key_bytes / 2>(ptx::shared_address(shared) + which * (key_bytes / 2));
      fence_shared_writes();
      __syncwarp();
      control.k_finite.arrive_if(leads);
      control.kv_empty.arrive_if(leads);
      if constexpr (!Deterministic) {
        if (leads) launch.sums.wait_zeroed(launch.order, key_tile.unit);
        __syncwarp();
      }
      for (int const end = number + steps; number < end; ++number) {
        if constexpr (Deterministic) {
          if ((number & 1) == which) add_in_turn(key_tile, number);
        } else {
          control.dq_full[number & 1][which].wait(number >> 1 & 1);
          if (leads) {
            add_panels(which, control.steps[number % steps_known], key_tile.batch, true);
            commit_stores();
            wait_stores_read();
            control.dq_empty[which].arrive();
          }
          __syncwarp();
        }
      }
      if (leads && launch.sums.rounded.data != nullptr) {
        wait_stores();
        launch.sums.added(key_tile.unit);
      }
      __syncwarp();
    }
    wait_stores();
  }

  /// Adds a step's gradients of queries after all earlier key tiles have added theirs.
  __device__ __forceinline__ void add_in_turn(KeyTile const& key_tile, int number) const {
    Barrier const* const full = control.dq_full[number & 1];
    std::uint32_t const parity = number >> 1 & 1;
    control.step_full[number % steps_known].wait(number / steps_known & 1);
    Step const& step = control.steps[number % steps_known];
    unsigned* const place = launch.semaphores + tile_number(step, key_tile.batch);
    bool const first =
        !semaphore().wait(place, query_hull(step.segment, step.first), key_tile.turn, key_tile.from_last);
    if (threadIdx.x % 32 == 0) {
      for (int group = 0; group < 2; ++group) {
        full[group].wait(parity);
        add_panels(group, step, key_tile.batch, !first || !launch.sums.zeroes);
        commit_stores();
      }
      wait_stores_read<1>();
      control.dq_empty[0].arrive();
      wait_stores_read();
      control.dq_empty[1].arrive();
      wait_stores();
      Semaphore::pass(place, key_tile.turn);
    }
    __syncwarp();
  }

  /// Adds a warpgroup's gradients of queries to those in memory, or else writes them.
  __device__ __forceinline__ void add_panels(int group, Step const& step, int batch, bool adds) const {
    constexpr int dims = dq_transposed ? 64 : splits_dims ? 128 : 0;  // from one warpgroup to the other
    std::uint32_t const from = ptx::shared_address(shared + dq_offset + group * dq_bytes);
    int const first = step.first + (dims == 0 ? 64 * group : 0);
    for (int i = 0; i < dq_panels; ++i)
      if (int const dim = dims * group + 32 * i; dim < HeadDim)
        add_or_store_panel(launch.dq[step.segment], dim, first, step.head, batch, from + i * dq_rows * 128,
                           adds);
  }

  /// Lets a warpgroup's gradients of queries, the `number`-th of this thread block, go to memory.
  template <int Size>
  __device__ __forceinline__ void stage_dq(float (&dq)[Size], int group, int number) const {
    std::uint8_t* const to = shared + dq_offset + group * dq_bytes;
    if constexpr (!scales_weights<T>) {
#pragma unroll
      for (int i = 0; i < Size; ++i) dq[i] *= launch.scale;
    }
    control.dq_empty[group].wait((number & 1) ^ 1);
    if constexpr (dq_transposed) {
      write_across(to, dq);
    } else {
      Stage{to}.write(dq, 0.0f);
    }
    fence_shared_writes();
    __syncwarp();
    control.dq_full[number & 1][group].arrive_if(threadIdx.x % 32 == 0);
  }

  /// Writes, or adds, a tile's gradients of keys and values; `puts` counts the gradients of queries staged
  /// before.
  template <int Size>
  __device__ __forceinline__ void store_dkv(KeyTile const& at, int group, int puts, float (&dk)[Size],
                                            float (&dv)[Size]) const {
    constexpr bool floats = std::is_same_v<KeyGrad, float>;
    constexpr int out_panels = Stage::template panels<KeyGrad>;
    constexpr int dims = 128 / static_cast<int>(sizeof(KeyGrad));
    // Not where the keys are: the next ones come meanwhile.
    constexpr int bytes = 2 * Stage::template panels<T> * Stage::panel_bytes;
    static_assert(bytes >= Stage::bytes && bytes <= ds_bytes + dq_bytes);
    std::uint8_t* const to = shared + control_offset - (2 - group) * bytes;
    bool const leads = threadIdx.x % 128 == 0;
#pragma unroll
    for (int i = 0; i < Size; ++i) {
      if constexpr (scales_weights<T>) {
        dv[i] *= launch.value_scale;
      } else {
        dk[i] *= launch.scale;
      }
    }
    auto const leave = [&](CUtensorMap const& map, std::uint8_t const* from) {
      for (int i = 0; i < out_panels; ++i) {
        int const dim = (splits_dims ? 128 * group : 0) + i * dims;
        int const row = at.first + (splits_dims ? 0 : 64 * group);
        std::uint32_t const panel = ptx::shared_address(from + i * Stage::panel_bytes);
        if (dim >= HeadDim) break;
        add_or_store_panel(map, dim, row, at.head, at.batch, panel, floats && !launch.dkv_zero);
      }
      commit_stores();
    };
    // Floats need the place twice.
    std::uint8_t* const second = to + (floats ? 0 : out_panels * Stage::panel_bytes);
    ptx::barrier_sync(1, 256);  // nobody reads ds any more
    if (leads) control.kv_empty.arrive();
    control.dq_empty[0].wait((puts & 1) ^ 1);
    control.dq_empty[1].wait((puts & 1) ^ 1);
    Stage{to}.write(dv, KeyGrad{});
    if constexpr (floats) {
      fence_shared_writes();
      ptx::barrier_sync(2 + group, 128);
      if (leads) {
        leave(launch.dv[at.segment], to);
        wait_stores_read();
      }
      ptx::barrier_sync(2 + group, 128);
    }
    Stage{second}.write(dk, KeyGrad{});
    fence_shared_writes();
    ptx::barrier_sync(2 + group, 128);
    if (leads) {
      if constexpr (!floats) leave(launch.dv[at.segment], to);
      leave(launch.dk[at.segment], second);
      wait_stores_read();
    }
    ptx::barrier_sync(1, 256);
  }

  /// The next key tile and how many steps it takes; `parity` is the parity of its number.
  __device__ __forceinline__ KeyTile const& take_tile(std::uint32_t parity, int& steps) const {
    control.tile_full.wait(parity);
    KeyTile const& key_tile = control.key_tiles[parity];
    steps = ptx::uniform(key_tile.steps);
    __syncwarp();
    control.tile_empty.arrive_if(threadIdx.x % 32 == 0);
    return key_tile;
  }

  /// threadIdx.x for code that seldom runs: the compiler computes nothing of it beforehand, which would take
  /// registers from the main loop.
  __device__ __forceinline__ static std::uint32_t seldom_thread() {
    std::uint32_t thread = threadIdx.x;
    asm volatile("" : "+r"(thread));
    return thread;
  }

  /// A thread's two keys of the tile, its warpgroup's first one being `offset`.
  __device__ __forceinline__ RowPair keys_of(KeyTile const& at, int offset) const {
    // Unsigned: signed arithmetic on threadIdx.x costs the main loop 40 instructions.
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
    return {at.batch, at.head, 0, at.first + offset + warp * 16 + lane / 4, launch.keys[at.segment]};
  }

  /// What of a step must be tested. Its queries have come.
  __device__ __forceinline__ int tests(int number) const {
    return ptx::uniform(control.steps[number % steps_known].tests);
  }

  /// Hides what the mask hides in the transposed scores of a step that asks for it, of the queries from
  /// `query_offset` in the tile on, and sees to it that hidden pairs add nothing, whatever the numbers are.
  /// `dp` is under way.
  template <int Size>
  __device__ __forceinline__ void hide(float (&s)[Size], float (&dp)[Size], KeyTile const& key_tile,
                                       std::uint32_t tile_parity, int key_offset, int query_offset,
                                       int number, int stage) const {
    Step const step = control.steps[number % steps_known];
    if (ptx::uniform(step.tests) == 0) return;
    bool const cuts = (ptx::uniform(step.tests) & cut) != 0, late = (ptx::uniform(step.tests) & scales) != 0;
    // Both warpgroups find the same here.
    bool const odd_queries = cuts && ptx::uniform(control.stats[stage][2 * query_rows] != 0) != 0;
    if (odd_queries) {
      clean_queries(stage);
      judge(s, ptx::shared_address(control.stats[stage]) + (query_rows + query_offset) * 4);
    }
    if (cuts) {
      control.k_finite.wait(tile_parity);
      hide_keys(s, keys_of(key_tile, key_offset), launch.queries[step.segment], step.first + query_offset,
                launch.mask);
    }
    wgmma_wait<0>();
    pin(dp);
    if (late) {
#pragma unroll
      for (int i = 0; i < Size; ++i) dp[i] *= launch.late_scale;
    }
    if (cuts && (odd_queries || !__all_sync(~0u, begins_finite(dp)))) drop_hidden(s, dp);
  }

  /// Makes finite a step's queries and gradients of outputs, and all offsets numbers. The place of delta,
  /// which has been read, gets the largest score of a row: NaN for each that had a NaN as offset or was not
  /// finite. Both warpgroups call it.
  __device__ __forceinline__ void clean_queries(int stage) const {
    std::uint32_t const thread = seldom_thread();
    std::uint32_t const row = min(thread % 128, query_rows - 1), second = thread >= 256;
    std::uint32_t const offset = ptx::shared_address(control.stats[stage]) + row * 4;
    std::uint32_t const tile =
        ptx::shared_address(shared) + (second ? d_o_offset : q_offset) + stage * query_bytes;
    ptx::barrier_sync(1, 256);
    float const most = largest_score<T>(control.stats[stage][row], exponent_scale(launch.scale));
    bool const low = make_row_finite<T, panels, query_panel>(tile + row * 128);
    bool const high = make_row_finite<T, panels, query_panel>(tile + row * 128 + 16);
    fence_shared_writes();
    ptx::barrier_sync(1, 256);
    store_if(offset, 0, !second && most != most);
    store_if(offset + query_rows * 4, most, !second);
    ptx::barrier_sync(1, 256);
    store_if(offset + query_rows * 4, not_a_number, low | high);
    ptx::barrier_sync(1, 256);
  }
};

template <int HeadDim, class T, class KeyGrad, Mask M, bool Deterministic>
__global__ void __launch_bounds__(Backward<HeadDim, T, KeyGrad, M, Deterministic>::threads, 1)
    backward_kernel(__grid_constant__ BackwardLaunch<HeadDim, T, M> const launch) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) std::uint8_t shared[];
  Backward<HeadDim, T, KeyGrad, M, Deterministic>(launch, shared).run();
#else
  refuse_hopper_kernel();
#endif
}

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
