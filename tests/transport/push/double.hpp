// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <random>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/transport/push.hpp"
#include "support/data.hpp"

/// What a GPU does for BasicPush, done by threads in host memory.
namespace lightseq::test {

/// A stream: a thread that runs what it is given in order, now and then after a random delay.
class DoubleStream {
 public:
  explicit DoubleStream(unsigned longest_delay = 0)
      : random_(static_cast<unsigned>(run_seed()) + ++made_),
        longest_delay_(longest_delay),
        thread_([this] { run(); }) {}
  DoubleStream(DoubleStream const&) = delete;
  DoubleStream& operator=(DoubleStream const&) = delete;
  ~DoubleStream() {
    {
      std::lock_guard const lock(mutex_);
      ended_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void enqueue(std::function<void()> operation) {
    {
      std::lock_guard const lock(mutex_);
      if (captured_ != nullptr) return captured_->push_back(std::move(operation));
      operations_.push_back(std::move(operation));
    }
    changed_.notify_all();
  }
  bool idle() {
    std::lock_guard const lock(mutex_);
    return operations_.empty();
  }

  /// A wait that ends with the stream.
  void wait_for(std::function<bool()> const& ready) {
    for (int looks = 0; !ready() && !ended_; ++looks)
      looks < 20 ? std::this_thread::yield() : std::this_thread::sleep_for(std::chrono::microseconds(20));
  }

  /// What is enqueued goes into a graph, until it is ended: a list of operations, to be enqueued at any time.
  using Graph = std::vector<std::function<void()>>;
  void capture(Graph* graph) {
    std::lock_guard const lock(mutex_);
    captured_ = graph;
  }
  bool captures() {
    std::lock_guard const lock(mutex_);
    return captured_ != nullptr;
  }

 private:
  void run() {
    for (;;) {
      std::function<void()> next;
      {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [&] { return ended_ || !operations_.empty(); });
        if (ended_) return;
        next = operations_.front();
      }
      if (longest_delay_ > 0 && random_() % 4 == 0)
        std::this_thread::sleep_for(std::chrono::microseconds(random_() % longest_delay_));
      next();
      std::lock_guard const lock(mutex_);
      operations_.pop_front();
    }
  }

  static inline std::atomic<unsigned> made_ = 0;
  std::minstd_rand random_;
  unsigned longest_delay_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> operations_;
  Graph* captured_ = nullptr;
  std::atomic<bool> ended_ = false;
  std::thread thread_;
};

/// Memory that other processes can map.
class DoubleMemory {
 public:
  explicit DoubleMemory(std::size_t bytes) : bytes_(bytes), file_(memfd_create("double", MFD_CLOEXEC)) {
    if (file_ < 0 || ftruncate(file_, static_cast<off_t>(bytes)) != 0) fail("no memory");
    data_ = static_cast<std::byte*>(mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0));
    std::lock_guard const lock(mutex);
    all[data_] = this;
  }
  DoubleMemory(DoubleMemory const&) = delete;
  DoubleMemory& operator=(DoubleMemory const&) = delete;
  ~DoubleMemory() {
    std::lock_guard const lock(mutex);
    all.erase(data_);
    munmap(data_, bytes_);
    close(file_);
  }
  std::byte* data() const { return data_; }
  std::span<std::byte> span() const { return {data_, bytes_}; }
  int file() const { return file_; }

  /// That which holds these bytes; null: none does.
  static DoubleMemory const* of(std::span<std::byte const> bytes) {
    std::lock_guard const lock(mutex);
    auto after = all.upper_bound(bytes.data());
    if (after == all.begin()) return nullptr;
    DoubleMemory const* const found = std::prev(after)->second;
    return bytes.data() + bytes.size() <= found->data_ + found->bytes_ ? found : nullptr;
  }

 private:
  static inline std::mutex mutex;
  static inline std::map<std::byte const*, DoubleMemory*> all;
  std::size_t bytes_;
  int file_;
  std::byte* data_ = nullptr;
};

/// What concerns the calls of this thread.
struct DoubleCalls {
  int count = 0;     ///< of the calls that can fail
  int failing = -1;  ///< the one of them that does
  int device = 0;    ///< the current one
};
inline thread_local DoubleCalls double_calls;

/// The device. `by_files`: also within a process memory is mapped from files. Not `reaches_others`: it cannot
/// write to memory that is not of its own thread, as without peer access.
class DoubleDevice {
 public:
  using Stream = DoubleStream*;

  class Mapping {
   public:
    Mapping() = default;
    Mapping(std::byte* begin, std::byte* data, std::size_t bytes)
        : begin_(begin), data_(data), bytes_(bytes) {}
    Mapping(Mapping&& other) noexcept { *this = std::move(other); }
    Mapping& operator=(Mapping&& other) noexcept {
      std::swap(begin_, other.begin_);
      std::swap(data_, other.data_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Mapping() {
      if (begin_ != nullptr) munmap(begin_, bytes_);
      if (begin_ != nullptr) --mapped;
    }
    std::byte* data() { return data_; }

   private:
    std::byte *begin_ = nullptr, *data_ = nullptr;
    std::size_t bytes_ = 0;
  };
  static inline std::atomic<int> mapped = 0, pinned = 0;  // of this process

  explicit DoubleDevice(bool by_files = false, bool reaches_others = true)
      : by_files_(by_files), reaches_others_(reaches_others) {}

  Status check() noexcept {
    if (double_calls.device == device_) return {};
    return {.code = Code::wrong_device, .have = double_calls.device, .need = device_};
  }
  Status pin(void*, std::size_t) noexcept {
    if (Status const status = call("pinned memory"); !status.ok()) return status;
    ++pinned;
    return {};
  }
  void unpin(void*) noexcept { --pinned; }
  Status copy(Stream stream, void* to, void const* from, std::int64_t bytes) noexcept {
    if (Status const status = call("a copy"); !status.ok()) return status;
    stream->enqueue([=] { std::memcpy(to, from, static_cast<std::size_t>(bytes)); });
    return {};
  }
  Status raise(Stream stream, PushFlag* flag) noexcept {
    if (Status const status = call("a flag"); !status.ok()) return status;
    stream->enqueue([=] { write(*flag, 1); });
    return {};
  }
  Status take(Stream stream, PushFlag* progress, std::uint32_t number, PushFlag* flag) noexcept {
    if (Status const status = call("a wait"); !status.ok()) return status;
    stream->enqueue([=] {
      write(*progress, 2 * number - 1);
      stream->wait_for([&] { return std::atomic_ref(*flag).load() >= 1; });
      order.load();
      write(*flag, 0);
      write(*progress, 2 * number);
    });
    return {};
  }
  Status query(Stream stream, bool& done) noexcept {
    done = stream->idle();
    return call("the stream");
  }
  bool captures(Stream stream) noexcept { return stream->captures(); }

  PushExport describe(std::span<std::byte> memory, std::vector<PushFile>& made) {
    PushExport exported;
    own_ = memory.data();
    DoubleMemory const* const found = DoubleMemory::of(memory);
    if (found == nullptr) {
      exported.failure = "the double knows no such memory";
      return exported;
    }
    exported.offset = memory.data() - found->data();
    made.push_back({dup(found->file()), std::ssize(found->span())});
    return exported;
  }
  Status open(PushExport const& exported, std::span<PushFile const> files, Mapping& mapping) {
    if (Status const status = call("a mapping"); !status.ok()) return status;
    if (!reaches_others_ && exported.data != own_)
      return {.code = Code::device_failed, .subject = "peer access"};
    if (exported.process == process_number() && (!by_files_ || files.empty())) {
      mapping = {nullptr, static_cast<std::byte*>(exported.data), 0};
      return {};
    }
    if (files.size() != 1) return {.code = Code::device_failed, .subject = "no file"};
    auto const bytes = static_cast<std::size_t>(files[0].bytes);
    auto* const begin = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, files[0].file, 0);
    if (begin == MAP_FAILED) return {.code = Code::device_failed, .subject = "a file"};
    ++mapped;
    mapping = {static_cast<std::byte*>(begin), static_cast<std::byte*>(begin) + exported.offset, bytes};
    return {};
  }

 protected:
  static void write(PushFlag& flag, PushFlag value) {
    ++order;
    std::atomic_ref(flag).store(value);
  }
  // A flag has an address for each rank, which a thread sanitizer takes for flags that have nothing in
  // common.
  static inline std::atomic<int> order = 0;

 private:
  static Status call(char const* what) {
    if (double_calls.count++ != double_calls.failing) return {};
    return {.code = Code::device_failed, .subject = what, .native = 7};
  }

  bool by_files_, reaches_others_;
  void* own_ = nullptr;
  int device_ = double_calls.device;
};
static_assert(PushDevice<DoubleDevice>);

using DoublePush = BasicPush<DoubleDevice>;
static_assert(CountsAgreements<DoublePush> && Withdraws<DoublePush> && HasStream<DoublePush> &&
              Watches<DoublePush, DoubleStream*> && SoundAbilities<DoublePush>);

}  // namespace lightseq::test
