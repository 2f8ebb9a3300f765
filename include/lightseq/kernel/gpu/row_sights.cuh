// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#include "lightseq/core/abi.hpp"
#include "lightseq/kernel/gpu/launcher.cuh"
#include "lightseq/mask/packed_rows.hpp"

namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Arguments of look_kernel: what the rows of both ranges see, and who sees them, goes to the rows' places.
template <Mask Inner>
struct LookLaunch {
  PackedRows<Inner> mask;
  Range queries, keys;
  RowSight *of_queries = nullptr, *of_keys = nullptr;
};

constexpr int look_threads = 256;

/// A thread for each row, of queries and then of keys.
template <Mask Inner>
__global__ void __launch_bounds__(look_threads)
    look_kernel(__grid_constant__ LookLaunch<Inner> const launch) {
  std::int64_t const i = std::int64_t{blockIdx.x} * look_threads + threadIdx.x,
                     queries = launch.queries.size();
  if (i < queries)
    launch.of_queries[launch.queries.begin + i] = launch.mask.sight_of_query(launch.queries.begin + i);
  else if (i < queries + launch.keys.size())
    launch.of_keys[launch.keys.begin + i - queries] =
        launch.mask.sight_of_key(launch.keys.begin + i - queries);
}

/// Enqueues that.
template <Mask Inner>
cudaError_t look(LookLaunch<Inner> const& launch, cudaStream_t stream) {
  std::int64_t const rows = launch.queries.size() + launch.keys.size();
  return launch_kernel(&look_kernel<Inner>, {tiles_of(rows, look_threads), look_threads}, stream, launch);
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
