// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"
#include "support/at_once.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

using Attn = DistAttn<small_head_dim, Causal, Balanced>;
Problem const problem{.seqlen = 40, .heads = 2, .kv_heads = 1};

/// What each rank's run returned.
std::vector<Status> run(int ranks, LocalOptions const& options, int absent = -1) {
  LocalWorld world(ranks, options);
  auto whole = testing::random_sequence<float>(problem, small_head_dim, stream_seed(0));
  std::vector<Status> statuses(static_cast<std::size_t>(ranks));
  run_ranks_to_the_last(world, [&](Local& comm) {
    if (comm.rank() == absent) return;
    Attn attn(comm, problem);
    statuses[static_cast<std::size_t>(comm.rank())] = testing::run_rank(attn, whole);
  });
  return statuses;
}

/// How many groups a rank starts in a forward and a backward.
int groups(int rank, int ranks) {
  Planner const planner(Balanced{}, Causal{}, ranks, problem.seqlen);
  return static_cast<int>(planner.plan(rank, Pass::forward).steps.size() +
                          planner.plan(rank, Pass::backward).steps.size());
}

/// Whether a rank has no messages at this step of one of the passes.
bool may_be_silent(int rank, int ranks, int step) {
  Planner const planner(Balanced{}, Causal{}, ranks, problem.seqlen);
  for (Pass const pass : {Pass::forward, Pass::backward}) {
    auto const steps = planner.plan(rank, pass).steps;
    auto const at = static_cast<std::size_t>(step);
    if (at < steps.size() && steps[at].sends.empty() && steps[at].recvs.empty()) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("a transport that fails in any step of any rank fails that rank's call, and nobody hangs") {
  for (int const ranks : {2, 3, 4, 5})
    for (int failing = 0; failing < ranks; ++failing)
      for (int n = 0; n < groups(failing, ranks); ++n) {
        CAPTURE(ranks);
        CAPTURE(failing);
        CAPTURE(n);
        LocalOptions options;
        options.failing_rank = failing;
        options.failing_start = n;
        auto const statuses = run(ranks, options);
        Status const& own = statuses[static_cast<std::size_t>(failing)];
        CHECK(own.code == Code::transport_failed);
        CHECK(own.rank == failing);
        int const forward_groups = static_cast<int>(
            Planner(Balanced{}, Causal{}, ranks, problem.seqlen).plan(failing, Pass::forward).steps.size());
        CHECK(own.step == (n < forward_groups ? n : n - forward_groups));
        for (int rank = 0; rank < ranks; ++rank) {
          Status const& status = statuses[static_cast<std::size_t>(rank)];
          if (rank == failing || status.ok()) continue;  // a rank may have finished before
          CHECK(status.code == Code::peer_failed);
          CHECK(status.peer == failing);
          CHECK(status.rank == rank);
          CHECK(status.step >= 0);
          std::string const payload = status.subject;
          bool const named =
              payload == "kv" || payload == "q" || payload == "out" || payload == "dq" || payload == "dkv";
          INFO("rank ", rank, " said: ", status.message());
          // A step without messages has none to name.
          CHECK((named || (payload == "" && may_be_silent(rank, ranks, status.step))));
        }
      }
}

TEST_CASE("after a failure the object stays invalid, and its record tells which messages were under way") {
  for (int const ranks : {2, 3, 4, 5})
    for (int failing = 0; failing < ranks; ++failing)
      for (int n = 0; n < groups(failing, ranks); ++n) {
        CAPTURE(ranks);
        CAPTURE(failing);
        CAPTURE(n);
        LocalWorld world(ranks, {.failing_rank = failing, .failing_start = n});
        auto const whole = testing::random_sequence<float>(problem, small_head_dim, stream_seed(0));
        std::vector<std::string> wrong(static_cast<std::size_t>(ranks));
        run_ranks(world, [&](Local& comm) {
          Attn attn(comm, problem);
          auto run = whole;
          Status const first = testing::run_rank(attn, run), second = testing::run_rank(attn, run);
          std::string& report = wrong[static_cast<std::size_t>(comm.rank())];
          if (first.ok()) return;  // it may have finished before
          if (second.message() != first.message() || attn.failure().message() != first.message())
            report += "another failure the second time";
          // What was posted: all groups up to the one that failed.
          FlightRecord const& record = attn.flight_record();
          Pass const last = attn.flight_record().size() > 0 ? record[record.size() - 1].pass : Pass::forward;
          std::vector<Flight> expected;
          for (Pass const pass : {Pass::forward, Pass::backward}) {
            if (pass > last) continue;
            auto const& steps = attn.plan(pass).steps;
            for (std::size_t step = 0; step < steps.size(); ++step) {
              bool const failed = pass == last && static_cast<int>(step) == first.step;
              auto const state = [&](Transfer const& t) {
                if (!failed) return Flight::State::done;
                bool const named = t.peer == first.peer && name(t.payload) == std::string(first.subject);
                return named ? Flight::State::failed : Flight::State::posted;
              };
              for (Transfer const& t : steps[step].sends)
                expected.push_back({0, pass, static_cast<int>(step), true, t, 0, state(t)});
              for (Transfer const& t : steps[step].recvs)
                expected.push_back({0, pass, static_cast<int>(step), false, t, 0, state(t)});
              if (failed) break;
            }
          }
          if (record.size() != expected.size()) {
            report += "the record has " + std::to_string(record.size()) + " messages, not " +
                      std::to_string(expected.size()) + ":\n" + record.text();
            return;
          }
          for (std::size_t i = 0; i < expected.size(); ++i) {
            Flight const &have = record[i], &want = expected[i];
            if (have.pass != want.pass || have.step != want.step || have.sent != want.sent ||
                !(have.transfer == want.transfer) || have.bytes <= 0 || have.state != want.state ||
                have.call != (want.pass == Pass::forward ? 0 : 1))
              report += record.text();
          }
        });
        for (std::string const& report : wrong) CHECK(report == "");
      }
}

TEST_CASE("a rank that never comes is named by those who wait for it") {
  std::vector<std::pair<int, int>> cases;
  for (int const ranks : {2, 3, 6})
    for (int absent = 0; absent < ranks; ++absent) cases.emplace_back(ranks, absent);
  at_once(static_cast<int>(cases.size()), [&](int i) {
    int const ranks = cases[static_cast<std::size_t>(i)].first;
    int const absent = cases[static_cast<std::size_t>(i)].second;
    CAPTURE(ranks);
    CAPTURE(absent);
    LocalOptions options;
    options.timeout = std::chrono::milliseconds(500);
    auto const statuses = run(ranks, options, absent);
    bool named = false;
    for (int rank = 0; rank < ranks; ++rank) {
      if (rank == absent) continue;
      Status const& status = statuses[static_cast<std::size_t>(rank)];
      CHECK(!status.ok());
      if (status.code == Code::timeout) {
        std::string const payload = status.subject;
        CHECK((payload == "kv" || payload == "q" || payload == "out"));
        CHECK(status.message() == "rank " + std::to_string(rank) + ", step " + std::to_string(status.step) +
                                      ", payload " + payload + ", peer " + std::to_string(status.peer) +
                                      ": no answer within 500 ms");
        // In a larger world a rank may wait for one that waits for the absent one, and be the first to
        // stop.
        CHECK((status.peer == absent || !statuses[static_cast<std::size_t>(status.peer)].ok()));
        named = named || status.peer == absent;
      }
    }
    if (ranks <= 3) CHECK(named);
  });
}

TEST_CASE("random delays change no bit") {
  Problem const longer{.seqlen = 70, .heads = 2, .kv_heads = 1};
  auto const calm = testing::random_sequence<float>(longer, small_head_dim, stream_seed(5));
  for (int const ranks : {4, 7}) {
    auto want = calm;
    LocalWorld world(ranks);
    REQUIRE(testing::run_world<Attn>(world, longer, Causal{}, Balanced{}, want) == "");
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
      auto got = calm;
      LocalWorld shaken(ranks, {.max_delay = std::chrono::microseconds(500), .seed = stream_seed(seed)});
      REQUIRE(testing::run_world<Attn>(shaken, longer, Causal{}, Balanced{}, got) == "");
      CHECK(got.o == want.o);
      CHECK(got.lse == want.lse);
      CHECK(got.dq == want.dq);
      CHECK(got.dk == want.dk);
      CHECK(got.dv == want.dv);
    }
  }
}
