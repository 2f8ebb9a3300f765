// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/abi.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/kernel/host/simd.hpp"
#include "lightseq/kernel/host/tile.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace host {

/// A borrowed matrix; element (i, j) is data[i * Row + j * Column].
template <int Row, int Column = 1>
struct Matrix {
  float* data = nullptr;

  static constexpr int row = Row, column = Column;
  constexpr Matrix<Column, Row> transposed() const { return {data}; }
};

template <class>
inline constexpr bool is_matrix = false;
template <int Row, int Column>
inline constexpr bool is_matrix<Matrix<Row, Column>> = true;

/// A Matrix, whatever its strides.
template <class M>
concept IsMatrix = is_matrix<M>;

/// What a product does to the matrix it is written to.
enum class Store { assign, add };

/// Rows x (Vectors * Width) elements of c, all sums in registers.
template <int Width, Store How, int Rows, int Vectors, IsMatrix A, IsMatrix B, IsMatrix C>
[[gnu::always_inline]] inline void multiply_block(int depth, A a, B b, C c) {
  simd::Floats<Width> sum[Rows][Vectors] = {};
  for (int i = 0; i < depth; ++i) {
    simd::Floats<Width> line[Vectors];
    simd::unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      line[v] = simd::load<Width>(b.data + v * Width);
    });
    simd::unroll<Rows>([&](auto r) __attribute__((always_inline)) {
      float const factor = a.data[r * A::row];
      simd::unroll<Vectors>([&](auto v)
                                __attribute__((always_inline)) { sum[r][v] = line[v] * factor + sum[r][v]; });
    });
    a.data += A::column;
    b.data += B::row;
  }
  simd::unroll<Rows>([&](auto r) __attribute__((always_inline)) {
    simd::unroll<Vectors>([&](auto v) __attribute__((always_inline)) {
      float* const to = c.data + r * C::row + v * Width;
      if constexpr (How == Store::add) sum[r][v] = sum[r][v] + simd::load<Width>(to);
      simd::store<Width>(to, sum[r][v]);
    });
  });
}

/// Whether the tiles' blocks have room for the rows and columns that gemm rounds up to.
template <int Width>
constexpr bool fits(Tiling tile) {
  int const rows = gemm_block(Width).rows;
  return tile.stationary % rows == 0 && tile.streaming % rows == 0 && tile.stationary % Width == 0;
}

/// c = a b or c += a b, where c is rows x Columns and a is rows x depth. Rows are rounded up to a multiple of
/// gemm_block(Width).rows, so a and c must have that many; Columns is a multiple of Width.
template <int Width, Store How, int Columns, IsMatrix A, IsMatrix B, IsMatrix C>
void gemm(int rows, int depth, A a, B b, C c) {
  static_assert(Columns % Width == 0 && B::column == 1 && C::column == 1);
  constexpr int block = gemm_block(Width).rows;
  constexpr int all = Columns / Width;
  constexpr int strips = (all + gemm_block(Width).vectors - 1) / gemm_block(Width).vectors;
  simd::unroll<strips>([&](auto strip) __attribute__((always_inline)) {
    // The strips are as even as can be: 8 vectors become 3 + 3 + 2.
    constexpr int first = (strip * all + strips - 1) / strips;
    constexpr int last = ((strip + 1) * all + strips - 1) / strips;
    for (int r = 0; r < rows; r += block)
      multiply_block<Width, How, block, last - first>(
          depth, A{a.data + r * A::row}, B{b.data + first * Width}, C{c.data + r * C::row + first * Width});
  });
}

/// c += a b as gemm(), but the products of visible pairs alone: visible(i, n) answers for element (i, n) of
/// a. What gemm() gives where all hidden elements of a are zero and b is finite, up to roundings; slow.
template <int Columns, IsMatrix A, IsMatrix B, IsMatrix C, class Visible>
void gemm_of_visible(int rows, int depth, A a, B b, C c, Visible const& visible) {
  for (int i = 0; i < rows; ++i) {
    float sums[Columns] = {};
    for (int n = 0; n < depth; ++n) {
      if (!visible(i, n)) continue;
      float const factor = a.data[i * A::row + n * A::column];
      for (int d = 0; d < Columns; ++d) sums[d] = b.data[n * B::row + d] * factor + sums[d];
    }
    for (int d = 0; d < Columns; ++d) c.data[i * C::row + d] = sums[d] + c.data[i * C::row + d];
  }
}

}  // namespace host
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
