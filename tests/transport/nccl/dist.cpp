// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>

#include "laws/agreement.hpp"
#include "laws/dist_attn.hpp"
#include "laws/transport.hpp"
#include "support/data.hpp"
#include "support/schedules.hpp"
#include "transport/nccl/ranks.hpp"

namespace lightseq::test {
namespace {

/// Worlds of threads over the double.
template <bool Blocking>
class DoubleHarness {
 public:
  using Transport = Nccl;
  using Memory = HostMemory;
  static std::vector<int> worlds() { return {1, 2, 3, 5, 8}; }

  explicit DoubleHarness(int world) : world_(world, {.blocking = Blocking, .peers_hear = true}) {}
  std::uint64_t seed() const { return run_seed(); }

  template <class F>
  std::vector<std::string> run(F f) {
    return run_threads(world_.world(), [&](int rank) {
      Nccl nccl(world_[rank], world_.stream(rank));
      std::string const said = f(nccl);
      if (!said.empty()) nccl.withdraw();
      return said;
    });
  }

 private:
  DoubleWorld world_;
};

struct Relayed : NcclTraits {
  static constexpr Route route = Route::neighbour;
};

template <Route chosen>
struct ByLocal : DefaultTraits {
  static constexpr Route route = chosen;
};

/// Every group is small, meets its other ends and nobody breaks a rule; the results are those of threads that
/// exchange by Local, bit by bit.
template <class S, class Traits>
void as_with_local(DoubleOptions const& options) {
  Problem const problem{.batch = 2, .seqlen = 61, .heads = 4, .kv_heads = 2};
  for (int const ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
    INFO("ranks ", ranks, ", LIGHTSEQ_SEED=", run_seed());
    auto got = testing::random_sequence<float>(problem, 16, stream_seed(500)), want = got;
    LocalWorld local(ranks);
    REQUIRE(testing::run_world<DistAttn<16, Causal, S, ByLocal<Traits::route>>>(local, problem, Causal{}, S{},
                                                                                want) == "");

    DoubleWorld world(ranks, options);
    auto const said = run_threads(ranks, [&](int rank) -> std::string {
      Nccl nccl(world[rank], world.stream(rank));
      DistAttn<16, Causal, S, Traits> attn(nccl, problem);
      thread_calls().capturing = true;  // nothing in a call may be forbidden
      auto part = testing::part_of(got, attn.positions());
      std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()), std::byte{0xff});
      Status status = attn.forward(part.inputs(), part.outputs(), workspace);
      if (status.ok()) status = attn.backward(part.backward_inputs(), part.gradients(), workspace);
      thread_calls().capturing = false;
      if (status.ok()) status = attn.wait();
      testing::put_back(part, attn.positions(), got);
      return status.message();
    });
    for (std::string const& text : said) CHECK(text == "ok");
    for (std::string const& fault : world.faults()) FAIL_CHECK(fault);
    CHECK(world.largest_group() <= Plan::max_group);
    check_same_bits(got, want);
  }
  CHECK(allocated_blocks() == 0);
}

using Blocking = DoubleHarness<true>;
using NonBlocking = DoubleHarness<false>;
static_assert(TransportHarness<Blocking>);
TEST_CASE_TEMPLATE_INVOKE(transport_laws, Blocking, NonBlocking);

TEST_CASE_TEMPLATE_DEFINE("groups, order and matching of every schedule's messages", S, messages_match) {
  as_with_local<S, NcclTraits>({.blocking = true});
  as_with_local<S, NcclTraits>({.blocking = false});
  as_with_local<S, Relayed>({.blocking = true});
}
TEST_CASE_TEMPLATE_APPLY(messages_match, EverySchedule);

TEST_CASE("the double sees what is forbidden") {
  DoubleWorld world(2);
  auto const said = run_threads(2, [&](int rank) -> std::string {
    Nccl nccl(world[rank], world.stream(rank));
    char byte = 0;
    Send const send{&byte, 1, 1, "byte"};
    Receive const receive{&byte, 1, 0, "byte"};
    thread_calls().capturing = true;
    Status const status = rank == 0 ? nccl.start({&send, 1}, {}) : nccl.start({}, {&receive, 1});
    static_cast<void>(cudaStreamQuery(nccl.stream()));
    thread_calls().capturing = false;
    return status.message();
  });
  auto const faults = world.faults();
  auto const count = [&](char const* text) { return std::count(faults.begin(), faults.end(), text); };
  CHECK(count("a first message between two ranks during a capture") >= 1);
  CHECK(count("cudaStreamQuery during a capture") >= 1);
}

TEST_CASE("what one rank cannot construct no rank does: all say what the lowest such rank says") {
  for (int const ranks : {2, 3, 4}) {
    CAPTURE(ranks);
    auto const said_by_all = [&](auto way) {
      DoubleWorld world(ranks);
      auto const said = run_threads(ranks, [&](int rank) {
        Nccl nccl(world[rank], world.stream(rank));
        std::string const text = way(nccl);
        std::string const again = ways<NcclTraits>()[0].run(nccl);
        return again == "ok" ? text : "it cannot try again: " + again;
      });
      for (std::string const& text : said) CHECK(text == said[0]);
      for (std::string const& fault : world.faults()) FAIL_CHECK(fault);
      return said[0];
    };
    CHECK(said_by_all([](Nccl& nccl) { return of_throwing_schedule<NcclTraits>(nccl); }) ==
          text("rank 0: ", throwing_schedule_says(ranks)));
    for (int lowest = 0; lowest < ranks; ++lowest)
      for (int other = lowest; other < ranks; ++other)
        CHECK(said_by_all([&](Nccl& nccl) {
                return of_lacking_device<NcclTraits>(nccl, {lowest, other});
              }) == text("rank ", lowest, ": ", lacking_device_says(ranks)));
    CHECK(said_by_all([&](Nccl& nccl) {
            return of_throwing_mask<NcclTraits>(nccl, ranks - 1);
          }).find("the table of queries ") != std::string::npos);
    if (ranks == 4)
      CHECK(said_by_all([](Nccl& nccl) { return of_unserved_mask<NcclTraits>(nccl); }) ==
            std::string("rank 0: ") + unserved_mask_says);
  }
}

TEST_CASE("ranks that are built differently all say what differs") {
  auto const all = ways<NcclTraits>(true);
  for (int const ranks : {2, 3, 5})
    for (std::size_t way = 1; way < all.size(); ++way) {
      int const other = 1 + static_cast<int>(way) % (ranks - 1);
      INFO("ranks ", ranks, ", ", all[way].differs);
      DoubleWorld world(ranks);
      auto const said = run_threads(ranks, [&](int rank) {
        Nccl nccl(world[rank], world.stream(rank));
        return all[rank == other ? way : 0].run(nccl);
      });
      all_say_what_differs(said, all[way].differs, other);
      for (std::string const& fault : world.faults()) FAIL_CHECK(fault);
    }
}

}  // namespace
}  // namespace lightseq::test
