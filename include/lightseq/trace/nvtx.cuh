// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <nvtx3/nvToolsExt.h>

#include <charconv>
#include <cstddef>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/schedule/plan.hpp"

/// NVTX ranges in the domain "lightseq", one a step: "forward step 3: 7.0 upper", the bytes sent as payload.
/// Without a profiler a range costs a few comparisons.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {
namespace nvtx {

inline nvtxDomainHandle_t domain() {
  static nvtxDomainHandle_t const handle = nvtxDomainCreateA("lightseq");
  return handle;
}

/// Text in memory of its own.
class Label {
 public:
  Label& operator<<(char const* text) {
    while (*text != 0 && size_ < capacity) text_[size_++] = *text++;
    return *this;
  }
  Label& operator<<(std::int64_t number) {
    size_ = static_cast<std::size_t>(std::to_chars(text_ + size_, text_ + capacity, number).ptr - text_);
    return *this;
  }
  char const* text() const { return text_; }

 private:
  static constexpr std::size_t capacity = 127;
  char text_[capacity + 1] = {};
  std::size_t size_ = 0;
};

/// The range of a step in which this rank sends `bytes` bytes, open as long as it lives.
class StepRange {
 public:
  StepRange(Plan const& plan, std::size_t step, std::int64_t bytes) noexcept {
    if (domain() == nullptr) return;  // no profiler listens
    Label label;
    label << name(plan.pass) << " step " << static_cast<std::int64_t>(step);
    if (step < plan.steps.size() && plan.steps[step].work) {
      auto const& work = plan.steps[step].work;
      label << ": " << work->q << (work->q == plan.rank ? "." : "*") << work->kv;
      if (work->rows != Rows::all) label << (work->rows == Rows::lower ? " lower" : " upper");
    }
    nvtxEventAttributes_t attributes{};
    attributes.version = NVTX_VERSION;
    attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
    attributes.payloadType = NVTX_PAYLOAD_TYPE_INT64;
    attributes.payload.llValue = bytes;
    attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
    attributes.message.ascii = label.text();
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
