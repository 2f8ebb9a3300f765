// SPDX-License-Identifier: Apache-2.0
#include "support/allocations.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "laws/dist_attn.hpp"
#include "transport/push/ranks.hpp"

namespace lightseq::test {
namespace {

/// The double without threads: what is enqueued is done at once, by whoever calls.
class ImmediateDevice : public DoubleDevice {
 public:
  using Stream = int;
  Status copy(Stream, void* to, void const* from, std::int64_t bytes) noexcept {
    std::memcpy(to, from, static_cast<std::size_t>(bytes));
    return {};
  }
  Status raise(Stream, PushFlag* flag) noexcept {
    write(*flag, 1);
    return {};
  }
  Status take(Stream, PushFlag*, std::uint32_t, PushFlag* flag) noexcept {
    while (std::atomic_ref(*flag).load() < 1) std::this_thread::yield();
    write(*flag, 0);
    return {};
  }
  Status query(Stream, bool& done) noexcept {
    done = true;
    return {};
  }
  bool captures(Stream) noexcept { return false; }
};
using ImmediatePush = BasicPush<ImmediateDevice>;
struct ImmediateTraits : DefaultTraits {
  using Device = HostOver<ImmediatePush>;
  using Transport = ImmediatePush;
};

/// What forward and backward of a rank allocate on its thread, awaited.
template <class Attn>
std::string allocations(PushSeat const& seat) {
  ImmediatePush push(seat, 0);
  Attn attn(push, {.seqlen = 50, .heads = 2, .kv_heads = 1});
  auto whole =
      testing::random_sequence<typename Attn::Element>(attn.problem(), small_head_dim, stream_seed(0));
  auto part = testing::part_of(whole, attn.positions());
  DoubleMemory const workspace(static_cast<std::size_t>(attn.workspace_bytes()));
  if (Status const status = push.share(workspace.span()); !status.ok()) return status.message();
  AllocationCounter const counter;
  Status status = attn.forward(part.inputs(), part.outputs(), workspace.span());
  if (status.ok()) status = attn.backward(part.backward_inputs(), part.gradients(), workspace.span());
  if (status.ok()) status = attn.wait();
  auto const count = counter.count();
  return status.ok() ? text(count) : status.message();
}

TEST_CASE("calls over pushes allocate nothing") {
  AllocationCounter const counter;
  std::vector<int> const seen(10);
  REQUIRE(counter.count() == 1);
  for (int const ranks : {1, 2, 3, 5}) {
    CAPTURE(ranks);
    std::string const name = fresh_name();
    auto const none = [&](auto const& run) {
      for (std::string const& said : run_threads(ranks, [&](int rank) {
             return run(PushSeat{name, rank, ranks});
           }))
        CHECK(said == "0");
    };
    none(allocations<DistAttn<small_head_dim, Causal, Balanced, ImmediateTraits>>);
    none(allocations<DistAttn<small_head_dim, Causal, ZigzagRing, ImmediateTraits>>);
  }
}

}  // namespace
}  // namespace lightseq::test
