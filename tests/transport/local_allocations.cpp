// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "lightseq/transport/local.hpp"
#include "support/allocations.hpp"

namespace lightseq::test {
namespace {

struct alignas(256) Wide {
  char content[300];
};

/// Keeps the compiler from leaving out what it sees deleted again.
void* volatile escaped = nullptr;

TEST_CASE("the counter sees every form of new, on its own thread") {
  AllocationCounter const counter;
  CHECK(counter.count() == 0);
  auto const counted = [&](auto const& make) {
    std::int64_t const before = counter.count();
    auto* const made = make();
    escaped = made;
    std::int64_t const made_count = counter.count() - before;
    return std::pair(made, made_count);
  };
  auto const [one, ones] = counted([] { return new int(7); });
  auto const [many, manies] = counted([] { return new int[1000](); });
  auto const [silent, silents] = counted([] { return new (std::nothrow) int(7); });
  auto const [silent_many, silent_manies] = counted([] { return new (std::nothrow) int[1000](); });
  auto const [wide, wides] = counted([] { return new Wide(); });
  auto const [wide_many, wide_manies] = counted([] { return new Wide[3](); });
  auto const [silent_wide, silent_wides] = counted([] { return new (std::nothrow) Wide(); });
  CHECK(ones == 1);
  CHECK(manies == 1);
  CHECK(silents == 1);
  CHECK(silent_manies == 1);
  CHECK(wides == 1);
  CHECK(wide_manies == 1);
  CHECK(silent_wides == 1);
  for (Wide const* const pointer : {wide, wide_many, silent_wide})
    CHECK(reinterpret_cast<std::uintptr_t>(pointer) % alignof(Wide) == 0);
  delete one;
  delete[] many;
  delete silent;
  delete[] silent_many;
  CHECK(counter.held() == 3);
  delete wide;
  delete[] wide_many;
  delete silent_wide;
  delete static_cast<int*>(nullptr);
  CHECK(counter.held() == 0);

  std::vector<std::int64_t> seen(2);
  {
    std::jthread const other([&] {
      AllocationCounter const own;
      std::vector<std::unique_ptr<int>> allocated(100);
      for (auto& pointer : allocated) pointer = std::make_unique<int>(1);
      seen[0] = own.count();
    });
    AllocationCounter const own;
    seen[1] = own.count();
  }
  CHECK(seen[0] == 101);
  CHECK(seen[1] == 0);
}

/// Allocations of the calls of every rank in some groups of an all-to-all, and of the failure that ends them.
std::vector<std::int64_t> allocations(int size, LocalOptions const& options, int groups) {
  LocalWorld world(size, options);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(size));
  run_ranks(world, [&](Local& local) {
    std::vector<int> received(static_cast<std::size_t>(size * Local::messages_per_peer));
    std::vector<Send> sends;
    std::vector<Receive> recvs;
    for (std::size_t i = 0; i < received.size(); ++i) {
      int const peer = static_cast<int>(i) % size;
      sends.push_back({&received[i], 0, peer, "out"});
      recvs.push_back({&received[i], 0, peer, "in"});
    }
    AllocationCounter const counter;
    bool ok = true;
    for (int group = 0; group < groups && ok; ++group)
      ok = local.start(sends, recvs).ok() && local.finish().ok();
    local.withdraw();
    counts[static_cast<std::size_t>(local.rank())] = counter.count();
  });
  return counts;
}

TEST_CASE("start(), finish() and withdraw() allocate nothing, in the largest group and in failure") {
  for (int size = 1; size <= 8; ++size)
    for (int const failing_start : {-1, 0, 1, 4}) {
      CAPTURE(size);
      CAPTURE(failing_start);
      LocalOptions const options{.max_delay = std::chrono::microseconds(20),
                                 .failing_rank = size / 2,
                                 .failing_start = failing_start};
      CHECK(allocations(size, options, 5) == std::vector<std::int64_t>(static_cast<std::size_t>(size), 0));
    }
}

TEST_CASE("agreements that all ranks have come to leave nothing behind, however far apart the ranks are") {
  for (int size = 1; size <= 8; ++size)
    for (int const ahead : {0, 1, 7}) {
      CAPTURE(size);
      CAPTURE(ahead);
      LocalWorld world(size);
      Fingerprint const fingerprint;
      AllocationCounter const counter;
      // Rank 0 runs ahead of the others, which come in turn.
      auto const rounds = [&](int count) {
        bool ok = true;
        for (int round = 0; round < count; ++round)
          for (int rank = 0; rank < size; ++rank) ok = ok && world[rank].agree(fingerprint).ok();
        return ok;
      };
      for (int i = 0; i < ahead; ++i) REQUIRE(world[0].agree(fingerprint).ok());
      REQUIRE(rounds(20));
      std::int64_t const held = counter.held();
      REQUIRE(rounds(200));
      CHECK(counter.held() <= held + 2);  // a queue may keep some room
    }
}

TEST_CASE("an agreement that finds no memory does not count, and can be had again") {
  bool lacked = true;
  for (std::int64_t left = 0; lacked; ++left) {
    LocalWorld world(2);
    Fingerprint fingerprint, others;
    fingerprint.add("batch", 1);
    others.add("batch", 2);
    allocations_left = left;
    try {
      lacked = !world[0].agree(fingerprint).ok();
    } catch (std::bad_alloc const&) {
      lacked = true;
    }
    allocations_left = -1;
    CHECK(world[0].agreements() == (lacked ? 0 : 1));
    if (lacked) CHECK(world[0].agree(fingerprint).ok());
    CHECK(world[1].agree(fingerprint).ok());
    CHECK(world[1].agree(others).ok());
    CHECK(world[0].agree(fingerprint).message() ==
          "the ranks disagree: batch is 2 on rank 1 and 1 on rank 0");
  }
}

}  // namespace
}  // namespace lightseq::test
