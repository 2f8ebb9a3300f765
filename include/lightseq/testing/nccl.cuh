// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "lightseq/testing/cuda.cuh"
#include "lightseq/testing/processes.hpp"
#include "lightseq/transport/nccl.cuh"

/// NCCL between processes, each on a GPU of its own or, where these do not suffice, all on those that there
/// are. The process that forks them never calls CUDA itself.
namespace lightseq::testing {

/// What ranks need to find each other, once.
struct Meeting {
  std::atomic<bool> open = false;
  ncclUniqueId id = {};
};

inline void check_nccl(ncclResult_t result) {
  if (result != ncclSuccess) fail("NCCL: ", ncclGetErrorString(result));
}

/// A communicator of `size` ranks that meet here.
inline ncclComm_t communicator(Meeting& meeting, int rank, int size, bool blocking) {
  if (rank == 0) {
    check_nccl(ncclGetUniqueId(&meeting.id));
    meeting.open = true;
  }
  while (!meeting.open) std::this_thread::yield();
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = blocking ? 1 : 0;
  ncclComm_t comm = nullptr;
  ncclResult_t const result = ncclCommInitRankConfig(&comm, size, meeting.id, rank, &config);
  if (result != ncclInProgress) check_nccl(result);
  return comm;
}

/// Makes one of this machine's GPUs current for a rank, before NCCL is called: where they are too few for the
/// ranks, several share one, and messages go by the network. For trials; it is slow.
inline void take_gpu(int rank, int size, int gpus) {
  if (gpus < size) {
    // NCCL refuses two ranks on one GPU of a host, but not of two hosts.
    setenv("NCCL_HOSTID", ("lightseq" + std::to_string(rank)).c_str(), 1);
    setenv("NCCL_SOCKET_IFNAME", "lo", 1);
  }
  setenv("NCCL_NVLS_ENABLE", "0", 1);
  check_cuda(cudaSetDevice(rank % gpus));
}

/// As run_processes(), with each process's GPU current.
template <class F>
std::vector<std::string> run_processes(int size, int gpus, std::chrono::seconds limit, F f) {
  return run_processes(size, limit, [&](int rank) {
    take_gpu(rank, size, gpus);
    return f(rank);
  });
}

}  // namespace lightseq::testing
