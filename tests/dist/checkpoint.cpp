// SPDX-License-Identifier: Apache-2.0
#include "laws/dist_attn.hpp"
#include "lightseq/testing/packed.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

Problem const problem{.batch = 2, .seqlen = 45, .heads = 4, .kv_heads = 2};

/// A transport that counts the messages it starts.
class Counting {
 public:
  explicit Counting(Local& local) : local_(&local) {}
  int rank() const noexcept { return local_->rank(); }
  int world() const noexcept { return local_->world(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    messages_ += static_cast<int>(sends.size() + recvs.size());
    return local_->start(sends, recvs);
  }
  Status finish() noexcept { return local_->finish(); }
  int messages() const { return messages_; }

 private:
  Local* local_;
  int messages_ = 0;
};

/// A host that counts its kernels in the calling thread.
struct CountingHost : Host {
  static inline thread_local int forwards = 0, backwards = 0;
  template <int HeadDim, Mask M, class Traits>
  struct Kernels : Host::Kernels<HeadDim, M, Traits> {
    using Host::Kernels<HeadDim, M, Traits>::Kernels;
    struct Queue : Host::Kernels<HeadDim, M, Traits>::Queue {
      using Base = typename Host::Kernels<HeadDim, M, Traits>::Queue;
      using Base::Base;
      static void forward(auto const& call, M const& mask, std::byte* scratch) noexcept {
        ++forwards;
        Base::forward(call, mask, scratch);
      }
      static void backward(auto const& call, M const& mask, std::byte* scratch) noexcept {
        ++backwards;
        Base::backward(call, mask, scratch);
      }
    };
  };
};

template <class T>
struct CountingTraits : DefaultTraits {
  using Element = T;
  using Device = CountingHost;
  using Transport = Counting;
};

/// What a layer's forward and backward did and gave on one rank.
template <class T>
struct Run {
  int forward_projections = 0, projections = 0;
  int forward_kernels = 0, kernels = 0;
  int forward_messages = 0, messages = 0;
  std::int64_t saved_bytes = 0;
  std::vector<T> dq, dk, dv;
};

/// A layer's forward and backward on its part of a sequence; whatever is shared or free holds other values in
/// between. `batch` is what the attention's calls take besides.
template <class Policy, class Attn, class At, class T, class... Batch>
void run_layer(Attn& attn, At const& at, testing::Sequence<T> const& whole, Counting const& comm, Run<T>& r,
               Batch const&... batch) {
  Checkpointed<Attn, Policy> layer(attn);
  auto const part = testing::part_of(whole, at);
  auto const memory = [](std::int64_t bytes) {
    return std::vector<std::byte>(static_cast<std::size_t>(bytes), std::byte{0xff});
  };
  auto saved = memory(layer.saved_bytes());
  auto workspace = memory(layer.workspace_bytes());
  int projections = 0;
  int const messages = comm.messages();
  auto const project = [&](T* q, T* k, T* v) {
    ++projections;
    std::copy(part.q.begin(), part.q.end(), q);
    std::copy(part.k.begin(), part.k.end(), k);
    std::copy(part.v.begin(), part.v.end(), v);
  };
  CountingHost::forwards = 0;
  if (!layer.forward(project, saved, workspace, batch...).status.ok()) return;
  r.forward_projections = projections;
  r.forward_kernels = CountingHost::forwards;
  r.forward_messages = comm.messages() - messages;

  workspace = memory(layer.workspace_bytes());  // other layers used it meanwhile
  auto const activations = layer.restore(project, saved, workspace, batch...);
  r.projections = projections - r.forward_projections;
  r.kernels = CountingHost::forwards - r.forward_kernels;
  r.messages = comm.messages() - messages - r.forward_messages;
  r.saved_bytes = layer.saved_bytes();
  r.dq.resize(part.q.size());
  r.dk.resize(part.k.size());
  r.dv.resize(part.v.size());
  Status const status = layer.backward(activations, part.d_o.data(), {r.dq.data(), r.dk.data(), r.dv.data()},
                                       workspace, batch...);
  if (!status.ok()) r = {};
}

/// On a sequence that is planned once.
template <class Policy, class T>
std::vector<Run<T>> run(int ranks) {
  using Attn = DistAttn<small_head_dim, Causal, Balanced, CountingTraits<T>>;
  LocalWorld world(ranks);
  std::vector<Run<T>> runs(static_cast<std::size_t>(ranks));
  auto const whole = testing::random_sequence<T>(problem, small_head_dim, stream_seed(3));
  run_ranks(world, [&](Local& local) {
    Counting comm(local);
    Attn attn(comm, problem);
    run_layer<Policy>(attn, attn.positions(), whole, comm, runs[static_cast<std::size_t>(local.rank())]);
  });
  return runs;
}

/// Documents of which the first one is on all ranks, and with it the messages; fewer tokens than there may
/// be.
std::vector<int> const pack{29, 31, 40};

/// The attention's own calls.
template <class Attn, class At, class T, class... Batch>
void run_without_policy(Attn& attn, At const& at, testing::Sequence<T> const& whole, Run<T>& r,
                        Batch const&... batch) {
  auto part = testing::part_of(whole, at);
  std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()), std::byte{0xff});
  if (!attn.forward(part.inputs(), part.outputs(), workspace, batch...).ok()) return;
  if (!attn.backward(part.backward_inputs(), part.gradients(), workspace, batch...).ok()) return;
  r.dq = part.dq, r.dk = part.dk, r.dv = part.dv;
}

/// On a pack. `Policy` may be void: none.
template <class Policy, class T>
std::vector<Run<T>> run_packed(int ranks) {
  using Attn = DistAttn<small_head_dim, Documents<Causal>, PackedRing, CountingTraits<T>>;
  LocalWorld world(ranks);
  std::vector<Run<T>> runs(static_cast<std::size_t>(ranks));
  Problem of_pack = problem;
  of_pack.seqlen = pack.back();
  auto const whole = testing::random_sequence<T>(of_pack, small_head_dim, stream_seed(4));
  run_ranks(world, [&](Local& local) {
    Counting comm(local);
    Attn attn(comm, problem);
    PackedBatch batch = attn.batch(), other = attn.batch();
    std::vector const one_document{problem.seqlen};
    if (!attn.plan(pack, batch).empty() || !attn.plan(one_document, other).empty()) return;
    testing::OwnTokens const own{batch.pieces(), local.rank()};
    Run<T>& r = runs[static_cast<std::size_t>(local.rank())];
    if constexpr (std::is_void_v<Policy>)
      run_without_policy(attn, own, whole, r, batch);
    else
      run_layer<Policy>(attn, own, whole, comm, r, batch);
  });
  return runs;
}

/// One rank under each policy.
template <class T>
void check_policies(Run<T> const& none, Run<T> const& output, Run<T> const& all, bool messages) {
  for (auto const* policy : {&none, &output, &all}) {
    CHECK(policy->forward_projections == 1);
    CHECK(policy->forward_kernels == all.forward_kernels);
    CHECK(policy->forward_kernels > 0);
    CHECK((policy->forward_messages > 0) == messages);
  }
  CHECK(none.projections == 1);
  CHECK(none.kernels == none.forward_kernels);
  CHECK(none.messages == none.forward_messages);

  CHECK(output.projections == 1);
  CHECK(output.kernels == 0);
  CHECK(output.messages == 0);

  CHECK(all.projections == 0);
  CHECK(all.kernels == 0);
  CHECK(all.messages == 0);

  REQUIRE(!all.dq.empty());
  for (auto const* policy : {&none, &output}) {
    CHECK(policy->dq == all.dq);
    CHECK(policy->dk == all.dk);
    CHECK(policy->dv == all.dv);
  }
}

}  // namespace

TEST_CASE_TEMPLATE("policies differ in what they repeat and keep, not in a bit of the gradients", T, float,
                   bfloat16) {
  for (int const ranks : {1, 2, 4, 5}) {
    CAPTURE(ranks);
    auto const none = run<SaveNone, T>(ranks), output = run<SaveOutput, T>(ranks),
               all = run<SaveAll, T>(ranks);
    for (std::size_t r = 0; r < none.size(); ++r) {
      CAPTURE(r);
      check_policies(none[r], output[r], all[r], ranks > 1);
    }
  }
}

TEST_CASE_TEMPLATE("policies give the bits of a batch's gradients that the same calls give without them", T,
                   float, bfloat16) {
  for (int const ranks : {1, 2, 3, 4}) {
    CAPTURE(ranks);
    auto const none = run_packed<SaveNone, T>(ranks), output = run_packed<SaveOutput, T>(ranks),
               all = run_packed<SaveAll, T>(ranks), without = run_packed<void, T>(ranks);
    for (std::size_t r = 0; r < none.size(); ++r) {
      CAPTURE(r);
      check_policies(none[r], output[r], all[r], ranks > 1);
      CHECK(all[r].dq == without[r].dq);
      CHECK(all[r].dk == without[r].dk);
      CHECK(all[r].dv == without[r].dv);
    }
  }
}

TEST_CASE_TEMPLATE("saved_bytes follows from the policy", T, float, bfloat16) {
  // Aligned: each tensor's bytes are rounded up to 128, and 128 more align the first.
  auto const up = [](std::int64_t bytes) { return (bytes + 127) / 128 * 128; };
  std::int64_t const size = sizeof(T);
  for (int const ranks : {1, 2, 4}) {
    auto const none = run<SaveNone, T>(ranks), output = run<SaveOutput, T>(ranks),
               all = run<SaveAll, T>(ranks);
    for (int rank = 0; rank < ranks; ++rank) {
      auto const r = static_cast<std::size_t>(rank);
      std::int64_t const tokens = Contiguous::shard(rank, ranks, problem.seqlen).rows();
      std::int64_t const q = up(problem.batch * tokens * problem.heads * small_head_dim * size);
      std::int64_t const kv = up(problem.batch * tokens * problem.kv_heads * small_head_dim * size);
      std::int64_t const lse = up(problem.batch * tokens * problem.heads * 4);
      CHECK(none[r].saved_bytes == 0);
      CHECK(output[r].saved_bytes == q + lse + 128);
      CHECK(all[r].saved_bytes == q + lse + q + 2 * kv + 128);
    }
  }
}

TEST_CASE("too little memory is refused before the projection runs") {
  using Attn = DistAttn<small_head_dim, Causal, Balanced>;
  LocalWorld world(1);
  Attn attn(world[0], problem);
  Checkpointed<Attn, SaveOutput> layer(attn);
  std::vector<std::byte> saved(static_cast<std::size_t>(layer.saved_bytes())),
      workspace(static_cast<std::size_t>(layer.workspace_bytes()));
  auto const never = [](float*, float*, float*) { FAIL("the projection ran"); };
  std::span<std::byte> const s(saved), w(workspace);
  CHECK(layer.forward(never, s.first(10), w).status.message() ==
        "the saved memory holds 10 bytes, " + std::to_string(layer.saved_bytes()) + " are needed");
  CHECK(layer.restore(never, s, w.first(11)).status.message() ==
        "the workspace holds 11 bytes, " + std::to_string(layer.workspace_bytes()) + " are needed");
}
