// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <span>
#include <vector>

#include "lightseq/core/device.cuh"
#include "lightseq/core/error.hpp"
#include "lightseq/core/event.cuh"
#include "lightseq/core/fingerprint.hpp"
#include "lightseq/transport/local.hpp"
#include "lightseq/transport/transport.hpp"

namespace lightseq {

class CudaLocalWorld;

/// One rank of a CudaLocalWorld, used by one thread. Its groups are ordered on its stream: start() counts on
/// what was enqueued there before to produce the data, and whatever is enqueued after finish() sees what was
/// received and may overwrite what was sent. The threads meet on the host, through a Local, in order to
/// enqueue; none of them waits for the device, and a capture of all streams into one CUDA graph records the
/// exchange. A message moves by one copy on the receiver's stream. A failure breaks the world as it breaks a
/// LocalWorld; copies that were enqueued before it still run: synchronise before freeing memory.
class CudaLocal {
 public:
  CudaLocal(CudaLocal const&) = delete;
  CudaLocal& operator=(CudaLocal const&) = delete;

  int rank() const noexcept { return host_.rank(); }
  int world() const noexcept { return host_.world(); }
  cudaStream_t stream() const noexcept { return stream_; }

  /// Begins a group of messages in device memory. Refuses what Local refuses, with Local's codes; fails while
  /// another device is current than at the world's construction.
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept;

  /// Enqueues the group's copies, and waits on the host until the peers have enqueued theirs. It meets the
  /// peers twice: the time-out holds for each.
  Status finish() noexcept;

  /// As Local's.
  Status agree(Fingerprint const& fingerprint) { return host_.agree(fingerprint); }
  int agreements() const noexcept { return host_.agreements(); }

  /// Makes `stream` wait for what every rank had enqueued on the stream that it names, and returns once all
  /// have called. For kernels that hold the device while they wait for messages: what the messages themselves
  /// wait for must have had its turn. To be called between groups, by all ranks.
  Status rendezvous(cudaStream_t stream) noexcept;

  /// Breaks the world: for a rank that gives up.
  void withdraw(Status const& why = {.code = Code::withdrawn}) noexcept { host_.withdraw(why); }

 private:
  friend class CudaLocalWorld;

  /// What a sender tells the receiver of a message.
  struct Offer {
    Send message;
    cudaEvent_t ready;
  };
  struct Outgoing {
    Offer offer;
    cudaEvent_t copied;  // as the receiver tells
  };
  struct Incoming {
    Receive message;
    Offer offer;
  };

  CudaLocal(Local& host, cudaStream_t stream) : host_(host), stream_(stream) {}
  template <class Message>
  bool fit(std::span<Message const> messages) const;
  Status meet() noexcept;
  Status fetch(Incoming const& in) noexcept;
  Status give_up(Status status) noexcept;
  Status refused(char const* label, int peer, cudaError_t error) noexcept;

  Local& host_;
  cudaStream_t stream_;
  OwnDevice device_;

  // Both kinds of event are recorded again only when nobody can still mean the record before:
  // `ready_` in the next start(), which comes after this rank has heard from all receivers of the last group,
  // and they answer behind their waits; `copied_[peer]` when a message of another group comes from that peer,
  // which the peer offers after it has enqueued its wait for the last one.
  // A wait is enqueued only after the record that it means, so no queue of the device can hold up another in
  // a circle, however few there are.
  cudaEvent_t ready_ = nullptr;
  std::vector<cudaEvent_t> copied_;

  // One of the two is recorded at each rendezvous: a rank records one again only after every rank has waited
  // for it.
  cudaEvent_t met_[2] = {};
  unsigned meetings_ = 0;

  bool open_ = false;
  // These keep the capacity that construction gave them.
  std::vector<Outgoing> outgoing_;  // of the open group
  std::vector<Incoming> incoming_;  // of the open group
  std::vector<Send> host_sends_;    // scratch
  std::vector<Receive> host_recvs_;
};
static_assert(CountsAgreements<CudaLocal> && Withdraws<CudaLocal> && HasStream<CudaLocal> &&
              Rendezvous<CudaLocal, cudaStream_t> && SoundAbilities<CudaLocal>);

/// Virtual ranks in one process on one GPU, each to be used by a thread of its own. Where transports make the
/// device itself wait for a flag, more than CUDA_DEVICE_MAX_CONNECTIONS streams (8 if unset) can block each
/// other for good; this one waits by events only and needs no such care.
class CudaLocalWorld {
 public:
  /// One rank for each of `streams`, which belong to the current device and outlive the world. Throws Error
  /// if there is none, the time-out is out of bounds or CUDA refuses an event.
  explicit CudaLocalWorld(std::span<cudaStream_t const> streams, LocalOptions const& options = {})
      : hosts_(static_cast<int>(streams.size()), for_hosts(options)) {
    std::size_t const capacity = streams.size() * Local::messages_per_peer;
    for (std::size_t i = 0; i < streams.size(); ++i) {
      ranks_.push_back(std::unique_ptr<CudaLocal>(new CudaLocal(hosts_[static_cast<int>(i)], streams[i])));
      CudaLocal& rank = *ranks_.back();
      rank.ready_ = new_event();
      for (cudaEvent_t& event : rank.met_) event = new_event();
      for (std::size_t peer = 0; peer < streams.size(); ++peer) rank.copied_.push_back(new_event());
      rank.outgoing_.reserve(capacity);
      rank.incoming_.reserve(capacity);
      rank.host_sends_.reserve(capacity);
      rank.host_recvs_.reserve(capacity);
    }
  }

  int world() const noexcept { return hosts_.world(); }

  /// The endpoint of a rank, 0 <= rank < world().
  CudaLocal& operator[](int rank) noexcept { return *ranks_[static_cast<std::size_t>(rank)]; }

  /// The rank that failed first and so broke the world; -1 as long as all is well.
  int failed_rank() noexcept { return hosts_.failed_rank(); }

 private:
  template <class F>
  friend void run_ranks(CudaLocalWorld& world, F f);

  /// A group here is two there.
  static LocalOptions for_hosts(LocalOptions options) {
    options.failing_start *= 2;
    return options;
  }

  cudaEvent_t new_event() { return events_.emplace_back(make_event()).get(); }

  LocalWorld hosts_;
  OwnDevice device_;
  std::vector<Event> events_;
  std::vector<std::unique_ptr<CudaLocal>> ranks_;
};

inline Status CudaLocal::start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
  // What Local refuses is left to it. It does not read what it refuses, so device memory will do.
  if (open_ || !fit(sends) || !fit(recvs)) return host_.start(sends, recvs);
  if (Status const status = device_.check(); !status.ok()) return give_up(status);
  if (!sends.empty())
    if (cudaError_t const error = cudaEventRecord(ready_, stream_); error != cudaSuccess)
      return refused(sends.front().label, sends.front().peer, error);

  outgoing_.clear();
  incoming_.clear();
  host_sends_.clear();
  host_recvs_.clear();
  for (Send const& send : sends) {
    Offer const& offer = outgoing_.emplace_back(Outgoing{{send, ready_}, nullptr}).offer;
    host_sends_.push_back(
        {&offer, sizeof offer, send.peer, send.label, send.step, send.object, send.backward});
  }
  for (Receive const& receive : recvs) {
    Offer& offer = incoming_.emplace_back(Incoming{receive, {}}).offer;
    host_recvs_.push_back(
        {&offer, sizeof offer, receive.peer, receive.label, receive.step, receive.object, receive.backward});
  }
  Status const status = host_.start(host_sends_, host_recvs_);
  open_ = status.ok();
  return status;
}

inline Status CudaLocal::finish() noexcept {
  if (Status const status = host_.finish(); !status.ok()) return status;
  for (Incoming const& in : incoming_)
    if (Status const status = fetch(in); !status.ok()) return status;
  if (Status const status = meet(); !status.ok()) return status;
  for (Outgoing const& out : outgoing_)
    if (cudaError_t const error = cudaStreamWaitEvent(stream_, out.copied, 0); error != cudaSuccess)
      return refused(out.offer.message.label, out.offer.message.peer, error);
  outgoing_.clear();
  incoming_.clear();
  open_ = false;
  return {};
}

inline Status CudaLocal::rendezvous(cudaStream_t stream) noexcept {
  constexpr char const* label = "rendezvous";
  if (Status const status = device_.check(); !status.ok()) return give_up(status);
  cudaEvent_t const mine = met_[meetings_++ % 2];
  if (cudaError_t const error = cudaEventRecord(mine, stream); error != cudaSuccess)
    return refused(label, -1, error);
  host_sends_.clear();
  host_recvs_.clear();
  outgoing_.clear();
  for (int peer = 0; peer < world(); ++peer) {
    cudaEvent_t& theirs = outgoing_.emplace_back(Outgoing{{}, nullptr}).copied;
    host_sends_.push_back({&mine, sizeof mine, peer, label});
    host_recvs_.push_back({&theirs, sizeof theirs, peer, label});
  }
  Status status = host_.start(host_sends_, host_recvs_);
  if (status.ok()) status = host_.finish();
  if (!status.ok()) return status;
  for (Outgoing const& peer : outgoing_)
    if (cudaError_t const error = cudaStreamWaitEvent(stream, peer.copied, 0); error != cudaSuccess)
      return refused(label, -1, error);
  outgoing_.clear();
  return {};
}

template <class Message>
bool CudaLocal::fit(std::span<Message const> messages) const {
  auto const sound = [](Message const& m) { return m.bytes > 0 ? m.data != nullptr : m.bytes == 0; };
  return messages.size() <= outgoing_.capacity() && std::all_of(messages.begin(), messages.end(), sound);
}

/// Tells each sender that its message's copy is enqueued, and hears the same from each receiver.
inline Status CudaLocal::meet() noexcept {
  host_sends_.clear();
  host_recvs_.clear();
  for (Incoming const& in : incoming_) {
    cudaEvent_t const& copied = copied_[static_cast<std::size_t>(in.message.peer)];
    host_sends_.push_back({&copied, sizeof copied, in.message.peer, in.message.label, in.message.step});
  }
  for (Outgoing& out : outgoing_) {
    Send const& sent = out.offer.message;
    host_recvs_.push_back({&out.copied, sizeof out.copied, sent.peer, sent.label, sent.step});
  }
  Status const status = host_.start(host_sends_, host_recvs_);
  return status.ok() ? host_.finish() : status;
}

/// Enqueues the copy of a message that has been offered.
inline Status CudaLocal::fetch(Incoming const& in) noexcept {
  Send const& sent = in.offer.message;
  Receive const& receive = in.message;
  if (sent.bytes != receive.bytes)
    return give_up({.code = Code::size_mismatch,
                    .subject = receive.label,
                    .have = sent.bytes,
                    .need = receive.bytes,
                    .step = receive.step,
                    .peer = receive.peer});
  cudaError_t error = cudaStreamWaitEvent(stream_, in.offer.ready, 0);
  if (error == cudaSuccess && receive.bytes > 0)
    error = cudaMemcpyAsync(receive.data, sent.data, static_cast<std::size_t>(receive.bytes),
                            cudaMemcpyDefault, stream_);
  if (error == cudaSuccess) error = cudaEventRecord(copied_[static_cast<std::size_t>(receive.peer)], stream_);
  return error == cudaSuccess ? Status{} : refused(receive.label, receive.peer, error);
}

inline Status CudaLocal::give_up(Status status) noexcept {
  status.rank = rank();
  host_.withdraw(status);
  return status;
}

inline Status CudaLocal::refused(char const* label, int peer, cudaError_t error) noexcept {
  Status status = cuda_status(label, error);
  status.peer = peer;
  return give_up(status);
}

/// Runs `f(CudaLocal&)` for every rank as run_ranks() of a LocalWorld does, with the world's device current.
template <class F>
void run_ranks(CudaLocalWorld& world, F f) {
  run_ranks(world.hosts_, [&](Local& host) {
    check_cuda("to make the ranks' GPU current", cudaSetDevice(world.device_.number()));
    f(world[host.rank()]);
  });
}

}  // namespace lightseq
