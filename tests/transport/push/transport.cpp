// SPDX-License-Identifier: Apache-2.0
#include <doctest/doctest.h>

#include "laws/transport.hpp"
#include "transport/push/ranks.hpp"

namespace lightseq::test {
namespace {

using Prompt = PushHarness<false, 0>;
using Delayed = PushHarness<true, 100>;
static_assert(TransportHarness<Prompt>);
TEST_CASE_TEMPLATE_INVOKE(transport_laws, Prompt, Delayed);

TEST_CASE("nothing stays mapped or pinned") {
  CHECK(DoubleDevice::mapped == 0);
  CHECK(DoubleDevice::pinned == 0);
}

}  // namespace
}  // namespace lightseq::test
