// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/ptx.cuh"
#include "lightseq/kernel/sm80/backward_shared.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm80 {

/// A warp's matrix products. Those that take `between` call between(i) after the multiplications of block i:
/// other work is given out among them, which hide it.
template <BackwardBlock Block>
struct BackwardProducts {
  using T = typename Block::T;
  static constexpr int fragments = Block::fragments, columns = Block::columns;
  static constexpr int blocks = Block::blocks, warp_blocks = Block::warp_blocks;
  static constexpr int dq_blocks = Block::dq_blocks, dq_fragments = Block::dq_fragments;
  static constexpr int warp_queries = Block::warp_queries, key_rows = Block::key_rows;
  static constexpr int query_panel = Block::query_panel, key_panel = Block::key_panel;

  template <int Panel>
  __device__ __forceinline__ static std::uint32_t block_at(std::uint32_t address, int block) {
    return Block::template block_at<Panel>(address, block);
  }

  template <int Fragments, int Size>
  __device__ __forceinline__ static void clear(float (&x)[Fragments][Size]) {
#pragma unroll
    for (int f = 0; f < Fragments; ++f)
#pragma unroll
      for (int i = 0; i < Size; ++i) x[f][i] = 0;
  }

  /// Columns first, ..., first + 15 of d += a b, for all fragments.
  template <int Fragments, int Size>
  __device__ __forceinline__ static void multiply(float (&d)[Fragments][Size], int first,
                                                  std::uint32_t const (&a)[Fragments][4],
                                                  std::uint32_t const (&b)[4]) {
#pragma unroll
    for (int f = 0; f < Fragments; ++f) {
      ptx::multiply<T>(d[f] + first, a[f], b[0], b[1]);
      ptx::multiply<T>(d[f] + first + 4, a[f], b[2], b[3]);
    }
  }

  /// d += a b^T, for a warp's rows of keys or values at `a_lane` and the queries or output gradients at
  /// `b_lane`.
  template <std::invocable<int> Between>
  __device__ __forceinline__ static void multiply_rows(float (&d)[fragments][warp_queries / 2],
                                                       std::uint32_t a_lane, std::uint32_t b_lane,
                                                       Between const& between) {
#pragma unroll
    for (int i = 0; i < blocks; ++i) {
      std::uint32_t a[fragments][4];
#pragma unroll
      for (int f = 0; f < fragments; ++f)
        ptx::load_matrices(a[f], block_at<key_panel>(a_lane, i) + f * 16 * 128);
#pragma unroll
      for (int j = 0; j < warp_queries / 16; ++j) {
        std::uint32_t b[4];
        ptx::load_matrices(b, block_at<query_panel>(b_lane, i) + j * 16 * 128);
        multiply(d, 8 * j, a, b);
      }
      between(i);
    }
  }

  /// d += a b, for a warp's packed scores a and some blocks of the columns of b, the first of them `first`.
  template <std::invocable<int> Between>
  __device__ __forceinline__ static void multiply_columns(
      float (&d)[fragments][warp_blocks * 8], std::uint32_t const (&packed)[fragments][warp_queries / 4],
      std::uint32_t b_lane, int first, Between const& between) {
#pragma unroll
    for (int j = 0; j < warp_queries / 16; ++j) {
      std::uint32_t a[fragments][4];
#pragma unroll
      for (int f = 0; f < fragments; ++f)
#pragma unroll
        for (int i = 0; i < 4; ++i) a[f][i] = packed[f][4 * j + i];
#pragma unroll
      for (int i = 0; i < warp_blocks; ++i) {
        std::uint32_t b[4];
        ptx::load_transposed(b, block_at<query_panel>(b_lane, first + i) + j * 16 * 128);
        multiply(d, 8 * i, a, b);
        between(j * warp_blocks + i);
      }
    }
  }

  /// The same for the scores that the other warps of these keys have computed.
  template <std::invocable<int> Between>
  __device__ __forceinline__ static void multiply_others(float (&d)[fragments][warp_blocks * 8],
                                                         std::uint32_t a_lane, std::uint32_t b_lane,
                                                         int column, Between const& between) {
#pragma unroll
    for (int k = 1; k < columns; ++k) {
      int const query = (column ^ k) * warp_queries;
#pragma unroll
      for (int j = 0; j < warp_queries / 16; ++j) {
        std::uint32_t a[fragments][4];
#pragma unroll
        for (int f = 0; f < fragments; ++f)
          ptx::load_matrices(a[f], block_at<key_panel>(a_lane, query / 16 + j) + f * 16 * 128);
#pragma unroll
        for (int i = 0; i < warp_blocks; ++i) {
          std::uint32_t b[4];
          ptx::load_transposed(
              b, block_at<query_panel>(b_lane, column * warp_blocks + i) + (query + j * 16) * 128);
          multiply(d, 8 * i, a, b);
          between(((k - 1) * (warp_queries / 16) + j) * warp_blocks + i);
        }
      }
    }
  }

  /// dq = ds^T k, for some fragments of queries, the first of them `fragment`, and some blocks of the dims,
  /// the first of them `block`.
  __device__ __forceinline__ static void multiply_keys(float (&dq)[dq_fragments][dq_blocks * 8],
                                                       std::uint32_t ds_lane, std::uint32_t k_lane,
                                                       int fragment, int block) {
    clear(dq);
#pragma unroll
    for (int j = 0; j < key_rows / 16; ++j) {
      std::uint32_t a[dq_fragments][4];
#pragma unroll
      for (int f = 0; f < dq_fragments; ++f)
        ptx::load_transposed(a[f], block_at<key_panel>(ds_lane, fragment + f) + j * 16 * 128);
#pragma unroll
      for (int i = 0; i < dq_blocks; ++i) {
        std::uint32_t b[4];
        ptx::load_transposed(b, block_at<key_panel>(k_lane, block + i) + j * 16 * 128);
        multiply(dq, 8 * i, a, b);
      }
    }
  }
};

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
