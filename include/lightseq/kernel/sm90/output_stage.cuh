// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/ptx.cuh"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// Stores four 8 x 8 matrices; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void store_matrices(std::uint32_t address, std::uint32_t a, std::uint32_t b,
                                               std::uint32_t c, std::uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(a),
               "r"(b), "r"(c), "r"(d)
               : "memory");
}

/// The same, each matrix transposed.
__device__ __forceinline__ void store_transposed(std::uint32_t address, std::uint32_t a, std::uint32_t b,
                                                 std::uint32_t c, std::uint32_t d) {
  asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
               "r"(a), "r"(b), "r"(c), "r"(d)
               : "memory");
}

/// Writes a warpgroup's 64 rows of o as elements T, in panels of 64, `panel` bytes from one to the next.
template <class T, int Size>
__device__ __forceinline__ void write_elements(std::uint8_t* memory, int panel, float const (&o)[Size]) {
  int const lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4;
  std::uint32_t const to = ptx::shared_address(memory) + (warp * 16 + lane % 16) * 128;
#pragma unroll
  for (int i = 0; i < Size / 8; ++i) {
    float const* const f = o + 8 * i;
    store_matrices(to + i / 4 * panel + ((i % 4 * 2 + lane / 16) ^ lane % 8) * 16, ptx::pack<T>(f[0], f[1]),
                   ptx::pack<T>(f[2], f[3]), ptx::pack<T>(f[4], f[5]), ptx::pack<T>(f[6], f[7]));
  }
}

/// Shared memory through which a warpgroup's 64 rows of o go, and come where they continue earlier ones:
/// panels of 128 bytes a row as TMA lays them. A row's floats and its elements lie in the same
/// bytes, so that a warp shares them with no other.
template <int HeadDim, class T>
struct OutputStage {
  static constexpr int panel_bytes = 64 * 128;
  template <class U>
  static constexpr int panels = (HeadDim * static_cast<int>(sizeof(U)) + 127) / 128;
  static constexpr int bytes = panels<float> * panel_bytes;

  std::uint8_t* const memory;  ///< 1024-byte aligned

  /// o = o * own + (the floats here) * other.
  __device__ __forceinline__ void add_to(float (&o)[HeadDim / 2], float const (&own)[2],
                                         float const (&other)[2]) const {
    bool const swaps = swaps_pairs();
#pragma unroll
    for (int i = 0; i < pairs; i += i % 2 == 0 ? 1 : 3)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float2 const here = *place(i, r), there = *place(i + 2, r);
        float2 const both[2] = {swaps ? there : here, swaps ? here : there};
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          if (i + 2 * j >= pairs) break;
          float& x = o[4 * i + 8 * j + 2 * r];
          float& y = o[4 * i + 8 * j + 2 * r + 1];
          x = x * own[r] + both[j].x * other[r];
          y = y * own[r] + both[j].y * other[r];
        }
      }
  }

  /// Writes o as floats.
  __device__ __forceinline__ void write(float const (&o)[HeadDim / 2], float) const {
    bool const swaps = swaps_pairs();
#pragma unroll
    for (int i = 0; i < pairs; i += i % 2 == 0 ? 1 : 3)
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        float2 const first = {o[4 * i + 2 * r], o[4 * i + 2 * r + 1]};
        int const j = i + 2 < pairs ? i + 2 : i;
        float2 const second = {o[4 * j + 2 * r], o[4 * j + 2 * r + 1]};
        *place(i, r) = swaps ? second : first;
        *place(i + 2, r) = swaps ? first : second;
      }
  }

  /// Writes o as elements.
  __device__ __forceinline__ void write(float const (&o)[HeadDim / 2], T) const {
    __syncwarp();  // the warp has read the floats that lay here
    write_elements<T>(memory, panel_bytes, o);
  }

 private:
  static constexpr int pairs = HeadDim / 8;  ///< of neighbours that a thread has in a row

  /// In every other row of a warp, pairs i and i + 2 change places: or else two rows would meet in each bank.
  __device__ __forceinline__ static bool swaps_pairs() { return threadIdx.x / 4 % 2 != 0; }

  /// Where values 4i + 2r and 4i + 2r + 1 of this thread lie, or the same values of its pair i ^ 2.
  __device__ __forceinline__ float2* place(int i, int r) const {
    int const lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, row = lane / 4;
    int const chunk = (lane % 4 / 2) ^ row ^ (swaps_pairs() ? 4 : 0);
    int const offset = (warp * 16 + row) * 128 + chunk * 16 + lane % 2 * 8;
    return reinterpret_cast<float2*>(memory + (offset ^ (i % 4 * 32)) + i / 4 * panel_bytes + r * 1024);
  }
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
