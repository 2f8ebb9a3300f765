// SPDX-License-Identifier: Apache-2.0
// Tensors that lie in memory as their message would are sent from where they are, all others from a copy.
#include <doctest/doctest.h>

#include <mutex>
#include <string>
#include <vector>

#include "laws/dist_attn.hpp"
#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"
#include "support/data.hpp"
#include "support/schedules.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

constexpr int head_dim = 8;

/// A transport that notes from where messages are sent.
class Noting {
 public:
  explicit Noting(Local& local) : local_(local) {}
  int rank() const noexcept { return local_.rank(); }
  int world() const noexcept { return local_.world(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    sent.insert(sent.end(), sends.begin(), sends.end());
    return local_.start(sends, recvs);
  }
  Status finish() noexcept { return local_.finish(); }

  std::vector<Send> sent;

 private:
  Local& local_;
};

struct NotingTraits : DefaultTraits {
  using Transport = Noting;
};

bool within(void const* data, std::vector<float> const& of) {
  auto const* const at = static_cast<float const*>(data);
  return at >= of.data() && at < of.data() + of.size();
}

/// How keys and values lie.
enum class Lie { apart, behind_each_other };

/// What a rank of `S` computes, and whether each payload of its own was sent from where the caller has it.
template <class S>
void sends_from_where_they_are(Problem const& problem, Lie lie) {
  auto const fresh = testing::random_sequence<float>(problem, head_dim, stream_seed(900));
  for (int const ranks : {2, 3, 4, 6}) {
    INFO("LIGHTSEQ_SEED=", run_seed(), ", ranks ", ranks, ", batch ", problem.batch);
    auto want = fresh, got = fresh;
    LocalWorld world(ranks);
    REQUIRE(testing::run_world<DistAttn<head_dim, Causal, S>>(world, problem, Causal{}, S{}, want) == "");
    std::mutex mutex;
    std::vector<std::string> wrong;
    int queries = 0, keys = 0;
    run_ranks(world, [&](Local& local) {
      Noting transport(local);
      DistAttn<head_dim, Causal, S, NotingTraits> attn(transport, problem);
      auto part = testing::part_of(got, attn.positions());
      std::size_t const size = part.k.size();
      std::vector<float> both = part.k;
      both.insert(both.end(), part.v.begin(), part.v.end());
      auto const keys_of = [&](auto inputs) {
        if (lie == Lie::behind_each_other) inputs.k = both.data(), inputs.v = both.data() + size;
        return inputs;
      };
      std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()), std::byte{0xff});
      Status status = attn.forward(keys_of(part.inputs()), part.outputs(), workspace);
      std::size_t const of_forward = transport.sent.size();
      if (status.ok()) status = attn.backward(keys_of(part.backward_inputs()), part.gradients(), workspace);
      std::lock_guard const lock(mutex);
      if (!status.ok()) wrong.push_back(status.message());
      testing::put_back(part, attn.positions(), got);
      auto const expect = [&](bool in_place, bool expected, Send const& send) {
        if (in_place != expected)
          wrong.push_back(send.label + (" of step " + std::to_string(send.step)) + " of rank " +
                          std::to_string(local.rank()));
      };
      for (std::size_t i = 0; i < transport.sent.size(); ++i) {
        Send const& send = transport.sent[i];
        bool const forward = i < of_forward;
        std::int64_t const rows = send.bytes / (problem.batch * problem.heads * head_dim * 4);
        if (send.label == std::string("q")) {
          queries += forward;
          expect(within(send.data, part.q), forward && (problem.batch == 1 || rows == attn.tokens()), send);
        }
        if (send.label == std::string("kv")) {
          ++keys;
          bool const without_gap = size * sizeof(float) % Extents::alignment == 0;
          expect(send.data == both.data(), lie == Lie::behind_each_other && without_gap, send);
        }
      }
    });
    for (std::string const& message : wrong) FAIL_CHECK(message);
    CHECK((queries > 0) == (std::is_same_v<S, Balanced> || std::is_same_v<S, PassQ>));
    CHECK((keys > 0) == !std::is_same_v<S, PassQ>);
    check_same_bits(got, want);
  }
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("what needs no packing is sent from where it is", S, sent_in_place) {
  for (Lie const lie : {Lie::apart, Lie::behind_each_other})
    for (std::int64_t const batch : {1, 2})
      sends_from_where_they_are<S>({.batch = batch, .seqlen = 61, .heads = 4, .kv_heads = 2}, lie);
}
TEST_CASE_TEMPLATE_APPLY(sent_in_place, FlatSchedules);
