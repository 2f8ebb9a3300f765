// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/abi.hpp"
#include "lightseq/schedule/plan.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// The rare choices that need no device and no transport. Traits of a DistAttn derive from it, or from
/// DefaultTraits or CudaTraits, and name what differs: `struct Mine : CommonTraits { using Element =
/// bfloat16; using Device = Host; using Transport = Local; };`
struct CommonTraits {
  using Element = float;                        ///< of q, k, v and o; everything is accumulated in float
  static constexpr Route route = Route::owner;  ///< from whom inputs come
  static constexpr bool one_launch = false;     ///< see DistAttn::one_launch()
  static constexpr bool sinks = false;          ///< each query head has a sink: see Inputs::sink
  static constexpr bool inference = false;      ///< forward only: no backward kernels are compiled
  static constexpr bool deterministic = false;  ///< gradients have the same bits in every run; slower on GPUs
};

/// Attention on the CPU, with ranks as threads of one process: see default_traits.hpp.
struct DefaultTraits;

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
