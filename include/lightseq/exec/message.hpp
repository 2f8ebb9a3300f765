// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/tensor.hpp"
#include "lightseq/schedule/payload.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// The tensors inside a payload's bytes, each without gaps, in the order of Parts: the q-wide ones, the
/// kv-wide ones, the statistics. T is their element type: float in results.
template <class T>
struct Message {
  std::byte* data = nullptr;
  Extents extents = {};
  Parts parts = {};
  std::int64_t rows = 0;

  /// The index-th [batch, rows, heads, dim] tensor.
  Tensor<T> per_q_head(int index) const {
    return {at<T>(index * extents.per_q_head_bytes(rows, sizeof(T))),
            Strides::packed({extents.batch, rows, extents.heads, extents.head_dim})};
  }

  /// The index-th [batch, rows, kv_heads, dim] tensor.
  Tensor<T> per_kv_head(int index) const {
    return {at<T>(parts.per_q_head * extents.per_q_head_bytes(rows, sizeof(T)) +
                  index * extents.per_kv_head_bytes(rows, sizeof(T))),
            Strides::packed({extents.batch, rows, extents.kv_heads, extents.head_dim})};
  }

  /// The index-th [batch, heads, rows] array.
  RowStats<float> stats(int index) const {
    return RowStats<float>::packed(at<float>(parts.per_q_head * extents.per_q_head_bytes(rows, sizeof(T)) +
                                             parts.per_kv_head * extents.per_kv_head_bytes(rows, sizeof(T)) +
                                             index * extents.stats_bytes(rows)),
                                   extents.heads, rows);
  }

 private:
  template <class U>
  U* at(std::int64_t offset) const {
    return reinterpret_cast<U*>(data + offset);
  }
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
