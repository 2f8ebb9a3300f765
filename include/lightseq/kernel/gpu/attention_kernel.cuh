// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <concepts>
#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/status.hpp"
#include "lightseq/kernel/call.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// A kernel of attention on a GPU: prepare() looks up what launches on the current device need, once;
/// launch() enqueues a call on a stream, with scratch memory of the device, and leaves `sm_margin`
/// multiprocessors to others.
template <class K, class Call, class M>
concept AttentionKernel = std::default_initializable<K> &&
    requires(K kernel, K const prepared, Call const& call, M const& mask, void* workspace,
             cudaStream_t stream, int sm_margin) {
  { kernel.prepare() } -> std::same_as<Status>;
  { prepared.launch(call, mask, workspace, stream, sm_margin) } -> std::same_as<Status>;
};

/// One of a forward, which needs `workspace_bytes` of scratch memory and attends at most `max_chunks` chunks
/// of keys and values as they arrive.
template <class K, class T, class Result, class M>
concept ForwardAttention = AttentionKernel<K, ForwardCall<T, Result>, M> && requires {
  { K::workspace_bytes } -> std::convertible_to<std::int64_t>;
  { K::max_chunks } -> std::convertible_to<int>;
};

/// One of a backward, whose scratch memory, in bytes, follows from batch, query heads, queries and keys.
template <class K, class T, class KeyGrad, class M>
concept BackwardAttention = AttentionKernel<K, BackwardCall<T, float, KeyGrad>, M> &&
    requires(std::int64_t n) {
  { K::workspace_bytes(n, n, n, n) } -> std::convertible_to<std::int64_t>;
};

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
