// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include <cstring>
#include <string>
#include <vector>

#include "laws/transport.hpp"
#include "transport/push/ranks.hpp"

namespace lightseq::test {
namespace {

using Prompt = PushHarness<false, 0>;
using Delayed = PushHarness<true, 100>;
static_assert(TransportHarness<Prompt>);
using ThroughHost = PushHarness<false, 50, 1>;
using Mixed = PushHarness<true, 50, 2>;
TEST_CASE_TEMPLATE_INVOKE(transport_laws, Prompt, Delayed, ThroughHost, Mixed);

TEST_CASE("groups follow each other on the streams, whatever these are late with") {
  constexpr int groups = 150;
  for (int const world : {1, 2, 3, 4}) {
    CAPTURE(world);
    std::string const name = fresh_name();
    auto const said = run_threads(world, [&](int rank) -> std::string {
      DoubleMemory const memory(4096);
      DoubleStream stream(200);
      DoublePush push({name, rank, world}, &stream, {}, DoubleDevice(rank % 2 == 0));
      if (Status const status = push.share(memory.span()); !status.ok()) return status.message();
      int const next = (rank + 1) % world, previous = (rank + world - 1) % world;
      int source = 0;
      std::vector<int> got(groups);
      for (int group = 0; group < groups; ++group) {
        stream.enqueue([&, group] { source = 1000 * rank + group; });
        Send const send{&source, sizeof source, next, "number"};
        Receive const receive{memory.data() + 64, sizeof source, previous, "number"};
        Status status = push.start({&send, 1}, {&receive, 1});
        if (status.ok()) status = push.finish();
        if (!status.ok()) return status.message();
        stream.enqueue([&, group] {
          std::memcpy(&got[static_cast<std::size_t>(group)], memory.data() + 64, sizeof source);
        });
      }
      if (Status const status = push.unshare(memory.span()); !status.ok()) return status.message();
      for (int group = 0; group < groups; ++group)
        if (int const number = got[static_cast<std::size_t>(group)]; number != 1000 * previous + group)
          return text("group ", group, ": ", number);
      return "";
    });
    for (std::string const& text : said) CHECK(text == "");
  }
}

TEST_CASE("nothing stays mapped or pinned") {
  CHECK(DoubleDevice::mapped == 0);
  CHECK(DoubleDevice::pinned == 0);
}

}  // namespace
}  // namespace lightseq::test
