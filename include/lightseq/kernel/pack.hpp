// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>

#include "lightseq/core/element.hpp"
#include "lightseq/core/exact_math.hpp"
#include "lightseq/kernel/gemm.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq::host {

/// The smallest multiple of `unit` that is not below `size`.
constexpr int round_up(int size, int unit) { return (size + unit - 1) / unit * unit; }

/// Floats from one packed row of HeadDim numbers to the next, whatever the vector width.
template <int HeadDim>
inline constexpr int pitch = round_up(HeadDim, simd::max_width);

/// Copies `rows` rows of HeadDim numbers, `stride` elements apart, as floats into a [Rows, pitch] block, and
/// fills the rest of the block with zeros.
template <int HeadDim, int Rows, Element T>
void pack(int rows, T const* from, std::int64_t stride, float* to) {
  for (int r = 0; r < rows; ++r, from += stride, to += pitch<HeadDim>) {
    for (int d = 0; d < HeadDim; ++d) to[d] = static_cast<float>(from[d]);
    std::fill(to + HeadDim, to + pitch<HeadDim>, 0.0f);
  }
  std::fill(to, to + (Rows - rows) * pitch<HeadDim>, 0.0f);
}

/// The same, transposed and times `factor`: a [HeadDim, Rows] block.
template <int HeadDim, int Rows, Element T>
void pack_transposed(int rows, T const* from, std::int64_t stride, float factor, float* to) {
  for (int r = 0; r < rows; ++r, from += stride)
    for (int d = 0; d < HeadDim; ++d) to[d * Rows + r] = static_cast<float>(from[d]) * factor;
  for (int d = 0; d < HeadDim; ++d) std::fill(to + d * Rows + rows, to + (d + 1) * Rows, 0.0f);
}

}  // namespace lightseq::host

LIGHTSEQ_EXACT_MATH_END
