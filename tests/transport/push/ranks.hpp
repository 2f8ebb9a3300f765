// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "laws/transport.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"
#include "transport/push/double.hpp"
#include "transport/push/threads.hpp"

/// Ranks that are threads over the double.
namespace lightseq::test {

/// Part of the shared memory of this thread's rank. It is used from one end to the other, and from the
/// beginning again.
class SharedPart {
 public:
  static constexpr std::size_t capacity = 7u << 20;
  explicit SharedPart(Bytes const& content) : size_(content.size()) {
    if (next + size_ > capacity) next = 0;
    data_ = memory->data() + next;
    next += (size_ + 63) / 64 * 64;
    write(content);
  }
  void* data() { return data_; }
  void write(Bytes const& content) {
    if (size_ > 0) std::memcpy(data_, content.data(), size_);
  }
  Bytes read() const {
    auto const* const begin = reinterpret_cast<unsigned char const*>(data_);
    return {begin, begin + size_};
  }

  static inline thread_local DoubleMemory* memory = nullptr;
  static inline thread_local std::size_t next = 0;

 private:
  std::size_t size_;
  std::byte* data_;
};

/// A transport whose finish() waits for its stream.
class SynchronousPush {
 public:
  explicit SynchronousPush(DoublePush& push) : push_(push) {}
  int rank() const noexcept { return push_.rank(); }
  int world() const noexcept { return push_.world(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    return push_.start(sends, recvs);
  }
  Status finish() noexcept {
    Status const status = push_.finish();
    return status.ok() ? push_.wait(push_.stream()) : status;
  }

 private:
  DoublePush& push_;
};

/// Calls f(transport) with a group whose SharedParts lie in memory that it shares: what it, or the group, has
/// to say.
template <class F>
std::string run_in_shared_memory(PushSeat const& seat, DoubleStream& stream, DoubleDevice const& device, F f,
                                 bool through_host = false) {
  DoubleMemory memory(SharedPart::capacity);
  SharedPart::memory = &memory;
  SharedPart::next = 0;
  DoublePush push(seat, &stream, {.through_host = through_host}, device);
  if (Status const status = push.share(memory.span()); !status.ok()) return status.message();
  SynchronousPush transport(push);
  std::string const said = f(transport);
  if (!said.empty()) push.withdraw();
  Status const end = push.unshare(memory.span());
  return said.empty() && !end.ok() ? end.message() : said;
}

/// Worlds of threads, which map each other's memory from files or use it as it is; every n-th, if n is not 0,
/// does not reach it. The streams delay now and then.
template <bool ByFiles, unsigned LongestDelay, int Blind = 0>
class PushHarness {
 public:
  using Transport = SynchronousPush;
  using Memory = SharedPart;
  static std::vector<int> worlds() { return {1, 2, 3, 5, 8}; }
  explicit PushHarness(int world) : world_(world) {}
  std::uint64_t seed() const { return run_seed(); }

  template <class F>
  std::vector<std::string> run(F f) {
    std::string const name = fresh_name();
    return run_threads(world_, [&](int rank) {
      DoubleStream stream(LongestDelay);
      bool const reaches = Blind == 0 || rank % Blind > 0;
      return run_in_shared_memory({name, rank, world_}, stream, DoubleDevice(ByFiles, reaches), f, Blind > 0);
    });
  }

 private:
  int world_;
};

/// The CPU with a stream for its messages: what a step needs has come when it is joined.
template <class T>
struct HostOver : Host {
  template <int HeadDim, Mask M, class Traits>
  struct Kernels : Host::Kernels<HeadDim, M, Traits> {
    using Base = Host::Kernels<HeadDim, M, Traits>;
    using Base::Base;
    struct Queue : Base::Queue {
      Queue(Kernels& kernels, Stream const& stream, T& transport)
          : Base::Queue(kernels, stream, transport), transport_(transport) {}
      Status const& status() const { return status_; }
      void join() {
        if (status_.ok()) status_ = transport_.wait(transport_.stream());
      }
      static Status wait(T& transport) { return transport.wait(transport.stream()); }

     private:
      T& transport_;
      Status status_;
    };
  };
};
struct PushTraits : DefaultTraits {
  using Device = HostOver<DoublePush>;
  using Transport = DoublePush;
};

/// Forward and backward of one rank on its part of a sequence, with a workspace that it shares for them.
template <class Attn, class At, class... Batch>
Status run_rank_over(DoublePush& push, Attn& attn, At const& at,
                     testing::Sequence<typename Attn::Element>& whole, Batch const&... batch) {
  auto part = testing::part_of(whole, at);
  DoubleMemory const workspace(static_cast<std::size_t>(attn.workspace_bytes()));
  std::memset(workspace.data(), 0xff, workspace.span().size());
  Status status = push.share(workspace.span());
  if (status.ok()) status = attn.forward(part.inputs(), part.outputs(), workspace.span(), batch...);
  if (status.ok()) std::memset(workspace.data(), 0xff, workspace.span().size());
  if (status.ok())
    status = attn.backward(part.backward_inputs(), part.gradients(), workspace.span(), batch...);
  if (status.ok()) status = attn.wait();
  if (status.ok()) status = push.unshare(workspace.span());
  if (status.ok()) testing::put_back(part, at, whole);
  return status;
}

}  // namespace lightseq::test
