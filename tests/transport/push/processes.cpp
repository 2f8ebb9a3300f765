// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <string>
#include <vector>

#include "laws/dist_attn.hpp"
#include "laws/transport.hpp"
#include "lightseq/testing/processes.hpp"
#include "support/mortal.hpp"
#include "transport/push/ranks.hpp"

namespace lightseq::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::run_processes;

/// Worlds of processes.
class ProcessHarness {
 public:
  using Transport = SynchronousPush;
  using Memory = SharedPart;
  static std::vector<int> worlds() { return {1, 2, 3, 5}; }
  explicit ProcessHarness(int world) : world_(world) {}
  std::uint64_t seed() const { return run_seed(); }
  template <class F>
  std::vector<std::string> run(F f) {
    std::string const name = fresh_name();
    return run_processes(world_, seconds(60), [&](int rank) {
      DoubleStream stream(50);
      return run_in_shared_memory({name, rank, world_}, stream, DoubleDevice(), f);
    });
  }

 private:
  int world_;
};
TEST_CASE_TEMPLATE_INVOKE(transport_laws, ProcessHarness);

Problem const problem{.seqlen = 40, .heads = 2, .kv_heads = 1};
using Whole = testing::Sequence<float>;

/// What as many threads compute.
Whole computed(Whole sequence, int ranks) {
  LocalWorld world(ranks);
  REQUIRE(testing::run_world<DistAttn<small_head_dim, Causal, Balanced>>(world, problem, Causal{}, Balanced{},
                                                                         sequence) == "");
  return sequence;
}

/// Whether a rank's part of `got` is that of `want`.
template <class At>
bool right(At const& at, Whole const& got, Whole const& want) {
  auto const same = [&](auto const& a, auto const& b, Shape const& shape, std::int64_t outer,
                        std::int64_t run) {
    bool all = true;
    testing::for_each_row(outer, shape.tokens, at, run, [&](std::int64_t whole, std::int64_t) {
      all = all && std::memcmp(&a[static_cast<std::size_t>(whole)], &b[static_cast<std::size_t>(whole)],
                               static_cast<std::size_t>(run) * sizeof(float)) == 0;
    });
    return all;
  };
  Shape const &q = want.q_shape, &kv = want.kv_shape;
  return same(got.o, want.o, q, q.batch, q.heads * q.dim) &&
         same(got.dq, want.dq, q, q.batch, q.heads * q.dim) &&
         same(got.dk, want.dk, kv, kv.batch, kv.heads * kv.dim) &&
         same(got.dv, want.dv, kv, kv.batch, kv.heads * kv.dim) &&
         same(got.lse, want.lse, q, q.batch * q.heads, 1);
}

/// A push whose process meets its fate.
struct MortalPush : Mortal<DoublePush> {
  using Mortal::Mortal;
  DoubleStream* stream() const noexcept { return transport_.stream(); }
  Status wait(DoubleStream* stream) noexcept { return transport_.wait(stream); }
  void withdraw(Status const& why) noexcept { transport_.withdraw(why); }
};
struct MortalTraits : DefaultTraits {
  using Device = HostOver<MortalPush>;
  using Transport = MortalPush;
};
using Attn = DistAttn<small_head_dim, Causal, Balanced, MortalTraits>;

/// One rank's forward and backward, until it meets its fate, and how many groups it began: what it has to
/// say, or "ok" where its results are right.
std::string run_mortal(PushSeat const& seat, milliseconds timeout, Fate const& fate, Whole const& fresh,
                       Whole const& want, int* groups = nullptr) {
  DoubleStream stream;
  DoublePush push(seat, &stream, {.timeout = timeout});
  MortalPush mortal(push, fate);
  Attn attn(mortal, problem);
  Whole whole = fresh;
  Status const status = run_rank_over(push, attn, attn.positions(), whole);
  if (groups != nullptr) *groups = mortal.groups();
  if (!status.ok()) return status.message();
  return right(attn.positions(), whole, want) ? "ok" : "wrong results";
}

TEST_CASE("attention by processes has the bits of that by threads") {
  for (int const ranks : {1, 2, 3, 5}) {
    CAPTURE(ranks);
    auto const fresh = testing::random_sequence<float>(problem, small_head_dim, stream_seed(600));
    auto const want = computed(fresh, ranks);
    std::string const name = fresh_name();
    for (std::string const& text : run_processes(ranks, seconds(30), [&](int rank) {
           return run_mortal({name, rank, ranks}, seconds(20), {}, fresh, want);
         }))
      CHECK(text == "ok");
  }
}

/// Whether a socket, or memory with a name, of these groups is left.
bool something_is_left(std::string const& name) {
  std::ifstream sockets("/proc/net/unix");
  for (std::string line; std::getline(sockets, line);)
    if (line.find("lightseq/" + name) != std::string::npos) return true;
  return false;
}

TEST_CASE(
    "a process that is killed or stopped in any group is named to the others, who go on under its name") {
  constexpr int ranks = 3;
  constexpr milliseconds timeout(1000), slack(6000);
  auto const fresh = testing::random_sequence<float>(problem, small_head_dim, stream_seed(610));
  auto const want = computed(fresh, ranks), want_of_two = computed(fresh, ranks - 1);
  testing::Shared<int> groups;
  std::string const first = fresh_name();
  REQUIRE(run_processes(ranks, seconds(30), [&](int rank) {
            return run_mortal({first, rank, ranks}, seconds(20), {}, fresh, want,
                              rank == 1 ? groups.data() : nullptr);
          })[0] == "ok");
  REQUIRE(*groups.data() >= 4);

  std::vector<Fate> fates;
  auto const victim_of = [](std::size_t fate) { return static_cast<int>((fate + stream_seed(611)) % ranks); };
  for (int group = 0; group < *groups.data(); ++group)
    for (int const signal : {SIGKILL, SIGSTOP})
      for (bool const after_start : {false, true}) fates.push_back({group, signal, after_start});
  std::string const name = fresh_name() + " ";
  // All at once, as they wait most of the time.
  auto const said =
      run_processes(ranks * static_cast<int>(fates.size()), seconds(60), [&](int id) -> std::string {
        int const rank = id % ranks, world = id / ranks, victim = victim_of(static_cast<std::size_t>(world));
        Fate const fate = rank == victim ? fates[static_cast<std::size_t>(world)] : Fate{};
        std::string const own = name + std::to_string(world);
        auto const begin = std::chrono::steady_clock::now();
        std::string const text = run_mortal({own, rank, ranks}, timeout, fate, fresh, want);
        if (std::chrono::steady_clock::now() - begin > timeout + slack) return "it took too long: " + text;
        std::string const again =
            run_mortal({own, rank - (rank > victim ? 1 : 0), ranks - 1}, seconds(20), {}, fresh, want_of_two);
        return again == "ok" ? text : "it does not go on: " + again;
      });
  for (std::size_t i = 0; i < said.size(); ++i) {
    Fate const& fate = fates[i / ranks];
    INFO("group ", fate.group, ", signal ", fate.signal, ", after start ", fate.after_start, ", rank ",
         i % ranks);
    std::string const& text = said[i];
    INFO(text);
    int const victim = victim_of(i / ranks);
    if (static_cast<int>(i) % ranks == victim) {
      CHECK(text == "no answer");
      continue;
    }
    // Who needs none of its messages hears of it when all take back their workspaces.
    CHECK(text.find("peer " + std::to_string(victim) + ": ") != std::string::npos);
    CHECK(text.find(fate.signal == SIGKILL ? "ended" : "within") != std::string::npos);
  }
  CHECK(!something_is_left(name));
}

TEST_CASE("processes that cannot give each other their memory send through the host's, if they are told to") {
  std::string const name = fresh_name();
  for (std::string const& text : run_processes(3, seconds(30), [&](int rank) -> std::string {
         DoubleStream stream(50);
         std::vector<std::byte> memory(4096);
         DoublePush push({name, rank, 3}, &stream, {.through_host = true});
         if (Status const status = push.share(memory); !status.ok()) return status.message();
         for (int round = 0; round < 50; ++round) {
           int const sent = 100 * round + rank, next = (rank + 1) % 3, previous = (rank + 2) % 3;
           Send const send{&sent, sizeof sent, next, "a"};
           Receive const receive{memory.data() + 8 * round, sizeof sent, previous, "a"};
           Status status = push.start({&send, 1}, {&receive, 1});
           if (status.ok()) status = push.finish();
           if (status.ok()) status = push.wait(&stream);
           if (!status.ok()) return status.message();
           int got = 0;
           std::memcpy(&got, memory.data() + 8 * round, sizeof got);
           if (got != 100 * round + previous) return test::text("round ", round, ": ", got);
         }
         return push.unshare(memory).message();
       }))
    CHECK(text == "ok");
}

TEST_CASE("a rank that never comes is named after the time-out, to all") {
  std::string const name = fresh_name();
  auto const said = run_processes(3, seconds(20), [&](int rank) -> std::string {
    if (rank == 1) return "absent";
    DoubleStream stream;
    DoublePush const push({name, rank, 3}, &stream, {.timeout = milliseconds(300)});
    return "it came";
  });
  for (int const rank : {0, 2})
    CHECK(said[static_cast<std::size_t>(rank)] ==
          "lightseq: the ranks do not meet at " + name + ": within 300 ms there came no rank 1");
  CHECK(!something_is_left(name));
}

}  // namespace
}  // namespace lightseq::test
