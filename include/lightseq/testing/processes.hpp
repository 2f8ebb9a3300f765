// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "lightseq/core/error.hpp"

/// Ranks that are processes of one machine, forked by a test.
namespace lightseq::testing {

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

/// What a process has to say in the end.
struct Report {
  std::atomic<bool> made = false;
  char text[2000] = {};
};

/// Forks `size` processes, each of which calls f(rank): what each has to say. They live until all have
/// answered, died or stopped. After `limit` all are killed; those that did not answer say "no answer".
template <class F>
std::vector<std::string> run_processes(int size, std::chrono::seconds limit, F f) {
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
      said = f(rank);
    } catch (std::exception const& error) {
      said = error.what();
    }
    Report& report = reports[static_cast<std::size_t>(rank)];
    std::strncpy(report.text, said.c_str(), sizeof report.text - 1);
    report.made = true;
    // Threads of a library may serve other ranks until these are through.
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
