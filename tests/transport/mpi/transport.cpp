// SPDX-License-Identifier: Apache-2.0
#include "laws/transport.hpp"

#include <doctest/doctest.h>

#include <chrono>
#include <limits>
#include <numeric>
#include <optional>
#include <thread>

#include "lightseq/transport/mpi.hpp"
#include "transport/mpi/processes.hpp"

namespace lightseq::test {
namespace {

using std::chrono::milliseconds;

/// The first processes as a world; the others look on.
template <std::int64_t PieceBytes>
class MpiHarness {
 public:
  using Transport = Mpi;
  using Memory = HostMemory;
  static std::vector<int> worlds() {
    std::vector<int> sizes(static_cast<std::size_t>(processes()));
    std::iota(sizes.begin(), sizes.end(), 1);
    return sizes;
  }

  explicit MpiHarness(int world, milliseconds timeout = milliseconds(60000)) : members_(world) {
    if (members_.taking_part())
      transport_.emplace(members_.comm(), MpiOptions{.timeout = timeout, .piece_bytes = PieceBytes});
  }

  std::uint64_t seed() const { return run_seed(); }

  template <class F>
  std::vector<std::string> run(F f) {
    std::string report;
    if (transport_) report = f(*transport_);
    if (!report.empty()) transport_->withdraw();
    return gathered(report);
  }

 private:
  FirstProcesses members_;
  std::optional<Mpi> transport_;
};

using Whole = MpiHarness<(1 << 30)>;
using InPieces = MpiHarness<4000>;
TEST_CASE_TEMPLATE_INVOKE(transport_laws, Whole, InPieces);

/// start() and finish() of one group: the first that fails.
Status group(Mpi& mpi, std::vector<Send> const& sends, std::vector<Receive> const& recvs) {
  Status const status = mpi.start(sends, recvs);
  return status.ok() ? mpi.finish() : status;
}

/// Once broken, a transport says so at once, and names the rank that broke it and what that said; the culprit
/// says the same again.
std::string broken(Mpi& mpi, int culprit, std::string const& cause) {
  auto const want = mpi.rank() == culprit
                        ? cause
                        : text("rank ", mpi.rank(), ", peer ", culprit, ": the peer gave up: ", cause);
  for (Status const& status : {mpi.start({}, {}), mpi.finish(), mpi.start({}, {})})
    if (status.message() != want) return text("broken by ", culprit, ", it says: ", status.message());
  return mpi.failed_rank() == culprit ? "" : text("failed_rank() is ", mpi.failed_rank());
}

/// A complaint where a status does not read as it should; otherwise that of `next()`.
template <class Next>
std::string expect(Status const& status, std::string const& want, Next next) {
  return status.message() == want ? next() : text("'", status.message(), "' in place of '", want, "'");
}

void none_complains(std::vector<std::string> const& reports) {
  for (std::string const& report : reports) CHECK(report == "");
}

TEST_CASE("a size that differs fails at the receiver, with both sizes, and stops everybody") {
  if (processes() < 3) return;
  for (std::int64_t const sent : {0, 1, 3999, 4000, 4001, 8000, 12000, 30000})
    for (std::int64_t const expected : {0, 1, 3999, 4000, 4001, 8000, 12000, 30000}) {
      if (sent == expected) continue;
      CAPTURE(sent);
      CAPTURE(expected);
      InPieces world(3);
      none_complains(world.run([&](Mpi& mpi) {
        static Bytes source(30000), target(30000), small(4);
        Status end;
        if (mpi.rank() == 0)
          end = group(mpi, {{source.data(), 4, 1, "good"}, {source.data(), sent, 1, "bad out"}},
                      {{small.data(), 4, 1, "never sent"}});
        if (mpi.rank() == 1)
          end = group(mpi, {}, {{small.data(), 4, 0, "good"}, {target.data(), expected, 0, "bad in"}});
        if (mpi.rank() == 2) end = group(mpi, {}, {{small.data(), 4, 1, "never sent"}});
        auto const cause =
            text("rank 1, peer 0: a message of ", sent, " bytes met a receive of ", expected, " bytes");
        return expect(
            end, mpi.rank() == 1 ? cause : text("rank ", mpi.rank(), ", peer 1: the peer gave up: ", cause),
            [&] { return broken(mpi, 1, cause); });
      }));
    }
}

TEST_CASE("a rank that never comes is missed after the time-out, and a rank that withdraws at once") {
  for (bool const withdraws : {false, true})
    for (int size = 2; size <= processes(); ++size)
      for (int absent : {0, size - 1}) {
        CAPTURE(withdraws);
        CAPTURE(size);
        CAPTURE(absent);
        milliseconds const timeout(withdraws ? 60000 : 150);
        auto const begin = std::chrono::steady_clock::now();
        Whole world(size, timeout);
        none_complains(world.run([&](Mpi& mpi) -> std::string {
          static int number;
          if (mpi.rank() == absent) {
            if (withdraws) mpi.withdraw();
            return "";
          }
          Status const end = group(mpi, {}, {{&number, sizeof number, absent, "input"}});
          if (withdraws) {
            auto const cause = text("rank ", absent, " has withdrawn");
            return expect(end, text("rank ", mpi.rank(), ", peer ", absent, ": the peer gave up: ", cause),
                          [&] { return broken(mpi, absent, cause); });
          }
          // Who has waited long enough stops the others.
          auto const cause = [&](int rank) {
            return text("rank ", rank, ", peer ", absent, ": no answer within 150 ms");
          };
          if (end.code == Code::peer_failed && end.peer != absent)
            return broken(mpi, end.peer, cause(end.peer));
          return expect(end, cause(mpi.rank()), [&] { return broken(mpi, mpi.rank(), end.message()); });
        }));
        CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
      }
}

TEST_CASE("a rank whose transport an exception unwinds, or that leaves a group open, is heard at once") {
  for (bool const throws : {false, true})
    for (int size = 2; size <= std::min(processes(), 4); ++size)
      for (int const culprit : {0, size - 1}) {
        CAPTURE(throws);
        CAPTURE(size);
        FirstProcesses const members(size);
        std::string report;
        auto const begin = std::chrono::steady_clock::now();
        if (members.taking_part()) try {
            static int number;
            Mpi mpi(members.comm(), {.timeout = std::chrono::minutes(2)});
            if (mpi.rank() == culprit && throws) fail("between construction and calls");
            if (mpi.rank() == culprit) {
              report = mpi.start({}, {}).message();
            } else {
              Status const end = group(mpi, {}, {{&number, sizeof number, culprit, "input"}});
              report = end.message();
            }
          } catch (Error const&) {
            report = "ok";
          }
        CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(30));
        auto const said = gathered(report);
        for (int rank = 0; rank < size; ++rank)
          CHECK(said[static_cast<std::size_t>(rank)] ==
                (rank == culprit
                     ? "ok"
                     : text("rank ", rank, ", peer ", culprit, ": the peer gave up: rank ", culprit,
                            " has withdrawn: ",
                            throws ? "an exception unwound its transport" : "it left a group open")));
      }
}

TEST_CASE("a message of another call than the awaited one is refused, with both") {
  if (processes() < 2) return;
  struct Case {
    Origin sent, awaited;
  };
  std::vector<Case> cases;
  // Numbers beyond a tag's bits too, as long as they are near each other.
  bool backward = false;
  for (int const object : {0, 511, 100000})
    for (int const step : {0, 1024})
      for (int const away : {-1, 5}) {
        backward = !backward;
        cases.push_back({{object, backward, step}, {object, backward, std::max(0, step + away)}});
        cases.push_back({{object, backward, step}, {std::max(0, object + away), backward, step}});
        cases.push_back({{object, backward, step}, {object, !backward, step}});
      }
  // A tag of 31 bits tells the first 511 objects and 1024 steps apart, however far the awaited one is.
  int* largest_tag = nullptr;
  int found = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &largest_tag, &found);
  if (found && *largest_tag == std::numeric_limits<int>::max())
    for (int const early : {0, 1, 17})
      for (int const late : {255, 256, 300, 510}) {
        cases.push_back({{late, false, 5}, {early, false, 5}});
        cases.push_back({{3, true, 2 * late + 1}, {3, true, early}});
      }
  cases.push_back({{-1, false, 3}, {7, true, 4}});
  cases.push_back({{7, true, 3}, {-1, false, 4}});
  for (Case const& c : cases) {
    auto const name = [](Origin const& o) {
      return text("step ", o.step, o.backward ? " of the backward" : " of the forward", " of object ",
                  o.object);
    };
    CAPTURE(name(c.sent));
    CAPTURE(name(c.awaited));
    InPieces world(2);
    none_complains(world.run([&](Mpi& mpi) -> std::string {
      static Bytes bytes(10000);
      auto const size = static_cast<std::int64_t>(bytes.size());
      bool const same = c.sent == c.awaited || c.sent.object < 0 || c.awaited.object < 0;
      auto const cause =
          text("rank 0 sent a message of ", name(c.sent), ", and rank 1 awaits kv of ", name(c.awaited));
      if (mpi.rank() == 0) {
        Status const end =
            group(mpi, {{bytes.data(), size, 1, "kv", c.sent.step, c.sent.object, c.sent.backward}}, {});
        return end.ok() ? "" : broken(mpi, 1, cause);  // MPI may have taken it
      }
      Status const end = group(
          mpi, {}, {{bytes.data(), size, 0, "kv", c.awaited.step, c.awaited.object, c.awaited.backward}});
      return expect(end, same ? "ok" : cause, [&] { return same ? "" : broken(mpi, 1, cause); });
    }));
  }
}

TEST_CASE("a message of another batch than the awaited one is refused") {
  int* largest_tag = nullptr;
  int found = 0;
  MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_TAG_UB, &largest_tag, &found);
  if (processes() < 2 || !found || *largest_tag < std::numeric_limits<int>::max()) return;
  for (std::int64_t const other : {0, 2, 256, 1 << 10, 1 << 21, 1 << 24, 1 << 29}) {
    CAPTURE(other);
    InPieces world(2);
    none_complains(world.run([&](Mpi& mpi) -> std::string {
      static Bytes bytes(10000);
      auto const size = static_cast<std::int64_t>(bytes.size());
      auto const cause =
          text("rank 0 has planned other documents than rank 1, or is in another call than it: ",
               "kv of step 3 of the forward of object 2 is awaited");
      if (mpi.rank() == 0) {
        Status const end = group(mpi, {{bytes.data(), size, 1, "kv", 3, 2, false, 41}}, {});
        return end.ok() ? "" : broken(mpi, 1, cause);  // MPI may have taken it
      }
      Status const end = group(mpi, {}, {{bytes.data(), size, 0, "kv", 3, 2, false, 41 ^ other}});
      return expect(end, other == 0 ? "ok" : cause, [&] { return other == 0 ? "" : broken(mpi, 1, cause); });
    }));
  }
}

TEST_CASE("a message of a batch where none is awaited is refused, and the other way round") {
  if (processes() < 2) return;
  for (std::int64_t const batch : {1, 41, 1 << 10, 1 << 24})
    for (bool const sent : {true, false})
      for (int const object : {2, -1})
        for (std::int64_t const size : {10000, 8}) {
          CAPTURE(batch);
          CAPTURE(sent);
          CAPTURE(object);
          CAPTURE(size);
          InPieces world(2);
          none_complains(world.run([&](Mpi& mpi) -> std::string {
            static Bytes bytes(10000);
            std::string const call =
                object < 0 ? " of a constructor" : " of step 3 of the forward of object 2";
            auto const cause =
                sent
                    ? text("rank 0 sent a message of packed documents, and rank 1 awaits kv", call)
                    : text(
                          "rank 0 has planned other documents than rank 1, or is in another call than it: kv",
                          call, " is awaited");
            if (mpi.rank() == 0) {
              Status const end =
                  group(mpi, {{bytes.data(), 10000, 1, "kv", 3, object, false, sent ? batch : 0}}, {});
              return end.ok() ? "" : broken(mpi, 1, cause);  // MPI may have taken it
            }
            Status const end =
                group(mpi, {}, {{bytes.data(), size, 0, "kv", 3, object, false, sent ? 0 : batch}});
            return expect(end, cause, [&] { return broken(mpi, 1, cause); });
          }));
        }
}

TEST_CASE("late is blamed who did not send, before who did not take what was sent") {
  if (processes() < 3) return;
  Whole world(3, milliseconds(150));
  none_complains(world.run([&](Mpi& mpi) -> std::string {
    static Bytes large(1'000'000);  // more than MPI takes in on its own
    static int number;
    if (mpi.rank() > 0) return "";
    auto const bytes = static_cast<std::int64_t>(large.size());
    Status const end =
        group(mpi, {{large.data(), bytes, 2, "output"}}, {{&number, sizeof number, 1, "input"}});
    return std::string(end.subject) == "input" && end.peer == 1 && end.code == Code::timeout ? ""
                                                                                             : end.message();
  }));
}

TEST_CASE("late is blamed who is missing, wherever among those that came or took what was sent") {
  for (int const size : {3, 5})
    for (bool const sends : {false, true})
      for (int missing = 1; missing < size; ++missing) {
        if (size > processes()) continue;
        CAPTURE(size);
        CAPTURE(sends);
        CAPTURE(missing);
        Whole world(size, milliseconds(150));
        none_complains(world.run([&](Mpi& mpi) -> std::string {
          static Bytes large[5] = {Bytes(1'000'000), Bytes(1'000'000), Bytes(1'000'000), Bytes(1'000'000),
                                   Bytes(1'000'000)};  // more than MPI takes in on its own
          auto const bytes = static_cast<std::int64_t>(large[0].size());
          bool const sender = sends == (mpi.rank() == 0);
          std::vector<Send> out;
          std::vector<Receive> in;
          for (int rank = 0; rank < size; ++rank) {
            bool const peer = mpi.rank() == 0 ? rank > 0 : rank == 0 && mpi.rank() != missing;
            if (peer && sender) out.push_back({large[rank].data(), bytes, rank, "message"});
            if (peer && !sender) in.push_back({large[rank].data(), bytes, rank, "message"});
          }
          std::string const want =
              mpi.rank() == 0 ? text("rank 0, peer ", missing, ": no answer within 150 ms") : "ok";
          return expect(group(mpi, out, in), want, [] { return std::string(); });
        }));
      }
}

TEST_CASE("the time-out counts from the last message that came") {
  if (processes() < 4) return;
  constexpr milliseconds timeout(1000), apart(600);
  Whole world(4, timeout);
  none_complains(world.run([&](Mpi& mpi) {
    static int numbers[4] = {};
    if (mpi.rank() == 0) {
      std::vector<Receive> recvs;
      for (int const peer : {1, 2, 3}) recvs.push_back({&numbers[peer], sizeof(int), peer, "number"});
      return expect(group(mpi, {}, recvs), "ok", [] { return std::string(); });
    }
    std::this_thread::sleep_for(mpi.rank() * apart);
    return expect(group(mpi, {{&numbers[0], sizeof(int), 0, "number"}}, {}), "ok",
                  [] { return std::string(); });
  }));
}

TEST_CASE("the largest group that is allowed passes, however it is spread over the peers and cut") {
  constexpr int most_cuts = 1022, piece = 4000;
  for (int const size : {1, 2, 3}) {
    int const most = size * Mpi::messages_per_peer;
    for (int const to_first : {0, 1, most / 2, most})
      for (bool const evenly_cut : {false, true}) {
        if (size > processes()) continue;
        CAPTURE(size);
        CAPTURE(to_first);
        CAPTURE(evenly_cut);
        InPieces world(size);
        none_complains(world.run([&](Mpi& mpi) {
          std::vector<Bytes> sent, received;
          std::vector<Send> sends;
          std::vector<Receive> recvs;
          for (int i = 0; i < most; ++i) {
            int const cuts = evenly_cut      ? most_cuts * (i + 1) / most - most_cuts * i / most
                             : i == most / 2 ? most_cuts
                                             : 0;
            std::mt19937_64 engine = agreed(world.seed(), i);
            sent.push_back(random_bytes(engine, cuts * piece + 1 + i));
            received.push_back(poison(sent.back().size()));
          }
          for (int i = 0; i < most; ++i) {
            auto const at = static_cast<std::size_t>(i);
            auto const bytes = static_cast<std::int64_t>(sent[at].size());
            int const peer = i < to_first ? 0 : size - 1;
            if (mpi.rank() == 0) sends.push_back({sent[at].data(), bytes, peer, "out"});
            if (mpi.rank() == peer) recvs.push_back({received[at].data(), bytes, 0, "in"});
            if (mpi.rank() != peer) received[at] = sent[at];
          }
          return expect(group(mpi, sends, recvs), "ok", [&] {
            for (std::size_t i = 0; i < sent.size(); ++i)
              if (std::string const wrong = difference(received[i], sent[i]); !wrong.empty())
                return text("message ", i, ": ", wrong);
            return std::string();
          });
        }));
      }
  }
}

TEST_CASE("calls that make no sense fail with a code of their own, and stop everybody") {
  static int number = 0;
  struct Case {
    std::vector<Send> sends;
    std::vector<Receive> recvs;
    int native;
  };
  auto const largest = static_cast<std::size_t>(Mpi::messages_per_peer);
  std::vector<Case> const cases = {
      {{{&number, 4, 0, "fine"}, {&number, 4, -1, "x"}}, {}, Mpi::bad_message},
      {{{&number, 4, 1, "x"}}, {}, Mpi::bad_message},
      {{}, {{&number, -4, 0, "x"}}, Mpi::bad_message},
      {{}, {{nullptr, 4, 0, "x"}}, Mpi::bad_message},
      {std::vector<Send>(largest + 1, {&number, 4, 0, "x"}), {}, Mpi::group_too_large},
      {{}, {{&number, std::int64_t{4000} * 1025 + 1, 0, "x"}}, Mpi::group_too_large}};
  for (Case const& c : cases) {
    InPieces world(1);
    none_complains(world.run([&](Mpi& mpi) -> std::string {
      Status const end = mpi.start(c.sends, c.recvs);
      if (end.code != Code::transport_failed || end.native != c.native) return end.message();
      if (end.message().find(c.native == Mpi::bad_message
                                 ? "failed: the message's peer is no rank"
                                 : "failed: a group has more messages") == std::string::npos)
        return end.message();
      return broken(mpi, 0, end.message());
    }));
  }
  Whole world(1);
  none_complains(world.run([&](Mpi& mpi) -> std::string {
    if (!mpi.start({}, {}).ok()) return "the first start() fails";
    Status const end = mpi.start({}, {});
    return expect(end, "rank 0: the transport failed: a call is under way on this endpoint",
                  [&] { return broken(mpi, 0, end.message()); });
  }));
}

TEST_CASE("options out of bounds and ranks that do not construct are errors") {
  CHECK_THROWS_AS(Mpi(MPI_COMM_SELF, {.timeout = milliseconds(-1)}), Error);
  CHECK_THROWS_AS(Mpi(MPI_COMM_SELF, {.piece_bytes = 0}), Error);
  CHECK_THROWS_AS(Mpi(MPI_COMM_SELF, {.piece_bytes = std::int64_t{1} << 31}), Error);
  if (processes() < 2) return;
  // Never freed: the duplication that one rank begins is under way for good.
  auto const& two = *new FirstProcesses(2);
  std::string report;
  if (process() == 0) {
    try {
      Mpi const alone(two.comm(), {.timeout = milliseconds(100)});
    } catch (Error const& error) {
      report = error.what();
    }
  }
  CHECK(gathered(report)[0] ==
        "lightseq: not every rank of the communicator has constructed its transport within 100 ms");
}

}  // namespace
}  // namespace lightseq::test
