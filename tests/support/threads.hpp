// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <exception>
#include <string>
#include <thread>
#include <vector>

/// Ranks that are threads.
namespace lightseq::test {

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
