// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/driver.cuh"
#include "lightseq/core/status.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/kernel/sm90/barrier.cuh"

/// The tensor memory accelerator, TMA: boxes of [batch, token, head, dim] tensors to and from shared memory.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace sm90 {

/// Copies one panel, 128 bytes of each row of the map's box, from (dim, token, head, batch) on to `to`.
/// What lies outside the tensor becomes zeros, and counts among the bytes that `done` expects.
__device__ __forceinline__ void load_panel(void* to, CUtensorMap const& map, int dim, int token, int head,
                                           int batch, Barrier const& done) {
  asm volatile(
      "cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, "
      "%4, "
      "%5}], [%6];" ::"r"(ptx::shared_address(to)),
      "l"(&map), "r"(dim), "r"(token), "r"(head), "r"(batch), "r"(done.address())
      : "memory");
}

/// Copies a tile, `Panels` panels that lie one after another, from the tensor's first dim on to `to`.
template <int Panels, int Bytes>
__device__ __forceinline__ void load_panels(std::uint8_t (&to)[Bytes], CUtensorMap const& map, int token,
                                            int head, int batch, Barrier const& done) {
  for (int i = 0; i < Panels; ++i)
    load_panel(to + i * (Bytes / Panels), map, 64 * i, token, head, batch, done);
}

/// Copies `bytes` that lie side by side; both addresses and the number are multiples of 16.
__device__ __forceinline__ void load_bytes(void* to, void const* from, int bytes, Barrier const& done) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          ptx::shared_address(to)),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(done.address())
      : "memory");
}

/// The way back; what lies outside the tensor is left out.
__device__ __forceinline__ void store_panel(CUtensorMap const& map, int dim, int token, int head, int batch,
                                            std::uint32_t from) {
  asm volatile(
      "cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%0, {%1, %2, %3, %4}], [%5];" ::"l"(&map),
      "r"(dim), "r"(token), "r"(head), "r"(batch), "r"(from)
      : "memory");
}

/// The same for floats, which are added to those that are there.
__device__ __forceinline__ void add_panel(CUtensorMap const& map, int dim, int token, int head, int batch,
                                          std::uint32_t from) {
  asm volatile(
      "cp.reduce.async.bulk.tensor.4d.global.shared::cta.add.tile.bulk_group [%0, {%1, %2, %3, %4}], "
      "[%5];" ::"l"(&map),
      "r"(dim), "r"(token), "r"(head), "r"(batch), "r"(from)
      : "memory");
}

/// Adds the panel to global memory if `adds`, else overwrites it.
__device__ __forceinline__ void add_or_store_panel(CUtensorMap const& map, int dim, int token, int head,
                                                   int batch, std::uint32_t from, bool adds) {
  if (adds) return add_panel(map, dim, token, head, batch, from);
  store_panel(map, dim, token, head, batch, from);
}

__device__ __forceinline__ void commit_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

/// Waits until all stores of this thread, except the last `Groups` groups, have read shared memory.
template <int Groups = 0>
__device__ __forceinline__ void wait_stores_read() {
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(Groups) : "memory");
}

/// Waits until this thread's stores have arrived.
__device__ __forceinline__ void wait_stores() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

/// Makes tensor maps, with a function of the driver.
class TensorMaps {
 public:
  Status prepare() { return find_driver_function("cuTensorMapEncodeTiled", encode_); }

  /// A map of the tensor whose boxes are `rows` tokens of one head, a panel of 128 bytes of the dim at a
  /// time.
  template <class T>
  Status make(CUtensorMap& map, Tensor<T> tensor, Shape const& shape, int rows, char const* name) const {
    auto const misaligned = [&](char const* what, std::int64_t have, std::int64_t need) {
      return Status{.code = Code::misaligned, .subject = name, .other = what, .have = have, .need = need};
    };
    auto const address = reinterpret_cast<std::uintptr_t>(tensor.data);
    if (address % 16 != 0) return misaligned("address", static_cast<std::int64_t>(address % 16), 16);
    constexpr std::int64_t unit = 16 / sizeof(T);
    // The stride of a single batch, token or head means nothing and may be anything.
    std::int64_t const token = shape.tokens > 1 ? tensor.strides.token : unit;
    std::int64_t const head = shape.heads > 1 ? tensor.strides.head : unit;
    std::int64_t const batch = shape.batch > 1 ? tensor.strides.batch : unit;
    if (token % unit != 0) return misaligned("token stride", token, unit);
    if (head % unit != 0) return misaligned("head stride", head, unit);
    if (batch % unit != 0) return misaligned("batch stride", batch, unit);

    auto const size = [](std::int64_t n) { return static_cast<cuuint64_t>(n); };
    cuuint64_t const extents[] = {size(shape.dim), size(shape.tokens), size(shape.heads), size(shape.batch)};
    cuuint64_t const strides[] = {size(token) * sizeof(T), size(head) * sizeof(T), size(batch) * sizeof(T)};
    cuuint32_t const box[] = {128 / sizeof(T), static_cast<cuuint32_t>(rows), 1, 1};
    cuuint32_t const ones[] = {1, 1, 1, 1};
    using Element = std::remove_const_t<T>;
    CUtensorMapDataType const type = std::is_same_v<Element, float>     ? CU_TENSOR_MAP_DATA_TYPE_FLOAT32
                                     : std::is_same_v<Element, float16> ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16
                                                                        : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    void* const data = const_cast<Element*>(tensor.data);
    CUresult const result = encode_(&map, type, 4, data, extents, strides, box, ones,
                                    CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                    CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return cuda_status(name, result);
  }

 private:
  decltype(&cuTensorMapEncodeTiled) encode_ = nullptr;
};

}  // namespace sm90
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
