// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <bit>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/gpu/ptx.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm80 {

/// How `Rows` rows of HeadDim elements of 16 bits lie in shared memory, and how `Threads` threads load them:
/// in panels of 64 columns, 128 bytes a row, whose 16-byte chunks c are swapped to c ^ (row % 8). Then
/// neither rows nor columns of chunks collide in the banks.
template <int Rows, int HeadDim, int Threads>
struct RowTile {
  static constexpr int panels = (HeadDim + 63) / 64;
  static constexpr int panel = Rows * 128, bytes = panels * panel;
  /// Chunks of a row, and threads that load and store them.
  static constexpr int chunks = HeadDim / 8, columns = std::bit_ceil(static_cast<unsigned>(chunks));

  /// Where a chunk lies.
  __device__ __forceinline__ static int chunk_offset(int row, int chunk) {
    return chunk / 8 * panel + row * 128 + ((chunk ^ row) & 7) * 16;
  }

  /// Begins to load rows; those from `count` on become zero.
  template <class T>
  __device__ __forceinline__ static void load(std::uint32_t to, Tensor<T const> const& tensor, int batch,
                                              int token, int head, int count) {
    constexpr int step = Threads / columns;
    int const first = static_cast<int>(threadIdx.x) / columns, chunk = threadIdx.x % columns;
    if (chunk >= chunks) return;
    T const* from = tensor.at(batch, token + first, head) + chunk * 8;
#pragma unroll
    for (int row = first; row < first + Rows; row += step) {
      if (Rows % step != 0 && row >= Rows) break;
      ptx::copy_async(to + chunk_offset(row, chunk), from, row < count ? 16 : 0);
      from += step * tensor.strides.token;
    }
  }

  /// The same for the backward. With `Pairs` the pairs 0, ..., 7 of elements in each 16 columns come to lie
  /// in the order 0, 2, 4, 6, 1, 3, 5, 7: of what mma.sync makes of these columns, in two blocks of 8, each
  /// thread then holds four neighbours.
  template <bool Pairs, class T>
  __device__ __forceinline__ static void load_ordered(std::uint32_t to, Tensor<T const> const& tensor,
                                                      int batch, int token, int head, int count) {
    constexpr int size = Pairs ? 2 : 8, pieces = HeadDim / size, row_threads = columns * 8 / size;
    constexpr int step = Threads / row_threads;
    static_assert(step % 8 == 0 || 8 % step == 0);
    int const first = static_cast<int>(threadIdx.x) / row_threads, piece = threadIdx.x % row_threads;
    if (piece >= pieces) return;
    T const* from = tensor.at(batch, token, head) + (first * tensor.strides.token + piece * size);
    to += Pairs ? chunk_offset(first, piece / 8 * 2 + piece % 2) + piece / 2 % 4 * 4
                : chunk_offset(first, piece);
#pragma unroll
    for (int row = 0; row < Rows; row += step) {
      if (Rows % step != 0 && row + first >= Rows) break;
      std::uint32_t const at = (to ^ row % 8 * 16) + row * 128;
      if constexpr (Pairs)
        ptx::copy_pair_async(at, from, row + first < count ? 4 : 0);
      else
        ptx::copy_async(at, from, row + first < count ? 16 : 0);
      from += step * tensor.strides.token;
    }
  }
};

}  // namespace sm80
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
