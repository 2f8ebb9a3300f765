// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <exception>
#include <string>
#include <thread>
#include <vector>

/// Groups of threads.
namespace lightseq::test {

/// A name that no other group of this or another run has.
inline std::string fresh_name() {
  static std::atomic<int> made = 0;
  return "test " + std::to_string(getpid()) + " " + std::to_string(made++);
}

/// Calls f(rank) for all ranks at once: what each has to say.
template <class F>
std::vector<std::string> run_threads(int world, F f) {
  std::vector<std::string> said(static_cast<std::size_t>(world));
  {
    std::vector<std::jthread> threads;
    for (int rank = 0; rank < world; ++rank)
      threads.emplace_back([&, rank] {
        try {
          said[static_cast<std::size_t>(rank)] = f(rank);
        } catch (std::exception const& error) {
          said[static_cast<std::size_t>(rank)] = error.what();
        }
      });
  }
  return said;
}

}  // namespace lightseq::test
