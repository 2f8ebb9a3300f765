// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>

#include "lightseq/mask/mask.hpp"

namespace lightseq {

/// A mask that looks at a list which lies elsewhere says so, `static constexpr bool looks_elsewhere = true`:
/// where the list is in a GPU's memory, what launches kernels on the host asks it nothing.
template <class M>
concept LooksElsewhere = Mask<M> && requires {
  requires M::looks_elsewhere;
};

/// What cover() says, as far as a launching host can know: partial, of a mask that looks elsewhere.
template <Mask M>
Cover cover_at_launch(M const& mask, Range const& queries, Range const& keys) {
  if constexpr (LooksElsewhere<M>) return Cover::partial;
  return mask.cover(queries, keys);
}

/// A mask that holds a list of any length. `data()` are its bytes, and `view(data)` is the same mask over a
/// copy of these at a multiple of 16 bytes: a Mask of trivially copyable type `View`, which LooksElsewhere.
/// The library places the bytes where a device reads them: kernels see the view alone, and the mask itself is
/// asked on the host only.
template <class M>
concept HasData = Mask<M> && requires(M const mask, std::byte const* data) {
  requires LooksElsewhere<typename M::View> && std::is_trivially_copyable_v<typename M::View>;
  { mask.data() } -> std::same_as<std::span<std::byte const>>;
  { mask.view(data) } -> std::same_as<typename M::View>;
};

template <class M>
struct MaskViewOf {
  using type = M;
};
template <HasData M>
struct MaskViewOf<M> {
  using type = typename M::View;
};

/// What kernels see of a mask: its view, or, of one that holds no data, the mask.
template <Mask M>
using MaskView = typename MaskViewOf<M>::type;

/// The bytes of a mask that a device must be able to read; none of one that holds no data.
template <Mask M>
std::span<std::byte const> data_of(M const& mask) {
  if constexpr (HasData<M>) return mask.data();
  return {};
}

/// The mask over a copy of its data.
template <Mask M>
MaskView<M> view_of(M const& mask, std::byte const* data) {
  if constexpr (HasData<M>)
    return mask.view(data);
  else
    return mask;
}

}  // namespace lightseq
