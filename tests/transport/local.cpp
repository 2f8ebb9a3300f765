// SPDX-License-Identifier: Apache-2.0
#include "lightseq/transport/local.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <thread>

#include "laws/transport.hpp"
#include "transport/local_harness.hpp"

namespace lightseq::test {
namespace {

using PromptLocal = LocalHarness<0>;
using DelayedLocal = LocalHarness<200>;
static_assert(TransportHarness<PromptLocal>);
TEST_CASE_TEMPLATE_INVOKE(transport_laws, PromptLocal, DelayedLocal);

/// A faulty transport: starts with `Fault::before` applied to the sends and ends with `Fault::after` to the
/// receives.
template <class Fault>
class Faulty {
 public:
  explicit Faulty(Local& local) : local_(local) {}
  int rank() const noexcept { return local_.rank(); }
  int world() const noexcept { return local_.world(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    std::vector<Send> changed(sends.begin(), sends.end());
    Fault::before(changed);
    recvs_.assign(recvs.begin(), recvs.end());
    return local_.start(changed, recvs);
  }
  Status finish() noexcept {
    Status const status = local_.finish();
    for (Receive const& receive : recvs_) Fault::after(receive);
    recvs_.clear();
    return status;
  }

 private:
  Local& local_;
  std::vector<Receive> recvs_;
};

struct Reorder {
  static void before(std::vector<Send>& sends) { std::reverse(sends.begin(), sends.end()); }
  static void after(Receive const&) {}
};

struct FlipLastBit {
  static void before(std::vector<Send>&) {}
  static void after(Receive const& receive) {
    if (receive.bytes > 0) static_cast<unsigned char*>(receive.data)[receive.bytes - 1] ^= 1;
  }
};

struct WriteBeyond {
  static void before(std::vector<Send>&) {}
  static void after(Receive const& receive) { static_cast<unsigned char*>(receive.data)[receive.bytes] = 0; }
};

template <class Fault>
bool caught(bool even) {
  LocalHarness<0, Faulty<Fault>> harness(3);
  for (std::string const& report : delivers_traffic(harness, 3, 30, even))
    if (!report.empty()) return true;
  return false;
}

TEST_CASE("the laws catch transports that reorder, change or overrun messages") {
  CAPTURE(run_seed());
  CHECK(caught<Reorder>(true));
  CHECK(caught<Reorder>(false));
  CHECK(caught<FlipLastBit>(true));
  CHECK(caught<WriteBeyond>(true));
}

TEST_CASE("a world needs a rank and a time-out within bounds") {
  CHECK_THROWS_WITH_AS(LocalWorld(0), "lightseq: world is 0, it must be at least 1", Error);
  CHECK_THROWS_WITH_AS(LocalWorld(-3), "lightseq: world is -3, it must be at least 1", Error);
  CHECK_THROWS_AS(LocalWorld(1, {.timeout = std::chrono::milliseconds(-1)}), Error);
  CHECK_THROWS_AS(LocalWorld(1, {.timeout = std::chrono::milliseconds::max()}), Error);
}

TEST_CASE("start() neither waits nor copies: the receiver sees what the sender's memory holds later") {
  CAPTURE(run_seed());
  for (int const messages : {1, 2, Local::messages_per_peer}) {
    LocalWorld world(2);
    std::mt19937_64 engine = agreed(run_seed(), messages);
    std::vector<Bytes> sources, targets;
    std::vector<Send> sends;
    std::vector<Receive> recvs;
    for (int i = 0; i < messages; ++i) {
      sources.push_back(random_bytes(engine, 100 + i));
      targets.push_back(sources.back());
    }
    for (int i = 0; i < messages; ++i) {
      auto const at = static_cast<std::size_t>(i);
      sends.push_back({sources[at].data(), 100 + i, 1, "out"});
      recvs.push_back({targets[at].data(), 100 + i, 0, "in"});
    }
    // One thread plays both ranks, so a start() that waited would never come back.
    REQUIRE(world[0].start(sends, {}).ok());
    REQUIRE(world[1].start({}, recvs).ok());
    for (Bytes& source : sources)
      std::transform(source.begin(), source.end(), source.begin(), std::bit_not<>());
    REQUIRE(world[1].finish().ok());
    REQUIRE(world[0].finish().ok());
    for (std::size_t i = 0; i < sources.size(); ++i) CHECK(difference(targets[i], sources[i]) == "");
  }
}

TEST_CASE("a message is there a link's latency after the later of its two ranks has started its group") {
  constexpr std::chrono::milliseconds latency{60}, apart{40};
  for (int const later : {0, 1}) {
    CAPTURE(later);
    LocalWorld world(2, {.link_latency = latency});
    using Clock = std::chrono::steady_clock;
    Clock::time_point started[2], arrived;
    run_ranks(world, [&](Local& local) {
      int number = local.rank();
      Send const send{&number, sizeof number, 1, "out"};
      Receive const receive{&number, sizeof number, 0, "in"};
      bool const sends = local.rank() == 0;
      if (local.rank() == later) std::this_thread::sleep_for(apart);
      started[local.rank()] = Clock::now();
      CHECK(local.start({&send, sends ? 1u : 0u}, {&receive, sends ? 0u : 1u}).ok());
      CHECK(local.finish().ok());
      if (!sends) arrived = Clock::now();
    });
    CHECK(arrived - std::max(started[0], started[1]) >= latency);
  }
}

TEST_CASE("a rank may send to itself") {
  std::mt19937_64 engine = agreed(run_seed(), 0);
  Bytes const source = random_bytes(engine, 1000);
  Bytes target = poison(source.size());
  LocalWorld world(2);
  Send const send{source.data(), 1000, 1, "out"};
  Receive const receive{target.data(), 1000, 1, "in"};
  REQUIRE(world[1].start({&send, 1}, {&receive, 1}).ok());
  REQUIRE(world[1].finish().ok());
  CHECK(difference(target, source) == "");
}

TEST_CASE("run_ranks calls the function once for each rank, at the same time") {
  for (int const size : {1, 2, 5, 16}) {
    LocalWorld world(size);
    std::vector<int> calls(static_cast<std::size_t>(size));
    for (int repeat = 1; repeat <= 3; ++repeat) {
      // Nobody gets through this group unless all are in it.
      run_ranks(world, [&](Local& local) {
        Send const send{nullptr, 0, (local.rank() + 1) % size, "out"};
        Receive const receive{nullptr, 0, (local.rank() + size - 1) % size, "in"};
        if (local.start({&send, 1}, {&receive, 1}).ok() && local.finish().ok())
          ++calls[static_cast<std::size_t>(local.rank())];
      });
      for (int const count : calls) CHECK(count == repeat);
    }
  }
}

}  // namespace
}  // namespace lightseq::test
