// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cstdint>
#include <random>
#include <vector>

#include "lightseq/kernel/gpu/row_ops.cuh"
#include "support/data.hpp"
#include "support/device.cuh"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// delta of random rows, in tensors with gaps, is the sum of products in double; what lies beside it stays.
template <int HeadDim, class T>
void check_delta(std::uint64_t stream) {
  std::mt19937_64 random(stream_seed(stream));
  for (int i = 0; i < 4; ++i) {
    auto const below = [&](std::uint64_t n) { return static_cast<std::int64_t>(random() % n); };
    Shape const shape{1 + below(3), 1 + below(200), 1 + below(5), HeadDim};
    std::int64_t const row = shape.heads * (HeadDim + 8) + 16;
    Strides const strides{shape.tokens * row, row, HeadDim + 8};
    std::int64_t const size = shape.batch * shape.tokens * row,
                       rows = shape.batch * shape.heads * shape.tokens;
    auto const o = random_vector<T>(size, stream + 1), d_o = random_vector<T>(size, stream + 2);
    DeviceArray<T> const o_there(o), d_o_there(d_o);
    DeviceArray<float> const delta(poisoned_vector<float>(rows + 1));
    check_cuda(row_ops::delta<HeadDim, T>({o_there.data(), strides}, {d_o_there.data(), strides},
                                          RowStats<float>::packed(delta.data(), shape.heads, shape.tokens),
                                          shape, nullptr));
    std::vector<double> want;
    for (std::int64_t b = 0; b < shape.batch; ++b)
      for (std::int64_t h = 0; h < shape.heads; ++h)
        for (std::int64_t t = 0; t < shape.tokens; ++t) {
          T const* const left = Tensor<T const>{o.data(), strides}.at(b, t, h);
          T const* const right = Tensor<T const>{d_o.data(), strides}.at(b, t, h);
          double sum = 0;
          for (int d = 0; d < HeadDim; ++d)
            sum += double{static_cast<float>(left[d])} * double{static_cast<float>(right[d])};
          want.push_back(sum);
        }
    auto got = delta.values();
    CHECK(got.back() != got.back());
    got.pop_back();
    INFO("seed ", run_seed(), ", head dim ", HeadDim, ", batch ", shape.batch, ", tokens ", shape.tokens,
         ", heads ", shape.heads);
    CHECK(relative_error(got, want) < 1e-6);
  }
}

}  // namespace

TEST_CASE("delta is the sum of o times d_o, row by row") {
  check_delta<16, bfloat16>(100);
  check_delta<64, float16>(200);
  check_delta<96, bfloat16>(300);
  check_delta<128, bfloat16>(400);
  check_delta<256, float16>(500);
}
