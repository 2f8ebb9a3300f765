// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/element.hpp"

/// Instructions of sm_80 and up that CUDA C++ has no function for, or only one in a slow header.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace ptx {

/// The name that PTX has for an element type.
template <class T>
struct Name;
template <>
struct Name<bfloat16> {
  static constexpr char value[] = "bf16";
};
template <>
struct Name<float16> {
  static constexpr char value[] = "f16";
};

/// An address in shared memory as instructions take it.
__device__ __forceinline__ std::uint32_t shared_address(void const* pointer) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Lane 0's value. The compiler then knows it to be the same in the whole warp and keeps what is derived
/// from it out of the vector registers.
__device__ __forceinline__ int uniform(int value) { return __shfl_sync(~0u, value, 0); }

/// 32-bit words in shared memory as lane 0 reads them, in the whole warp: so no other lane may still be
/// reading when lane 0 arrives at the barrier that lets them be overwritten.
template <class T>
__device__ __forceinline__ T read_first(T const& shared) {
  constexpr int size = sizeof(T) / sizeof(int);
  int words[size] = {};
  if (threadIdx.x % 32 == 0) std::memcpy(words, &shared, sizeof(T));
#pragma unroll
  for (int i = 0; i < size; ++i) words[i] = uniform(words[i]);
  T copy;
  std::memcpy(&copy, words, sizeof(T));
  return copy;
}

/// Two floats rounded to T, `low` in the lower half.
template <class T>
__device__ __forceinline__ std::uint32_t pack(float low, float high) {
  std::uint32_t packed;
  asm("cvt.rn.%3x2.f32 %0, %2, %1;" : "=r"(packed) : "f"(low), "f"(high), "C"(Name<T>::value));
  return packed;
}

/// Two elements of type T, the one in the lower half first.
template <class T>
__device__ __forceinline__ float2 unpack(std::uint32_t packed) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return {__uint_as_float(packed << 16), __uint_as_float(packed & 0xffff0000u)};
  } else {
    float2 pair;
    asm("{.reg .f16 low, high; mov.b32 {low, high}, %2; cvt.f32.f16 %0, low; cvt.f32.f16 %1, high;}"
        : "=f"(pair.x), "=f"(pair.y)
        : "r"(packed));
    return pair;
  }
}

/// Waits until `threads` threads have arrived at barrier `id`, this one included.
__device__ __forceinline__ void barrier_sync(int id, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Arrives at barrier `id` and does not wait.
__device__ __forceinline__ void barrier_arrive(int id, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

/// Four 8 x 8 matrices of 16-bit elements; lane l gives the address of row l % 8 of matrix l / 8.
__device__ __forceinline__ void load_matrices(std::uint32_t (&to)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

/// The same, each matrix transposed.
__device__ __forceinline__ void load_transposed(std::uint32_t (&to)[4], std::uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}

/// Begins to copy the first `bytes` of 16 bytes into shared memory; the rest becomes zero. Both addresses
/// are multiples of 16.
__device__ __forceinline__ void copy_async(std::uint32_t to, void const* from, int bytes) {
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to),
               "l"(__cvta_generic_to_global(from)), "r"(bytes)
               : "memory");
}

/// The same for 4 bytes, and multiples of 4.
__device__ __forceinline__ void copy_pair_async(std::uint32_t to, void const* from, int bytes) {
  asm volatile("cp.async.ca.shared.global.L2::128B [%0], [%1], 4, %2;" ::"r"(to),
               "l"(__cvta_generic_to_global(from)), "r"(bytes)
               : "memory");
}

/// Waits for all copies that this thread has begun.
__device__ __forceinline__ void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/// d += a b, where a is 16 x 16, b 16 x 8 and d four values of a 16 x 8 fragment.
template <class T>
__device__ __forceinline__ void multiply(float* d, std::uint32_t const (&a)[4], std::uint32_t b0,
                                         std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.%10.%10.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "C"(Name<T>::value));
}

/// Adds four floats to those at `to`, a multiple of 16 bytes, in one instruction, from sm_90 on; before, two
/// each to those at `to` and `to` + 8.
__device__ __forceinline__ void add_four(float* to, float a, float b, float c, float d) {
#if __CUDA_ARCH__ >= 900
  asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(to), "f"(a), "f"(b), "f"(c),
               "f"(d)
               : "memory");
#else
  atomicAdd(to, a);
  atomicAdd(to + 1, b);
  atomicAdd(to + 8, c);
  atomicAdd(to + 9, d);
#endif
}

}  // namespace ptx
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
