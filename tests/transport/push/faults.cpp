// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>
#include <latch>
#include <string>
#include <thread>
#include <vector>

#include "lightseq/testing/processes.hpp"
#include "transport/push/ranks.hpp"

namespace lightseq::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

std::size_t index(int i) { return static_cast<std::size_t>(i); }

/// A group of threads with 4 KiB of shared memory each: f(push, memory) on each.
template <class F>
std::vector<std::string> run_group(int world, milliseconds timeout, F f) {
  std::string const name = fresh_name();
  auto said = run_threads(world, [&](int rank) -> std::string {
    DoubleMemory const memory(4096);
    DoubleStream stream;
    DoublePush push({name, rank, world}, &stream, {.timeout = timeout}, DoubleDevice(rank % 2 == 1));
    if (Status const status = push.share(memory.span()); !status.ok()) return status.message();
    return f(push, memory.data());
  });
  CHECK(DoubleDevice::mapped == 0);
  CHECK(DoubleDevice::pinned == 0);
  return said;
}

/// start(), finish() and wait() of one group.
Status exchange(DoublePush& push, std::vector<Send> const& sends, std::vector<Receive> const& recvs) {
  Status status = push.start(sends, recvs);
  if (status.ok()) status = push.finish();
  return status.ok() ? push.wait(push.stream()) : status;
}

TEST_CASE("a message of another size is told by its receiver, and by all, within no time") {
  auto const said = run_group(3, seconds(60), [&](DoublePush& push, std::byte* memory) {
    std::int64_t const sent = push.rank() == 0 ? 100 : 200;
    int const next = (push.rank() + 1) % 3, previous = (push.rank() + 2) % 3;
    return exchange(push, {{memory, sent, next, "words"}}, {{memory + 1000, 200, previous, "words", 4}})
        .message();
  });
  std::string const fault =
      "rank 1, step 4, payload words, peer 0: a message of 100 bytes met a receive of 200 bytes";
  CHECK(said[1] == fault);
  for (int const rank : {0, 2}) {
    if (rank == 2 && said[2] == "ok") continue;  // its own messages had come
    INFO(said[index(rank)]);
    CHECK(said[index(rank)].find(text("rank ", rank, ",")) == 0);
    CHECK(said[index(rank)].find("peer 1: the peer gave up: " + fault) != std::string::npos);
  }
}

TEST_CASE("a group whose message is refused is not over for its sender either") {
  auto const said = run_group(2, seconds(60), [&](DoublePush& push, std::byte* memory) {
    Send const send{memory, 100, 1, "words"};
    Receive const receive{memory, 200, 0, "words"};
    Status status = push.rank() == 0 ? push.start({&send, 1}, {}) : push.start({}, {&receive, 1});
    if (push.rank() == 1) std::this_thread::sleep_for(milliseconds(100));
    if (status.ok()) status = push.finish();
    return status.message();
  });
  CHECK(said[0] == "rank 0, peer 1: the peer gave up: " + said[1]);
  CHECK(said[1] == "rank 1, peer 0: a message of 100 bytes met a receive of 200 bytes");
}

TEST_CASE("a message of another call, or of other documents, is told by its receiver") {
  auto const meet = [](Send const& send, Receive const& receive) {
    return run_group(2, seconds(60), [&](DoublePush& push, std::byte* memory) {
      Send s = send;
      Receive r = receive;
      s.data = memory, r.data = memory + 100;
      s.peer = 1, r.peer = 0;
      return (push.rank() == 0 ? exchange(push, {s}, {}) : exchange(push, {}, {r})).message();
    })[1];
  };
  Send send{nullptr, 8, 1, "kv", 2, 0, false, 5};
  Receive const receive{nullptr, 8, 0, "kv", 2, 0, false, 5};
  CHECK(meet(send, receive) == "ok");
  send.step = 3;
  CHECK(meet(send, receive) ==
        "rank 0 sent a message of step 3 of the forward of object 0, and rank 1 awaits kv of step 2 of the "
        "forward of "
        "object 0");
  send.step = 2, send.batch = 6;
  CHECK(meet(send, receive).find("rank 0 has planned other documents than rank 1") == 0);
}

TEST_CASE("what cannot be right is refused where it is asked for, and ends the group") {
  struct Case {
    std::function<std::pair<std::vector<Send>, std::vector<Receive>>(std::byte*)> group;
    std::string said;
  };
  std::vector<std::byte> elsewhere(16);
  std::vector<Case> const cases{
      {[](std::byte* m) {
         return std::pair(std::vector<Send>{{m, 8, 2, "a"}}, std::vector<Receive>{});
       },
       unsound_message},
      {[](std::byte*) {
         return std::pair(std::vector<Send>{{nullptr, 8, 1, "a"}}, std::vector<Receive>{});
       },
       unsound_message},
      {[](std::byte* m) {
         return std::pair(std::vector<Send>{}, std::vector<Receive>{{m, -1, 1, "a"}});
       },
       unsound_message},
      {[](std::byte* m) {
         return std::pair(std::vector<Send>(9, Send{m, 8, 1, "a"}), std::vector<Receive>{});
       },
       "a group has more messages for one peer than fit"},
      {[&](std::byte*) {
         return std::pair(std::vector<Send>{}, std::vector<Receive>{{elsewhere.data(), 8, 1, "a"}});
       },
       "given to share()"},
      {[](std::byte* m) {
         return std::pair(std::vector<Send>{}, std::vector<Receive>{{m + 4089, 8, 1, "a"}});
       },
       "given to share()"},
      {[](std::byte* m) {
         return std::pair(std::vector<Send>{}, std::vector<Receive>{{m - 1, 8, 1, "a"}});
       },
       "given to share()"},
      {[](std::byte* m) {
         return std::pair(std::vector<Send>{}, std::vector<Receive>{{m, std::int64_t{1} << 62, 1, "a"}});
       },
       "given to share()"}};
  for (Case const& wrong : cases) {
    auto const said = run_group(2, seconds(60), [&](DoublePush& push, std::byte* memory) {
      auto const [sends, recvs] = wrong.group(memory);
      Status const status =
          push.rank() == 0 ? exchange(push, sends, recvs) : exchange(push, {}, {{memory, 8, 0, "other", 4}});
      CHECK(exchange(push, {}, {}).message() == status.message());
      return status.message();
    });
    CHECK(said[0].find(wrong.said) != std::string::npos);
    INFO(said[1]);
    CHECK(said[1].find("rank 1, step 4, payload other, peer 0: the peer gave up: rank 0") == 0);
  }
  auto const said = run_group(2, seconds(60), [&](DoublePush& push, std::byte*) {
    if (push.rank() == 0) CHECK(push.start({}, {}).ok());
    return push.rank() == 0 ? push.start({}, {}).message() : std::string();
  });
  CHECK(said[0].find(call_under_way) != std::string::npos);
}

TEST_CASE("when the n-th operation of a rank's device fails it says so, and the others at once") {
  constexpr int groups = 3;
  for (int const world : {1, 2, 3})
    for (int failing = -1, calls = 1; failing < calls; ++failing) {
      CAPTURE(world);
      CAPTURE(failing);
      auto const begin = std::chrono::steady_clock::now();
      std::vector<int> made(index(world));
      std::string const name = fresh_name();
      auto const said = run_threads(world, [&](int rank) -> std::string {
        double_calls = {.failing = rank == world - 1 ? failing : -1};
        std::string text;
        try {
          DoubleMemory const memory(4096);
          DoubleStream stream;
          DoublePush push({name, rank, world}, &stream, {.timeout = seconds(60)});
          Status status = push.share(memory.span());
          for (int group = 0; group < groups && status.ok(); ++group)
            status = exchange(push, {{memory.data(), 64, (rank + 1) % world, "a"}},
                              {{memory.data() + 64, 64, (rank + world - 1) % world, "a"}});
          text = status.message();
          made[index(rank)] = double_calls.count;
        } catch (Error const& error) {
          text = error.what();
          made[index(rank)] = double_calls.count;
        }
        return text;
      });
      if (failing < 0) calls = std::min(made[index(world - 1)], 40);
      if (failing < 0) CHECK(said.back() == "ok");
      if (failing < 0 || made[index(world - 1)] <= failing)
        continue;  // it has looked at its stream less often
      CHECK(std::chrono::steady_clock::now() - begin < seconds(20));
      CHECK(said.back() != "ok");
      CHECK(said.back().find("the device refused ") != std::string::npos);
      for (std::size_t rank = 0; rank + 1 < said.size(); ++rank)
        if (said[rank] != "ok") CHECK(said[rank].find("the device refused ") != std::string::npos);
      CHECK(DoubleDevice::mapped == 0);
      CHECK(DoubleDevice::pinned == 0);
    }
}

TEST_CASE("a rank that gives up, or leaves, is named at once") {
  for (bool const leaves : {false, true}) {
    auto const begin = std::chrono::steady_clock::now();
    auto const said = run_group(3, seconds(60), [&](DoublePush& push, std::byte* memory) -> std::string {
      if (push.rank() == 2 && !leaves) push.withdraw({.code = Code::withdrawn, .said = "enough"});
      if (push.rank() == 2) return "";
      int const next = (push.rank() + 1) % 3, previous = (push.rank() + 2) % 3;
      return exchange(push, {{memory, 8, next, "a"}}, {{memory + 64, 8, previous, "a"}}).message();
    });
    CHECK(std::chrono::steady_clock::now() - begin < seconds(20));
    for (int const rank : {0, 1}) {
      std::string const& text = said[index(rank)];
      CHECK(text.find("peer 2: the peer gave up: ") != std::string::npos);
      CHECK(text.find(leaves ? "it has left the group" : "rank 2 has withdrawn: enough") !=
            std::string::npos);
    }
  }
}

TEST_CASE("a stream that waits for a rank which does not come is let go after the time-out") {
  // Rank 1's device hangs before its message, its host does not.
  std::latch over(2);
  auto const said = run_group(2, milliseconds(300), [&](DoublePush& push, std::byte* memory) -> std::string {
    if (push.rank() == 1) push.stream()->enqueue([&] { over.wait(); });
    Status status = push.start({{{memory, 8, 1 - push.rank(), "late", 3}}},
                               {{{memory + 64, 8, 1 - push.rank(), "late", 3}}});
    if (status.ok()) status = push.finish();
    REQUIRE(status.ok());
    if (push.rank() == 0) status = push.wait(push.stream());
    over.count_down();
    if (push.rank() == 1) over.wait(), status = push.wait(push.stream());
    return status.message();
  });
  CHECK(said[0] == "rank 0, step 3, payload late, peer 1: no answer within 300 ms");
  CHECK(said[1].find("peer 0: the peer gave up: " + said[0]) != std::string::npos);
}

TEST_CASE(
    "a graph of a group is replayed with other data each time, and cannot be awaited while it is captured") {
  for (int const world : {1, 2, 3}) {
    CAPTURE(world);
    auto const said = run_group(world, seconds(60), [&](DoublePush& push, std::byte* memory) -> std::string {
      int const rank = push.rank(), next = (rank + 1) % world, previous = (rank + world - 1) % world;
      int sent = 0, got = 0;
      DoubleStream::Graph graph;
      push.stream()->capture(&graph);
      Send const sends[] = {{&sent, sizeof sent, next, "a"}, {&sent, sizeof sent, previous, "b"}};
      Receive const recvs[] = {{memory, sizeof got, previous, "a"}, {memory + 64, sizeof got, next, "b"}};
      Status status = push.start(sends, recvs);
      if (status.ok()) status = push.finish();
      Status const waited = push.wait(push.stream());
      push.stream()->capture(nullptr);
      if (!status.ok() || waited.code != Code::capturing) return status.message() + ", " + waited.message();
      for (int round = 0; round < 100; ++round) {
        sent = 1000 * round + rank;
        if (round % 7 == 3) {  // and without the graph
          status = push.start(sends, recvs);
          if (status.ok()) status = push.finish();
        } else {
          for (auto const& operation : graph) push.stream()->enqueue(operation);
        }
        if (status.ok()) status = push.wait(push.stream());
        if (!status.ok()) return status.message();
        std::memcpy(&got, memory, sizeof got);
        if (got != 1000 * round + previous) return text("round ", round, ": ", got);
        std::memcpy(&got, memory + 64, sizeof got);
        if (got != 1000 * round + next) return text("round ", round, ", b: ", got);
      }
      return "";
    });
    for (std::string const& text : said) CHECK(text == "");
  }
}

TEST_CASE(
    "memory that cannot be shared is refused alike on all ranks, who go on; so is what was not shared") {
  std::string const name = fresh_name();
  auto const said = testing::run_processes(3, seconds(30), [&](int rank) -> std::string {
    DoubleStream stream;
    DoublePush push({name, rank, 3}, &stream);
    DoubleMemory const good(4096), other(4096);
    std::vector<std::byte> bad(4096);
    std::string text = push.share(rank >= 1 ? std::span(bad) : good.span()).message();
    text += "; " + push.unshare(good.span()).message();
    if (Status const status = push.share(good.span()); !status.ok()) return status.message();
    if (Status const status = push.share(other.span()); !status.ok()) return status.message();
    text += "; " + push.unshare(rank == 2 ? other.span() : good.span()).message();
    std::byte* const to = other.data() + 4000;
    int const next = (rank + 1) % 3, previous = (rank + 2) % 3;
    Status status = exchange(push, {{&rank, sizeof rank, next, "a"}}, {{to, sizeof rank, previous, "a"}});
    if (status.ok()) status = push.unshare(good.span());
    if (status.ok()) status = push.unshare(other.span());
    if (!status.ok() || std::memcmp(to, &previous, sizeof previous) != 0)
      return "it does not go on: " + status.message();
    return text;
  });
  for (std::string const& text : said)
    CHECK(text ==
          "the transport failed: rank 1: its memory cannot be shared: the double knows no such memory; "
          "the transport failed: rank 0: what it unshares is not shared; "
          "the transport failed: rank 2: it unshares other memory than rank 0");
}

TEST_CASE("seats and time-outs make sense") {
  auto const refused = [](PushSeat const& seat, milliseconds timeout) -> std::string {
    DoubleStream stream;
    try {
      DoublePush const push(seat, &stream, {.timeout = timeout});
    } catch (Error const& error) {
      return error.what();
    }
    return "nothing";
  };
  CHECK(refused({"name", 0, 0}, seconds(1)) == "lightseq: world is 0, it must be between 1 and 64");
  CHECK(refused({"name", 0, 65}, seconds(1)) == "lightseq: world is 65, it must be between 1 and 64");
  CHECK(refused({"name", 3, 3}, seconds(1)) == "lightseq: rank is 3, it must be between 0 and 2");
  CHECK(refused({"name", -1, 3}, seconds(1)) == "lightseq: rank is -1, it must be between 0 and 2");
  CHECK(refused({"", 0, 2}, seconds(1)).find("has 0 bytes, it must have between 1 and 90") !=
        std::string::npos);
  CHECK(refused({std::string(91, 'x'), 0, 2}, seconds(1)).find("has 91 bytes") != std::string::npos);
  CHECK(refused({"name", 0, 1}, milliseconds(-1)) ==
        "lightseq: the time-out is -1 ms, it must be between 0 and a year");
  CHECK(refused({"name", 0, 1}, milliseconds::max()).find("between 0 and a year") != std::string::npos);
  std::string const longest(90 - 20, 'x');
  CHECK(refused({longest, 1, 2}, milliseconds(20)).find("rank 0 did not come within 20 ms") !=
        std::string::npos);
}

TEST_CASE("ranks of another world, and ranks that come twice, are refused by all that have come") {
  for (bool const twice : {false, true}) {
    std::string const name = fresh_name();
    auto const said = run_threads(3, [&](int rank) -> std::string {
      DoubleStream stream;
      PushSeat const seat{name, twice && rank == 2 ? 1 : rank, !twice && rank == 2 ? 4 : 3};
      DoublePush const push(seat, &stream, {.timeout = milliseconds(300)});
      return "it came";
    });
    std::string const why = twice ? "rank 1 came twice" : "the world is 4 on rank 2 and 3 on rank 0";
    CHECK(said[0].find(why) != std::string::npos);
    CHECK(said[2] != "it came");
  }
}

TEST_CASE("another device than at the construction is refused") {
  auto const said = run_group(1, seconds(1), [&](DoublePush& push, std::byte*) {
    double_calls.device = 3;
    std::string const text = push.start({}, {}).message();
    double_calls.device = 0;
    return text;
  });
  CHECK(said[0] == "rank 0: GPU 3 is current, but the object was constructed with GPU 0");
}

}  // namespace
}  // namespace lightseq::test
