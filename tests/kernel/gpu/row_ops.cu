// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/gpu/row_ops.cuh"

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "lightseq/kernel/host/row_ops.hpp"
#include "support/data.hpp"
#include "support/device.cuh"

using namespace lightseq;
using namespace lightseq::test;

namespace {

constexpr float quiet_nan = std::numeric_limits<float>::quiet_NaN();
constexpr float infinity = std::numeric_limits<float>::infinity();

std::int64_t below(std::int64_t bound) {
  static std::mt19937_64 random(stream_seed(1));
  return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(bound));
}

/// Calls f(std::integral_constant<int, HeadDim>) for head dims of every kind.
template <class F>
void for_each_head_dim(F f) {
  f(std::integral_constant<int, 16>()), f(std::integral_constant<int, 64>());
  f(std::integral_constant<int, 80>()), f(std::integral_constant<int, 128>());
  f(std::integral_constant<int, 256>());
}

/// Several batches and heads, one of everything, more heads than a block has threads for, no tokens.
std::vector<Shape> shapes(int dim) {
  return {{2, 37, 3, dim},
          {1, 1, 1, dim},
          {1, 5, 40, dim},
          {3, 0, 2, dim},
          {1 + below(3), 1 + below(90), 4, dim}};
}

/// Strides with random gaps behind tokens and heads, tokens first or heads first.
template <class T>
Strides random_strides(Shape const& s) {
  auto const gap = [] { return below(3) * static_cast<std::int64_t>(16 / sizeof(T)); };
  if (below(2) == 0) {
    std::int64_t const head = s.dim + gap(), token = s.heads * head + gap();
    return {s.tokens * token + gap(), token, head};
  }
  std::int64_t const token = s.dim + gap(), head = s.tokens * token + gap();
  return {s.heads * head + gap(), token, head};
}

std::int64_t extent(Shape const& s, Strides const& strides) {
  return s.tokens == 0 ? 0
                       : (s.batch - 1) * strides.batch + (s.tokens - 1) * strides.token +
                             (s.heads - 1) * strides.head + s.dim;
}

/// A tensor with gaps in it, on host and device.
template <class T>
struct Both {
  Shape shape;
  Strides strides = random_strides<T>(shape);
  std::vector<T> host = std::vector<T>(static_cast<std::size_t>(extent(shape, strides)));
  DeviceArray<T> device{static_cast<std::int64_t>(host.size())};

  T* at(std::int64_t batch, std::int64_t token, std::int64_t head) {
    return Tensor<T>(host.data(), strides).at(batch, token, head);
  }
  void upload() {
    check_cuda(cudaMemcpy(device.data(), host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
    check_cuda(cudaDeviceSynchronize());
  }
  Tensor<T> on_host() { return {host.data(), strides}; }
  Tensor<T> on_device() { return {device.data(), strides}; }
};

/// Statistics of rows with gaps between heads and batches, on host and device.
struct Stats {
  Shape shape;
  std::int64_t head_stride = shape.tokens + below(3), batch_stride = shape.heads * head_stride + below(3);
  std::vector<float> host =
      random_vector<float>(shape.batch * batch_stride, static_cast<std::uint64_t>(below(1 << 30)));
  DeviceArray<float> device{static_cast<std::int64_t>(host.size())};

  float& at(std::int64_t batch, std::int64_t token, std::int64_t head) {
    return on_host().at(batch, head)[token];
  }
  void upload() {
    check_cuda(cudaMemcpy(device.data(), host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice));
    check_cuda(cudaDeviceSynchronize());
  }
  RowStats<float> on_host() { return {host.data(), batch_stride, head_stride}; }
  RowStats<float> on_device() { return {device.data(), batch_stride, head_stride}; }
};

/// Any bits at all: zeros, subnormals, infinities and NaNs are among them.
template <class T>
void fill_with_bits(std::vector<T>& values) {
  std::mt19937_64 random(stream_seed(static_cast<std::uint64_t>(below(1 << 30))));
  for (T& value : values) {
    if constexpr (std::is_same_v<T, float>)
      value = std::bit_cast<float>(static_cast<std::uint32_t>(random()));
    else
      value.bits = static_cast<std::uint16_t>(random());
  }
}

/// Whether all elements have the same bits, or are both NaN: a conversion may change a NaN's payload.
template <class T>
bool same(std::vector<T> const& a, std::vector<T> const& b) {
  bool all = a.size() == b.size();
  for (std::size_t i = 0; all && i < a.size(); ++i)
    all = std::memcmp(&a[i], &b[i], sizeof(T)) == 0 ||
          (std::isnan(static_cast<float>(a[i])) && std::isnan(static_cast<float>(b[i])));
  return all;
}

template <int HeadDim, class From, class To>
void copies_like_the_host(Shape const& shape, cudaStream_t stream) {
  CAPTURE(HeadDim);
  CAPTURE(shape.tokens);
  Both<From> from{shape};
  Both<To> to{shape};
  fill_with_bits(from.host), fill_with_bits(to.host);
  from.upload(), to.upload();
  Tensor<From const> const source = from.on_device();
  CHECK(row_ops::copy<HeadDim>(source, to.on_device(), shape, stream) == cudaSuccess);
  host::copy(from.on_host(), to.on_host(), shape);
  CHECK(same(to.device.values(), to.host));  // the gaps, too
}

/// The largest relative error of one rounding to T, and a bit of the float arithmetic before.
template <class T>
constexpr double merge_tolerance = 1e-6 + (std::is_same_v<T, float>      ? 0
                                           : std::is_same_v<T, bfloat16> ? 0x1p-8
                                                                         : 0x1p-11);

/// A partial result with gaps in it, on host and device.
struct Part {
  Shape shape;
  Both<float> o{shape};
  Stats top{shape}, sum{shape};

  void upload() { o.upload(), top.upload(), sum.upload(); }
  Partial<float> on_device() { return {o.on_device(), top.on_device(), sum.on_device()}; }

  /// Fills a row with one of the kinds that there are.
  void fill(std::int64_t batch, std::int64_t token, std::int64_t head, float offset) {
    float* const row = o.at(batch, token, head);
    float &t = top.at(batch, token, head), &s = sum.at(batch, token, head);
    t = 4 * t + offset, s = 0.5f + std::abs(s) * 50;
    switch (below(10)) {
      case 0:  // saw no key
        std::fill_n(row, shape.dim, 0.0f), s = 0, t = -infinity;
        break;
      case 1:  // saw keys without weight
        std::fill_n(row, shape.dim, 0.0f), s = 0, t = std::numeric_limits<float>::lowest();
        break;
      case 2:  // has no softmax
        std::fill_n(row, shape.dim, quiet_nan), s = quiet_nan;
        if (below(2) == 0) t = -infinity;
        break;
      case 3:
        row[below(shape.dim)] = quiet_nan;
        break;
      case 4:  // beyond what exp2() can weigh
        t += 400;
        break;
      case 5:
        t = 1e9f + 64 * static_cast<float>(below(3));
        break;
    }
  }
};

/// Two partial results, and what becomes of both or of the first, in the order of host::for_each_row().
struct Pair {
  Shape shape;
  Part own{shape}, from{shape};
  struct Want {
    std::vector<double> o, top, sum;
  } merged, alone;

  explicit Pair(Shape const& s) : shape(s) {
    own.o.host = random_vector<float>(static_cast<std::int64_t>(own.o.host.size()), 2);
    from.o.host = random_vector<float>(static_cast<std::int64_t>(from.o.host.size()), 3);
    host::for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
      float const offset = static_cast<float>(below(2001) - 1000);
      own.fill(batch, token, head, offset), from.fill(batch, token, head, offset);
      double const x = own.top.at(batch, token, head), y = from.top.at(batch, token, head);
      double const top = std::max(x, y), base = std::isinf(top) ? 0 : top;
      double const a = std::exp2(x - base), b = std::exp2(y - base);
      merged.top.push_back(top), alone.top.push_back(x);
      merged.sum.push_back(a * own.sum.at(batch, token, head) + b * from.sum.at(batch, token, head));
      alone.sum.push_back(own.sum.at(batch, token, head));
      for (std::int64_t d = 0; d < shape.dim; ++d) {
        merged.o.push_back(a * own.o.at(batch, token, head)[d] + b * from.o.at(batch, token, head)[d]);
        alone.o.push_back(own.o.at(batch, token, head)[d]);
      }
    });
    own.upload(), from.upload();
  }

  /// o divided and, in place of `top`, the LSE.
  static Want divided(Want want, std::int64_t dim) {
    for (std::size_t row = 0; row < want.sum.size(); ++row) {
      double const sum = want.sum[row];
      bool const empty = want.top[row] == -infinity && sum == 0;
      for (auto i = row * static_cast<std::size_t>(dim); i < (row + 1) * static_cast<std::size_t>(dim); ++i)
        want.o[i] = empty ? 0 : want.o[i] / sum;
      want.top[row] = empty      ? -infinity
                      : sum == 0 ? quiet_nan
                                 : (want.top[row] + std::log2(sum)) * std::log(2.0);
    }
    return want;
  }
};

/// The rows of a tensor that the device has changed, one behind the other. Nothing beside them has changed.
template <class T>
std::vector<T> changed_rows(Both<T>& tensor) {
  std::vector<T> after = tensor.device.values(), rows;
  host::for_each_row(tensor.shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
    auto const begin = static_cast<std::size_t>(tensor.at(batch, token, head) - tensor.host.data());
    for (std::size_t i = begin; i < begin + static_cast<std::size_t>(tensor.shape.dim); ++i)
      rows.push_back(after[i]), after[i] = tensor.host[i];
  });
  CHECK(same(after, tensor.host));
  return rows;
}
std::vector<float> changed_rows(Stats& stats) {
  std::vector<float> after = stats.device.values(), rows;
  host::for_each_row(stats.shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
    auto const i = static_cast<std::size_t>(&stats.at(batch, token, head) - stats.host.data());
    rows.push_back(after[i]), after[i] = stats.host[i];
  });
  CHECK(same(after, stats.host));
  return rows;
}

/// Whether numbers are as near as the element type lets them be, and the others are no numbers either.
template <class T>
bool matches(std::vector<T> const& got, std::vector<double> const& want) {
  bool all = got.size() == want.size();
  for (std::size_t i = 0; all && i < got.size(); ++i) {
    double const g = static_cast<float>(got[i]), w = want[i];
    all = g == w || (std::isnan(g) && std::isnan(w)) ||
          std::abs(g - w) <= 4 * merge_tolerance<T> * std::max(1.0, std::abs(w));
  }
  return all;
}

/// Checks a Finished result against what is wanted.
template <class T>
void check_finished(Both<T>& o, Stats& lse, Pair::Want const& want) {
  CHECK(matches(changed_rows(o), want.o));
  CHECK(matches(changed_rows(lse), want.top));
}

template <int HeadDim, class T>
void merges_right(Shape const& shape, cudaStream_t stream) {
  CAPTURE(HeadDim);
  CAPTURE(shape.tokens);
  Pair p(shape);
  auto const merged = Pair::divided(p.merged, HeadDim), alone = Pair::divided(p.alone, HeadDim);
  Both<T> o{shape};
  Stats lse{shape};
  fill_with_bits(o.host), fill_with_bits(lse.host);
  Finished<T> const to{o.on_device(), lse.on_device()};
  o.upload(), lse.upload();
  CHECK(row_ops::merge<HeadDim>(p.from.on_device(), p.own.on_device(), to, shape, stream) == cudaSuccess);
  check_finished(o, lse, merged);
  o.upload(), lse.upload();
  CHECK(row_ops::finish<HeadDim>(Partial<float const>(p.own.on_device()), to, shape, stream) == cudaSuccess);
  check_finished(o, lse, alone);
  for (Part* const part : {&p.own, &p.from}) {
    CHECK(same(part->o.device.values(), part->o.host));
    CHECK(same(part->top.device.values(), part->top.host));
    CHECK(same(part->sum.device.values(), part->sum.host));
  }
  if constexpr (std::is_same_v<T, float>) {
    // In place.
    Finished<float> const over{p.own.o.on_device(), p.own.top.on_device()};
    CHECK(row_ops::finish<HeadDim>(Partial<float const>(p.own.on_device()), over, shape, stream) ==
          cudaSuccess);
    check_finished(p.own.o, p.own.top, alone);
    p.own.upload();
    CHECK(row_ops::merge<HeadDim>(p.from.on_device(), p.own.on_device(), over, shape, stream) == cudaSuccess);
    check_finished(p.own.o, p.own.top, merged);
    p.own.upload();
    CHECK(row_ops::merge<HeadDim>(p.from.on_device(), p.own.on_device(), shape, stream) == cudaSuccess);
    check_finished(p.own.o, p.own.top, p.merged);
    CHECK(matches(changed_rows(p.own.sum), p.merged.sum));
  }
}

}  // namespace

TEST_CASE_TEMPLATE("a copy on the GPU has the host's bits, for any bits, strides and element types", T, float,
                   bfloat16, float16) {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Streams const streams(1);
  for_each_head_dim([&](auto dim) {
    for (Shape const& shape : shapes(dim)) {
      copies_like_the_host<dim, T, T>(shape, streams[0]);
      copies_like_the_host<dim, float, T>(shape, streams[0]);
      copies_like_the_host<dim, T, float>(shape, streams[0]);
    }
  });
}

TEST_CASE("a copy serves more rows than a grid has blocks") {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Streams const streams(1);
  copies_like_the_host<16, bfloat16, bfloat16>({1, (1 << 20) + 1 + below(100), 1, 16}, streams[0]);
}

TEST_CASE("a copy, a clear and a merge reach beyond 2^31 elements") {
  INFO("LIGHTSEQ_SEED=", run_seed());
  constexpr std::int64_t far = (std::int64_t{1} << 31) + 64;
  constexpr Shape shape{2, 3, 1, 16};
  Streams const streams(1);
  DeviceArray<float> const memory(far + 48), lse(6), sum(6), other_lse(std::vector<float>(6, 1)),
      other_sum(std::vector<float>(6, 1));
  auto const values = random_vector<float>(96, 4);
  DeviceArray<float> const source(values), merged(96);
  DeviceArray<float> const second{std::vector<float>(values.begin() + 48, values.end())};
  Tensor<float> const wide(memory.data(), {far, 16, 16});
  Tensor<float const> const far_part(memory.data() + far);
  auto const far_values = [&] {
    DeviceArray<float> const copy(48);
    check_cuda(cudaMemcpy(copy.data(), far_part.data, 48 * sizeof(float), cudaMemcpyDeviceToDevice));
    return copy.values();
  };
  check_cuda(cudaDeviceSynchronize());
  CHECK(row_ops::copy<16>(Tensor<float const>(source.data()), wide, shape, streams[0]) == cudaSuccess);
  check_cuda(cudaDeviceSynchronize());
  CHECK(same(far_values(), second.values()));

  auto const stats = [](DeviceArray<float> const& array) {
    return RowStats<float>::packed(array.data(), 1, 3);
  };
  Partial<float> const none{merged.data(), stats(lse), stats(sum)};
  CHECK(row_ops::clear<16>(none, shape, streams[0]) == cudaSuccess);
  CHECK(row_ops::merge<16>(Partial<float const>{wide, stats(other_lse), stats(other_sum)}, none, shape,
                           streams[0]) == cudaSuccess);
  CHECK(same(merged.values(), values));

  CHECK(row_ops::clear<16>(Partial<float>{wide, stats(lse), stats(sum)}, shape, streams[0]) == cudaSuccess);
  check_cuda(cudaDeviceSynchronize());
  CHECK(same(far_values(), std::vector<float>(48, 0)));
}

TEST_CASE("a clear on the GPU writes a result of no keys and no gap") {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Streams const streams(1);
  for_each_head_dim([&](auto dim) {
    for (Shape const& shape : shapes(dim)) {
      Part part{shape};
      fill_with_bits(part.o.host), fill_with_bits(part.top.host), fill_with_bits(part.sum.host);
      part.upload();
      CHECK(row_ops::clear<dim>(part.on_device(), shape, streams[0]) == cudaSuccess);
      auto const rows = static_cast<std::size_t>(shape.batch * shape.tokens * shape.heads);
      CHECK(same(changed_rows(part.o), std::vector<float>(rows * dim, 0)));
      CHECK(same(changed_rows(part.top), std::vector<float>(rows, -infinity)));
      CHECK(same(changed_rows(part.sum), std::vector<float>(rows, 0)));
    }
  });
}

TEST_CASE_TEMPLATE("a merge on the GPU weighs two partial results, and what is no number stays none", T,
                   float, bfloat16, float16) {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Streams const streams(1);
  for_each_head_dim([&](auto dim) {
    for (Shape const& shape : shapes(dim)) merges_right<dim, T>(shape, streams[0]);
  });
}

TEST_CASE("a zeroing, a sum and a copy of statistics on the GPU have the host's bits and leave the gaps") {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Streams const streams(1);
  for_each_head_dim([&](auto dim) {
    for (Shape const& shape : shapes(dim)) {
      Both<float> more{shape}, sum{shape};
      Both<bfloat16> rounded{shape};
      Stats from{shape}, to{shape};
      more.host = random_vector<float>(static_cast<std::int64_t>(more.host.size()), 5);
      sum.host = random_vector<float>(static_cast<std::int64_t>(sum.host.size()), 6);
      more.upload(), sum.upload(), rounded.upload(), from.upload(), to.upload();
      Tensor<float const> const part(more.on_device()), half(sum.on_device());
      CHECK(row_ops::add<dim>(part, half, rounded.on_device(), shape, streams[0]) == cudaSuccess);
      CHECK(row_ops::add<dim>(part, half, sum.on_device(), shape, streams[0]) == cudaSuccess);
      CHECK(row_ops::copy(RowStats<float const>(from.on_device()), to.on_device(), shape, streams[0]) ==
            cudaSuccess);
      Tensor<float const> const host_part(more.on_host()), host_half(sum.on_host());
      host::add(host_part, host_half, rounded.on_host(), shape);
      host::add(host_part, host_half, sum.on_host(), shape);
      CHECK(same(rounded.device.values(), rounded.host));
      host::copy(RowStats<float const>(from.on_host()), to.on_host(), shape);
      CHECK(same(sum.device.values(), sum.host));
      CHECK(same(to.device.values(), to.host));
      CHECK(row_ops::zero<dim>(sum.on_device(), shape, streams[0]) == cudaSuccess);
      host::zero(sum.on_host(), shape);
      CHECK(same(sum.device.values(), sum.host));
    }
  });
}

TEST_CASE_TEMPLATE("delta on the GPU is the sum of o * d_o of each row", T, bfloat16, float16) {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Streams const streams(1);
  for_each_head_dim([&](auto dim) {
    for (Shape const& shape : shapes(dim)) {
      Both<T> o{shape}, d_o{shape};
      Stats delta{shape};
      o.host = random_vector<T>(static_cast<std::int64_t>(o.host.size()), 7);
      d_o.host = random_vector<T>(static_cast<std::int64_t>(d_o.host.size()), 8);
      o.upload(), d_o.upload(), delta.upload();
      CHECK(row_ops::delta<dim>(Tensor<T const>(o.on_device()), Tensor<T const>(d_o.on_device()),
                                delta.on_device(), shape, streams[0]) == cudaSuccess);
      auto got = delta.device.values();
      bool right = true;
      host::for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
        double sum = 0, size = 0;
        for (std::int64_t d = 0; d < shape.dim; ++d) {
          double const product = static_cast<double>(static_cast<float>(o.at(batch, token, head)[d])) *
                                 static_cast<float>(d_o.at(batch, token, head)[d]);
          sum += product, size += std::abs(product);
        }
        float& before = delta.at(batch, token, head);
        float& after = got[static_cast<std::size_t>(&before - delta.host.data())];
        right = right && std::abs(after - sum) <= 1e-6 * size;
        after = before;
      });
      CHECK(right);
      CHECK(same(got, delta.host));
    }
  });
}

TEST_CASE(
    "what an earlier call of the application met with is no launch's error, and stays the application's") {
  Streams const streams(1);
  constexpr Shape shape{1, 3, 2, 16};
  DeviceArray<float> const o(96), stats(18), delta(6);
  DeviceArray<bfloat16> const x(96);
  auto const of = [&](int i) { return RowStats<float>::packed(stats.data() + 6 * i, 2, 3); };
  Partial<float> const part{o.data(), of(0), of(1)};
  void* memory = nullptr;
  REQUIRE(cudaMalloc(&memory, std::size_t{1} << 46) == cudaErrorMemoryAllocation);
  CHECK(row_ops::clear<16>(part, shape, streams[0]) == cudaSuccess);
  CHECK(row_ops::merge<16>(part, part, shape, streams[0]) == cudaSuccess);
  CHECK(row_ops::finish<16>(Partial<float const>(part), Finished<float>{o.data(), of(2)}, shape,
                            streams[0]) == cudaSuccess);
  CHECK(row_ops::delta<16, bfloat16>(x.data(), x.data(), RowStats<float>::packed(delta.data(), 2, 3), shape,
                                     streams[0]) == cudaSuccess);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  check_cuda(cudaDeviceSynchronize());
}
