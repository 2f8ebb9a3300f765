// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <limits>
#include <type_traits>

#include "lightseq/core/host_device.hpp"

namespace lightseq {

/// Extents of a [batch, token, head, dim] tensor.
struct Shape {
  std::int64_t batch = 1;
  std::int64_t tokens = 0;
  std::int64_t heads = 1;
  std::int64_t dim = 1;
};

/// Distances in elements between neighbours in a [batch, token, head, dim] tensor; dim is contiguous.
struct Strides {
  std::int64_t batch = 0;
  std::int64_t token = 0;
  std::int64_t head = 0;

  /// Strides of a tensor without gaps.
  LIGHTSEQ_HD static constexpr Strides packed(Shape const& shape) {
    return {shape.tokens * shape.heads * shape.dim, shape.heads * shape.dim, shape.dim};
  }

  /// What stands in for strides that nobody gave. No tensor has these, while all zero repeats one vector.
  LIGHTSEQ_HD static constexpr Strides not_given() { return {lowest, lowest, lowest}; }
  friend constexpr bool operator==(Strides const&, Strides const&) = default;

 private:
  static constexpr std::int64_t lowest = std::numeric_limits<std::int64_t>::min();
};

/// A borrowed [batch, token, head, dim] tensor. A bare pointer converts to one without gaps: its strides are
/// not given until the callee, who knows the extents, fills them in. Strides that are given count as they
/// are, zeros too.
template <class T>
struct Tensor {
  T* data = nullptr;
  Strides strides = Strides::not_given();

  constexpr Tensor() = default;
  LIGHTSEQ_HD constexpr Tensor(T* pointer) : data(pointer) {}
  LIGHTSEQ_HD constexpr Tensor(T* pointer, Strides s) : data(pointer), strides(s) {}

  template <class U>
  requires(std::is_same_v<T, U const>) LIGHTSEQ_HD constexpr Tensor(Tensor<U> const& other)
      : data(other.data), strides(other.strides) {}

  /// The vector of one token and head.
  LIGHTSEQ_HD constexpr T* at(std::int64_t batch, std::int64_t token, std::int64_t head) const {
    return data + batch * strides.batch + token * strides.token + head * strides.head;
  }

  /// The same tensor, whose strides are filled in, from token `first` on.
  LIGHTSEQ_HD constexpr Tensor from(std::int64_t first) const {
    return {data == nullptr ? data : data + first * strides.token, strides};
  }

  /// Whether a tensor of this shape lies in memory without gaps.
  constexpr bool is_packed(Shape const& shape) const {
    Strides const packed = Strides::packed(shape);
    return (shape.batch == 1 || strides.batch == packed.batch) &&
           (shape.tokens == 1 || strides.token == packed.token) &&
           (shape.heads == 1 || strides.head == packed.head);
  }

  /// This tensor, with strides filled in if it came from a bare pointer.
  LIGHTSEQ_HD constexpr Tensor resolved(Shape const& shape) const {
    return strides == Strides::not_given() ? Tensor{data, Strides::packed(shape)} : *this;
  }
};

/// A borrowed [batch, head, token] array of one number per query: LSE (natural log, scale applied) or delta.
template <class T>
struct RowStats {
  T* data = nullptr;
  std::int64_t batch_stride = 0;
  std::int64_t head_stride = 0;

  constexpr RowStats() = default;
  LIGHTSEQ_HD constexpr RowStats(T* pointer, std::int64_t batch, std::int64_t head)
      : data(pointer), batch_stride(batch), head_stride(head) {}

  /// Statistics without gaps.
  LIGHTSEQ_HD static constexpr RowStats packed(T* pointer, std::int64_t heads, std::int64_t tokens) {
    return {pointer, heads * tokens, tokens};
  }

  template <class U>
  requires(std::is_same_v<T, U const>) LIGHTSEQ_HD constexpr RowStats(RowStats<U> const& other)
      : data(other.data), batch_stride(other.batch_stride), head_stride(other.head_stride) {}

  /// The numbers of one head, one per token.
  LIGHTSEQ_HD constexpr T* at(std::int64_t batch, std::int64_t head) const {
    return data + batch * batch_stride + head * head_stride;
  }

  /// The same statistics from token `first` on.
  LIGHTSEQ_HD constexpr RowStats from(std::int64_t first) const {
    return {data == nullptr ? data : data + first, batch_stride, head_stride};
  }
};

}  // namespace lightseq
