// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>
#include <nccl.h>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

/// What NCCL and CUDA do for a transport, done by threads in host memory. double.cpp defines the functions
/// that the transport calls, so that no program with it links the real ones. A group is over when all its
/// messages have met their other ends: whoever counts on buffers in between hangs here.
namespace lightseq::test {

struct DoubleOptions {
  bool blocking = true;
  bool peers_hear = true;  ///< of a rank that has aborted
  int device = 0;          ///< that communicators belong to; 0 is current
};

/// A communicator of threads, and all that was done wrong with it.
class DoubleWorld {
 public:
  explicit DoubleWorld(int size, DoubleOptions const& options = {});
  ~DoubleWorld();

  int world() const { return static_cast<int>(comms_.size()); }
  ncclComm_t operator[](int rank) { return comms_[static_cast<std::size_t>(rank)].get(); }
  cudaStream_t stream(int rank);

  /// Rules that were broken, each as a sentence.
  std::vector<std::string> faults();
  /// Operations in the largest group.
  int largest_group() const { return largest_; }
  int aborted(int rank) const;

  /// How long a group waits for its peers before it is stuck.
  void be_patient(std::chrono::milliseconds patience);

  DoubleOptions const options;

 private:
  friend struct Double;
  struct Message {
    void const* data;
    std::size_t bytes;
    bool taken;
  };

  std::mutex mutex_;
  std::chrono::milliseconds patience_ = std::chrono::seconds(60);
  std::condition_variable changed_;
  std::vector<std::unique_ptr<ncclComm>> comms_;
  std::map<std::pair<int, int>, std::deque<Message*>> mail_;  // by sender and receiver
  std::set<std::pair<int, int>> connected_;
  std::vector<std::string> faults_;
  int gathering_ = 0, gatherings_ = 0, largest_ = 0;
  std::vector<std::byte> gathered_;
};

/// What concerns the calls of this thread.
struct ThreadCalls {
  int count = 0;                              ///< of the calls that can fail
  int failing = -1;                           ///< the one of them that does
  bool capturing = false;                     ///< a CUDA graph
  int device = 0;                             ///< the current one
  std::string failed;                         ///< the name of the call that did
  int version = NCCL_VERSION_CODE;            ///< of the library
  std::chrono::milliseconds report_takes{0};  ///< the device's work before it reports that a group begins
  std::chrono::milliseconds group_takes{0};   ///< a group, before it reports that one has ended
  int reports = 1000;                         ///< that it makes before it hangs, where either takes time
};
ThreadCalls& thread_calls();

/// Blocks of memory that CUDA gave and has not got back, of all threads.
int allocated_blocks();

}  // namespace lightseq::test
