// SPDX-License-Identifier: Apache-2.0
#include "laws/agreement.hpp"

#include <chrono>

#include "lightseq/transport/mpi.hpp"
#include "mpi/processes.hpp"

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
