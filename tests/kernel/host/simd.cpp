// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "kernel/host/case.hpp"

namespace lightseq::test {

using Floats = std::vector<float>;

/// exp2 of one number, in all lanes.
template <int Width>
Floats exp2_lanes(float x) {
  Floats lanes(Width);
  simd::store<Width>(lanes.data(), simd::exp2<Width>(simd::broadcast<Width>(x)));
  return lanes;
}

template <int Width>
void exp2_is_right() {
  if constexpr (Width <= simd::native_width) {
    double worst = 0;
    bool lanes_agree = true;
    for (int i = -125 * 800; i < 127 * 800; ++i) {
      float const x = static_cast<float>(i) / 800;
      Floats const got = exp2_lanes<Width>(x);
      double const want = std::exp2(double{x});
      worst = std::max(worst, std::abs(got[0] - want) / want);
      lanes_agree = lanes_agree && got == Floats(Width, got[0]);
    }
    CHECK(worst < 1.3e-7);
    CHECK(lanes_agree);
    CHECK(exp2_lanes<Width>(0) == Floats(Width, 1));
    CHECK(exp2_lanes<Width>(-3) == Floats(Width, 0.125f));
    for (float const x : {-125.5f, -126.0f, -1e4f, -1e30f, -INFINITY})
      CHECK(exp2_lanes<Width>(x) == Floats(Width, 0));
    for (std::uint32_t const bits : {0x7fc00000u, 0xffc00000u, 0xffffffffu, 0x7fffffffu, 0x7fc00001u})
      CHECK(std::isnan(exp2_lanes<Width>(std::bit_cast<float>(bits))[0]));
  }
}

TEST_CASE("exp2 is right to one rounding, exact at 0, -inf and NaN") {
  exp2_is_right<4>();
  exp2_is_right<8>();
  exp2_is_right<16>();
}

/// gemm into `Vectors` vectors of columns, for every kind of matrix that the kernels have.
template <int Width, int Vectors>
void gemm_is_right() {
  constexpr int columns = Vectors * Width, most = 48, deepest = 40;
  for (auto const& [rows, depth] : {std::pair{1, 1}, {most, deepest}, {13, 7}, {8, 0}}) {
    Floats a = random_vector<float>(most * deepest, 1), b = random_vector<float>(deepest * columns, 2);
    Floats const c = random_vector<float>(most * columns, 3);
    Floats assigned = c, added = c, through = c;
    host::Matrix<deepest> const by_rows{a.data()};
    host::Matrix<most> const by_columns{a.data()};
    host::Matrix<columns> const right{b.data()};
    host::gemm<Width, host::Store::assign, columns>(rows, depth, by_rows, right,
                                                    host::Matrix<columns>{assigned.data()});
    host::gemm<Width, host::Store::add, columns>(rows, depth, by_rows, right,
                                                 host::Matrix<columns>{added.data()});
    host::gemm<Width, host::Store::add, columns>(rows, depth, by_columns.transposed(), right,
                                                 host::Matrix<columns>{through.data()});
    double worst = 0;
    for (int i = 0; i < rows; ++i)
      for (int j = 0; j < columns; ++j) {
        double plain = 0, transposed = 0;
        auto const at = static_cast<std::size_t>(i * columns + j);
        for (int n = 0; n < depth; ++n) {
          double const factor = b[static_cast<std::size_t>(n * columns + j)];
          plain += a[static_cast<std::size_t>(i * deepest + n)] * factor;
          transposed += a[static_cast<std::size_t>(n * most + i)] * factor;
        }
        worst = std::max({worst, std::abs(assigned[at] - plain), std::abs(added[at] - (c[at] + plain)),
                          std::abs(through[at] - (c[at] + transposed))});
      }
    CHECK(worst < 3e-5);
  }
}

template <int Width, int... Vectors>
void gemm_is_right_for(std::integer_sequence<int, Vectors...>) {
  if constexpr (Width <= simd::native_width) (gemm_is_right<Width, Vectors + 1>(), ...);
}

TEST_CASE("gemm equals plain loops for any number of columns") {
  gemm_is_right_for<4>(std::make_integer_sequence<int, 8>{});
  gemm_is_right_for<8>(std::make_integer_sequence<int, 5>{});
  gemm_is_right_for<16>(std::make_integer_sequence<int, 5>{});
}

}  // namespace lightseq::test
