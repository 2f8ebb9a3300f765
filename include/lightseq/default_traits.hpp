// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "lightseq/core/abi.hpp"
#include "lightseq/exec/device.hpp"
#include "lightseq/exec/host.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/traits.hpp"
#include "lightseq/transport/local.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Attention on the CPU, with ranks as threads of one process.
struct DefaultTraits : CommonTraits {
  using Device = Host;      ///< runs the kernels
  using Transport = Local;  ///< moves the messages
};
static_assert(Device<Host, 64, Full, DefaultTraits>);

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
