// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <span>

#include "lightseq/core/abi.hpp"
#include "lightseq/core/cuda_error.cuh"
#include "lightseq/partition/gather.hpp"

/// What gather.hpp does, of arrays that a GPU reads and writes: everything is enqueued on a stream, and
/// nothing is allocated or waited for.
namespace lightseq {
inline namespace LIGHTSEQ_ABI {

/// Calls f(token, row, rows) for all rows of a shard, where `rows` of them from `row` on are the tokens from
/// `token` on: as few times as can be.
template <std::invocable<std::int64_t, std::int64_t, std::int64_t> F>
void for_each_run(std::span<Piece const> shard, F const& f) {
  for (std::size_t i = 0; i < shard.size();) {
    std::int64_t const token = shard[i].token, row = shard[i].row;
    std::int64_t rows = 0;
    while (i < shard.size() && shard[i].token == token + rows && shard[i].row == row + rows)
      rows += shard[i++].rows;
    f(token, row, rows);
  }
}

/// Enqueues a copy of so many elements.
template <class T>
void copy_tokens(T const* from, T* to, std::int64_t elements, cudaStream_t stream) {
  check_cuda("a copy of tokens", cudaMemcpyAsync(to, from, static_cast<std::size_t>(elements) * sizeof(T),
                                                 cudaMemcpyDefault, stream));
}

/// Enqueues copies of what a rank's rows have out of a whole sequence's array of `width` elements a token.
/// `whole` is [pieces.tokens(), width], `own` [pieces.rows(rank), width], without gaps, each in device memory
/// or in pinned memory of the host; either may be longer. One copy a run of tokens that are neighbours on
/// both sides. Throws Error where one is too short, there is no such rank or CUDA refuses a copy.
template <std::ranges::contiguous_range Whole, std::ranges::contiguous_range Own>
requires std::same_as<std::ranges::range_value_t<Whole>, std::ranges::range_value_t<Own>>
void gather(Pieces const& pieces, int rank, Whole const& whole, Own&& own, std::int64_t width,
            cudaStream_t stream) {
  auto const shard = shard_of(pieces, rank);
  check_room("all tokens", whole, pieces.tokens(), width);
  check_room("a rank's tokens", own, pieces.rows(rank), width);
  for_each_run(shard, [&](std::int64_t token, std::int64_t row, std::int64_t rows) {
    copy_tokens(std::ranges::data(whole) + token * width, std::ranges::data(own) + row * width, rows * width,
                stream);
  });
}

/// The way back: puts what a rank's rows have where it belongs in a whole sequence's array, and touches
/// nothing else there.
template <std::ranges::contiguous_range Own, std::ranges::contiguous_range Whole>
requires std::same_as<std::ranges::range_value_t<Whole>, std::ranges::range_value_t<Own>>
void scatter(Pieces const& pieces, int rank, Own const& own, Whole&& whole, std::int64_t width,
             cudaStream_t stream) {
  auto const shard = shard_of(pieces, rank);
  check_room("a rank's tokens", own, pieces.rows(rank), width);
  check_room("all tokens", whole, pieces.tokens(), width);
  for_each_run(shard, [&](std::int64_t token, std::int64_t row, std::int64_t rows) {
    copy_tokens(std::ranges::data(own) + row * width, std::ranges::data(whole) + token * width, rows * width,
                stream);
  });
}

/// Some pieces of a shard, as position_ids_kernel takes them.
struct PositionRuns {
  static constexpr int most = 200;  // a launch has room for 4 KB

  struct Run {
    std::int64_t row = 0;
    std::int32_t rows = 0, begin = 0;
  };
  Run runs[most];
};

/// Writes the positions of the rows of a run: one thread block each.
template <std::integral Int>
__global__ void position_ids_kernel(__grid_constant__ PositionRuns const some, Int* own) {
  PositionRuns::Run const& run = some.runs[blockIdx.x];
  for (int i = static_cast<int>(threadIdx.x); i < run.rows; i += static_cast<int>(blockDim.x))
    own[run.row + i] = static_cast<Int>(run.begin + i);
}

/// Enqueues what fills in the position of each of a rank's rows within its document, which rotary embeddings
/// count by. `own` is [pieces.rows(rank)] integers in device memory, or longer. Throws Error where it is too
/// short, there is no such rank or CUDA refuses a launch.
template <std::ranges::contiguous_range Own>
requires std::integral<std::ranges::range_value_t<Own>>
void position_ids(Pieces const& pieces, int rank, Own&& own, cudaStream_t stream) {
  using Int = std::ranges::range_value_t<Own>;
  auto shard = shard_of(pieces, rank);
  check_room("position ids", own, pieces.rows(rank), 1);
  Int* to = std::ranges::data(own);
  while (!shard.empty()) {
    PositionRuns some;
    auto const count = std::min<std::size_t>(shard.size(), PositionRuns::most);
    for (std::size_t i = 0; i < count; ++i)
      some.runs[i] = {shard[i].row, static_cast<std::int32_t>(shard[i].rows),
                      static_cast<std::int32_t>(shard[i].begin)};
    void* arguments[] = {&some, &to};
    check_cuda("the positions of rows",
               cudaLaunchKernel(reinterpret_cast<void const*>(&position_ids_kernel<Int>),
                                dim3(static_cast<unsigned>(count)), dim3(256), arguments, 0, stream));
    shard = shard.subspan(count);
  }
}

}  // namespace LIGHTSEQ_ABI
}  // namespace lightseq
