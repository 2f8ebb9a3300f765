// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/rows.cuh"

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

#include "lightseq/kernel/host_rows.hpp"
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
  CHECK(rows::copy<HeadDim>(source, to.on_device(), shape, stream) == cudaSuccess);
  host::copy(from.on_host(), to.on_host(), shape);
  CHECK(same(to.device.values(), to.host));  // the gaps, too
}

/// The largest relative error of one rounding to T, and a bit of the float arithmetic before.
template <class T>
constexpr double merge_tolerance = 1e-6 + (std::is_same_v<T, float>      ? 0
                                           : std::is_same_v<T, bfloat16> ? 0x1p-8
                                                                         : 0x1p-11);

/// Two partial results. Sides that merge to nothing hold NaNs.
struct Partials {
  Shape shape;
  Both<float> o{shape}, from{shape};
  Stats lse{shape}, from_lse{shape};
  std::vector<double> want_o, want_lse;  ///< in the order of host::for_each_row()

  explicit Partials(Shape const& s) : shape(s) {
    o.host = random_vector<float>(static_cast<std::int64_t>(o.host.size()), 2);
    from.host = random_vector<float>(static_cast<std::int64_t>(from.host.size()), 3);
    host::for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
      float &own = lse.at(batch, token, head), &other = from_lse.at(batch, token, head);
      float const offset = static_cast<float>(below(201) - 100);  // an LSE may be anywhere
      own = 4 * own + offset, other = 4 * other + offset;
      switch (below(8)) {
        case 0:
          own = -infinity;
          break;
        case 1:
          other = -infinity;
          break;
        case 2:
          own = other = -infinity;
          break;
        case 3:
          own = other + 200;
          break;  // beyond what exp() can weigh
        case 4:
          other = own + 200;
          break;
      }
      double const top = std::max(own, other);
      double const a = top == -infinity ? 0 : std::exp(own - top),
                   b = top == -infinity ? 0 : std::exp(other - top);
      want_lse.push_back(a + b > 0 ? top + std::log(a + b) : -INFINITY);
      bool const drop_own = own == -infinity || other >= own + 150;
      bool const drop_other = other == -infinity || own >= other + 150;
      float *const x = o.at(batch, token, head), *const y = from.at(batch, token, head);
      for (std::int64_t d = 0; d < shape.dim; ++d) {
        want_o.push_back(a + b > 0 ? (a * x[d] + b * y[d]) / (a + b) : 0);
        if (drop_own) x[d] = quiet_nan;
        if (drop_other) y[d] = quiet_nan;
      }
    });
    o.upload(), from.upload(), lse.upload(), from_lse.upload();
  }
};

template <int HeadDim, class Out>
void merges_right(Shape const& shape, cudaStream_t stream) {
  CAPTURE(HeadDim);
  CAPTURE(shape.tokens);
  Partials p(shape);
  Both<Out> to{shape};
  to.host = poisoned_vector<Out>(static_cast<std::int64_t>(to.host.size()));
  to.upload();
  auto const merge_into = [&](auto const& target) {
    CHECK(rows::merge<HeadDim>(p.from.on_device(), p.from_lse.on_device(), p.o.on_device(), p.lse.on_device(),
                               target, shape, stream) == cudaSuccess);
  };
  merge_into(to.on_device());
  auto const got_lse = p.lse.device.values();
  CHECK(same(p.o.device.values(), p.o.host));
  CHECK(same(p.from.device.values(), p.from.host));
  to.host = to.device.values();

  // Row by row: what was wanted, and that all else is as it was.
  std::vector<Out> got_o, gaps = to.host;
  std::vector<double> rows_lse;
  std::vector<float> lse_gaps_before = p.lse.host, lse_gaps_after = got_lse;
  host::for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
    auto const begin = static_cast<std::size_t>(to.at(batch, token, head) - to.host.data());
    for (std::size_t d = begin; d < begin + HeadDim; ++d)
      got_o.push_back(to.host[d]), gaps[d] = Out(quiet_nan);
    auto const row = static_cast<std::size_t>(&p.lse.at(batch, token, head) - p.lse.host.data());
    rows_lse.push_back(got_lse[row]);
    lse_gaps_before[row] = lse_gaps_after[row] = 0;
  });
  CHECK(relative_error(got_o, p.want_o) < merge_tolerance<Out>);
  bool lse_right = true;
  for (std::size_t i = 0; i < rows_lse.size(); ++i)
    lse_right =
        lse_right && (rows_lse[i] == p.want_lse[i] ||
                      std::abs(rows_lse[i] - p.want_lse[i]) <= 1e-6 * std::max(1.0, std::abs(p.want_lse[i])));
  CHECK(lse_right);
  CHECK(same(gaps, poisoned_vector<Out>(static_cast<std::int64_t>(gaps.size()))));
  CHECK(same(lse_gaps_after, lse_gaps_before));

  if constexpr (std::is_same_v<Out, float>) {
    p.lse.upload();
    merge_into(p.o.on_device());  // in place
    p.o.host = p.o.device.values();
    std::vector<float> again;
    host::for_each_row(shape, [&](std::int64_t batch, std::int64_t token, std::int64_t head) {
      float const* const row = p.o.at(batch, token, head);
      again.insert(again.end(), row, row + HeadDim);
    });
    CHECK(same(again, got_o));
    CHECK(same(p.lse.device.values(), got_lse));
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
  DeviceArray<float> const memory(far + 48), lse(6), other_lse(std::vector<float>(6, 1));
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
  CHECK(rows::copy<16>(Tensor<float const>(source.data()), wide, shape, streams[0]) == cudaSuccess);
  check_cuda(cudaDeviceSynchronize());
  CHECK(same(far_values(), second.values()));

  auto const stats = [](DeviceArray<float> const& array) {
    return RowStats<float>::packed(array.data(), 1, 3);
  };
  CHECK(rows::clear<16>(Tensor<float>(merged.data()), stats(lse), shape, streams[0]) == cudaSuccess);
  CHECK(rows::merge<16>(Tensor<float const>(wide), RowStats<float const>(stats(other_lse)),
                        Tensor<float const>(merged.data()), stats(lse), Tensor<float>(merged.data()), shape,
                        streams[0]) == cudaSuccess);
  CHECK(same(merged.values(), values));

  CHECK(rows::clear<16>(wide, stats(lse), shape, streams[0]) == cudaSuccess);
  check_cuda(cudaDeviceSynchronize());
  CHECK(same(far_values(), std::vector<float>(48, 0)));
}

TEST_CASE_TEMPLATE("a clear on the GPU writes zeros and -inf and no gap", T, float, bfloat16, float16) {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Streams const streams(1);
  for_each_head_dim([&](auto dim) {
    for (Shape const& shape : shapes(dim)) {
      Both<T> o{shape};
      Stats lse{shape};
      fill_with_bits(o.host);
      o.upload(), lse.upload();
      CHECK(rows::clear<dim>(o.on_device(), lse.on_device(), shape, streams[0]) == cudaSuccess);
      host::clear(o.on_host(), lse.on_host(), shape);
      CHECK(same(o.device.values(), o.host));
      CHECK(same(lse.device.values(), lse.host));
    }
  });
}

TEST_CASE_TEMPLATE("a merge on the GPU weighs two partial results, and what weighs nothing leaves no trace",
                   T, float, bfloat16, float16) {
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
      CHECK(rows::add<dim>(part, half, rounded.on_device(), shape, streams[0]) == cudaSuccess);
      CHECK(rows::add<dim>(part, half, sum.on_device(), shape, streams[0]) == cudaSuccess);
      CHECK(rows::copy(RowStats<float const>(from.on_device()), to.on_device(), shape, streams[0]) ==
            cudaSuccess);
      Tensor<float const> const host_part(more.on_host()), host_half(sum.on_host());
      host::add(host_part, host_half, rounded.on_host(), shape);
      host::add(host_part, host_half, sum.on_host(), shape);
      CHECK(same(rounded.device.values(), rounded.host));
      host::copy(RowStats<float const>(from.on_host()), to.on_host(), shape);
      CHECK(same(sum.device.values(), sum.host));
      CHECK(same(to.device.values(), to.host));
      CHECK(rows::zero<dim>(sum.on_device(), shape, streams[0]) == cudaSuccess);
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
      CHECK(rows::delta<dim>(Tensor<T const>(o.on_device()), Tensor<T const>(d_o.on_device()),
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
