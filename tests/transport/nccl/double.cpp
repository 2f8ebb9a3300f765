// SPDX-License-Identifier: Apache-2.0
#include "transport/nccl/double.hpp"

#include <cuda.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <functional>

struct ncclComm {
  lightseq::test::DoubleWorld* world = nullptr;
  int rank = 0;
  bool dead = false;                   // aborted
  bool stuck = false;                  // its stream waits for messages that do not come
  int in_progress = 0;                 // how often it will yet say so
  ncclResult_t pending = ncclSuccess;  // what it says afterwards
  ncclResult_t state = ncclSuccess;
};

namespace lightseq::test {

namespace {

struct Operation {
  bool sends;
  void* data;
  std::size_t bytes;
  int peer;
  ncclComm* comm;
};

thread_local ThreadCalls calls;
thread_local int depth = 0;
thread_local std::vector<Operation> group;
std::atomic<int> blocks = 0;

/// Values that the device has yet to write, where that takes time, and when it wrote the last one.
struct Write {
  void* address;
  unsigned value;
};
thread_local std::deque<Write> writes;
thread_local std::chrono::steady_clock::time_point last_write;
std::mutex streams_mutex;
std::map<cudaStream_t, ncclComm*> streams;

ncclComm* comm_of(cudaStream_t stream) {
  std::lock_guard const lock(streams_mutex);
  auto const found = streams.find(stream);
  return found == streams.end() ? nullptr : found->second;
}

/// Counts a call; whether it is the one that fails.
bool fails(char const* name) {
  if (calls.count++ != calls.failing) return false;
  calls.failed = name;
  return true;
}

}  // namespace

ThreadCalls& thread_calls() { return calls; }
int allocated_blocks() { return blocks; }

/// The functions' way into a world.
struct Double {
  static void fault(DoubleWorld& world, std::string const& text) { world.faults_.push_back(text); }

  /// A fault where the thread captures a graph, in which this must not be called.
  static void not_in_capture(ncclComm* comm, char const* name) {
    if (!calls.capturing || comm == nullptr) return;
    std::lock_guard const lock(comm->world->mutex_);
    fault(*comm->world, std::string(name) + " during a capture");
  }

  /// Waits for `done`; false where the peers do not come.
  static bool wait(ncclComm& comm, std::unique_lock<std::mutex>& lock, std::function<bool()> const& done) {
    DoubleWorld& world = *comm.world;
    auto const begin = std::chrono::steady_clock::now();
    while (!done() && comm.state == ncclSuccess && std::chrono::steady_clock::now() - begin < world.patience_)
      world.changed_.wait_for(lock, std::chrono::milliseconds(5));
    return done();
  }

  static ncclResult_t run(std::vector<Operation> const& operations) {
    if (operations.empty()) return ncclSuccess;
    ncclComm& comm = *operations[0].comm;
    DoubleWorld& world = *comm.world;
    std::unique_lock lock(world.mutex_);
    world.largest_ = std::max(world.largest_, static_cast<int>(operations.size()));
    if (comm.dead || comm.stuck) return ncclSuccess;
    std::deque<DoubleWorld::Message> sent;
    for (Operation const& o : operations) {
      auto const pair = o.sends ? std::pair(comm.rank, o.peer) : std::pair(o.peer, comm.rank);
      if (calls.capturing && !world.connected_.contains(pair))
        fault(world, "a first message between two ranks during a capture");
      if (!calls.capturing) world.connected_.insert(pair);
      if (!o.sends) continue;
      sent.push_back({o.data, o.bytes, false});
      world.mail_[pair].push_back(&sent.back());
    }
    world.changed_.notify_all();
    bool met = true;
    for (Operation const& o : operations) {
      if (o.sends || !met) continue;
      auto& box = world.mail_[{o.peer, comm.rank}];
      met = wait(comm, lock, [&] { return !box.empty(); });
      if (!met) break;
      DoubleWorld::Message& message = *box.front();
      box.pop_front();
      if (message.bytes != o.bytes) fault(world, "the two ends of a message differ in size");
      std::memcpy(o.data, message.data, std::min(message.bytes, o.bytes));
      message.taken = true;
      world.changed_.notify_all();
    }
    for (auto& message : sent) met = met && wait(comm, lock, [&] { return message.taken; });
    for (auto& [pair, box] : world.mail_)  // what was not taken leaves with its memory
      std::erase_if(box, [&](auto* m) {
        return std::any_of(sent.begin(), sent.end(), [m](auto& mine) { return &mine == m; });
      });
    if (!met) comm.stuck = true;
    return end(comm, ncclSuccess);
  }

  /// What a call returns on a communicator that blocks, or later says if it does not.
  static ncclResult_t end(ncclComm& comm, ncclResult_t result) {
    if (comm.world->options.blocking) return result;
    comm.in_progress = 2;
    comm.pending = result;
    return ncclInProgress;
  }

  static ncclResult_t gather(void const* from, void* to, std::size_t bytes, ncclComm& comm) {
    DoubleWorld& world = *comm.world;
    std::unique_lock lock(world.mutex_);
    if (comm.dead || comm.stuck) return ncclSuccess;
    world.gathered_.resize(bytes * world.comms_.size());
    std::memcpy(&world.gathered_[bytes * static_cast<std::size_t>(comm.rank)], from, bytes);
    int const turn = world.gatherings_;
    if (++world.gathering_ == world.world()) {
      world.gathering_ = 0;
      ++world.gatherings_;
      world.changed_.notify_all();
    }
    // Nobody gathers anew before all are through: a barrier of the same kind.
    bool met = wait(comm, lock, [&] { return world.gatherings_ > turn; });
    if (met) {
      std::memcpy(to, world.gathered_.data(), world.gathered_.size());
      if (++world.gathering_ == world.world()) {
        world.gathering_ = 0;
        ++world.gatherings_;
        world.changed_.notify_all();
      }
      met = wait(comm, lock, [&] { return world.gatherings_ > turn + 1; });
    }
    if (!met) comm.stuck = true;
    return end(comm, ncclSuccess);
  }

  static void abort(ncclComm& comm) {
    DoubleWorld& world = *comm.world;
    std::lock_guard const lock(world.mutex_);
    if (comm.dead) fault(world, "a communicator is aborted twice");
    comm.dead = true;
    comm.stuck = false;
    if (world.options.peers_hear)
      for (auto& other : world.comms_)
        if (!other->dead) other->state = ncclRemoteError;
    world.changed_.notify_all();
  }

  static ncclResult_t state(ncclComm& comm) {
    std::lock_guard const lock(comm.world->mutex_);
    if (comm.dead) fault(*comm.world, "an aborted communicator is used");
    if (comm.state != ncclSuccess) return comm.state;
    if (comm.in_progress == 0) return ncclSuccess;
    --comm.in_progress;
    return comm.in_progress > 0 ? ncclInProgress : comm.pending;
  }

  static bool stuck(ncclComm* comm) {
    if (comm == nullptr) return false;
    std::lock_guard const lock(comm->world->mutex_);
    return comm->stuck;
  }

  static ncclResult_t add(Operation const& operation, cudaStream_t stream, char const* name) {
    if (depth <= 0 || stream != operation.comm->world->stream(operation.comm->rank)) {
      std::lock_guard const lock(operation.comm->world->mutex_);
      fault(*operation.comm->world,
            std::string(name) + (depth <= 0 ? " outside a group" : " on another stream"));
    }
    if (fails(name)) return ncclInternalError;
    group.push_back(operation);
    return ncclSuccess;
  }
};

DoubleWorld::DoubleWorld(int size, DoubleOptions const& o) : options(o) {
  std::lock_guard const lock(streams_mutex);
  for (int rank = 0; rank < size; ++rank) {
    auto& comm = comms_.emplace_back(std::make_unique<ncclComm>());
    comm->world = this;
    comm->rank = rank;
    comm->in_progress = options.blocking ? 0 : 3;
    streams[stream(rank)] = comm.get();
  }
}

DoubleWorld::~DoubleWorld() {
  std::lock_guard const lock(streams_mutex);
  for (int rank = 0; rank < world(); ++rank) streams.erase(stream(rank));
}

cudaStream_t DoubleWorld::stream(int rank) { return reinterpret_cast<cudaStream_t>((*this)[rank]); }

std::vector<std::string> DoubleWorld::faults() {
  std::lock_guard const lock(mutex_);
  return faults_;
}

void DoubleWorld::be_patient(std::chrono::milliseconds patience) {
  std::lock_guard const lock(mutex_);
  patience_ = patience;
}

int DoubleWorld::aborted(int rank) const { return comms_[static_cast<std::size_t>(rank)]->dead; }

}  // namespace lightseq::test

using namespace lightseq::test;

extern "C" {

// NCCL

ncclResult_t ncclGetVersion(int* version) {
  *version = thread_calls().version;
  return fails("ncclGetVersion") ? ncclSystemError : ncclSuccess;
}
char const* ncclGetErrorString(ncclResult_t) { return "as the test wants"; }
ncclResult_t ncclCommCount(ncclComm_t const comm, int* count) {
  *count = comm->world->world();
  return fails("ncclCommCount") ? ncclSystemError : ncclSuccess;
}
ncclResult_t ncclCommUserRank(ncclComm_t const comm, int* rank) {
  *rank = comm->rank;
  return fails("ncclCommUserRank") ? ncclSystemError : ncclSuccess;
}
ncclResult_t ncclCommCuDevice(ncclComm_t const comm, int* device) {
  *device = comm->world->options.device;
  return fails("ncclCommCuDevice") ? ncclSystemError : ncclSuccess;
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  *state = Double::state(*comm);
  return fails("ncclCommGetAsyncError") ? ncclSystemError : ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  Double::abort(*comm);
  writes.clear();
  return ncclSuccess;
}
ncclResult_t ncclGroupStart() {
  if (fails("ncclGroupStart")) return ncclSystemError;
  ++depth;
  return ncclSuccess;
}
ncclResult_t ncclGroupEnd() {
  if (--depth > 0) return ncclSuccess;
  std::vector<Operation> const operations = std::exchange(group, {});
  if (fails("ncclGroupEnd")) return ncclSystemError;
  return Double::run(operations);
}
ncclResult_t ncclSend(void const* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  size_t const bytes = type == ncclInt8 ? count : 0;
  return Double::add({true, const_cast<void*>(data), bytes, peer, comm}, stream, "ncclSend");
}
ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  size_t const bytes = type == ncclInt8 ? count : 0;
  return Double::add({false, data, bytes, peer, comm}, stream, "ncclRecv");
}
ncclResult_t ncclAllGather(void const* from, void* to, size_t count, ncclDataType_t, ncclComm_t comm,
                           cudaStream_t) {
  if (fails("ncclAllGather")) return ncclSystemError;
  Double::not_in_capture(comm, "ncclAllGather");
  return Double::gather(from, to, count, *comm);
}

// CUDA

cudaError_t cudaGetDevice(int* device) {
  *device = thread_calls().device;
  return fails("cudaGetDevice") ? cudaErrorUnknown : cudaSuccess;
}
char const* cudaGetErrorString(cudaError_t) { return "as the test wants"; }
char const* cudaGetErrorName(cudaError_t) { return "cudaErrorOfTheTest"; }
cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (fails("cudaMalloc")) return cudaErrorMemoryAllocation;
  *memory = std::malloc(bytes);
  ++blocks;
  return cudaSuccess;
}
cudaError_t cudaMallocHost(void** memory, size_t bytes) { return cudaMalloc(memory, bytes); }
cudaError_t cudaFree(void* memory) {
  std::free(memory);
  --blocks;
  return cudaSuccess;
}
cudaError_t cudaFreeHost(void* memory) { return cudaFree(memory); }
cudaError_t cudaMemcpyAsync(void* to, void const* from, size_t bytes, cudaMemcpyKind, cudaStream_t stream) {
  if (fails("cudaMemcpyAsync")) return cudaErrorUnknown;
  if (!Double::stuck(comm_of(stream))) std::memcpy(to, from, bytes);
  return cudaSuccess;
}
cudaError_t cudaStreamQuery(cudaStream_t stream) {
  Double::not_in_capture(comm_of(stream), "cudaStreamQuery");
  if (fails("cudaStreamQuery")) return cudaErrorUnknown;
  if (!writes.empty()) {
    auto const now = std::chrono::steady_clock::now();
    bool const begins = writes.front().value % 2 == 1;
    auto const takes = begins ? thread_calls().report_takes : thread_calls().group_takes;
    if (thread_calls().reports == 0 || now - last_write < takes) return cudaErrorNotReady;
    std::memcpy(writes.front().address, &writes.front().value, sizeof(unsigned));
    writes.pop_front();
    --thread_calls().reports;
    last_write = now;
    return cudaErrorNotReady;
  }
  return Double::stuck(comm_of(stream)) ? cudaErrorNotReady : cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = thread_calls().capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  return cudaMalloc(reinterpret_cast<void**>(event), sizeof(bool));
}
cudaError_t cudaEventDestroy(cudaEvent_t event) { return cudaFree(event); }
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) {
  *reinterpret_cast<bool*>(event) = thread_calls().capturing;
  return fails("cudaEventRecord") ? cudaErrorUnknown : cudaSuccess;
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (!*reinterpret_cast<bool*>(event))
    Double::not_in_capture(comm_of(stream), "a wait for an event that is older");
  return fails("cudaStreamWaitEvent") ? cudaErrorUnknown : cudaSuccess;
}
static CUresult write_value(CUstream stream, CUdeviceptr address, cuuint32_t value, unsigned) {
  if (fails("cuStreamWriteValue32")) return CUDA_ERROR_UNKNOWN;
  if (thread_calls().report_takes.count() > 0 || thread_calls().group_takes.count() > 0) {
    if (writes.empty()) last_write = std::chrono::steady_clock::now();
    writes.push_back({reinterpret_cast<void*>(address), value});
    return CUDA_SUCCESS;
  }
  if (!Double::stuck(comm_of(stream))) std::memcpy(reinterpret_cast<void*>(address), &value, sizeof value);
  return CUDA_SUCCESS;
}
cudaError_t cudaGetDriverEntryPointByVersion(char const*, void** function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult* found) {
  *function = reinterpret_cast<void*>(&write_value);
  *found = cudaDriverEntryPointSuccess;
  return fails("cudaGetDriverEntryPointByVersion") ? cudaErrorUnknown : cudaSuccess;
}
}
