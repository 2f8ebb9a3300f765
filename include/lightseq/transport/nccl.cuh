// SPDX-License-Identifier: Apache-2.0
#pragma once
// Any C++ compiler reads this header, where those of CUDA and NCCL are installed.
#include <cuda.h>
#include <cuda_runtime.h>
#include <nccl.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <thread>
#include <utility>

#include "lightseq/core/capture.cuh"
#include "lightseq/core/cuda_error.cuh"
#include "lightseq/core/driver.cuh"
#include "lightseq/core/error.hpp"
#include "lightseq/core/event.cuh"
#include "lightseq/transport/agreement.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

/// How long ranks wait for each other. Alike on all ranks.
struct NcclOptions {
  /// How long a group of messages may be under way on this rank's device, and NCCL's own calls on its host.
  /// The device's work between groups takes the time that it takes. But a group waits for all its ranks to
  /// come to it, and one that still computes looks like one that is lost: choose more than the longest time
  /// by which ranks come apart, at most a rank's longest step. The default is more than the 5 minutes that a
  /// step of a backward takes of 16M tokens on 8 GPUs, with 32 heads of dim 128.
  std::chrono::milliseconds timeout = std::chrono::minutes(10);
};

/// One rank of an NCCL communicator, for messages in device memory, used by one thread at a time. It borrows
/// the communicator, which nothing else may use in the meantime, and the stream, on which its groups are
/// ordered: start() counts on what was enqueued there before, and what is enqueued after finish() finds what
/// was received. Neither waits for the device, so a lost peer shows in wait(): there the time-out runs and
/// NCCL's errors are heard. Groups can be captured into a CUDA graph if all ranks do so; wait() watches its
/// replays too. NCCL moves messages by kernels: give the stream a high priority. Where an attention kernel
/// waits for messages (DistAttn::one_launch), leave theirs the multiprocessors that they need:
/// Cuda::Stream::sm_margin, at least ncclConfig_t::maxCTAs, and ncclConfig_t::cgaClusterSize = 1, as clusters
/// of thread blocks need free neighbours.
///
/// After a failure, of any call, the communicator has been aborted, which takes NCCL's kernels off the
/// device: communicator() is null, the engine must not touch its handle again, and CUDA reports the stream's
/// work as successful although results are invalid. Peers hear of it as an error of theirs or by their
/// time-outs. To go on, build another communicator among those that live. With a blocking communicator NCCL's
/// own calls, in which ranks connect, may wait for a lost peer without end; one of `config.blocking = 0`
/// obeys the time-out everywhere. Nobody sees whose call a message is of: NCCL compares nothing, so that
/// ranks which call two layers in different orders get each other's keys.
class Nccl {
 public:
  /// What Status::native says where the code is transport_failed; any other value is an ncclResult_t. `said`
  /// has it in words.
  enum Failure : int {
    bad_message = -1,  ///< the peer is no rank, the size is negative or the pointer null
    group_open = -2    ///< start() before the finish() of the last group
  };

  /// To be constructed by all ranks of `comm`, with its device current. Throws Error, a failure too, where
  /// NCCL at run time is older than its header or of another major version, where `comm` failed or belongs to
  /// another device, and where it is not ready within the time-out.
  Nccl(ncclComm_t comm, cudaStream_t stream, NcclOptions const& options = {});

  /// Waits for what is enqueued, as wait() does: it is still watched.
  ~Nccl() { static_cast<void>(wait(stream_)); }
  Nccl(Nccl const&) = delete;
  Nccl& operator=(Nccl const&) = delete;

  int rank() const noexcept { return rank_; }
  int world() const noexcept { return world_; }
  cudaStream_t stream() const noexcept { return stream_; }

  /// The borrowed communicator; null after a failure.
  ncclComm_t communicator() const noexcept { return comm_; }

  /// Enqueues a group's messages. Nobody else compares their sizes: both ends must agree. Fails while another
  /// device is current than the communicator's.
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept;

  Status finish() noexcept {
    open_ = false;
    return comm_ == nullptr ? broken() : Status{};
  }

  /// Makes `stream` wait until the messages of the last start() are about to move. Kernels move them, and one
  /// that takes every multiprocessor, enqueued on `stream` after this, no longer gets ahead of the messages'
  /// kernels.
  Status precede(cudaStream_t stream) noexcept;

  /// Waits on the host until `stream`, which waits for this transport's by events, or is it, has done its
  /// work. A Status that is not ok names step, peer and label of a message of the group that was under way;
  /// `capturing`, of a stream that is being captured, is no failure.
  Status wait(cudaStream_t stream) noexcept;

  /// Gathers the fingerprints of all ranks and waits for them. After a disagreement, or where a rank cannot
  /// be constructed, all is as before.
  Status agree(Fingerprint const& fingerprint) noexcept;

  /// Sends a byte to each of `to` and receives one from each of `from`, and waits: NCCL connects two ranks
  /// with their first message, which waits for both and cannot be captured.
  Status connect(std::span<int const> to, std::span<int const> from) noexcept;

  /// Aborts the communicator: for a rank that gives up.
  void withdraw(Status const& why = {.code = Code::withdrawn}) noexcept { static_cast<void>(give_up(why)); }

 private:
  using Clock = std::chrono::steady_clock;

  /// What is known of a group when it is late.
  struct Group {
    std::uint32_t number = 0;
    char const* label = "";
    int peer = -1;
    int step = -1;
  };

  struct FreeDevice {
    void operator()(Statement* memory) const noexcept { cudaFree(memory); }
  };
  struct FreePinned {
    void operator()(Statement* memory) const noexcept { cudaFreeHost(memory); }
  };

  template <class F>
  Status enqueue(Group group, F const& operations) noexcept;
  template <class F>
  Status cuda(F const& operation) noexcept;
  Status report(std::uint32_t value) noexcept;
  Status settle(ncclResult_t result) noexcept;
  Status lost(ncclResult_t result) noexcept;
  Status timed_out() noexcept;
  Status give_up(Status status) noexcept;
  Status broken() const noexcept { return cause_; }
  Group under_way() const noexcept;
  std::uint32_t progress() const noexcept {
    return *reinterpret_cast<std::uint32_t const volatile*>(pinned_.get());
  }
  Statement* pinned(int index) const noexcept { return pinned_.get() + 1 + index; }

  ncclComm_t comm_;
  cudaStream_t stream_;
  NcclOptions options_;
  int rank_ = 0;
  int world_ = 1;
  Status cause_;  ///< of a failure, after which every call says the same
  int gpu_ = 0;
  bool open_ = false;
  bool precedes_ = false;  ///< the last start() has enqueued a group, and nobody was made to wait for it
  decltype(&cuStreamWriteValue32) write_value_ = nullptr;

  // The device tells in a word of host memory how far it has come: 2 n - 1 when group n begins, 2 n when it
  // is through. A replayed graph counts again as it did when it was captured.
  std::uint32_t groups_ = 0;
  std::array<Group, 1024> recent_;  // the n-th group at n modulo the size

  Event begun_;  // before a group's kernel

  // The word, this rank's fingerprint, then the fingerprints of all ranks; in both memories.
  std::unique_ptr<Statement, FreePinned> pinned_;
  std::unique_ptr<Statement, FreeDevice> device_;
};
static_assert(Agrees<Nccl> && Connects<Nccl> && Withdraws<Nccl> && HasStream<Nccl> &&
              Precedes<Nccl, cudaStream_t> && Watches<Nccl, cudaStream_t> && SoundAbilities<Nccl>);

inline Nccl::Nccl(ncclComm_t comm, cudaStream_t stream, NcclOptions const& options)
    : comm_(comm), stream_(stream), options_(options) {
  auto const refuse = [this](auto const&... words) {
    withdraw();
    fail(words...);
  };
  if (options.timeout.count() < 0 || options.timeout > std::chrono::hours(24 * 366))
    refuse("the time-out is ", options.timeout.count(), " ms, it must be between 0 and a year");
  int loaded = 0;
  if (ncclGetVersion(&loaded) != ncclSuccess || loaded < NCCL_VERSION_CODE || loaded / 10000 != NCCL_MAJOR)
    refuse("NCCL's header is of version ", NCCL_VERSION_CODE, ", the library that was loaded of ", loaded);
  auto const check = [&](ncclResult_t result) {
    if (result != ncclSuccess) refuse("NCCL's communicator fails: ", ncclGetErrorString(result));
  };
  auto const check_cuda = [&](char const* what, cudaError_t error) {
    if (Status const status = cuda_status(what, error); !status.ok()) refuse(status.message());
  };

  if (Status const status = settle(ncclInProgress); !status.ok())
    refuse("NCCL's communicator is not ready: ", status.message());
  int ours = 0;
  check(ncclCommCount(comm_, &world_));
  check(ncclCommUserRank(comm_, &rank_));
  check(ncclCommCuDevice(comm_, &gpu_));
  check_cuda("to say which GPU is current", cudaGetDevice(&ours));
  if (ours != gpu_) refuse("the communicator is of GPU ", gpu_, ", but GPU ", ours, " is current");

  if (Status const status = find_driver_function("cuStreamWriteValue32", write_value_); !status.ok())
    refuse(status.message());
  cudaEvent_t event = nullptr;
  check_cuda("an event", cudaEventCreateWithFlags(&event, cudaEventDisableTiming));
  begun_.reset(event);
  void* memory = nullptr;
  std::size_t const bytes = (static_cast<std::size_t>(world_) + 2) * sizeof(Statement);
  check_cuda("pinned memory", cudaMallocHost(&memory, bytes));
  pinned_.reset(static_cast<Statement*>(memory));
  *pinned_ = {};
  check_cuda("memory", cudaMalloc(&memory, bytes));
  device_.reset(static_cast<Statement*>(memory));
}

inline Status Nccl::start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
  if (comm_ == nullptr) return broken();
  if (open_) return give_up({.code = Code::transport_failed, .native = group_open, .said = call_under_way});
  auto const unsound = [&](auto const& messages) -> Status {
    for (auto const& m : messages)
      if (!is_sound(m, world_))
        return {.code = Code::transport_failed,
                .subject = m.label,
                .step = m.step,
                .peer = m.peer,
                .native = bad_message,
                .said = unsound_message};
    return {};
  };
  if (Status const status = unsound(sends); !status.ok()) return give_up(status);
  if (Status const status = unsound(recvs); !status.ok()) return give_up(status);
  open_ = true;
  precedes_ = false;

  // Blamed is who sends, else who receives. Empty messages need not travel.
  Group group;
  bool empty = true;
  auto const note = [&](auto const& messages) {
    for (auto const& m : messages)
      if (m.bytes > 0) group = {0, m.label, m.peer, m.step}, empty = false;
  };
  note(sends);
  note(recvs);
  if (empty) return {};
  precedes_ = true;
  return enqueue(group, [&] {
    ncclResult_t result = ncclSuccess;
    for (Receive const& m : recvs)
      if (m.bytes > 0 && result == ncclSuccess)
        result = ncclRecv(m.data, static_cast<std::size_t>(m.bytes), ncclInt8, m.peer, comm_, stream_);
    for (Send const& m : sends)
      if (m.bytes > 0 && result == ncclSuccess)
        result = ncclSend(m.data, static_cast<std::size_t>(m.bytes), ncclInt8, m.peer, comm_, stream_);
    return result;
  });
}

inline Status Nccl::precede(cudaStream_t stream) noexcept {
  if (comm_ == nullptr) return broken();
  // An event that is older than a capture must not be waited for in it.
  if (!std::exchange(precedes_, false)) return {};
  return cuda([&] { return cudaStreamWaitEvent(stream, begun_.get(), 0); });
}

inline Status Nccl::wait(cudaStream_t stream) noexcept {
  if (comm_ == nullptr) return broken();
  if (is_captured(stream)) return {.code = Code::capturing, .subject = "the stream", .rank = rank_};
  auto deadline = Clock::now() + options_.timeout;
  for (std::uint32_t seen = progress();; std::this_thread::yield()) {
    bool const late = Clock::now() >= deadline;
    cudaError_t const work = cudaStreamQuery(stream);
    ncclResult_t state = ncclSuccess;
    ncclResult_t const asked = ncclCommGetAsyncError(comm_, &state);
    if (asked != ncclSuccess) return lost(asked);
    if (state != ncclSuccess && state != ncclInProgress) return lost(state);
    if (work == cudaSuccess) return {};
    if (work != cudaErrorNotReady) return give_up(cuda_status("the stream", work));
    // Between groups, where the word is even, nobody is late: the device works.
    if (std::uint32_t const now = progress(); now != seen || now % 2 == 0) {
      seen = now;
      deadline = Clock::now() + options_.timeout;
    } else if (late) {
      return timed_out();
    }
  }
}

inline Status Nccl::agree(Fingerprint const& fingerprint) noexcept {
  if (comm_ == nullptr) return broken();
  if (is_captured(stream_)) return {.code = Code::capturing, .subject = "the stream", .rank = rank_};
  Statement *const mine = device_.get(), *const all = device_.get() + 1;
  auto const copy = [&](Statement* to, Statement const* from, int count) {
    std::size_t const bytes = static_cast<std::size_t>(count) * sizeof(Statement);
    return cuda([&] { return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, stream_); });
  };
  auto const exchange = [&](Statement const& statement) {
    *pinned(0) = statement;
    Status status = copy(mine, pinned(0), 1);
    if (status.ok())
      status = enqueue({.label = "fingerprint"},
                       [&] { return ncclAllGather(mine, all, sizeof(Statement), ncclInt8, comm_, stream_); });
    if (status.ok()) status = copy(pinned(1), all, world_);
    return status.ok() ? wait(stream_) : status;
  };
  return settled(fingerprint, {pinned(1), static_cast<std::size_t>(world_)}, exchange);
}

inline Status Nccl::connect(std::span<int const> to, std::span<int const> from) noexcept {
  if (comm_ == nullptr) return broken();
  auto const has = [](std::span<int const> ranks, int rank) {
    return std::find(ranks.begin(), ranks.end(), rank) != ranks.end();
  };
  auto* const bytes = reinterpret_cast<std::byte*>(device_.get());
  // Rank by rank farther away: both ends of a message come to it in the same turn.
  for (int distance = 1; distance < world_; ++distance) {
    constexpr char const* label = "connection";
    Send const send{bytes, 1, (rank_ + distance) % world_, label};
    Receive const receive{bytes + 1, 1, (rank_ + world_ - distance) % world_, label};
    Status const status = start({&send, has(to, send.peer) ? std::size_t{1} : 0},
                                {&receive, has(from, receive.peer) ? std::size_t{1} : 0});
    if (!status.ok()) return status;
    if (Status const end = finish(); !end.ok()) return end;
  }
  return wait(stream_);
}

/// Enqueues NCCL operations as one group, between two reports of the device.
template <class F>
Status Nccl::enqueue(Group group, F const& operations) noexcept {
  int current = 0;
  if (Status const status = cuda([&] { return cudaGetDevice(&current); }); !status.ok()) return status;
  if (current != gpu_) return give_up({.code = Code::wrong_device, .have = current, .need = gpu_});
  group.number = ++groups_;
  recent_[group.number % recent_.size()] = group;
  if (Status const status = report(2 * group.number - 1); !status.ok()) return status;
  if (Status const status = cuda([&] { return cudaEventRecord(begun_.get(), stream_); }); !status.ok())
    return status;
  ncclResult_t result = ncclGroupStart();
  if (result == ncclSuccess) {
    result = operations();
    ncclResult_t const end = ncclGroupEnd();
    if (result == ncclSuccess || result == ncclInProgress) result = end;
  }
  Status status = settle(result);
  if (status.ok()) return report(2 * group.number);
  if (status.subject[0] != '\0') return status;
  status.subject = group.label;
  status.peer = group.peer;
  status.step = group.step;
  return status;
}

template <class F>
Status Nccl::cuda(F const& operation) noexcept {
  cudaError_t const error = operation();
  if (error == cudaSuccess) return {};
  return give_up(cuda_status("the transport's stream", error));
}

/// Makes the device write how far it has come, once it has.
inline Status Nccl::report(std::uint32_t value) noexcept {
  // Unified addressing gives pinned memory one address on both sides.
  auto const address = reinterpret_cast<CUdeviceptr>(pinned_.get());
  return cuda(
      [&] { return runtime_error(write_value_(stream_, address, value, CU_STREAM_WRITE_VALUE_DEFAULT)); });
}

/// Waits until a communicator that does not block has done what it was told to.
inline Status Nccl::settle(ncclResult_t result) noexcept {
  auto const deadline = Clock::now() + options_.timeout;
  while (result == ncclInProgress) {
    bool const late = Clock::now() >= deadline;
    ncclResult_t const asked = ncclCommGetAsyncError(comm_, &result);
    if (asked != ncclSuccess) result = asked;
    if (result == ncclInProgress && late)
      return give_up({.code = Code::timeout, .need = options_.timeout.count()});
    if (result == ncclInProgress) std::this_thread::yield();
  }
  return result == ncclSuccess ? Status{} : lost(result);
}

inline Status Nccl::lost(ncclResult_t result) noexcept {
  Group const group = under_way();
  bool const peer = result == ncclRemoteError;
  return give_up({.code = peer ? Code::peer_failed : Code::transport_failed,
                  .subject = group.label,
                  .step = group.step,
                  .peer = group.peer,
                  .native = result,
                  .said = peer ? "" : ncclGetErrorString(result)});
}

inline Status Nccl::timed_out() noexcept {
  Group const group = under_way();
  return give_up({.code = Code::timeout,
                  .subject = group.label,
                  .need = options_.timeout.count(),
                  .step = group.step,
                  .peer = group.peer});
}

/// The group that the device has begun and not ended; nobody's if there is none.
inline Nccl::Group Nccl::under_way() const noexcept {
  std::uint32_t const value = pinned_ == nullptr ? 0 : progress();
  Group const& group = recent_[(value / 2 + 1) % recent_.size()];
  return value % 2 == 1 && group.number == value / 2 + 1 ? group : Group{};
}

inline Status Nccl::give_up(Status status) noexcept {
  status.rank = rank_;
  if (comm_ == nullptr) return status;
  static_cast<void>(ncclCommAbort(comm_));
  comm_ = nullptr;
  open_ = false;
  cause_ = status;
  return status;
}

}  // namespace lightseq
