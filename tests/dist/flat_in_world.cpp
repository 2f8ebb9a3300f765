// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

constexpr int head_dim = 64;
#ifdef LIGHTSEQ_SANITIZED
Problem const problem{.seqlen = 201, .heads = 4, .kv_heads = 2};
#else
Problem const problem{.seqlen = 1201, .heads = 4, .kv_heads = 2};
#endif

template <class Attn>
testing::Errors errors(testing::Sequence<float> sequence, testing::Dense const& want, int ranks) {
  LocalWorld world(ranks);
  REQUIRE(testing::run_world<Attn>(world, problem, Causal{}, typename Attn::Schedule{}, sequence) == "");
  return {relative_error(sequence.o, want.o), lse_error(sequence.lse, want.lse),
          relative_error(sequence.dq, want.dq), relative_error(sequence.dk, want.dk),
          relative_error(sequence.dv, want.dv)};
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("errors do not grow with the world", S, errors_stay) {
  using Attn = DistAttn<head_dim, Causal, S>;
  INFO("LIGHTSEQ_SEED=", run_seed());
  static auto const fresh = testing::random_sequence<float>(problem, head_dim, stream_seed(7));
  static testing::Dense const want = testing::dense<head_dim>(fresh, Causal{});
  auto const bound = [](double error) { return 1.25 * error; };
  testing::Errors const one = errors<Attn>(fresh, want, 1);
  CHECK(one.worst() < 1e-6);
  for (int const ranks : {2, 3, 8, 16, 64}) {
    CAPTURE(ranks);
    testing::Errors const many = errors<Attn>(fresh, want, ranks);
    CHECK(many.o < bound(one.o));
    CHECK(many.lse < bound(one.lse));
    CHECK(many.dq < bound(one.dq));
    CHECK(many.dk < bound(one.dk));
    CHECK(many.dv < bound(one.dv));
  }
}
TEST_CASE_TEMPLATE_APPLY(errors_stay, FlatSchedules);

TEST_CASE("a world of one equals the plain kernel bit for bit") {
  using Attn = DistAttn<head_dim, Causal, Balanced>;
  LocalWorld world(1);
  auto sequence = testing::random_sequence<float>(problem, head_dim, stream_seed(8));
  auto plain = sequence;
  REQUIRE(testing::run_world<Attn>(world, problem, Causal{}, Balanced{}, sequence) == "");

  std::vector<std::byte> memory(static_cast<std::size_t>(
      128 + std::max(host::forward_scratch_bytes<head_dim>(), host::backward_scratch_bytes<head_dim>())));
  std::byte* const scratch = aligned_base(memory.data());
  std::vector<float> delta(plain.lse.size());
  auto const stats = [&](auto* data) {
    return RowStats(data, problem.heads * problem.seqlen, problem.seqlen);
  };
  auto const fill = [&](auto& call) {
    call.q = plain.q.data();
    call.k = plain.k.data();
    call.v = plain.v.data();
    call.queries = call.keys = Contiguous::shard(0, 1, problem.seqlen);
    call.heads = problem.heads;
    call.kv_heads = problem.kv_heads;
    call.scale = softmax_scale(0, head_dim);
  };
  ForwardCall<float> forward;
  fill(forward);
  forward.out = {plain.o.data(), stats(plain.lse.data())};
  host::forward<head_dim>(forward, Causal{}, scratch);
  BackwardCall<float> backward;
  fill(backward);
  backward.d_o = plain.d_o.data();
  backward.lse = stats(static_cast<float const*>(plain.lse.data()));
  backward.delta = stats(static_cast<float const*>(delta.data()));
  host::delta(Tensor<float>(plain.o.data()), Tensor<float>(plain.d_o.data()), stats(delta.data()),
              plain.q_shape);
  host::zero(Tensor<float>(plain.dq.data()), plain.q_shape);
  host::zero(Tensor<float>(plain.dk.data()), plain.kv_shape);
  host::zero(Tensor<float>(plain.dv.data()), plain.kv_shape);
  backward.dq = plain.dq.data();
  backward.dk = plain.dk.data();
  backward.dv = plain.dv.data();
  host::backward<head_dim>(backward, Causal{}, scratch);

  CHECK(plain.o == sequence.o);
  CHECK(plain.lse == sequence.lse);
  CHECK(plain.dq == sequence.dq);
  CHECK(plain.dk == sequence.dk);
  CHECK(plain.dv == sequence.dv);
}
