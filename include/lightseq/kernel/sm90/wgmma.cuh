// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/ptx.cuh"

/// wgmma: a warpgroup's matrix product of 64 x N x 16 with float sums (PTX ISA, "Asynchronous Warpgroup Level
/// Matrix Multiply-Accumulate"). Operands in shared memory are panels of 64 elements x R rows, 128 bytes a
/// row and 1024-byte aligned, as a bulk copy with the 128-byte swizzle writes them.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// Before the first wgmma, and before each that reads registers which other instructions wrote.
__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }

/// Closes a group of wgmmas.
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/// Waits until at most `Groups` groups are under way.
template <int Groups>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Groups) : "memory");
}

/// Keeps the compiler from moving reads and writes of registers across a wgmma that is under way.
__device__ __forceinline__ void pin(float& value) { asm volatile("" : "+f"(value)::"memory"); }
template <int Size>
__device__ __forceinline__ void pin(float (&registers)[Size]) {
#pragma unroll
  for (int i = 0; i < Size; ++i) pin(registers[i]);
}
template <int Size>
__device__ __forceinline__ void pin(std::uint32_t (&registers)[Size]) {
#pragma unroll
  for (int i = 0; i < Size; ++i) asm volatile("" : "+r"(registers[i])::"memory");
}

/// The lower word of a matrix descriptor; one unit of it is 16 bytes. `panel_bytes` is the distance between
/// panels where the product runs along the panels' rows, else without meaning. The upper word, 0x40000040, is
/// always the same: groups of eight rows are 1024 bytes apart, and the swizzle is of 128 bytes.
__device__ __forceinline__ std::uint32_t descriptor(std::uint32_t address, std::uint32_t panel_bytes = 16) {
  return ((address & 0x3ffff) >> 4) | (panel_bytes >> 4) << 16;
}

/// wgmma for sums of N columns. `both_shared`: d (+)= a b^T, where a, b are [64, 16] and [N, 16] in shared
/// memory, row by row, or transposed: [16, 64] and [16, N]. `left_registers`: d += a b^T, where a is in
/// registers, laid out as packed sums.
template <int N, class T>
struct Wgmma;

// The instruction wants every register by name.
#define LIGHTSEQ_NAMES_1 "%0,%1,%2,%3,%4,%5,%6,%7"
#define LIGHTSEQ_NAMES_2 LIGHTSEQ_NAMES_1 ",%8,%9,%10,%11,%12,%13,%14,%15"
#define LIGHTSEQ_NAMES_3 LIGHTSEQ_NAMES_2 ",%16,%17,%18,%19,%20,%21,%22,%23"
#define LIGHTSEQ_NAMES_4 LIGHTSEQ_NAMES_3 ",%24,%25,%26,%27,%28,%29,%30,%31"
#define LIGHTSEQ_NAMES_5 LIGHTSEQ_NAMES_4 ",%32,%33,%34,%35,%36,%37,%38,%39"
#define LIGHTSEQ_NAMES_6 LIGHTSEQ_NAMES_5 ",%40,%41,%42,%43,%44,%45,%46,%47"
#define LIGHTSEQ_NAMES_7 LIGHTSEQ_NAMES_6 ",%48,%49,%50,%51,%52,%53,%54,%55"
#define LIGHTSEQ_NAMES_8 LIGHTSEQ_NAMES_7 ",%56,%57,%58,%59,%60,%61,%62,%63"
#define LIGHTSEQ_NAMES_9 LIGHTSEQ_NAMES_8 ",%64,%65,%66,%67,%68,%69,%70,%71"
#define LIGHTSEQ_NAMES_10 LIGHTSEQ_NAMES_9 ",%72,%73,%74,%75,%76,%77,%78,%79"
#define LIGHTSEQ_NAMES_11 LIGHTSEQ_NAMES_10 ",%80,%81,%82,%83,%84,%85,%86,%87"
#define LIGHTSEQ_NAMES_12 LIGHTSEQ_NAMES_11 ",%88,%89,%90,%91,%92,%93,%94,%95"
#define LIGHTSEQ_NAMES_13 LIGHTSEQ_NAMES_12 ",%96,%97,%98,%99,%100,%101,%102,%103"
#define LIGHTSEQ_NAMES_14 LIGHTSEQ_NAMES_13 ",%104,%105,%106,%107,%108,%109,%110,%111"
#define LIGHTSEQ_NAMES_15 LIGHTSEQ_NAMES_14 ",%112,%113,%114,%115,%116,%117,%118,%119"
#define LIGHTSEQ_NAMES_16 LIGHTSEQ_NAMES_15 ",%120,%121,%122,%123,%124,%125,%126,%127"
#define LIGHTSEQ_EIGHT(i)                                                                     \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define LIGHTSEQ_SUMS_1 LIGHTSEQ_EIGHT(0)
#define LIGHTSEQ_SUMS_2 LIGHTSEQ_SUMS_1, LIGHTSEQ_EIGHT(8)
#define LIGHTSEQ_SUMS_3 LIGHTSEQ_SUMS_2, LIGHTSEQ_EIGHT(16)
#define LIGHTSEQ_SUMS_4 LIGHTSEQ_SUMS_3, LIGHTSEQ_EIGHT(24)
#define LIGHTSEQ_SUMS_5 LIGHTSEQ_SUMS_4, LIGHTSEQ_EIGHT(32)
#define LIGHTSEQ_SUMS_6 LIGHTSEQ_SUMS_5, LIGHTSEQ_EIGHT(40)
#define LIGHTSEQ_SUMS_7 LIGHTSEQ_SUMS_6, LIGHTSEQ_EIGHT(48)
#define LIGHTSEQ_SUMS_8 LIGHTSEQ_SUMS_7, LIGHTSEQ_EIGHT(56)
#define LIGHTSEQ_SUMS_9 LIGHTSEQ_SUMS_8, LIGHTSEQ_EIGHT(64)
#define LIGHTSEQ_SUMS_10 LIGHTSEQ_SUMS_9, LIGHTSEQ_EIGHT(72)
#define LIGHTSEQ_SUMS_11 LIGHTSEQ_SUMS_10, LIGHTSEQ_EIGHT(80)
#define LIGHTSEQ_SUMS_12 LIGHTSEQ_SUMS_11, LIGHTSEQ_EIGHT(88)
#define LIGHTSEQ_SUMS_13 LIGHTSEQ_SUMS_12, LIGHTSEQ_EIGHT(96)
#define LIGHTSEQ_SUMS_14 LIGHTSEQ_SUMS_13, LIGHTSEQ_EIGHT(104)
#define LIGHTSEQ_SUMS_15 LIGHTSEQ_SUMS_14, LIGHTSEQ_EIGHT(112)
#define LIGHTSEQ_SUMS_16 LIGHTSEQ_SUMS_15, LIGHTSEQ_EIGHT(120)

// N = 16 K; a, ..., h are the numbers of the operands after the 8 K sums.
#define LIGHTSEQ_WGMMA(N, K, a, b, c, e, f, g, h)                                                           \
  template <class T>                                                                                        \
  struct Wgmma<N, T> {                                                                                      \
    template <bool Accumulate, bool LeftTransposed = false, bool RightTransposed = false>                   \
    __device__ __forceinline__ static void both_shared(float (&d)[8 * K], std::uint32_t left,               \
                                                       std::uint32_t right) {                               \
      asm volatile("{.reg .pred p; .reg .b64 x, y; setp.ne.b32 p, %" #c ", 0; mov.b64 x, {%" #a             \
                   ", 0x40000040}; "                                                                        \
                   "mov.b64 y, {%" #b ", 0x40000040}; wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.%" #e  \
                   ".%" #e " {" LIGHTSEQ_NAMES_##K "}, x, y, p, 1, 1, %" #f ", %" #g ";}"                   \
                   : LIGHTSEQ_SUMS_##K                                                                      \
                   : "r"(left), "r"(right), "n"(Accumulate), "C"(ptx::Name<T>::value), "n"(LeftTransposed), \
                     "n"(RightTransposed));                                                                 \
    }                                                                                                       \
    template <bool RightTransposed = false>                                                                 \
    __device__ __forceinline__ static void left_registers(float (&d)[8 * K], std::uint32_t const* left,     \
                                                          std::uint32_t right) {                            \
      asm volatile("{.reg .pred p; .reg .b64 y; setp.ne.b32 p, 1, 0; mov.b64 y, {%" #f                      \
                   ", 0x40000040}; "                                                                        \
                   "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.%" #g ".%" #g " {" LIGHTSEQ_NAMES_##K    \
                   "}, {%" #a ",%" #b ",%" #c ",%" #e "}, y, p, 1, 1, %" #h ";}"                            \
                   : LIGHTSEQ_SUMS_##K                                                                      \
                   : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right),                    \
                     "C"(ptx::Name<T>::value), "n"(RightTransposed));                                       \
    }                                                                                                       \
  };
LIGHTSEQ_WGMMA(16, 1, 8, 9, 10, 11, 12, 13, 14)
LIGHTSEQ_WGMMA(32, 2, 16, 17, 18, 19, 20, 21, 22)
LIGHTSEQ_WGMMA(48, 3, 24, 25, 26, 27, 28, 29, 30)
LIGHTSEQ_WGMMA(64, 4, 32, 33, 34, 35, 36, 37, 38)
LIGHTSEQ_WGMMA(80, 5, 40, 41, 42, 43, 44, 45, 46)
LIGHTSEQ_WGMMA(96, 6, 48, 49, 50, 51, 52, 53, 54)
LIGHTSEQ_WGMMA(112, 7, 56, 57, 58, 59, 60, 61, 62)
LIGHTSEQ_WGMMA(128, 8, 64, 65, 66, 67, 68, 69, 70)
LIGHTSEQ_WGMMA(144, 9, 72, 73, 74, 75, 76, 77, 78)
LIGHTSEQ_WGMMA(160, 10, 80, 81, 82, 83, 84, 85, 86)
LIGHTSEQ_WGMMA(176, 11, 88, 89, 90, 91, 92, 93, 94)
LIGHTSEQ_WGMMA(192, 12, 96, 97, 98, 99, 100, 101, 102)
LIGHTSEQ_WGMMA(208, 13, 104, 105, 106, 107, 108, 109, 110)
LIGHTSEQ_WGMMA(224, 14, 112, 113, 114, 115, 116, 117, 118)
LIGHTSEQ_WGMMA(240, 15, 120, 121, 122, 123, 124, 125, 126)
LIGHTSEQ_WGMMA(256, 16, 128, 129, 130, 131, 132, 133, 134)
#undef LIGHTSEQ_WGMMA
#undef LIGHTSEQ_EIGHT
#undef LIGHTSEQ_NAMES_1
#undef LIGHTSEQ_NAMES_2
#undef LIGHTSEQ_NAMES_3
#undef LIGHTSEQ_NAMES_4
#undef LIGHTSEQ_NAMES_5
#undef LIGHTSEQ_NAMES_6
#undef LIGHTSEQ_NAMES_7
#undef LIGHTSEQ_NAMES_8
#undef LIGHTSEQ_NAMES_9
#undef LIGHTSEQ_NAMES_10
#undef LIGHTSEQ_NAMES_11
#undef LIGHTSEQ_NAMES_12
#undef LIGHTSEQ_NAMES_13
#undef LIGHTSEQ_NAMES_14
#undef LIGHTSEQ_NAMES_15
#undef LIGHTSEQ_NAMES_16
#undef LIGHTSEQ_SUMS_1
#undef LIGHTSEQ_SUMS_2
#undef LIGHTSEQ_SUMS_3
#undef LIGHTSEQ_SUMS_4
#undef LIGHTSEQ_SUMS_5
#undef LIGHTSEQ_SUMS_6
#undef LIGHTSEQ_SUMS_7
#undef LIGHTSEQ_SUMS_8
#undef LIGHTSEQ_SUMS_9
#undef LIGHTSEQ_SUMS_10
#undef LIGHTSEQ_SUMS_11
#undef LIGHTSEQ_SUMS_12
#undef LIGHTSEQ_SUMS_13
#undef LIGHTSEQ_SUMS_14
#undef LIGHTSEQ_SUMS_15
#undef LIGHTSEQ_SUMS_16

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
