// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/element.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/kernel/host/gemm.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace host {

/// The smallest multiple of `unit` that is not below `size`.
constexpr int round_up(int size, int unit) { return (size + unit - 1) / unit * unit; }

/// Floats from one packed row of HeadDim numbers to the next, whatever the vector width.
template <int HeadDim>
inline constexpr int pitch = round_up(HeadDim, simd::max_width);

/// Copies `rows` rows of HeadDim numbers, `stride` elements apart, as floats times `factor` into a [Rows,
/// pitch] block, and fills the rest of the block with zeros.
template <int HeadDim, int Rows, Element T>
void pack(int rows, T const* from, std::int64_t stride, float factor, float* to) {
  for (int r = 0; r < rows; ++r, from += stride, to += pitch<HeadDim>) {
    for (int d = 0; d < HeadDim; ++d) to[d] = static_cast<float>(from[d]) * factor;
    std::fill(to + HeadDim, to + pitch<HeadDim>, 0.0f);
  }
  std::fill(to, to + (Rows - rows) * pitch<HeadDim>, 0.0f);
}

/// The same, transposed: a [HeadDim, Rows] block.
template <int HeadDim, int Rows, Element T>
void pack_transposed(int rows, T const* from, std::int64_t stride, float factor, float* to) {
  for (int r = 0; r < rows; ++r, from += stride)
    for (int d = 0; d < HeadDim; ++d) to[d * Rows + r] = static_cast<float>(from[d]) * factor;
  for (int d = 0; d < HeadDim; ++d) std::fill(to + d * Rows + rows, to + (d + 1) * Rows, 0.0f);
}

/// Whether all `size` floats, a multiple of 4 * max_width, are finite. By their bits: GCC makes zeros of
/// products with zero under -fno-signed-zeros, of NaNs too. One more in the exponent reaches the sign where
/// it was all ones.
template <int Width>
bool all_finite(float const* data, int size) {
  simd::Words<Width> signs[4] = {};
  for (int i = 0; i < size; i += 4 * Width)
    simd::unroll<4>([&](auto n) __attribute__((always_inline)) {
      auto const bits = std::bit_cast<simd::Words<Width>>(simd::load<Width>(data + i + n * Width));
      signs[n] = signs[n] | ((bits & 0x7fffffffu) + 0x00800000u);
    });
  auto const any = (signs[0] | signs[1]) | (signs[2] | signs[3]);
  for (int lane = 0; lane < Width; ++lane)
    if (any[lane] >> 31 != 0) return false;
  return true;
}

}  // namespace host
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
