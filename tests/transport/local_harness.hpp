// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <string>
#include <vector>

#include "laws/transport.hpp"
#include "lightseq/transport/local.hpp"

namespace lightseq::test {

/// Worlds of threads, each rank's endpoint wrapped in a T.
template <int MaxDelayMicroseconds, class T = Local&>
class LocalHarness {
 public:
  using Transport = std::remove_reference_t<T>;
  using Memory = HostMemory;
  static std::vector<int> worlds() { return {1, 2, 3, 4, 5, 6, 7, 8, 16}; }

  explicit LocalHarness(int world)
      : world_(world, {.max_delay = std::chrono::microseconds(MaxDelayMicroseconds), .seed = run_seed()}) {}

  std::uint64_t seed() const { return run_seed(); }

  template <class F>
  std::vector<std::string> run(F f) {
    std::vector<std::string> reports(static_cast<std::size_t>(world_.world()));
    run_ranks(world_, [&](Local& local) {
      T transport{local};
      std::string& report = reports[static_cast<std::size_t>(local.rank())];
      report = f(transport);
      if (!report.empty()) local.withdraw();
    });
    return reports;
  }

 private:
  LocalWorld world_;
};

}  // namespace lightseq::test
