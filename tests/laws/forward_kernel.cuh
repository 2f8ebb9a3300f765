// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "lightseq/kernel/kernel.hpp"
#include "lightseq/kernel/reference.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "support/data.hpp"
#include "support/device.cuh"

/// What every forward kernel for the GPU must do. `Kernel` is its class template, of a head dim, an element
/// type, an output type and a mask; `stream` picks the random data.
namespace lightseq::test {

/// Largest relative errors of o in the element type and of lse, against the dense oracle.
template <class T>
constexpr double o_tolerance = std::is_same_v<T, float16> ? 1e-3 : 5e-3;
constexpr double lse_tolerance = 1e-5;

/// Which documents tokens belong to decides what they see, and no key that is a multiple of 5 is seen: rows
/// without keys, tiles without pairs, and no tile that is full.
struct Documents {
  std::int64_t length;
  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return query / length == key / length && key % 5 != 0;
  }
  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    bool const apart =
        (queries.end - 1) / length < keys.begin / length || (keys.end - 1) / length < queries.begin / length;
    return apart ? Cover::none : Cover::partial;
  }
};
static_assert(Mask<Documents>);

/// A window whose cover never helps: its bounds do, those of queries more than those of keys.
struct LazyWindow {
  std::int64_t left;
  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return key <= query && query - key <= left;
  }
  LIGHTSEQ_HD constexpr Cover cover(Range, Range) const { return Cover::partial; }
  LIGHTSEQ_HD constexpr Range keys_of(Range queries) const { return {queries.begin - left, queries.end}; }
  LIGHTSEQ_HD constexpr Range queries_of(Range keys) const { return {keys.begin, Range::everything().end}; }
};
static_assert(BoundedMask<LazyWindow>);

/// A problem for the forward kernel with its data, on host and device.
template <int HeadDim, class T>
struct ForwardCase {
  Positions queries, keys;
  std::int64_t batch, heads, kv_heads;
  Strides q_strides, kv_strides;  ///< of q and o, and of k and v
  std::vector<T> q, k, v;
  float scale = 1 / std::sqrt(static_cast<float>(HeadDim));

  Shape query_shape() const { return {batch, queries.rows(), heads, HeadDim}; }
  Shape key_shape() const { return {batch, keys.rows(), kv_heads, HeadDim}; }
  std::int64_t rows() const { return batch * heads * queries.rows(); }

  static std::int64_t extent(Shape const& shape, Strides const& strides) {
    return (shape.batch - 1) * strides.batch + std::max<std::int64_t>(shape.tokens - 1, 0) * strides.token +
           (shape.heads - 1) * strides.head + HeadDim;
  }

  /// Fills the tensors with normal numbers, q with `spread` times them.
  void fill(std::uint64_t stream, float spread = 1) {
    q = random_vector<T>(extent(query_shape(), q_strides), stream);
    k = random_vector<T>(extent(key_shape(), kv_strides), stream + 1);
    v = random_vector<T>(extent(key_shape(), kv_strides), stream + 2);
    for (T& value : q) value = T(static_cast<float>(value) * spread);
  }

  template <class M>
  void oracle(M const& mask, std::vector<double>& o, std::vector<double>& lse) const {
    o.assign(static_cast<std::size_t>(rows() * HeadDim), 0);
    lse.assign(static_cast<std::size_t>(rows()), 0);
    ForwardCall<T, double, double> call;
    call.q = {q.data(), q_strides};
    call.k = {k.data(), kv_strides};
    call.v = {v.data(), kv_strides};
    call.queries = queries, call.keys = keys;
    call.o = {o.data(), Strides::packed(query_shape())};
    call.lse = RowStats<double>::packed(lse.data(), heads, queries.rows());
    call.batch = batch, call.heads = heads, call.kv_heads = kv_heads, call.scale = scale;
    reference::forward<HeadDim>(call, mask);
  }
};

/// Strides of some layout that engines use: packed, heads first, or one of several tensors in each token's
/// row.
inline Strides some_layout(Shape const& shape, int choice) {
  if (choice == 0) return Strides::packed(shape);
  if (choice == 1) return {shape.heads * shape.tokens * shape.dim, shape.dim, shape.tokens * shape.dim};
  std::int64_t const row = 3 * shape.heads * shape.dim + 8;
  return {shape.tokens * row + 24, row, shape.dim + 8};
}

/// `rows` rows of at most two segments with strides and gaps.
inline Positions some_positions(std::mt19937_64& random, std::int64_t rows) {
  auto const below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  std::int64_t const stride = 1 + below(3), first = random() % 2 == 0 ? rows : below(rows + 1);
  std::int64_t const begin = below(100);
  return {{{begin, first, stride}, {begin + first * stride + below(300), rows - first, stride}}};
}

template <int HeadDim, class T>
ForwardCase<HeadDim, T> some_case(std::uint64_t stream, std::int64_t longest) {
  std::mt19937_64 random(stream_seed(stream));
  auto const below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  ForwardCase<HeadDim, T> c;
  c.kv_heads = 1 + below(2);
  c.heads = c.kv_heads * (1 + below(3));
  c.batch = 1 + below(2);
  c.queries = some_positions(random, 1 + below(longest));
  c.keys = random() % 4 == 0 ? c.queries : some_positions(random, 1 + below(longest));
  c.q_strides = some_layout(c.query_shape(), static_cast<int>(below(3)));
  c.kv_strides = some_layout(c.key_shape(), static_cast<int>(below(3)));
  c.fill(stream + 1);
  return c;
}

/// What the kernel made of a case; the outputs are packed and were poisoned.
template <class Out>
struct ForwardResult {
  std::vector<Out> o;
  std::vector<float> lse;
};

/// Runs the keys `first`, ..., `first + count - 1` of a case, from `carried` on if there is one.
template <template <int, class, class, Mask> class Kernel, class Out, int HeadDim, class T, class M>
ForwardResult<Out> run_forward(ForwardCase<HeadDim, T> const& c, M const& mask, std::int64_t first,
                               std::int64_t count, ForwardResult<float> const* carried = nullptr,
                               int sm_margin = 0) {
  DeviceArray<T> const q(c.q), k(c.k), v(c.v);
  std::int64_t const o_size = c.extent(c.query_shape(), c.q_strides);
  DeviceArray<Out> const o(poisoned_vector<Out>(o_size));
  DeviceArray<float> const lse(poisoned_vector<float>(c.rows()));
  DeviceArray<float> const o_in(carried != nullptr ? carried->o : std::vector<float>(1));
  DeviceArray<float> const lse_in(carried != nullptr ? carried->lse : std::vector<float>(1));
  DeviceArray<char> const workspace(std::int64_t{Kernel<HeadDim, T, Out, M>::workspace_bytes});
  ForwardCall<T, Out> call;
  call.q = {q.data(), c.q_strides};
  call.k = Tensor<T const>{k.data(), c.kv_strides}.from(first);
  call.v = Tensor<T const>{v.data(), c.kv_strides}.from(first);
  call.queries = c.queries, call.keys = c.keys.slice(first, count);
  call.o = {o.data(), c.q_strides};
  call.lse = RowStats<float>::packed(lse.data(), c.heads, c.queries.rows());
  if (carried != nullptr) {
    call.o_in = {o_in.data(), Strides::packed(c.query_shape())};
    call.lse_in = RowStats<float>::packed(lse_in.data(), c.heads, c.queries.rows());
  }
  call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads, call.scale = c.scale;
  Kernel<HeadDim, T, Out, M> kernel;
  for (Status const& status :
       {kernel.prepare(), kernel.launch(call, mask, workspace.data(), nullptr, sm_margin)})
    if (!status.ok()) throw std::runtime_error(status.message());
  std::vector<Out> const strided = o.values();
  ForwardResult<Out> result{{}, lse.values()};
  for (std::int64_t b = 0; b < c.batch; ++b)
    for (std::int64_t t = 0; t < c.queries.rows(); ++t)
      for (std::int64_t h = 0; h < c.heads; ++h) {
        Out const* const row = Tensor<Out const>{strided.data(), c.q_strides}.at(b, t, h);
        result.o.insert(result.o.end(), row, row + HeadDim);
      }
  return result;
}

template <template <int, class, class, Mask> class Kernel, class Out, int HeadDim, class T, class M>
ForwardResult<Out> run_forward(ForwardCase<HeadDim, T> const& c, M const& mask) {
  return run_forward<Kernel, Out>(c, mask, 0, c.keys.rows());
}

/// The result is what the oracle says, up to rounding in T.
template <int HeadDim, class T, class Out, class M>
void check_result(ForwardCase<HeadDim, T> const& c, M const& mask, ForwardResult<Out> const& got,
                  double slack = 1) {
  std::vector<double> o, lse;
  c.oracle(mask, o, lse);
  INFO("seed ", run_seed(), ", head dim ", HeadDim, ", batch ", c.batch, ", heads ", c.heads, "/", c.kv_heads,
       ", queries ", c.queries.segments[0].rows, "+", c.queries.segments[1].rows, " stride ",
       c.queries.segments[0].stride, ", keys ", c.keys.segments[0].rows, "+", c.keys.segments[1].rows,
       " stride ", c.keys.segments[0].stride);
  CHECK(relative_error(got.o, o) < slack * o_tolerance<T>);
  CHECK(lse_error(got.lse, lse) < slack * lse_tolerance);
}

/// The kernel equals the oracle for random lengths, heads, strides and positions.
template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class Out, class M>
void check_many(M const& mask, int cases, std::uint64_t stream) {
  for (int i = 0; i < cases; ++i) {
    auto const c =
        some_case<HeadDim, T>(stream + 10 * static_cast<std::uint64_t>(i), i % 2 == 0 ? 300 : 1000);
    check_result(c, mask, run_forward<Kernel, Out>(c, mask));
  }
}

/// So it does for any mask.
template <template <int, class, class, Mask> class Kernel, int HeadDim>
void check_masks(std::uint64_t stream) {
  check_many<Kernel, HeadDim, bfloat16, bfloat16>(Full{}, 12, stream);
  check_many<Kernel, HeadDim, bfloat16, bfloat16>(Causal{}, 16, stream + 1000);
  check_many<Kernel, HeadDim, bfloat16, bfloat16>(SlidingWindow{70, 0}, 6, stream + 2000);
  check_many<Kernel, HeadDim, bfloat16, bfloat16>(SlidingWindow{5, 260}, 6, stream + 3000);
  check_many<Kernel, HeadDim, bfloat16, bfloat16>(Documents{90}, 8, stream + 4000);
}

/// So it does for float16 and for outputs of float.
template <template <int, class, class, Mask> class Kernel>
void check_types(std::uint64_t stream) {
  check_many<Kernel, 64, float16, float16>(Causal{}, 8, stream);
  check_many<Kernel, 128, float16, float16>(Full{}, 8, stream + 1000);
  check_many<Kernel, 128, float16, float>(Causal{}, 8, stream + 2000);
  check_many<Kernel, 64, bfloat16, float>(Causal{}, 8, stream + 3000);
  check_many<Kernel, 128, bfloat16, float>(Documents{200}, 8, stream + 4000);
}

/// So it does for every head dim of `16 * (N + 1)`.
template <template <int, class, class, Mask> class Kernel, class T, int... N>
void check_head_dims(std::integer_sequence<int, N...>) {
  (check_many<Kernel, 16 * (N + 1), T, T>(Causal{}, 4, 16'000 * (N + 1)), ...);
}

/// Scores that grow from key to key, as large as they come, leave the result exact.
template <template <int, class, class, Mask> class Kernel>
void check_growing_scores(std::uint64_t stream) {
  for (float const spread : {8.0f, 40.0f, 150.0f})
    for (std::uint64_t i = 0; i < 4; ++i) {
      auto c = some_case<128, bfloat16>(stream + 10 * i, 700);
      c.fill(stream + 1000 + 10 * i, spread);
      check_result(c, Full{}, run_forward<Kernel, bfloat16>(c, Full{}), 4);
      auto d = some_case<64, float16>(stream + 2000 + 10 * i, 700);
      d.fill(stream + 3000 + 10 * i, spread);
      check_result(d, Causal{}, run_forward<Kernel, float16>(d, Causal{}), 4);
    }
}

/// The kernel gives the same bits each time, whatever multiprocessors it has.
template <template <int, class, class, Mask> class Kernel>
void check_same_bits(std::uint64_t stream) {
  for (std::uint64_t i = 0; i < 4; ++i) {
    auto const c = some_case<128, bfloat16>(stream + 10 * i, 1500);
    auto const once = run_forward<Kernel, bfloat16>(c, Causal{});
    for (int const margin : {0, 7, 131, 1000}) {
      auto const again = run_forward<Kernel, bfloat16>(c, Causal{}, 0, c.keys.rows(), nullptr, margin);
      CHECK(again.o == once.o);
      CHECK(again.lse == once.lse);
    }
  }
}

/// Attention in parts, each call continuing from the last one's result, equals attention at once.
template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class M>
void check_parts(M const& mask, std::uint64_t stream) {
  for (std::int64_t const parts : {2, 3, 8}) {
    auto const c = some_case<HeadDim, T>(stream + 10 * static_cast<std::uint64_t>(parts), 900);
    ForwardResult<float> carried;
    std::int64_t first = 0;
    for (std::int64_t part = 0; part < parts; ++part) {
      std::int64_t const count = (part + 1) * c.keys.rows() / parts - first;
      if (part == parts - 1) check_result(c, mask, run_forward<Kernel, T>(c, mask, first, count, &carried));
      carried = run_forward<Kernel, float>(c, mask, first, count, part == 0 ? nullptr : &carried);
      first += count;
    }
    check_result(c, mask, carried);
  }
}

template <template <int, class, class, Mask> class Kernel>
void check_parts(std::uint64_t stream) {
  check_parts<Kernel, 128, bfloat16>(Full{}, stream);
  check_parts<Kernel, 128, bfloat16>(Causal{}, stream + 100);
  check_parts<Kernel, 64, bfloat16>(Causal{}, stream + 200);
  check_parts<Kernel, 64, float16>(Full{}, stream + 300);
  check_parts<Kernel, 128, float16>(Causal{}, stream + 400);
  check_parts<Kernel, 192, bfloat16>(Causal{}, stream + 500);
}

/// A call whose queries, keys and values are the same rows of one head.
inline ForwardCall<bfloat16, bfloat16> call_on(bfloat16* data, float* lse, std::int64_t rows) {
  ForwardCall<bfloat16, bfloat16> call;
  call.q = call.k = call.v = Tensor<bfloat16 const>{data};
  call.queries = call.keys = {{{0, rows, 1}, {}}};
  call.o = data;
  call.lse = RowStats<float>::packed(lse, 1, rows);
  return call;
}

/// The kernel says which stride or address it does not take, and which positions.
template <template <int, class, class, Mask> class Kernel>
void check_refusals() {
  DeviceArray<bfloat16> const data(100 * 1000);
  DeviceArray<float> const lse(100);
  DeviceArray<char> const workspace(16);
  Kernel<128, bfloat16, bfloat16, Causal> kernel;
  REQUIRE(kernel.prepare().ok());
  auto call = call_on(data.data(), lse.data(), 100);
  call.k.strides = {0, 132, 128};
  Status status = kernel.launch(call, {}, workspace.data(), nullptr);
  CHECK(status.code == Code::misaligned);
  CHECK(status.message() == "the token stride of k is 132, which is not a multiple of 8");
  call = call_on(data.data() + 1, lse.data(), 100);
  CHECK(kernel.launch(call, {}, workspace.data(), nullptr).message() ==
        "the address of q is 2, which is not a multiple of 16");
  call = call_on(data.data(), lse.data(), 100);
  call.queries.segments[0].begin = std::int64_t{1} << 40;
  CHECK(kernel.launch(call, {}, workspace.data(), nullptr).code == Code::too_large);
}

/// A captured launch gives the same bits when replayed.
template <template <int, class, class, Mask> class Kernel>
void check_replay() {
  constexpr std::int64_t rows = 1111;
  DeviceArray<bfloat16> const data(random_vector<bfloat16>(rows * 128, 1)),
      o(poisoned_vector<bfloat16>(rows * 128));
  DeviceArray<float> const lse(poisoned_vector<float>(rows));
  DeviceArray<char> const workspace(16);
  Kernel<128, bfloat16, bfloat16, Causal> kernel;
  REQUIRE(kernel.prepare().ok());
  auto call = call_on(data.data(), lse.data(), rows);
  call.o = o.data();
  REQUIRE(kernel.launch(call, {}, workspace.data(), nullptr).ok());
  auto const want = o.values();
  CHECK(lse.values()[0] == lse.values()[0]);

  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  check_cuda(cudaStreamCreate(&stream));
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  REQUIRE(kernel.launch(call, {}, workspace.data(), stream).ok());
  check_cuda(cudaStreamEndCapture(stream, &graph));
  check_cuda(cudaGraphInstantiate(&replay, graph, 0));
  for (int i = 0; i < 3; ++i) {
    check_cuda(cudaMemsetAsync(o.data(), 0xff, rows * 128 * sizeof(bfloat16), stream));
    check_cuda(cudaGraphLaunch(replay, stream));
    CHECK(o.values() == want);
  }
  check_cuda(cudaGraphExecDestroy(replay));
  check_cuda(cudaGraphDestroy(graph));
  check_cuda(cudaStreamDestroy(stream));
}

/// The kernel addresses tensors of more than 2^31 elements.
template <template <int, class, class, Mask> class Kernel>
void check_large_strides() {
  constexpr std::int64_t rows = 260, row = 8'589'936;
  static_assert((rows - 1) * row > (std::int64_t{1} << 31) && row % 8 == 0);
  ForwardCase<128, bfloat16> c;
  c.queries = c.keys = {{{0, rows, 1}, {}}};
  c.batch = c.heads = c.kv_heads = 1;
  c.q_strides = c.kv_strides = Strides::packed(c.query_shape());
  c.fill(7);
  // q, k, v and o lie side by side in rows that are far apart.
  DeviceArray<bfloat16> const memory((rows - 1) * row + 4 * 128);
  auto const part = [&](int i) { return memory.data() + i * 128; };
  auto const upload = [&](std::vector<bfloat16> const& values, int i) {
    check_cuda(cudaMemcpy2D(part(i), row * 2, values.data(), 256, 256, rows, cudaMemcpyHostToDevice));
  };
  upload(c.q, 0), upload(c.k, 1), upload(c.v, 2), upload(poisoned_vector<bfloat16>(rows * 128), 3);
  DeviceArray<float> const lse(poisoned_vector<float>(rows));
  DeviceArray<char> const workspace(16);
  auto call = call_on(part(0), lse.data(), rows);
  Strides const strides{rows * row, row, 128};
  call.q = {part(0), strides}, call.k = {part(1), strides}, call.v = {part(2), strides};
  call.o = {part(3), strides};
  call.scale = c.scale;
  Kernel<128, bfloat16, bfloat16, Causal> kernel;
  REQUIRE(kernel.prepare().ok());
  REQUIRE(kernel.launch(call, {}, workspace.data(), nullptr).ok());
  ForwardResult<bfloat16> got{std::vector<bfloat16>(rows * 128), lse.values()};
  check_cuda(cudaMemcpy2D(got.o.data(), 256, part(3), row * 2, 256, rows, cudaMemcpyDeviceToHost));
  check_result(c, Causal{}, got);
}

}  // namespace lightseq::test
