// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nvtx3/nvToolsExt.h>

#include <cstddef>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/schedule/plan.hpp"
#include "lightseq/schedule/text.hpp"

/// NVTX ranges in the domain "lightseq", one a step: "forward step 3: q 7 (upper half) x kv 0", the bytes
/// sent as payload. Without a profiler a range costs a few comparisons.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace nvtx {

inline nvtxDomainHandle_t domain() {
  static nvtxDomainHandle_t const handle = nvtxDomainCreateA("lightseq");
  return handle;
}

/// The range of a step in which this rank sends `bytes` bytes, open as long as it lives.
class StepRange {
 public:
  StepRange(Plan const& plan, std::size_t step, std::int64_t bytes) noexcept {
    if (domain() == nullptr) return;  // no profiler listens
    Text label = Text(name(plan.pass)) + " step " + step;
    if (step < plan.steps.size() && plan.steps[step].work)
      label = label + ": " + text(*plan.steps[step].work);
    nvtxEventAttributes_t attributes{};
    attributes.version = NVTX_VERSION;
    attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    attributes.payloadType = NVTX_PAYLOAD_TYPE_INT64;
    attributes.payload.llValue = bytes;
    attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
    attributes.message.ascii = label.view().data();
    nvtxDomainRangePushEx(domain(), &attributes);
  }
  ~StepRange() {
    if (domain() != nullptr) nvtxDomainRangePop(domain());
  }
  StepRange(StepRange const&) = delete;
  StepRange& operator=(StepRange const&) = delete;
};

}  // namespace nvtx
}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
