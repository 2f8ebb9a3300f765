// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "laws/transport.hpp"
#include "lightseq/transport/local.hpp"
#include "support/at_once.hpp"

namespace lightseq::test {
namespace {

using std::chrono::milliseconds;

/// Longer than any test takes: whoever waits for it does not end promptly.
constexpr milliseconds never = std::chrono::minutes(1);
constexpr milliseconds promptly = std::chrono::seconds(20);

class Stopwatch {
 public:
  milliseconds elapsed() const {
    return std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - start_);
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

std::size_t index(int rank) { return static_cast<std::size_t>(rank); }

/// start() and finish() of one group: the first that fails.
Status group(Local& local, std::vector<Send> const& sends, std::vector<Receive> const& recvs) {
  Status const status = local.start(sends, recvs);
  return status.ok() ? local.finish() : status;
}

/// Every call of every rank fails at once: that of `culprit` says the same again, those of others name it and
/// what it says.
void check_broken(LocalWorld& world, int culprit) {
  Stopwatch const watch;
  CHECK(world.failed_rank() == culprit);
  Status const cause = world[culprit].finish();
  CHECK(!cause.ok());
  CHECK(cause.code != Code::peer_failed);
  for (int rank = 0; rank < world.world(); ++rank)
    for (Status const& status : {world[rank].finish(), world[rank].start({}, {}), world[rank].finish(),
                                 group(world[rank], {}, {})}) {
      CHECK(status.rank == rank);
      if (rank == culprit) {
        CHECK(status.message() == cause.message());
      } else {
        CHECK(status.code == Code::peer_failed);
        CHECK(status.peer == culprit);
        CHECK(status.message() ==
              text("rank ", rank, ", peer ", culprit, ": the peer gave up: ", cause.message()));
      }
    }
  CHECK(watch.elapsed() < promptly);
}

TEST_CASE("when the n-th start() of a rank fails, every rank stops at once and its memory is its own again") {
  constexpr int groups = 4;
  constexpr std::int64_t bytes = 20'000;
  for (int size = 1; size <= 8; ++size)
    for (int failing = 0; failing < size; ++failing)
      at_once(groups, [&](int call) {
        CAPTURE(run_seed());
        CAPTURE(size);
        CAPTURE(failing);
        CAPTURE(call);
        LocalWorld world(size, {.timeout = never,
                                .max_delay = std::chrono::microseconds(300),
                                .seed = run_seed() + static_cast<std::uint64_t>(call),
                                .failing_rank = failing,
                                .failing_start = call});
        std::vector<Status> ends(index(size));
        std::vector<int> done(index(size));
        std::vector<std::string> wrong(index(size));
        Stopwatch const watch;
        run_ranks(world, [&](Local& local) {
          for (int g = 0; g < groups; ++g) {
            // Everybody sends to the two next ranks. The buffers are this group's: they die with it.
            std::vector<Bytes> sources, targets, contents;
            for (int const distance : {1, 2}) {
              int const from = (local.rank() + 2 * size - distance) % size;
              std::mt19937_64 own = agreed(run_seed(), g, local.rank(), distance);
              std::mt19937_64 other = agreed(run_seed(), g, from, distance);
              sources.push_back(random_bytes(own, bytes));
              contents.push_back(random_bytes(other, bytes));
              targets.push_back(poison(contents.back().size()));
            }
            std::vector<Send> sends;
            std::vector<Receive> recvs;
            for (int const i : {0, 1}) {
              sends.push_back({sources[index(i)].data(), bytes, (local.rank() + 1 + i) % size, "out"});
              recvs.push_back(
                  {targets[index(i)].data(), bytes, (local.rank() + 2 * size - 1 - i) % size, "in"});
            }
            Status const status = group(local, sends, recvs);
            for (Bytes& source : sources) source = poison(source.size());
            // After a failure each target is whole or untouched: no poison came from a rank that had left.
            for (int const i : {0, 1})
              if (status.ok() || targets[index(i)] != poison(index(bytes)))
                wrong[index(local.rank())] += difference(targets[index(i)], contents[index(i)]);
            ends[index(local.rank())] = status;
            if (!status.ok()) return;
            ++done[index(local.rank())];
          }
        });
        CHECK(watch.elapsed() < promptly);
        for (int rank = 0; rank < size; ++rank) {
          CAPTURE(rank);
          Status const& end = ends[index(rank)];
          CHECK(wrong[index(rank)] == "");
          CHECK(end.rank == (end.ok() ? -1 : rank));
          if (rank == failing) {
            CHECK(end.code == Code::transport_failed);
            CHECK(end.native == Local::injected);
            CHECK(done[index(rank)] == call);
          } else {
            // Who needs nothing from the failed rank may still end its last groups.
            int const behind = (rank - failing + size) % size;
            bool const needs_it = std::min(behind, size - behind) <= 2;
            if (needs_it) CHECK(done[index(rank)] <= call);
            if (needs_it || !end.ok()) {
              CHECK(end.code == Code::peer_failed);
              CHECK(end.peer == failing);
            }
          }
        }
        check_broken(world, failing);
      });
}

TEST_CASE("a rank that never comes is named by the first that has waited long enough, and stops the others") {
  constexpr milliseconds timeout{10};
  for (bool const is_receiver : {false, true})
    for (int size = 2; size <= 8; ++size)
      at_once(size, [&](int missing) {
        CAPTURE(is_receiver);
        CAPTURE(size);
        CAPTURE(missing);
        LocalWorld world(size, {.timeout = timeout});
        std::vector<Status> ends(index(size));
        Stopwatch const watch;
        run_ranks_to_the_last(world, [&](Local& local) {
          if (local.rank() == missing) return;
          int number = 0;
          Status& end = ends[index(local.rank())];
          if (is_receiver)
            end = group(local, {{&number, sizeof number, missing, "result"}}, {});
          else
            end = group(local, {}, {{&number, sizeof number, missing, "input"}});
        });
        CHECK(watch.elapsed() >= timeout);
        CHECK(watch.elapsed() < promptly);
        int const first = world.failed_rank();
        REQUIRE(first >= 0);
        REQUIRE(first != missing);
        for (int rank = 0; rank < size; ++rank) {
          if (rank == missing) continue;
          Status const& end = ends[index(rank)];
          CHECK(end.rank == rank);
          CHECK(end.code == (rank == first ? Code::timeout : Code::peer_failed));
          CHECK(end.peer == (rank == first ? missing : first));
          if (rank != first) continue;
          CHECK(std::string(end.subject) == (is_receiver ? "result" : "input"));
          CHECK(end.need == timeout.count());
        }
        check_broken(world, first);
      });
}

TEST_CASE("a rank whose function returns is not awaited, and is named by the first that needs it") {
  for (bool const is_receiver : {false, true})
    for (int size = 2; size <= 8; ++size)
      for (int ended = 0; ended < size; ++ended) {
        CAPTURE(is_receiver);
        CAPTURE(size);
        CAPTURE(ended);
        LocalWorld world(size, {.timeout = never});
        std::vector<Status> ends(index(size));
        Stopwatch const watch;
        run_ranks(world, [&](Local& local) {
          // A ring in which all take part; then the others need one that does not.
          int const here = local.rank(), next = (here + 1) % size, last = (here + size - 1) % size;
          int sent = here, received = -1;
          Status& end = ends[index(here)];
          end =
              group(local, {{&sent, sizeof sent, next, "all"}}, {{&received, sizeof received, last, "all"}});
          if (here == ended) return;
          if (here % 2 == 0) std::this_thread::sleep_for(milliseconds(2));
          end = is_receiver ? group(local, {{&sent, sizeof sent, ended, "result"}}, {})
                            : group(local, {}, {{&received, sizeof received, ended, "input"}});
        });
        CHECK(watch.elapsed() < promptly);
        int const first = world.failed_rank();
        REQUIRE(first >= 0);
        REQUIRE(first != ended);
        for (int rank = 0; rank < size; ++rank) {
          std::string const cause =
              text("rank ", first, ", peer ", ended, ": the peer gave up: its function has returned");
          if (rank == ended)
            CHECK(ends[index(rank)].ok());
          else if (rank == first)
            CHECK(ends[index(rank)].message() == cause);
          else
            CHECK(
                ends[index(rank)].message().ends_with(text(", peer ", first, ": the peer gave up: ", cause)));
        }
      }
}

TEST_CASE("a rank whose function has returned keeps nobody from going on, nor from another run") {
  LocalWorld world(3, {.timeout = never});
  for (int repeat = 0; repeat < 50; ++repeat)
    run_ranks(world, [&](Local& local) {
      int number = 0;
      if (local.rank() == repeat % 3) return;
      int const other = 3 - repeat % 3 - local.rank();
      for (int i = 0; i < 3; ++i)
        if (local.rank() < other)
          CHECK(group(local, {{&number, sizeof number, other, "out"}}, {}).message() == "ok");
        else
          CHECK(group(local, {}, {{&number, sizeof number, other, "in"}}).message() == "ok");
    });
}

TEST_CASE("a message whose ends are in different groups times out, for every pair") {
  constexpr milliseconds timeout{10};
  for (int size = 2; size <= 4; ++size)
    at_once(size * size, [&](int pair) {
      int const a = pair / size, b = pair % size;
      if (a == b) return;
      CAPTURE(size);
      CAPTURE(a);
      CAPTURE(b);
      LocalWorld world(size, {.timeout = timeout});
      std::vector<Status> ends(index(size));
      run_ranks(world, [&](Local& local) {
        int sent = 1, received = 0;
        Status& end = ends[index(local.rank())];
        if (local.rank() != a && local.rank() != b) return;
        // a sends, then receives; so does b. Buffers would hide it.
        int const peer = local.rank() == a ? b : a;
        end = group(local, {{&sent, sizeof sent, peer, "early"}}, {});
        if (end.ok()) end = group(local, {}, {{&received, sizeof received, peer, "late"}});
      });
      int const first = world.failed_rank();
      REQUIRE((first == a || first == b));
      int const other = first == a ? b : a;
      CHECK(ends[index(first)].code == Code::timeout);
      CHECK(ends[index(first)].peer == other);
      CHECK(std::string(ends[index(first)].subject) == "early");
      CHECK(ends[index(other)].code == Code::peer_failed);
      CHECK(ends[index(other)].peer == first);
    });
}

/// A chain in which each rank waits for what the next one sends on: rank 0 for rank 1, and so on. Rank r
/// begins r pauses after rank 0, and computes for `work` between start() and finish() if it is the last.
Status hand_down(Local& local, int size, milliseconds pause, milliseconds work) {
  int number = 0;
  int const rank = local.rank();
  std::this_thread::sleep_for(rank * pause);
  std::vector<Send> const sends = {{&number, sizeof number, rank - 1, "down", 0}};
  std::vector<Receive> const recvs = {{&number, sizeof number, rank + 1, "down", 0}};
  if (rank + 1 < size)
    if (Status const status = group(local, {}, recvs); !status.ok()) return status;
  if (rank + 1 == size) {
    if (Status const status = local.start({}, {}); !status.ok()) return status;
    std::this_thread::sleep_for(work);
    if (Status const status = local.finish(); !status.ok()) return status;
  }
  return rank > 0 ? group(local, sends, {}) : Status{};
}

TEST_CASE(
    "a rank that computes for several time-outs is awaited, by those too that wait for who waits for it") {
  constexpr milliseconds timeout{50};
  at_once(8, [&](int index_of_case) {
    int const size = 2 + index_of_case / 2, absent = index_of_case % 2;
    CAPTURE(size);
    CAPTURE(absent);
    LocalWorld world(size, {.timeout = timeout});
    std::vector<Status> ends(index(size));
    Stopwatch const watch;
    run_ranks_to_the_last(world, [&](Local& local) {
      // The second time the last rank computes as long, and does not come to the next group.
      Status& end = ends[index(local.rank())];
      end = hand_down(local, size, milliseconds(0), 5 * timeout);
      if (end.ok() && (absent == 0 || local.rank() + 1 < size))
        end = hand_down(local, size, milliseconds(3), milliseconds(0));
    });
    CHECK(watch.elapsed() >= 5 * timeout);
    for (int rank = 0; rank < size; ++rank) {
      CAPTURE(rank);
      std::string const cause = text("rank ", size - 2, ", step 0, payload down, peer ", size - 1,
                                     ": no answer within ", timeout.count(), " ms");
      std::string const& said = ends[index(rank)].message();
      if (absent == 0 || rank + 1 == size)
        CHECK(said == "ok");
      else if (rank + 2 == size)
        CHECK(said == cause);
      else
        CHECK(said.ends_with(text(", peer ", size - 2, ": the peer gave up: ", cause)));
    }
  });
}

TEST_CASE("a rank that does nothing for less than the time-out is awaited, however long others have waited") {
  constexpr milliseconds timeout{200};
  at_once(2, [&](int index_of_case) {
    int const waited = 1 + index_of_case;
    CAPTURE(waited);
    LocalWorld world(2, {.timeout = timeout});
    run_ranks(world, [&](Local& local) {
      int number = 0;
      if (local.rank() == 0) {
        CHECK(group(local, {}, {{&number, sizeof number, 1, "in"}}).message() == "ok");
        return;
      }
      // It does nothing while the other one looks whether it has waited long enough.
      CHECK(local.start({}, {}).ok());
      std::this_thread::sleep_for(waited * timeout - timeout / 5);
      CHECK(local.finish().ok());
      std::this_thread::sleep_for(timeout / 2);
      CHECK(group(local, {{&number, sizeof number, 0, "out"}}, {}).message() == "ok");
    });
  });
}

TEST_CASE("a call of a broken world names what it has to do with the rank that broke it, else any message") {
  int number = 0;
  for (int const culprit : {1, 2})
    for (int sent = 0; sent < 4; ++sent)
      for (int awaited = 0; awaited < 4; ++awaited)
        for (bool const descending : {false, true}) {
          std::vector<Send> sends;
          std::vector<Receive> recvs;
          for (int const peer : descending ? std::vector{2, 1} : std::vector{1, 2}) {
            if ((sent & peer) != 0) sends.push_back({&number, 4, peer, peer == 1 ? "to 1" : "to 2"});
            if ((awaited & peer) != 0) recvs.push_back({&number, 4, peer, peer == 1 ? "from 1" : "from 2"});
          }
          std::string const want = (awaited & culprit) != 0 ? text("from ", culprit)
                                   : (sent & culprit) != 0  ? text("to ", culprit)
                                   : awaited != 0           ? text("from ", 3 - culprit)
                                   : sent != 0              ? text("to ", 3 - culprit)
                                                            : "";
          LocalWorld world(3, {.timeout = never});
          world[culprit].withdraw();
          CHECK(std::string(world[0].start(sends, recvs).subject) == want);
        }
}

TEST_CASE("who waits next to an absent rank names it, though others have waited for longer") {
  constexpr milliseconds timeout{60};
  for (int size = 3; size <= 6; ++size) {
    CAPTURE(size);
    LocalWorld world(size, {.timeout = timeout});
    std::vector<Status> ends(index(size));
    run_ranks_to_the_last(world, [&](Local& local) {
      if (local.rank() + 1 < size)
        ends[index(local.rank())] = hand_down(local, size, milliseconds(10), milliseconds(0));
    });
    CHECK(world.failed_rank() == size - 2);
    CHECK(ends[index(size - 2)].code == Code::timeout);
    CHECK(ends[index(size - 2)].peer == size - 1);
  }
}

TEST_CASE("ranks that wait for each other in a circle time out") {
  for (int size = 2; size <= 5; ++size) {
    CAPTURE(size);
    LocalWorld world(size, {.timeout = milliseconds(20)});
    std::vector<Status> ends(index(size));
    Stopwatch const watch;
    run_ranks(world, [&](Local& local) {
      int number = 0;
      ends[index(local.rank())] =
          group(local, {}, {{&number, sizeof number, (local.rank() + 1) % size, "never sent"}});
    });
    CHECK(watch.elapsed() < promptly);
    int const first = world.failed_rank();
    REQUIRE(first >= 0);
    CHECK(ends[index(first)].code == Code::timeout);
    CHECK(ends[index(first)].peer == (first + 1) % size);
  }
}

TEST_CASE("a message that its link has for longer than the time-out is missed, whatever its sender does") {
  constexpr milliseconds timeout{20}, latency = 6 * timeout;
  at_once(4, [&](int index_of_case) {
    int const messages = index_of_case < 2 ? 1 : Local::messages_per_peer;
    bool const computes = index_of_case % 2 == 1;
    CAPTURE(messages);
    CAPTURE(computes);
    LocalWorld world(2, {.timeout = timeout, .link_latency = latency});
    int const sent = 7;
    std::vector<int> received(index(messages));
    std::vector<Send> const sends(index(messages), {&sent, sizeof sent, 1, "out"});
    std::vector<Receive> recvs;
    for (int& number : received) recvs.push_back({&number, sizeof number, 0, "in"});
    Status end;
    run_ranks(world, [&](Local& local) {
      if (local.rank() == 1) {
        end = group(local, {}, recvs);
        return;
      }
      CHECK(local.start(sends, {}).ok());
      if (computes) std::this_thread::sleep_for(2 * latency);
      CHECK_FALSE(local.finish().ok());
    });
    CHECK(end.message() == "rank 1, peer 0: no answer within 20 ms");
    CHECK(received == std::vector<int>(index(messages)));
    check_broken(world, 1);
  });
}

TEST_CASE("a link brings bytes late however slow it is, and no bytes at once") {
  for (double const rate : {std::numeric_limits<double>::denorm_min(), 1e-300, 1e-30, 1e-6, 1.0, 1e3})
    for (std::int64_t const bytes : {0, 1'000, 1'000'000}) {
      CAPTURE(rate);
      CAPTURE(bytes);
      LocalWorld world(2, {.timeout = milliseconds(10), .link_bytes_per_second = rate});
      Bytes const source(index(1'000'000), 1);
      Bytes target = poison(source.size());
      Send const send{source.data(), bytes, 1, "out"};
      REQUIRE(world[0].start({&send, 1}, {}).ok());
      Status const end = group(world[1], {}, {{target.data(), bytes, 0, "in"}});
      CHECK(end.code == (bytes == 0 ? Code::ok : Code::timeout));
      CHECK(target == poison(source.size()));
    }
}

TEST_CASE("a rank that returns with a group open breaks the world") {
  LocalWorld world(2, {.timeout = never});
  Status end;
  run_ranks(world, [&](Local& local) {
    static int number = 0;
    if (local.rank() == 0)
      CHECK(local.start({}, {}).ok());
    else
      end = group(local, {}, {{&number, sizeof number, 0, "in"}});
  });
  CHECK(end.message() == "rank 1, peer 0: the peer gave up: rank 0 has withdrawn: it left a group open");
  check_broken(world, 0);
}

TEST_CASE("a message of another call than the awaited one is refused, with both") {
  int number = 5;
  struct Case {
    Send sent;
    Receive awaited;
    char const* text;
  };
  int const none = -1;
  std::vector<Case> const cases = {
      {{&number, 4, 1, "dq", 3, 7, true},
       {&number, 4, 0, "kv", 2, 8, false},
       "rank 0 sent dq of step 3 of the backward of object 7, and rank 1 awaits kv of step 2 of the forward "
       "of "
       "object 8"},
      {{&number, 4, 1, "kv", 3, 7, false},
       {&number, 4, 0, "kv", 3, 8, false},
       "rank 0 sent kv of step 3 of the forward of object 7, and rank 1 awaits kv of step 3 of the forward "
       "of "
       "object 8"},
      {{&number, 4, 1, "kv", 3, 7, false},
       {&number, 4, 0, "kv", 4, 7, false},
       "rank 0 sent kv of step 3 of the forward of object 7, and rank 1 awaits kv of step 4 of the forward "
       "of "
       "object 7"},
      {{&number, 4, 1, "kv", 3, 7, true},
       {&number, 8, 0, "kv", 3, 7, false},
       "rank 0 sent kv of step 3 of the backward of object 7, and rank 1 awaits kv of step 3 of the forward "
       "of "
       "object 7"},
      {{&number, 4, 1, "kv", 3, 7, true}, {&number, 4, 0, "kv", 3, 7, true}, "ok"},
      {{&number, 4, 1, "kv", 3, none, true}, {&number, 4, 0, "kv", 4, 7, false}, "ok"},
      {{&number, 4, 1, "kv", 3, 7, true}, {&number, 4, 0, "kv", 4, none, false}, "ok"}};
  for (Case const& c : cases) {
    LocalWorld world(2, {.timeout = never});
    int target = 0;
    Receive awaited = c.awaited;
    awaited.data = &target;
    REQUIRE(world[0].start({&c.sent, 1}, {}).ok());
    CHECK(group(world[1], {}, {awaited}).message() == c.text);
    Status const end = world[0].finish();
    CHECK(end.ok() == (c.text == std::string("ok")));
    CHECK(target == (end.ok() ? 5 : 0));
    if (!end.ok()) CHECK(end.message() == text("rank 0, peer 1: the peer gave up: ", c.text));
  }
}

TEST_CASE("the second of two messages that nobody takes is blamed, not the first") {
  LocalWorld world(3, {.timeout = milliseconds(20)});
  int const sent = 7;
  int received = 0;
  std::vector<Send> const sends = {{&sent, sizeof sent, 1, "taken"}, {&sent, sizeof sent, 2, "left"}};
  std::vector<Receive> const recvs = {{&received, sizeof received, 0, "in"}};
  REQUIRE(world[0].start(sends, {}).ok());
  CHECK(group(world[1], {}, recvs).ok());
  CHECK(received == sent);
  Status const end = world[0].finish();
  CHECK(end.code == Code::timeout);
  CHECK(end.peer == 2);
  CHECK(std::string(end.subject) == "left");
  CHECK(end.message() == "rank 0, peer 2: no answer within 20 ms");
  check_broken(world, 0);
}

TEST_CASE("a size that differs fails at the receiver, with both sizes, and stops everybody") {
  for (std::int64_t const sent : {0, 1, 7, 8, 4096})
    for (std::int64_t const expected : {0, 1, 7, 8, 4096})
      for (int good = 0; good < 3; ++good) {
        if (sent == expected) continue;
        CAPTURE(sent);
        CAPTURE(expected);
        CAPTURE(good);
        LocalWorld world(3, {.timeout = never});
        std::vector<Status> ends(3);
        Bytes target = poison(index(4096));
        Stopwatch const watch;
        run_ranks(world, [&](Local& local) {
          // Rank 0 sends `good` messages that fit and one that does not to rank 1, on which rank 2 waits.
          Bytes const source(4096);
          Bytes small(4);
          std::vector<Send> sends(index(good), {source.data(), 4, 1, "out"});
          std::vector<Receive> recvs(index(good), {small.data(), 4, 0, "in"});
          sends.push_back({source.data(), sent, 1, "bad out"});
          recvs.push_back({target.data(), expected, 0, "bad in"});
          Status& end = ends[index(local.rank())];
          if (local.rank() == 0) end = group(local, sends, {});
          if (local.rank() == 1) end = group(local, {}, recvs);
          if (local.rank() == 2) end = group(local, {}, {{small.data(), 4, 1, "never sent"}});
        });
        CHECK(watch.elapsed() < promptly);
        CHECK(target == poison(index(4096)));
        CHECK(ends[1].code == Code::size_mismatch);
        CHECK(ends[1].rank == 1);
        CHECK(ends[1].peer == 0);
        CHECK(std::string(ends[1].subject) == "bad in");
        CHECK(ends[1].have == sent);
        CHECK(ends[1].need == expected);
        for (int const rank : {0, 2}) {
          CHECK(ends[index(rank)].code == Code::peer_failed);
          CHECK(ends[index(rank)].peer == 1);
        }
        check_broken(world, 1);
      }
}

TEST_CASE("calls that make no sense fail with a code of their own") {
  int number = 0;
  auto const largest = index(3 * Local::messages_per_peer);
  struct Case {
    std::vector<Send> sends;
    std::vector<Receive> recvs;
    int native;
    int peer;
    char const* label;
  };
  std::vector<Case> const cases = {
      {{{&number, 4, 1, "fine"}, {&number, 4, -1, "x"}}, {}, Local::bad_message, -1, "x"},
      {{{&number, 4, 3, "x"}}, {}, Local::bad_message, 3, "x"},
      {{{&number, -4, 1, "x"}}, {}, Local::bad_message, 1, "x"},
      {{{nullptr, 4, 1, "x"}}, {}, Local::bad_message, 1, "x"},
      {{}, {{&number, 4, 1, "fine"}, {&number, 4, -1, "y"}}, Local::bad_message, -1, "y"},
      {{},
       {{&number, 4, std::numeric_limits<int>::max(), "y"}},
       Local::bad_message,
       std::numeric_limits<int>::max(),
       "y"},
      {{}, {{&number, std::numeric_limits<std::int64_t>::min(), 2, "y"}}, Local::bad_message, 2, "y"},
      {{}, {{nullptr, 1, 2, "y"}}, Local::bad_message, 2, "y"},
      {std::vector<Send>(largest + 1, {&number, 4, 1, "x"}), {}, Local::group_too_large, -1, ""},
      {{}, std::vector<Receive>(largest + 1, {&number, 4, 1, "y"}), Local::group_too_large, -1, ""}};
  for (Case const& c : cases) {
    LocalWorld world(3, {.timeout = never});
    Status const status = world[0].start(c.sends, c.recvs);
    CHECK(status.code == Code::transport_failed);
    CHECK(status.native == c.native);
    CHECK(status.message().find(c.native == Local::bad_message
                                    ? ": the transport failed: the message's peer is no rank"
                                    : "rank 0: the transport failed: a group has more messages than fit") !=
          std::string::npos);
    CHECK(status.rank == 0);
    CHECK(status.peer == c.peer);
    CHECK(std::string(status.subject) == c.label);
    check_broken(world, 0);
  }
}

TEST_CASE("a second start() before finish() fails, one after it does not") {
  LocalWorld world(2, {.timeout = never});
  for (int repeat = 0; repeat < 3; ++repeat) CHECK(group(world[0], {}, {}).ok());
  int const number = 1;
  Send const send{&number, sizeof number, 1, "x"};
  REQUIRE(world[0].start({&send, 1}, {}).ok());
  Status const status = world[0].start({}, {});
  CHECK(status.code == Code::transport_failed);
  CHECK(status.native == Local::group_open);
  CHECK(status.message() == "rank 0: the transport failed: a call is under way on this endpoint");
  check_broken(world, 0);
}

TEST_CASE("the largest group that is allowed passes, however it is spread over the peers") {
  constexpr int size = 3, most = size * Local::messages_per_peer;
  for (int to_first = 0; to_first <= most; ++to_first) {
    LocalWorld world(size, {.timeout = never});
    std::vector<int> sent(index(most)), received(index(most), -1);
    std::vector<Send> sends;
    std::vector<std::vector<Receive>> recvs(index(size));
    for (int i = 0; i < most; ++i) {
      int const peer = i < to_first ? 1 : 2;
      sent[index(i)] = i;
      sends.push_back({&sent[index(i)], sizeof(int), peer, "out"});
      recvs[index(peer)].push_back({&received[index(i)], sizeof(int), 0, "in"});
    }
    REQUIRE(world[0].start(sends, {}).ok());
    for (int const peer : {2, 1}) REQUIRE(group(world[peer], {}, recvs[index(peer)]).ok());
    REQUIRE(world[0].finish().ok());
    CHECK(received == sent);
  }
}

TEST_CASE("a rank that throws stops the others, and its exception is the one that comes out") {
  for (int size = 1; size <= 8; ++size)
    for (int thrower = 0; thrower < size; ++thrower) {
      CAPTURE(size);
      CAPTURE(thrower);
      LocalWorld world(size, {.timeout = never});
      std::vector<Status> ends(index(size));
      Stopwatch const watch;
      auto const run = [&] {
        run_ranks(world, [&](Local& local) {
          int number = 0;
          if (local.rank() == thrower) throw std::runtime_error("the cause");
          ends[index(local.rank())] = group(local, {}, {{&number, sizeof number, thrower, "in"}});
          throw std::logic_error("a consequence");
        });
      };
      CHECK_THROWS_WITH_AS(run(), "the cause", std::runtime_error);
      CHECK(watch.elapsed() < promptly);
      for (int rank = 0; rank < size; ++rank) {
        if (rank == thrower) continue;
        CHECK(ends[index(rank)].message() == text("rank ", rank, ", peer ", thrower,
                                                  ": the peer gave up: rank ", thrower,
                                                  " has withdrawn: the cause"));
      }
      check_broken(world, thrower);
    }
}

TEST_CASE("withdraw() lets those finish who copy, and the memory may go") {
  CAPTURE(run_seed());
  for (int repeat = 0; repeat < 50; ++repeat) {
    LocalWorld world(2, {.timeout = never,
                         .max_delay = std::chrono::microseconds(500),
                         .seed = run_seed() + static_cast<std::uint64_t>(repeat)});
    constexpr std::int64_t bytes = 1 << 18;
    std::mt19937_64 engine = agreed(run_seed(), repeat);
    Bytes const content = random_bytes(engine, bytes);
    Bytes target = poison(content.size());
    Status end;
    run_ranks(world, [&](Local& local) {
      if (local.rank() == 1) {
        end = group(local, {}, {{target.data(), bytes, 0, "in"}});
        return;
      }
      Bytes source = content;
      Send const send{source.data(), bytes, 1, "out"};
      if (!local.start({&send, 1}, {}).ok()) return;
      std::this_thread::sleep_for(std::chrono::microseconds(repeat * 10));
      local.withdraw();
      std::fill(source.begin(), source.end(), static_cast<unsigned char>(0));
    });
    // The receiver may have had it before the sender gave up.
    CHECK((end.ok() || (end.code == Code::peer_failed && end.peer == 0)));
    if (end.ok() || target != poison(target.size())) CHECK(difference(target, content) == "");
    check_broken(world, 0);
  }
}

}  // namespace
}  // namespace lightseq::test
