// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/core/tensor.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// A caller's tensor with all that is needed to judge it before a call touches it.
struct Argument {
  char const* name = "";
  void const* data = nullptr;
  std::int64_t element_bytes = 1;
  bool output = false;

  /// One way to walk through the tensor: `extent` steps of `stride` elements.
  struct Dimension {
    char const* name = "";
    std::int64_t extent = 1;
    std::int64_t stride = 0;
  };
  std::array<Dimension, 3> dimensions = {};
  std::int64_t dim = 1;        ///< contiguous elements at each place
  std::int64_t alignment = 1;  ///< what the address and the strides must be multiples of, in bytes

  bool empty() const {
    return std::any_of(dimensions.begin(), dimensions.end(), [](auto const& d) { return d.extent == 0; });
  }

  /// Elements from the first to the last, over the dimensions whose stride is below `period`.
  std::int64_t span_elements(std::int64_t period = std::numeric_limits<std::int64_t>::max()) const {
    std::int64_t elements = dim;
    for (Dimension const& d : dimensions)
      if (d.extent > 1 && d.stride < period) elements += (d.extent - 1) * d.stride;
    return elements;
  }
};

/// A tensor as an argument. Its address is at least as aligned as its type asks for.
template <class T>
Argument tensor_argument(char const* name, Tensor<T> const& tensor, Shape const& shape,
                         std::int64_t alignment = 1) {
  Strides const s = tensor.resolved(shape).strides;
  return {.name = name,
          .data = tensor.data,
          .element_bytes = sizeof(T),
          .output = !std::is_const_v<T>,
          .dimensions = {{{"batch stride", shape.batch, s.batch},
                          {"token stride", shape.tokens, s.token},
                          {"head stride", shape.heads, s.head}}},
          .dim = shape.dim,
          .alignment = std::max(alignment, std::int64_t{alignof(T)})};
}

/// `elements` numbers without gaps as an argument.
template <class T>
Argument array_argument(char const* name, T* data, std::int64_t elements) {
  return {.name = name,
          .data = data,
          .element_bytes = sizeof(T),
          .output = !std::is_const_v<T>,
          .dimensions = {{{"", elements > 0 ? 1 : 0, 0}, {}, {}}},
          .dim = elements,
          .alignment = alignof(T)};
}

/// Whether each place of the tensor is its own: every stride clears all that lies within it.
inline Status check_strides(Argument argument) {
  auto& dimensions = argument.dimensions;
  std::sort(dimensions.begin(), dimensions.end(),
            [](auto const& a, auto const& b) { return a.stride < b.stride; });
  std::int64_t const limit = std::numeric_limits<std::int64_t>::max() / argument.element_bytes;
  std::int64_t inner = argument.dim;
  for (Argument::Dimension const& d : dimensions) {
    if (d.extent <= 1) continue;
    if (d.stride < inner)
      return {.code = Code::bad_stride,
              .subject = argument.name,
              .other = d.name,
              .have = d.stride,
              .need = inner};
    if (d.stride > (limit - inner) / (d.extent - 1))
      return {.code = Code::stride_overflow, .subject = argument.name, .other = d.name, .have = d.stride};
    inner += (d.extent - 1) * d.stride;
  }
  return {};
}

/// Whether the address and the strides are such multiples as the device asks for.
inline Status check_alignment(Argument const& argument) {
  auto const misaligned = [&](char const* what, std::int64_t have, std::int64_t need) {
    return Status{
        .code = Code::misaligned, .subject = argument.name, .other = what, .have = have, .need = need};
  };
  auto const address = reinterpret_cast<std::uintptr_t>(argument.data);
  auto const rest = static_cast<std::int64_t>(address % static_cast<std::uintptr_t>(argument.alignment));
  if (rest != 0) return misaligned("address", rest, argument.alignment);
  std::int64_t const unit = std::max<std::int64_t>(1, argument.alignment / argument.element_bytes);
  for (Argument::Dimension const& d : argument.dimensions)
    if (d.extent > 1 && d.stride % unit != 0) return misaligned(d.name, d.stride, unit);
  return {};
}

/// Whether two tensors with sound strides can be told apart as interleaved: they repeat with the same period
/// and, within it, lie beside each other, as q, k and v do in a fused tensor.
inline bool interleaved(Argument const& a, Argument const& b) {
  if (a.element_bytes != b.element_bytes) return false;
  auto const distance_bytes = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(b.data) -
                                                        reinterpret_cast<std::uintptr_t>(a.data));
  if (distance_bytes % a.element_bytes != 0) return false;
  auto const repeats_with = [](Argument const& argument, std::int64_t period) {
    return std::all_of(argument.dimensions.begin(), argument.dimensions.end(), [&](auto const& d) {
      return d.extent <= 1 || d.stride < period || d.stride % period == 0;
    });
  };
  for (Argument::Dimension const& d : a.dimensions) {
    std::int64_t const period = d.stride;
    if (d.extent <= 1 || period <= 0 || !repeats_with(a, period) || !repeats_with(b, period)) continue;
    std::int64_t const distance = (distance_bytes / a.element_bytes % period + period) % period;
    if (distance >= a.span_elements(period) && distance + b.span_elements(period) <= period) return true;
  }
  return false;
}

/// Whether two tensors with sound strides share memory, or may: it errs on the side of yes.
inline bool overlap(Argument const& a, Argument const& b) {
  if (a.empty() || b.empty()) return false;
  auto const first = [](Argument const& x) { return reinterpret_cast<std::uintptr_t>(x.data); };
  auto const bytes = [](Argument const& x) {
    return static_cast<std::uintptr_t>(x.span_elements() * x.element_bytes);
  };
  bool const apart = first(a) < first(b) ? first(b) - first(a) >= bytes(a) : first(a) - first(b) >= bytes(b);
  return !apart && !interleaved(a, b);
}

/// Whether memory that a caller brings is large enough; `name` is what an error calls it.
inline Status check_size(char const* name, std::span<std::byte> memory, std::int64_t need) {
  auto const have = static_cast<std::int64_t>(memory.size());
  if (have >= need) return {};
  return {.code = Code::workspace_too_small, .subject = name, .have = have, .need = need};
}

/// The first thing that is wrong with a call's tensors and workspace, or ok. Nothing is read through them.
inline Status check_arguments(std::span<Argument const> arguments, std::span<std::byte> workspace,
                              std::int64_t workspace_bytes) {
  for (Argument const& argument : arguments) {
    if (argument.empty()) continue;
    if (argument.data == nullptr) return {.code = Code::null_pointer, .subject = argument.name};
    if (Status const status = check_strides(argument); !status.ok()) return status;
    if (Status const status = check_alignment(argument); !status.ok()) return status;
  }
  if (Status const status = check_size("workspace", workspace, workspace_bytes); !status.ok()) return status;
  Argument const scratch =
      array_argument("workspace", workspace.data(), static_cast<std::int64_t>(workspace.size()));
  for (Argument const& argument : arguments) {
    if (overlap(argument, scratch))
      return {.code = Code::aliased, .subject = argument.name, .other = scratch.name};
    if (!argument.output) continue;
    for (Argument const& other : arguments)
      if (&other != &argument && overlap(argument, other))
        return {.code = Code::aliased, .subject = argument.name, .other = other.name};
  }
  return {};
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
