// SPDX-License-Identifier: Apache-2.0
// Scores and scales beyond the usual.
#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

using Sequence = testing::Sequence<float>;

template <class S>
Sequence result(Problem const& problem, Sequence sequence, int ranks) {
  using Attn = DistAttn<small_head_dim, Causal, S>;
  LocalWorld world(ranks);
  REQUIRE(testing::run_world<Attn>(world, problem, Causal{}, S{}, sequence) == "");
  return sequence;
}

bool all_finite(std::vector<float> const& values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return std::isfinite(x); });
}

/// What holds of scores of any size, without an oracle: the scores themselves are rounded, but alike on all
/// ranks.
void equals_one_rank(Sequence const& got, Sequence const& one) {
  CHECK(relative_error(got.o, one.o) < 1e-5);
  CHECK(lse_error(got.lse, one.lse) < 1e-6);
  for (auto const* gradient : {&got.dq, &got.dk, &got.dv}) CHECK(all_finite(*gradient));
}

}  // namespace

TEST_CASE_TEMPLATE_DEFINE("scores of any size give the same o on all worlds, and gradients that are finite",
                          S, same_on_all_worlds) {
  for (float const size : {1e4f, 1e6f, 1e9f, 1e30f}) {
    Problem const problem{.seqlen = 150, .heads = 2, .kv_heads = 1, .scale = size / 4};
    auto const fresh = testing::random_sequence<float>(problem, small_head_dim, stream_seed(700));
    auto const one = result<S>(problem, fresh, 1);
    for (int const ranks : {2, 3, 5, 16}) {
      INFO("LIGHTSEQ_SEED=", run_seed(), ", scores of ", size, ", ranks ", ranks);
      equals_one_rank(result<S>(problem, fresh, ranks), one);
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(same_on_all_worlds, FlatSchedules);

TEST_CASE_TEMPLATE_DEFINE("close scores of any size weigh their difference", S, differences_weigh) {
  // Scores are `size` times log2(e), and less by a few, which a float LSE could not tell apart.
  for (float const size : {0.0f, 1e4f, 1e6f}) {
    Problem const problem{.seqlen = 150, .heads = 2, .kv_heads = 1, .scale = 1};
    auto fresh = testing::random_sequence<float>(problem, small_head_dim, stream_seed(701));
    for (std::size_t i = 0; i < fresh.q.size(); ++i) fresh.q[i] = i % small_head_dim == 0 ? 1.0f : 0.0f;
    for (std::size_t i = 0; i < fresh.k.size(); i += small_head_dim)
      fresh.k[i] = size + std::round(8 * fresh.k[i]) / 8;
    auto const one = result<S>(problem, fresh, 1);
    testing::Dense const want = testing::dense<small_head_dim>(fresh, Causal{}, problem.scale);
    for (int const ranks : {1, 2, 3, 5, 16}) {
      INFO("LIGHTSEQ_SEED=", run_seed(), ", scores of ", size, ", ranks ", ranks);
      auto const got = result<S>(problem, fresh, ranks);
      equals_one_rank(got, one);
      // A score is a float.
      double const step = 1e-5 + double{size} * 2e-7;
      CHECK(relative_error(got.o, want.o) < step);
      if (size > 8192) continue;
      CHECK(relative_error(got.dv, want.dv) < step);
      CHECK(relative_error(got.dq, want.dq) < step);
      CHECK(relative_error(got.dk, want.dk) < step);
    }
  }
}
TEST_CASE_TEMPLATE_APPLY(differences_weigh, FlatSchedules);

TEST_CASE("gradients are right where the step of an LSE is under 1e-3") {
  for (float const size : {10.0f, 300.0f, 1000.0f}) {
    Problem const problem{.seqlen = 150, .heads = 2, .kv_heads = 1, .scale = size / 4};
    auto const fresh = testing::random_sequence<float>(problem, small_head_dim, stream_seed(702));
    testing::Dense const want = testing::dense<small_head_dim>(fresh, Causal{}, problem.scale);
    REQUIRE(std::abs(*std::max_element(want.lse.begin(), want.lse.end())) < 8192);
    for (int const ranks : {1, 3, 16}) {
      INFO("LIGHTSEQ_SEED=", run_seed(), ", scores of ", size, ", ranks ", ranks);
      auto const got = result<Balanced>(problem, fresh, ranks);
      CHECK(relative_error(got.o, want.o) < 1e-3);
      CHECK(relative_error(got.dq, want.dq) < 5e-3);
      CHECK(relative_error(got.dk, want.dk) < 5e-3);
      CHECK(relative_error(got.dv, want.dv) < 5e-3);
    }
  }
}

TEST_CASE_TEMPLATE("a scale of any finite size equals dense attention", S, Balanced, ZigzagRing) {
  for (float const scale : {std::numeric_limits<float>::denorm_min(), 3e-42f, 1e-38f, 1e-20f, 0.3f, 1e20f,
                            1e38f, std::numeric_limits<float>::max()}) {
    Problem const problem{.seqlen = 90, .heads = 2, .kv_heads = 1, .scale = scale};
    auto fresh = testing::random_sequence<float>(problem, small_head_dim, stream_seed(703));
    auto const plain = fresh;
    float const root = std::sqrt(scale);
    for (auto* const tensor : {&fresh.q, &fresh.k})
      for (float& x : *tensor) x /= root;
    testing::Dense const want = testing::dense<small_head_dim>(fresh, Causal{}, scale);
    for (int const ranks : {1, 2, 5, 16}) {
      INFO("LIGHTSEQ_SEED=", run_seed(), ", scale ", scale, ", ranks ", ranks);
      auto const got = result<S>(problem, fresh, ranks);
      CHECK(relative_error(got.o, want.o) < 1e-5);
      CHECK(lse_error(got.lse, want.lse) < 1e-5);
      CHECK(relative_error(got.dq, want.dq) < 1e-5);
      CHECK(relative_error(got.dk, want.dk) < 1e-5);
      CHECK(relative_error(got.dv, want.dv) < 1e-5);
      if (scale < 1)  // scores of next to nothing
        CHECK(testing::relative_error(result<S>(problem, plain, ranks).o,
                                      testing::dense<small_head_dim>(plain, Causal{}, scale, false).o) <
              1e-5);
    }
  }
}
