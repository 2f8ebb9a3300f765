// SPDX-License-Identifier: Apache-2.0
// Any pointers and strides: either a Status that says what is wrong, or tensors whose elements all lie apart.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>
#include <set>
#include <span>

#include "lightseq/exec/arguments.hpp"

namespace {

void require(bool right) {
  if (!right) __builtin_trap();
}

/// A tensor that nobody reads. Half of them are small and near each other, the others anything.
template <class T>
lightseq::Argument argument(FuzzedDataProvider& data, char const* name, bool small) {
  auto const number = [&](std::int64_t low, std::int64_t high) {
    return data.ConsumeIntegralInRange<std::int64_t>(low, high);
  };
  std::int64_t const largest = small ? 4 : std::int64_t{1} << 20;
  lightseq::Shape const shape{number(1, largest), number(0, largest), number(1, largest),
                              8 * number(1, small ? 2 : 32)};
  auto const stride = [&] { return small ? number(-1, 200) : data.ConsumeIntegral<std::int64_t>(); };
  lightseq::Strides const strides{stride(), stride(), stride()};
  // Addresses, never followed; zero is the null pointer.
  auto const address = small ? static_cast<std::uintptr_t>(number(0, 2000)) * 4
                             : static_cast<std::uintptr_t>(data.ConsumeIntegral<std::uint64_t>()) & ~3u;
  return lightseq::tensor_argument(name, lightseq::Tensor<T>(reinterpret_cast<T*>(address), strides), shape);
}

/// The address of every byte; false if one occurs twice.
bool bytes_of(lightseq::Argument const& a, std::set<std::uintptr_t>& bytes) {
  auto const& [x, y, z] = a.dimensions;
  for (std::int64_t i = 0; i < x.extent; ++i)
    for (std::int64_t j = 0; j < y.extent; ++j)
      for (std::int64_t k = 0; k < z.extent; ++k)
        for (std::int64_t byte = 0; byte < a.dim * a.element_bytes; ++byte) {
          std::int64_t const offset = (i * x.stride + j * y.stride + k * z.stride) * a.element_bytes + byte;
          if (!bytes.insert(reinterpret_cast<std::uintptr_t>(a.data) + static_cast<std::uintptr_t>(offset))
                   .second)
            return false;
        }
  return true;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* bytes, std::size_t count) {
  FuzzedDataProvider data(bytes, count);
  bool const small = data.ConsumeBool();
  std::array<lightseq::Argument, 3> const arguments{argument<float const>(data, "in", small),
                                                    argument<float>(data, "out", small),
                                                    argument<std::uint16_t>(data, "other", small)};
  auto const workspace_size = data.ConsumeIntegralInRange<std::size_t>(0, 64);
  auto const workspace_address = data.ConsumeIntegralInRange<std::uintptr_t>(1, 2000);
  std::span<std::byte> const workspace(reinterpret_cast<std::byte*>(4 * workspace_address), workspace_size);
  auto const needed = data.ConsumeIntegralInRange<std::int64_t>(0, 64);

  lightseq::Status const status = lightseq::check_arguments(arguments, workspace, needed);
  if (!status.ok()) {
    require(!status.message().empty());
    return 0;
  }
  require(needed <= static_cast<std::int64_t>(workspace_size));
  if (!small) return 0;
  std::set<std::uintptr_t> taken;
  for (std::size_t i = 0; i < workspace_size; ++i)
    taken.insert(reinterpret_cast<std::uintptr_t>(workspace.data()) + i);
  for (lightseq::Argument const& a : arguments) require(bytes_of(a, taken));
  return 0;
}
