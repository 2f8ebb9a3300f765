// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "laws/packed_agreement.hpp"
#include "transport/nccl/ranks.hpp"

namespace lightseq::test {
namespace {

TEST_CASE("ranks that plan different documents all hear of the first that differs, and may go on") {
  for (int const ranks : {2, 3}) {
    CAPTURE(ranks);
    DoubleWorld world(ranks);
    auto const wrong = run_threads(ranks, [&](int rank) {
      Nccl nccl(world[rank], world.stream(rank));
      return first_wrong_agreement<NcclTraits>(nccl, ranks);
    });
    for (std::string const& text : wrong) CHECK(text == "");
    for (std::string const& fault : world.faults()) FAIL_CHECK(fault);
  }
}

}  // namespace
}  // namespace lightseq::test
