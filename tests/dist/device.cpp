// SPDX-License-Identifier: Apache-2.0
#include <atomic>

#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

std::atomic<int> current_device;

/// The CPU, which remembers a device as a GPU does.
struct Numbered : Host {
  template <int HeadDim, Mask M, class Traits>
  struct Kernels : Host::Kernels<HeadDim, M, Traits> {
    using Host::Kernels<HeadDim, M, Traits>::Kernels;
    int device = current_device;
    Status check_device() const noexcept {
      if (device == current_device) return {};
      return {.code = Code::wrong_device, .have = current_device, .need = device};
    }
  };
};
struct NumberedTraits : DefaultTraits {
  using Device = Numbered;
};

}  // namespace

TEST_CASE("a call while another device is current sends nothing, says both numbers and leaves all valid") {
  Problem const problem{.seqlen = 40, .heads = 2, .kv_heads = 1};
  auto whole = testing::random_sequence<float>(problem, small_head_dim, stream_seed(0));
  auto again = whole;
  LocalWorld world(3);
  current_device = 1;
  std::atomic<int> faults = 0;
  auto const expect = [&](bool right) { faults += !right; };
  std::vector<std::unique_ptr<DistAttn<small_head_dim, Causal, Balanced, NumberedTraits>>> attns(3);
  run_ranks(world, [&](Local& comm) {
    auto& attn = attns[static_cast<std::size_t>(comm.rank())];
    attn = std::make_unique<DistAttn<small_head_dim, Causal, Balanced, NumberedTraits>>(comm, problem);
    expect(testing::run_rank(*attn, whole).ok());
  });
  current_device = 4;
  std::string const said = "GPU 4 is current, but the object was constructed with GPU 1";
  for (auto& attn : attns) {  // one after the other: none waits for another
    auto part = testing::part_of(whole, attn->positions());
    auto const untouched = part;
    std::vector<std::byte> workspace(static_cast<std::size_t>(attn->workspace_bytes()));
    CHECK(attn->forward(part.inputs(), part.outputs(), workspace).message() == said);
    CHECK(attn->backward(part.backward_inputs(), part.gradients(), workspace).message() == said);
    CHECK(attn->wait().message() == said);
    CHECK(attn->failure().ok());
    CHECK(same_bits(part.o, untouched.o));
    CHECK(same_bits(part.dk, untouched.dk));
  }
  current_device = 1;
  run_ranks(world, [&](Local& comm) {
    expect(testing::run_rank(*attns[static_cast<std::size_t>(comm.rank())], again).ok());
  });
  CHECK(faults == 0);
  CHECK(same_bits(whole.o, again.o));
  CHECK(same_bits(whole.dk, again.dk));
}
