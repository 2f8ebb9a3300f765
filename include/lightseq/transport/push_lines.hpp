// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <new>

#include "lightseq/core/status.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/transport/push_device.hpp"

/// The host memory that the ranks of a BasicPush share: where their hosts meet, and the flags that their
/// streams write and wait for.
namespace lightseq {

/// A file of so many bytes in memory that has no name; -1 where the system has none. The caller closes it.
inline int make_shared_memory(std::size_t bytes) {
  int const file = memfd_create("lightseq push", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) == 0) return file;
  close(file);
  return -1;
}

/// One end of a message, as the other end's host reads it.
struct PushEnd {
  int window = -1;          ///< of a receive: the shared memory that it lies in ...
  std::int64_t offset = 0;  ///< ... and the byte at which it begins there
  std::int64_t bytes = 0;
  Origin origin = {};
  std::int64_t batch = 0;
};

/// A queue with one writer and one reader, each on one thread of any process.
class PushQueue {
 public:
  bool full() const { return put_.load() - taken_.load() == depth; }
  bool empty() const { return put_.load() == taken_.load(); }
  void put(PushEnd const& end) {
    ends_[put_.load() % depth] = end;
    ++put_;
  }
  PushEnd take() {
    PushEnd const end = ends_[taken_.load() % depth];
    ++taken_;
    return end;
  }

 private:
  static constexpr std::uint64_t depth = 16;  // at least two groups' messages
  std::atomic<std::uint64_t> put_ = 0, taken_ = 0;
  std::array<PushEnd, depth> ends_;
};

/// A flag with a cache line of its own.
struct alignas(64) PushLine {
  PushFlag flag = 0;
};

/// From one rank to another. The receiver's stream raises `ready` for the n-th message of a group, the
/// sender's lowers it, copies and raises `full`, which the receiver's lowers: all values are fixed, so that
/// graphs can be replayed.
struct PushLane {
  static constexpr int places = 8;
  PushQueue receives, sends;  // written by the receiver, and by the sender
  std::array<PushLine, places> ready, full;
};

/// What a rank tells all others.
struct PushDesk {
  PushLine progress;                     ///< which message its stream waits for, as PushDevice's take() says
  std::atomic<std::uint64_t> looks = 0;  ///< of its host, each time that it has waited in vain
  std::atomic<bool> left = false;        ///< it takes part no more
  std::atomic<bool> quiet = false;       ///< it has failed, and nothing that it enqueued is still to run
  Text said = {};                        ///< why it failed
};

/// The whole. It lies in a file without a name, so that nothing is left when the processes have ended.
class PushLines {
 public:
  /// A new one's file, as make_shared_memory() gives it.
  static int make(int world) { return make_shared_memory(size(world)); }

  PushLines() = default;
  PushLines(PushLines const&) = delete;
  PushLines& operator=(PushLines const&) = delete;
  ~PushLines() {
    if (base_ != nullptr) munmap(base_, size(world_));
  }

  /// Maps the file, and where `fresh` constructs what it holds. False where the system refuses.
  bool map(int file, int world, bool fresh) {
    void* const memory = mmap(nullptr, size(world), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) return false;
    base_ = static_cast<std::byte*>(memory);
    world_ = world;
    if (!fresh) return true;
    new (base_) Head;
    for (int rank = 0; rank < world; ++rank) new (&desk(rank)) PushDesk;
    for (int from = 0; from < world; ++from)
      for (int to = 0; to < world; ++to) new (&lane(from, to)) PushLane;
    return true;
  }

  void* data() const { return base_; }
  std::size_t bytes() const { return size(world_); }

  PushDesk& desk(int rank) const { return reinterpret_cast<PushDesk*>(base_ + sizeof(Head))[rank]; }
  PushLane& lane(int from, int to) const {
    auto* const lanes = reinterpret_cast<PushLane*>(base_ + sizeof(Head) + desks(world_));
    return lanes[from * world_ + to];
  }

  /// The rank that failed first; -1 as long as all is well.
  int failed_rank() const { return head().failed_rank; }

  /// Notes that a rank has failed, and why.
  void fail(int rank, Text const& said) const {
    desk(rank).said = said;
    int none = -1;
    head().failed_rank.compare_exchange_strong(none, rank);
  }

  /// Ends every wait of the rank's stream for another one that it has come to by now.
  void poison(int rank) const {
    constexpr PushFlag poison = 1u << 30;
    auto const end = [](PushLine& line) { std::atomic_ref(line.flag).store(poison); };
    for (int peer = 0; peer < world_; ++peer)
      for (std::size_t place = 0; place < PushLane::places; ++place) {
        end(lane(rank, peer).ready[place]);
        end(lane(peer, rank).full[place]);
      }
  }

 private:
  struct alignas(64) Head {
    std::atomic<int> failed_rank = -1;
  };
  static_assert(std::atomic<int>::is_always_lock_free && std::atomic<std::uint64_t>::is_always_lock_free);

  static std::size_t desks(int world) { return static_cast<std::size_t>(world) * sizeof(PushDesk); }
  static std::size_t size(int world) {
    auto const ranks = static_cast<std::size_t>(world);
    std::size_t const bytes = sizeof(Head) + desks(world) + ranks * ranks * sizeof(PushLane);
    return (bytes + 4095) / 4096 * 4096;
  }
  Head& head() const { return *reinterpret_cast<Head*>(base_); }

  std::byte* base_ = nullptr;
  int world_ = 0;
};

}  // namespace lightseq
