// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <vector>

#include "lightseq/lightseq.cuh"
#include "lightseq/testing/cuda.cuh"
#include "support/data.hpp"
#include "support/device.cuh"
#include "support/schedules.hpp"

/// What holds of every DistAttn on a GPU.
namespace lightseq::test {

struct Fp16Cuda : CudaTraits {
  using Element = float16;
};
struct RelayedCuda : CudaTraits {
  static constexpr Route route = Route::neighbour;
};

struct OneLaunchCuda : CudaTraits {
  static constexpr bool one_launch = true;
  static constexpr bool inference = true;
};

struct PortableCuda : CudaTraits {
  using Device = Cuda<Ampere>;
};

struct SinkCuda : CudaTraits {
  static constexpr bool sinks = true;
};
struct PortableSinkCuda : PortableCuda {
  static constexpr bool sinks = true;
};
struct OneLaunchSinkCuda : OneLaunchCuda {
  static constexpr bool sinks = true;
};

struct DeterministicCuda : CudaTraits {
  static constexpr bool deterministic = true;
};

/// O, LSE and the gradients equal dense attention in double, in every world of up to 8 virtual ranks, no less
/// in a large world than in a small one. A second run gives the same bits, those of gradients where the
/// traits ask for it.
template <int HeadDim, class S, class Traits = CudaTraits, Mask M>
void equals_dense_on_gpu(M const& mask, Problem const& problem) {
  using T = typename Traits::Element;
  using Attn = DistAttn<HeadDim, M, S, Traits>;
  double const o_tolerance = std::is_same_v<T, float16> ? 1e-3 : 5e-3, gradient_tolerance = 2 * o_tolerance;
  INFO("LIGHTSEQ_SEED=", run_seed(), ", head dim ", HeadDim, ", seqlen ", problem.seqlen, ", heads ",
       problem.heads, "/", problem.kv_heads);
  auto fresh = testing::random_sequence<T>(problem, HeadDim, stream_seed(300));
  if constexpr (Traits::sinks) testing::add_sinks(fresh, stream_seed(304));
  testing::Dense const want = testing::dense<HeadDim>(fresh, mask, problem.scale, Attn::has_backward);
  // A row's weights are rounded relative to another reference in each world, which is common to the row, so
  // that rows scatter and not elements. In one launch no step of the ring adds to that.
  auto const scatter = [](auto const& values) { return 4 / std::sqrt(static_cast<double>(values.size())); };
  double const slack = (Traits::one_launch ? 1.25 : 1.05) + scatter(fresh.lse);
  double o_of_one = 0, gradients_of_one[3] = {};
  for (int const ranks : {1, 2, 3, 4, 5, 6, 7, 8}) {
    CAPTURE(ranks);
    Streams const streams(ranks);
    CudaLocalWorld world(streams);
    auto got = fresh, again = fresh;
    REQUIRE(testing::run_world<Attn>(world, problem, mask, S{}, got) == "");
    double const o_error = testing::relative_error(got.o, want.o);
    CHECK(o_error < o_tolerance);
    CHECK(testing::lse_error(got.lse, want.lse) < 1e-5);
    if (ranks == 1) o_of_one = o_error;
    CHECK(o_error < slack * o_of_one + 1e-5);
    if constexpr (Attn::has_backward) {
      double const errors[3] = {testing::relative_error(got.dq, want.dq),
                                testing::relative_error(got.dk, want.dk),
                                testing::relative_error(got.dv, want.dv)};
      for (int i = 0; i < 3; ++i) {
        CAPTURE(i);
        // What delta inherits from a rounded o is common to a row: rows scatter, not elements.
        CHECK(errors[i] < (1 + scatter(fresh.lse)) * gradient_tolerance);
        if (ranks == 1) gradients_of_one[i] = errors[i];
        CHECK(errors[i] < (1.05 + scatter(fresh.lse)) * gradients_of_one[i] + 1e-5);
      }
      CHECK(testing::d_sink_error(want, got) < o_tolerance);
    }

    REQUIRE(testing::run_world<Attn>(world, problem, mask, S{}, again) == "");
    CHECK(same_bits(again.o, got.o));
    CHECK(same_bits(again.lse, got.lse));
    if constexpr (Attn::has_backward && Traits::deterministic) {
      CHECK(same_bits(again.dq, got.dq));
      CHECK(same_bits(again.dk, got.dk));
      CHECK(same_bits(again.dv, got.dv));
    }
  }
}

/// Lengths that divide by nothing, are shorter than the world or a tile, with and without GQA and batches.
inline std::vector<Problem> gpu_problems() {
  return {{.batch = 1, .seqlen = 1201, .heads = 4, .kv_heads = 2},
          {.batch = 2, .seqlen = 512, .heads = 2, .kv_heads = 2},
          {.batch = 2, .seqlen = 77, .heads = 6, .kv_heads = 1, .scale = 0.3f},
          {.batch = 1, .seqlen = 5, .heads = 1, .kv_heads = 1}};
}

template <int HeadDim, class S, class Traits = CudaTraits, Mask M>
void equals_dense_on_gpu(M const& mask) {
  for (Problem const& problem : gpu_problems())
    equals_dense_on_gpu<HeadDim, S, Traits>(within(mask, problem.seqlen), problem);
}

}  // namespace lightseq::test
