// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "lightseq/testing/data.hpp"

namespace lightseq::test {

using testing::lse_error;
using testing::poisoned_vector;
using testing::relative_error;

/// LIGHTSEQ_SEED, or a number of its own at each call.
inline std::uint64_t fresh_seed() {
  char const* const given = std::getenv("LIGHTSEQ_SEED");
  return given != nullptr ? std::strtoull(given, nullptr, 10) : std::uint64_t{std::random_device{}()};
}

/// The seed of this run: fresh each time, or LIGHTSEQ_SEED to repeat one. Put it into a test's INFO.
inline std::uint64_t run_seed() {
  static std::uint64_t const seed = fresh_seed();
  return seed;
}

/// This run's seed for one stream of random numbers.
inline std::uint64_t stream_seed(std::uint64_t stream) { return run_seed() * 0x9e3779b97f4a7c15u + stream; }

/// Normal random numbers, the same for the same run seed and stream.
template <Element T>
std::vector<T> random_vector(std::int64_t size, std::uint64_t stream) {
  return testing::random_vector<T>(size, stream_seed(stream));
}

/// Whether two vectors have the same length and the same bits, NaNs and signed zeros included.
template <class T>
bool same_bits(std::vector<T> const& a, std::vector<T> const& b) {
  return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

}  // namespace lightseq::test
