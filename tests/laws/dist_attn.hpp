// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"
#include "support/data.hpp"
#include "support/schedules.hpp"

/// What holds of every DistAttn, whatever its schedule, mask, element type and route.
namespace lightseq::test {

inline constexpr int small_head_dim = 16;

struct Bf16Traits : DefaultTraits {
  using Element = bfloat16;
};
struct NeighbourTraits : DefaultTraits {
  static constexpr Route route = Route::neighbour;
};
struct SinkTraits : DefaultTraits {
  static constexpr bool sinks = true;
};

/// Problems whose lengths divide by nothing, are shorter than the world, with and without GQA and batches.
inline std::vector<Problem> small_problems() {
  return {{.batch = 1, .seqlen = 97, .heads = 4, .kv_heads = 2},
          {.batch = 2, .seqlen = 32, .heads = 2, .kv_heads = 2},
          {.batch = 2, .seqlen = 11, .heads = 6, .kv_heads = 1, .scale = 0.7f},
          {.batch = 1, .seqlen = 1, .heads = 1, .kv_heads = 1}};
}

/// The worlds that are tried: all up to 16, or some of them where a sanitizer slows threads down.
inline std::vector<int> worlds() {
#ifdef LIGHTSEQ_SANITIZED
  return {1, 2, 3, 4, 7, 16};
#else
  return {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
#endif
}

/// What dense attention in double allows for results of this type.
template <class T>
void within_bounds(testing::Errors const& e) {
  constexpr bool rounds = !std::is_same_v<T, float>;
  CHECK(e.o < (rounds ? 5e-3 : 1e-5));
  CHECK(e.lse < 1e-5);
  CHECK(e.dq < (rounds ? 1e-2 : 1e-5));
  CHECK(e.dk < (rounds ? 1e-2 : 1e-5));
  CHECK(e.dv < (rounds ? 1e-2 : 1e-5));
  CHECK(e.d_sink < (rounds ? 1e-2 : 1e-5));
}

/// All results of two sequences have the same bits.
template <class T>
void check_same_bits(testing::Sequence<T> const& a, testing::Sequence<T> const& b) {
  CHECK(same_bits(a.o, b.o));
  CHECK(same_bits(a.lse, b.lse));
  CHECK(same_bits(a.dq, b.dq));
  CHECK(same_bits(a.dk, b.dk));
  CHECK(same_bits(a.dv, b.dv));
}

/// Twice `run(sequence)` gives no text of a fault and what dense attention gives, with the same bits.
template <class T, class Run>
void check_runs(testing::Sequence<T> const& fresh, testing::Dense const& want, Run run) {
  auto sequence = fresh, again = fresh;
  REQUIRE(run(sequence) == "");
  within_bounds<T>(testing::errors_from(want, sequence));
  REQUIRE(run(again) == "");
  check_same_bits(again, sequence);
}

/// O, LSE, dQ, dK and dV equal dense attention in double, in every world, and a second run gives the same
/// bits.
template <class S, class Traits = DefaultTraits, Mask M>
void equals_dense(M const& any_length) {
  using Attn = DistAttn<small_head_dim, M, S, Traits>;
  using T = typename Traits::Element;
  INFO("LIGHTSEQ_SEED=", run_seed());
  for (Problem const& problem : small_problems()) {
    M const mask = within(any_length, problem.seqlen);
    // The gradients of one key beside a sink, or of few rounded rows, may be little more than rounding
    // errors.
    if (Traits::sinks && problem.seqlen < (std::is_same_v<T, float> ? 2 : 30)) continue;
    auto fresh = testing::random_sequence<T>(problem, small_head_dim, stream_seed(100));
    if constexpr (Traits::sinks) testing::add_sinks(fresh, stream_seed(104));
    auto const want = testing::dense<small_head_dim>(fresh, mask, problem.scale);
    for (int const ranks : worlds()) {
      INFO("seqlen ", problem.seqlen, ", ranks ", ranks);
      LocalWorld world(ranks);
      check_runs(fresh, want, [&](testing::Sequence<T>& sequence) {
        return testing::run_world<Attn>(world, problem, mask, S{}, sequence);
      });
    }
  }
}

/// The same under every schedule of the list that serves the mask.
template <class Traits = DefaultTraits, class List = FlatSchedules, Mask M>
void equals_dense_under_each(M const& mask) {
  for_each_serving<List>(mask, [&]<class S>() { equals_dense<S, Traits>(mask); });
}

}  // namespace lightseq::test
