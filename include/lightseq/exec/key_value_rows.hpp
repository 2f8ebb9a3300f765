// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/schedule/payload.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Keys and values, or their gradients, row after row: [row, k or v, batch, kv_heads, dim]. Neighbouring rows
/// are one message, whatever else travels.
template <class T>
struct KeyValueRows {
  T* data = nullptr;
  Extents extents = {};

  /// Bytes of so many rows.
  static constexpr std::int64_t bytes(Extents const& extents, std::int64_t rows) {
    return rows * extents.kv_row_bytes(sizeof(T));
  }

  /// [batch, row, kv_heads, dim]
  Tensor<T> k() const { return tensor(0); }
  Tensor<T> v() const { return tensor(side(extents)); }

  /// The rows from `first` on.
  KeyValueRows from(std::int64_t first) const { return {data + first * 2 * side(extents), extents}; }

 private:
  static constexpr std::int64_t side(Extents const& extents) {
    return extents.batch * extents.kv_heads * extents.head_dim;
  }
  Tensor<T> tensor(std::int64_t offset) const {
    return {data + offset, {extents.kv_heads * extents.head_dim, 2 * side(extents), extents.head_dim}};
  }
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
