// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "laws/transport.hpp"
#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"
#include "lightseq/transport/push.cuh"
#include "support/data.hpp"
#include "support/device.cuh"
#include "support/schedules.hpp"

/// What one rank of a group does on a GPU, be it a thread or a process: each function returns what it has to
/// say, or nothing. While messages are awaited nothing is allocated, freed or loaded: ranks of one process
/// share a context.
namespace lightseq::test {

/// Part of the device memory of this thread's rank that it shares; used from one end to the other, and again.
class DevicePartOfShared {
 public:
  static constexpr std::int64_t capacity = 7 << 20;
  explicit DevicePartOfShared(Bytes const& content) : size_(content.size()) {
    if (next + size_ > static_cast<std::size_t>(capacity)) next = 0;
    data_ = memory->data() + next;
    next += (size_ + 63) / 64 * 64;
    write(content);
  }
  void* data() { return data_; }
  void write(Bytes const& content) { copy(data_, content.data()); }
  Bytes read() const {
    Bytes content(size_);
    copy(content.data(), data_);
    return content;
  }
  static inline thread_local DeviceArray<std::byte>* memory = nullptr;
  static inline thread_local std::size_t next = 0;

 private:
  void copy(void* to, void const* from) const {
    check_cuda(cudaMemcpyAsync(to, from, size_, cudaMemcpyDefault, cudaStreamPerThread));
    check_cuda(cudaStreamSynchronize(cudaStreamPerThread));
  }
  std::size_t size_;
  std::byte* data_;
};

/// A push whose finish() waits for its stream, with delays before messages are ready and fetched.
class SynchronousCudaPush {
 public:
  explicit SynchronousCudaPush(Push& push) : push_(push), random_(static_cast<unsigned>(push.rank()) + 1) {}
  int rank() const noexcept { return push_.rank(); }
  int world() const noexcept { return push_.world(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    keep_busy(push_.stream(), static_cast<unsigned>(random_() % 100'000));
    return push_.start(sends, recvs);
  }
  Status finish() noexcept {
    Status const status = push_.finish();
    return status.ok() ? push_.wait(push_.stream()) : status;
  }

 private:
  Push& push_;
  std::minstd_rand random_;
};

/// Calls f(transport) on a group whose DevicePartOfShareds lie in memory that it shares.
template <class F>
std::string run_in_shared_memory(PushSeat const& seat, F f) {
  DeviceArray<std::byte> memory(DevicePartOfShared::capacity);
  DevicePartOfShared::memory = &memory;
  DevicePartOfShared::next = 0;
  Streams const streams(1);
  keep_busy(streams[0], 1);
  check_cuda(cudaDeviceSynchronize());
  Push push(seat, streams[0], {.timeout = std::chrono::seconds(30)});
  if (Status const status = push.share(memory.span()); !status.ok()) return status.message();
  SynchronousCudaPush transport(push);
  std::string const said = f(transport);
  if (!said.empty()) push.withdraw();
  Status const end = push.unshare(memory.span());
  return said.empty() && !end.ok() ? end.message() : said;
}

using PushElement = bfloat16;
inline constexpr int push_head_dim = 64;
struct CudaPushTraits : CudaTraits {
  using Transport = Push;
};
struct RelayedPush : CudaPushTraits {
  static constexpr Route route = Route::neighbour;
};
struct OneLaunchPush : CudaPushTraits {
  static constexpr bool one_launch = true;
  static constexpr bool inference = true;
};
struct RepeatablePush : CudaPushTraits {
  static constexpr bool deterministic = true;
};
template <class S, class Traits = CudaPushTraits>
using PushAttn = DistAttn<push_head_dim, Causal, S, Traits>;

/// A rank with its group and both its streams.
struct PushRank {
  explicit PushRank(PushSeat const& seat, std::chrono::milliseconds timeout = std::chrono::seconds(30))
      : push(seat, streams[0], {.timeout = timeout}) {}
  Streams streams{2};
  Push push;
  Cuda<Hopper>::Stream stream{.compute = streams[1]};
};

/// Forward and backward, awaited.
template <class A, class Part>
Status run_pushed(A& attn, PushRank& rank, Part& part) {
  Status status = attn.forward(part.inputs(), part.outputs(), part.workspace.span(), rank.stream);
  if constexpr (A::has_backward)
    if (status.ok())
      status = attn.backward(part.backward_inputs(), part.gradients(), part.workspace.span(), rank.stream);
  return status.ok() ? attn.wait(rank.stream) : status;
}

/// What a dense attention of the same inputs allows.
inline std::string far(testing::Sequence<PushElement> const& got, testing::Dense const& want,
                       bool gradients = true) {
  double const errors[] = {
      testing::relative_error(got.o, want.o) / 5e-3, testing::lse_error(got.lse, want.lse) / 1e-5,
      testing::relative_error(got.dq, want.dq) / 1e-2, testing::relative_error(got.dk, want.dk) / 1e-2,
      testing::relative_error(got.dv, want.dv) / 1e-2};
  for (double const error : std::span(errors).first(gradients ? 5 : 2))
    if (!(error < 1)) return text("an error is ", error, " of what is allowed");
  return {};
}

/// A rank's rows of `want`, and what it computed, as a sequence of these rows alone: how far they are apart.
template <class A>
std::string attends(PushRank& rank, Problem const& problem, testing::Sequence<PushElement> const& fresh,
                    testing::Dense const& want, typename A::Schedule const& schedule = {}) {
  A attn(rank.push, problem, {}, schedule);
  testing::DevicePart<A> part(attn, fresh);
  check_cuda(cudaDeviceSynchronize());
  Status status = rank.push.share(part.workspace.span());
  if (status.ok()) status = run_pushed(attn, rank, part);
  if (status.ok()) status = rank.push.unshare(part.workspace.span());
  if (!status.ok()) return status.message();
  // What other ranks own is taken as right.
  testing::Sequence<PushElement> got = fresh;
  auto const fill = [](auto& to, auto const& from) {
    using T = typename std::remove_cvref_t<decltype(to)>::value_type;
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = T(static_cast<float>(from[i]));
  };
  fill(got.o, want.o), fill(got.lse, want.lse), fill(got.dq, want.dq), fill(got.dk, want.dk),
      fill(got.dv, want.dv);
  part.put_back(got);
  return far(got, want, A::has_backward);
}

/// Forward and backward of a rank in a graph, replayed 100 times, each time with other inputs, a workspace
/// full of rubbish and, now and then, calls outside of the graph in between: the results are those without a
/// graph, bit by bit.
inline std::string replays(PushRank& rank) {
  using A = PushAttn<Balanced, RepeatablePush>;
  constexpr std::size_t kinds = 4;
  Problem const problem{.batch = 1, .seqlen = 700, .heads = 4, .kv_heads = 2};
  A attn(rank.push, problem);
  auto const sequence = [&](std::size_t kind) {
    return testing::random_sequence<PushElement>(problem, push_head_dim, stream_seed(800 + 10 * kind));
  };
  testing::DevicePart<A> part(attn, sequence(0));
  std::vector<testing::DevicePart<A>> others;
  others.reserve(kinds);
  for (std::size_t kind = 0; kind < kinds; ++kind) others.emplace_back(attn, sequence(kind));
  auto const inputs = [](testing::DevicePart<A>& p) { return std::array{&p.q, &p.k, &p.v, &p.d_o}; };
  auto const results = [](testing::DevicePart<A>& p) {
    return std::tuple(p.o.values(), p.lse.values(), p.dq.values(), p.dk.values(), p.dv.values());
  };
  auto const same = [](auto const& a, auto const& b) {
    return [&]<std::size_t... I>(std::index_sequence<I...>) {
      return (same_bits(std::get<I>(a), std::get<I>(b)) && ...);
    }
    (std::make_index_sequence<5>());
  };
  cudaStream_t const compute = rank.stream.compute;
  auto const take = [&](std::size_t kind) {
    auto const to = inputs(part), from = inputs(others[kind]);
    for (std::size_t i = 0; i < to.size(); ++i)
      check_cuda(cudaMemcpyAsync(to[i]->data(), from[i]->data(), to[i]->span().size_bytes(),
                                 cudaMemcpyDefault, compute));
    check_cuda(cudaMemsetAsync(part.workspace.data(), 0xff, part.workspace.span().size(), compute));
    for (auto* const out : {&part.o, &part.dq, &part.dk, &part.dv})
      check_cuda(cudaMemsetAsync(out->data(), 0xff, out->span().size_bytes(), compute));
  };
  check_cuda(cudaDeviceSynchronize());
  if (Status const status = rank.push.share(part.workspace.span()); !status.ok()) return status.message();
  std::vector<decltype(results(part))> want;
  for (std::size_t kind = 0; kind < kinds; ++kind) {
    take(kind);
    if (Status const status = run_pushed(attn, rank, part); !status.ok())
      return "without a graph: " + status.message();
    if (Status const status = rank.push.agree({}); !status.ok())
      return status.message();  // nobody waits any more
    want.push_back(results(part));
    if (Status const status = rank.push.agree({}); !status.ok()) return status.message();
  }
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  check_cuda(cudaStreamBeginCapture(compute, cudaStreamCaptureModeThreadLocal));
  Status status = attn.forward(part.inputs(), part.outputs(), part.workspace.span(), rank.stream);
  if (status.ok())
    status = attn.backward(part.backward_inputs(), part.gradients(), part.workspace.span(), rank.stream);
  Status const waited = attn.wait(rank.stream);
  check_cuda(cudaStreamEndCapture(compute, &graph));
  if (!status.ok()) return "captured: " + status.message();
  if (waited.code != Code::capturing) return "wait() in a capture: " + waited.message();
  check_cuda(cudaGraphInstantiate(&replay, graph, 0));
  check_cuda(cudaGraphUpload(replay, compute));
  check_cuda(cudaStreamSynchronize(compute));
  for (std::size_t round = 0; round < 100; ++round) {
    if (status = rank.push.agree({}); !status.ok()) return status.message();
    take(round % kinds);
    if (round % 10 == 9)
      status = run_pushed(attn, rank, part);
    else
      check_cuda(cudaGraphLaunch(replay, compute));
    if (status.ok()) status = attn.wait(rank.stream);
    if (status.ok()) status = rank.push.agree({});
    if (!status.ok()) return text("replay ", round, ": ", status.message());
    if (!same(results(part), want[round % kinds])) return text("other results in replay ", round);
  }
  status = rank.push.unshare(part.workspace.span());
  check_cuda(cudaGraphExecDestroy(replay));
  check_cuda(cudaGraphDestroy(graph));
  return status.ok() ? "" : status.message();
}

// ---- Is what was pushed there when the flag is? Data that is new in each round, into the same place.
__device__ inline uint4 stale_word(std::uint32_t round, std::uint32_t i) {
  std::uint32_t const x = round * 0x9e3779b9u + i * 0x85ebca6bu;
  return {x, x ^ round, x + 1, ~x};
}
__global__ void stale_produce(uint4* to, std::uint32_t words, std::uint32_t round) {
  for (std::uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < words; i += gridDim.x * blockDim.x)
    to[i] = stale_word(round, i);
}
/// Counts the words that are not those of the round. A block reads a piece: every other one by a bulk copy
/// into shared memory.
__global__ void stale_verify(uint4 const* from, std::uint32_t round, unsigned* wrong) {
  constexpr std::uint32_t piece = 256;
  __shared__ alignas(128) uint4 tile[piece];
  __shared__ alignas(8) std::uint64_t barrier;
  std::uint32_t const begin = blockIdx.x * piece;
  uint4 const* read = from + begin;
  if (blockIdx.x % 2 == 1) {
    auto const bar = static_cast<unsigned>(__cvta_generic_to_shared(&barrier));
    auto const to = static_cast<unsigned>(__cvta_generic_to_shared(tile));
    if (threadIdx.x == 0) {
      asm volatile("mbarrier.init.shared.b64 [%0], 1; fence.mbarrier_init.release.cluster;" ::"r"(bar)
                   : "memory");
      asm volatile("mbarrier.arrive.expect_tx.shared.b64 _, [%0], %1;" ::"r"(bar), "n"(piece * 16)
                   : "memory");
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
          "l"(read), "n"(piece * 16), "r"(bar)
          : "memory");
    }
    __syncthreads();
    for (unsigned done = 0; done == 0;)
      asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared.b64 p, [%1], 0; selp.u32 %0, 1, 0, p; }"
                   : "=r"(done)
                   : "r"(bar)
                   : "memory");
    read = tile;
  }
  uint4 const got = read[threadIdx.x], want = stale_word(round, begin + threadIdx.x);
  if (got.x != want.x || got.y != want.y || got.z != want.z || got.w != want.w) atomicAdd(wrong, 1u);
}

/// What both ranks of stale() know: whether time is over, how many rounds there were.
struct StaleRounds {
  std::atomic<bool> enough = false;
  std::atomic<std::uint32_t> rounds = 0;
};

/// Rank 0 sends 64 KiB that are new in each round, rank 1 reads them: 100,000 rounds, fewer where they take
/// longer than `limit`.
inline std::string stale(PushRank& rank, StaleRounds& both, std::chrono::seconds limit) {
  constexpr std::uint32_t words = 4096, most = 100'000, burst = 32;
  DeviceArray<uint4> const source(2 * words), target(words);
  DeviceArray<unsigned> const wrong(1);
  wrong.fill(0);
  cudaStream_t const s = rank.push.stream();
  stale_produce<<<16, 256, 0, s>>>(source.data(), words, 0);
  stale_verify<<<words / 256, 256, 0, s>>>(source.data(), 0, wrong.data());
  check_cuda(cudaDeviceSynchronize());
  auto const shared = std::as_writable_bytes(target.span());
  if (Status const status = rank.push.share(shared); !status.ok()) return status.message();
  auto const begin = std::chrono::steady_clock::now();
  std::uint32_t round = 0;
  while (!both.enough) {
    for (std::uint32_t const end = round + burst; round < end;) {
      ++round;
      uint4* const out = source.data() + round % 2 * words;
      if (rank.push.rank() == 0) stale_produce<<<16, 256, 0, s>>>(out, words, round);
      Send const send{out, words * 16, 1, "words"};
      Receive const receive{target.data(), words * 16, 0, "words"};
      Status status =
          rank.push.rank() == 0 ? rank.push.start({&send, 1}, {}) : rank.push.start({}, {&receive, 1});
      if (status.ok()) status = rank.push.finish();
      if (!status.ok()) return status.message();
      if (rank.push.rank() == 1) stale_verify<<<words / 256, 256, 0, s>>>(target.data(), round, wrong.data());
      check_cuda(cudaGetLastError());
    }
    Status status = rank.push.wait(s);
    // Nobody begins the next rounds before both have read it.
    if (rank.push.rank() == 0) both.rounds = round;
    if (rank.push.rank() == 0 && (round >= most || std::chrono::steady_clock::now() - begin > limit))
      both.enough = true;
    if (status.ok()) status = rank.push.agree({});
    if (!status.ok()) return status.message();
  }
  if (Status const status = rank.push.unshare(shared); !status.ok()) return status.message();
  unsigned const count = wrong.values()[0];
  return count == 0 ? "" : text(count, " wrong words of 16 bytes in ", round, " rounds");
}

}  // namespace lightseq::test
