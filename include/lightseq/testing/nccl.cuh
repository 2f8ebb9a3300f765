// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cuda_runtime.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "lightseq/testing/cuda.cuh"
#include "lightseq/transport/nccl.cuh"

/// NCCL between processes, each on a GPU of its own or, where these do not suffice, all on those that there
/// are. The process that forks them never calls CUDA itself.
namespace lightseq::testing {

/// The GPUs of this machine, counted by a process of its own.
inline int count_gpus() {
  pid_t const child = fork();
  if (child == 0) {
    int count = 0;
    if (has_gpu()) check_cuda(cudaGetDeviceCount(&count));
    _exit(count);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 0;
}

/// Memory that a process shares with those that it forks.
template <class T>
class Shared {
 public:
  explicit Shared(std::size_t count = 1) : count_(count) {
    void* const memory =
        mmap(nullptr, count * sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("no shared memory");
    data_ = new (memory) T[count]();
  }
  Shared(Shared const&) = delete;
  Shared& operator=(Shared const&) = delete;
  ~Shared() { munmap(data_, count_ * sizeof(T)); }
  T* operator->() const { return data_; }
  T& operator[](std::size_t index) const { return data_[index]; }
  T* data() const { return data_; }

 private:
  T* data_ = nullptr;
  std::size_t count_;
};

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

/// What a process has to say in the end.
struct Report {
  std::atomic<bool> made = false;
  char text[2000] = {};
};

/// Forks `size` processes, each of which calls f(rank) with its GPU current: what each has to say. After
/// `limit` all are killed; those that did not answer say "no answer".
template <class F>
std::vector<std::string> run_processes(int size, int gpus, std::chrono::seconds limit, F f) {
  Shared<Report> reports(static_cast<std::size_t>(size));
  std::fflush(stdout);
  std::vector<pid_t> children;
  for (int rank = 0; rank < size; ++rank) {
    pid_t const child = fork();
    if (child != 0) {
      children.push_back(child);
      continue;
    }
    std::string said;
    try {
      take_gpu(rank, size, gpus);
      said = f(rank);
    } catch (std::exception const& error) {
      said = error.what();
    }
    Report& report = reports[static_cast<std::size_t>(rank)];
    std::strncpy(report.text, said.c_str(), sizeof report.text - 1);
    report.made = true;
    // NCCL's threads serve other ranks until these are through.
    while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
  }
  auto const deadline = std::chrono::steady_clock::now() + limit;
  auto const open = [&](int rank) {
    if (reports[static_cast<std::size_t>(rank)].made) return false;
    siginfo_t info = {};
    // Left as it is, to be waited for below.
    waitid(P_PID, static_cast<id_t>(children[static_cast<std::size_t>(rank)]), &info,
           WEXITED | WSTOPPED | WNOHANG | WNOWAIT);
    return info.si_pid == 0;
  };
  for (int rank = 0; rank < size; ++rank)
    while (open(rank) && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
  std::vector<std::string> said;
  for (int rank = 0; rank < size; ++rank) {
    Report const& report = reports[static_cast<std::size_t>(rank)];
    said.push_back(report.made ? report.text : "no answer");
    kill(children[static_cast<std::size_t>(rank)], SIGKILL);
  }
  for (pid_t const child : children) waitpid(child, nullptr, 0);
  return said;
}

}  // namespace lightseq::testing
