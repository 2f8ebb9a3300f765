// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/tensor.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <numeric>
#include <type_traits>
#include <vector>

using namespace lightseq;
using std::int64_t;

TEST_CASE("a packed tensor's elements lie one behind the other") {
  for (int64_t const batch : {1, 3})
    for (int64_t const tokens : {1, 4})
      for (int64_t const heads : {1, 5})
        for (int64_t const dim : {1, 8}) {
          Shape const shape{batch, tokens, heads, dim};
          std::vector<float> data(static_cast<std::size_t>(batch * tokens * heads * dim));
          Tensor<float> const tensor = Tensor<float>(data.data()).resolved(shape);
          float* next = data.data();
          for (int64_t b = 0; b < batch; ++b)
            for (int64_t t = 0; t < tokens; ++t)
              for (int64_t h = 0; h < heads; ++h, next += dim) CHECK(tensor.at(b, t, h) == next);

          RowStats<float> const stats = RowStats<float>::packed(data.data(), heads, tokens);
          next = data.data();
          for (int64_t b = 0; b < batch; ++b)
            for (int64_t h = 0; h < heads; ++h, next += tokens) CHECK(stats.at(b, h) == next);
        }
}

TEST_CASE("strides that the caller gave stay, and are followed") {
  std::vector<int> data(1000);
  std::iota(data.begin(), data.end(), 0);
  Strides const strides{300, 7, 60};
  Tensor<int> const tensor = Tensor<int>(data.data(), strides).resolved({2, 5, 3, 4});
  CHECK(tensor.strides == strides);
  RowStats<int> const stats(data.data(), 200, 31);
  for (int64_t b = 0; b < 2; ++b)
    for (int64_t h = 0; h < 3; ++h) {
      CHECK(*stats.at(b, h) == 200 * b + 31 * h);
      for (int64_t first = 0; first < 5; ++first) {
        CHECK(*stats.from(first).at(b, h) == 200 * b + 31 * h + first);
        for (int64_t t = 0; first + t < 5; ++t) {
          CHECK(*tensor.at(b, first + t, h) == 300 * b + 7 * (first + t) + 60 * h);
          CHECK(tensor.from(first).at(b, t, h) == tensor.at(b, first + t, h));
        }
      }
    }
}

TEST_CASE("strides that are all zero repeat one vector; only those that nobody gave are filled in") {
  float data[8] = {};
  Shape const shape{2, 3, 4, 8};
  CHECK(Tensor<float>(data, Strides{0, 0, 0}).resolved(shape).strides == Strides{0, 0, 0});
  CHECK(Tensor<float>(data, {}).resolved(shape).at(1, 2, 3) == data);
  CHECK(Tensor<float>(data).resolved(shape).strides == Strides::packed(shape));
  Tensor<float const> const converted = Tensor<float>(data);
  CHECK(converted.resolved(shape).strides == Strides::packed(shape));
  CHECK(Tensor<float>(data).resolved({0, 0, 0, 0}).strides == Strides{0, 0, 0});
  static_assert(std::is_trivially_copyable_v<Tensor<float>> && sizeof(Tensor<float>) == 32);
}

TEST_CASE("what is null stays null") {
  CHECK(Tensor<float>().from(5).data == nullptr);
  CHECK(Tensor<float>().resolved({1, 2, 3, 8}).data == nullptr);
  CHECK(Tensor<float>(nullptr, {6, 6, 6}).from(5).data == nullptr);
  CHECK(RowStats<float>().from(5).data == nullptr);
}

TEST_CASE("a tensor converts to one that cannot be written, and not back") {
  float data[8] = {};
  Tensor<float const> const tensor = Tensor<float>(data, {8, 8, 4});
  CHECK(tensor.data == data);
  CHECK(tensor.strides == Strides{8, 8, 4});
  RowStats<float const> const stats = RowStats<float>(data, 5, 6);
  CHECK(stats.data == data);
  CHECK(stats.batch_stride == 5);
  CHECK(stats.head_stride == 6);
  static_assert(!std::is_convertible_v<Tensor<float const>, Tensor<float>>);
  static_assert(!std::is_convertible_v<RowStats<float const>, RowStats<float>>);
  static_assert(!std::is_convertible_v<Tensor<float>, Tensor<double const>>);
}
