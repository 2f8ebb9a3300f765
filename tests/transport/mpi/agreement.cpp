// SPDX-License-Identifier: Apache-2.0
#include "laws/agreement.hpp"
#include "laws/packed_agreement.hpp"

#include <chrono>

#include "lightseq/transport/mpi.hpp"
#include "transport/mpi/processes.hpp"

namespace lightseq::test {
namespace {

struct MpiTraits : DefaultTraits {
  using Transport = Mpi;
};

TEST_CASE("when one process is built differently, all say so and nobody waits; then they may try again") {
  auto const all = ways<MpiTraits>(true);
  for (int size = 2; size <= processes(); size += 3)
    for (int const other : {0, 1, size - 1})
      for (std::size_t way = 1; way < all.size(); ++way) {
        CAPTURE(size);
        CAPTURE(way);
        FirstProcesses const members(size);
        std::string said, again;
        if (members.taking_part()) {
          Mpi mpi(members.comm(), {.timeout = std::chrono::minutes(5)});
          said = all[mpi.rank() == other ? way : 0].run(mpi);
          again = all[0].run(mpi);
        }
        auto texts = gathered(said);
        texts.resize(static_cast<std::size_t>(size));
        all_say_what_differs(texts, all[way].differs, other);
        texts = gathered(again);
        texts.resize(static_cast<std::size_t>(size));
        for (std::string const& text : texts) CHECK(text == "ok");
      }
}

TEST_CASE("what one process cannot construct none does: all say what the lowest such rank says") {
  for (int const size : {2, 4}) {
    if (size > processes()) continue;
    CAPTURE(size);
    auto const said_by_all = [&](auto way) {
      FirstProcesses const members(size);
      std::string said, again;
      if (members.taking_part()) {
        Mpi mpi(members.comm(), {.timeout = std::chrono::minutes(5)});
        said = way(mpi);
        again = ways<MpiTraits>()[0].run(mpi);
      }
      auto texts = gathered(said);
      for (int rank = 0; rank < size; ++rank) CHECK(texts[static_cast<std::size_t>(rank)] == texts[0]);
      CHECK(gathered(again)[0] == "ok");
      return texts[0];
    };
    CHECK(said_by_all([](Mpi& mpi) { return of_throwing_schedule<MpiTraits>(mpi); }) ==
          "rank 0: " + throwing_schedule_says(size));
    for (int lowest = 0; lowest < size; ++lowest)
      CHECK(said_by_all([&](Mpi& mpi) {
              return of_lacking_device<MpiTraits>(mpi, {lowest, size - 1});
            }) == "rank " + std::to_string(lowest) + ": " + lacking_device_says(size));
    CHECK(said_by_all([&](Mpi& mpi) {
            return of_throwing_mask<MpiTraits>(mpi, size - 1);
          }).find("the table of queries ") != std::string::npos);
    if (size == 4)
      CHECK(said_by_all([](Mpi& mpi) { return of_unserved_mask<MpiTraits>(mpi); }) ==
            std::string("rank 0: ") + unserved_mask_says);
  }
}

TEST_CASE("all say the same, though the transports of the first to hear it are unwound by it") {
  for (int size = 2; size <= processes(); ++size)
    for (int repeat = 0; repeat < 20; ++repeat) {
      CAPTURE(size);
      FirstProcesses const members(size);
      std::string said;
      if (members.taking_part()) try {
          Mpi mpi(members.comm(), {.timeout = std::chrono::minutes(5)});
          Problem problem = agreed_problem;
          if (mpi.rank() == size - 1) problem.scale = 0.5f;
          DistAttn<16, Causal, Ring, MpiTraits>(mpi, problem);
        } catch (Error const& error) {
          said = error.what();
        }
      auto texts = gathered(said);
      texts.resize(static_cast<std::size_t>(size));
      for (std::string const& text : texts)
        CHECK(text == sentence("lightseq: the ranks disagree: scale is 0.5 on rank ", size - 1,
                               " and 0.25 on rank 0"));
    }
}

TEST_CASE("a process that constructs one object more hears it, and so do those who call") {
  if (processes() < 2) return;
  using Attn = DistAttn<16, Full, Ring, MpiTraits>;  // both receive
  for (int const one_more : {0, 1}) {
    FirstProcesses const members(2);
    std::string said;
    // Never freed: after a failure MPI may yet write to them.
    auto& part = *new testing::Sequence<float>();
    auto& workspace = *new std::vector<std::byte>();
    if (members.taking_part()) {
      Mpi mpi(members.comm(), {.timeout = std::chrono::minutes(5)});
      try {
        Attn attn(mpi, agreed_problem);
        part = testing::part_of(testing::random_sequence<float>(agreed_problem, 16, 1), attn.positions());
        workspace.resize(static_cast<std::size_t>(attn.workspace_bytes()));
        if (mpi.rank() == one_more) Attn(mpi, agreed_problem);
        said = attn.forward(part.inputs(), part.outputs(), workspace).message();
      } catch (Error const& error) {
        said = error.what();
      }
    }
    auto const texts = gathered(said);
    std::string const here = sentence("rank ", one_more), there = sentence("rank ", 1 - one_more);
    std::string const call = " of step 0 of the forward of object 0", constructor = " of a constructor";
    std::string const found_here = there + " sent a message" + call + ", and " + here +
                                   " awaits fingerprint" + constructor,
                      found_there =
                          here + " sent a message" + constructor + ", and " + there + " awaits kv" + call;
    for (int rank = 0; rank < 2; ++rank) {
      std::string const& text = texts[static_cast<std::size_t>(rank)];
      CAPTURE(text);
      CHECK((text.find(found_here) != std::string::npos || text.find(found_there) != std::string::npos));
    }
  }
}

TEST_CASE("processes that call two layers in different orders hear it") {
  if (processes() < 2) return;
  using Attn = DistAttn<16, Causal, Ring, MpiTraits>;
  FirstProcesses const members(2);
  std::string said;
  // Never freed: after a failure MPI may yet write to them.
  auto& part = *new testing::Sequence<float>();
  auto& workspace = *new std::vector<std::byte>();
  if (members.taking_part()) {
    Mpi mpi(members.comm(), {.timeout = std::chrono::minutes(5)});
    Attn first(mpi, agreed_problem), second(mpi, agreed_problem);
    part = testing::part_of(testing::random_sequence<float>(agreed_problem, 16, 1), first.positions());
    workspace.resize(static_cast<std::size_t>(first.workspace_bytes()));
    Attn* order[] = {&first, &second};
    if (mpi.rank() == 1) std::swap(order[0], order[1]);
    for (Attn* const attn : order) said = attn->forward(part.inputs(), part.outputs(), workspace).message();
  }
  auto const texts = gathered(said);
  std::string const cause =
      "rank 0 sent a message of step 0 of the forward of object 0, and rank 1 awaits kv of step 0 of the "
      "forward of object 1";
  CHECK(texts[1] == cause);
  CHECK((texts[0] == "ok" || texts[0].ends_with("peer 1: the peer gave up: " + cause)));
}

TEST_CASE("processes that plan different documents all hear of the first that differs, and may go on") {
  for (int const size : {2, 3}) {
    if (size > processes()) continue;
    CAPTURE(size);
    FirstProcesses const members(size);
    std::string wrong;
    if (members.taking_part()) {
      Mpi mpi(members.comm(), {.timeout = std::chrono::minutes(5)});
      wrong = first_wrong_agreement<MpiTraits>(mpi, size);
    }
    for (std::string const& text : gathered(wrong)) CHECK(text == "");
  }
}

TEST_CASE("a process that constructs nothing is missed after the time-out") {
  if (processes() < 2) return;
  FirstProcesses const members(2);
  std::string said;
  if (members.taking_part()) {
    Mpi mpi(members.comm(), {.timeout = std::chrono::milliseconds(200)});
    if (mpi.rank() == 0) said = ways<MpiTraits>()[0].run(mpi);
  }
  CHECK(gathered(said)[0] == "rank 0, peer 1: no answer within 200 ms");
}

}  // namespace
}  // namespace lightseq::test
