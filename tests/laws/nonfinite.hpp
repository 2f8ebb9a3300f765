// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "lightseq/dist_attn.hpp"
#include "lightseq/testing/sequence.hpp"
#include "support/data.hpp"
#include "support/masks.hpp"

/// NaN and infinity on any device: they stay, and only where they are seen. A file for a GPU includes
/// lightseq/testing/cuda.cuh before this one.
namespace lightseq::test {

/// Runs f(world) with a world of threads; one of a GPU has the same form.
struct WithLocalWorld {
  template <class F>
  void operator()(int ranks, F const& f) const {
    LocalWorld world(ranks);
    f(world);
  }
};

/// What poisons; the second is memory filled with ones, the usual poison.
inline std::vector<float> const& poisons() {
  static std::vector<float> const all{
      std::numeric_limits<float>::quiet_NaN(), std::bit_cast<float>(0xffffffffu),
      std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity()};
  return all;
}

/// One row of an input tensor, all of it or one element, that holds what is not finite.
struct Poison {
  int tensor = 0;  ///< q, k, v or d_o
  std::int64_t token = 0;
  std::uint64_t random = 0;  ///< chooses batch, head, and the element, if not all of them
  bool whole_row = true;
  float value = 0;

  template <class T>
  void spoil(testing::Sequence<T>& s) const {
    std::vector<T>* const tensors[] = {&s.q, &s.k, &s.v, &s.d_o};
    Shape const& shape = tensor == 1 || tensor == 2 ? s.kv_shape : s.q_shape;
    std::uint64_t rest = random;
    auto const choose = [&](std::int64_t count) {
      auto const index = static_cast<std::int64_t>(rest % static_cast<std::uint64_t>(count));
      rest /= static_cast<std::uint64_t>(count);
      return index;
    };
    Tensor<T> const to(tensors[tensor]->data(), Strides::packed(shape));
    std::int64_t const batch = choose(shape.batch), head = choose(shape.heads), element = choose(shape.dim);
    T* const row = to.at(batch, token, head);
    for (std::int64_t d = 0; d < shape.dim; ++d)
      if (whole_row || d == element) row[d] = T(value);
  }

  /// One infinity in a row of keys: GPU kernels make it a large number before they multiply gradients with
  /// it, so that a query of which it takes all weight, or none, may get numbers where the oracle has NaN.
  bool is_lone_infinity_of_a_key() const { return tensor == 1 && !whole_row && std::isinf(value); }

  std::string text() const {
    return std::string(1, "qkvd"[tensor]) + " of token " + std::to_string(token) + ", " +
           (whole_row ? "all" : "one") + " of its row, is " + std::to_string(value);
  }
};

/// The first row in which `got` has something that is not finite and `want` has not, or the other way; -1 if
/// there is none. Rows that are finite must agree to `tolerance`.
template <class Got, class Want>
std::int64_t first_difference(std::vector<Got> const& got, std::vector<Want> const& want, std::int64_t dim,
                              double tolerance) {
  std::vector<double> finite_got, finite_want;
  for (std::size_t begin = 0; begin < want.size(); begin += static_cast<std::size_t>(dim)) {
    bool got_finite = true, want_finite = true, same = true;
    for (std::size_t i = begin; i < begin + static_cast<std::size_t>(dim); ++i) {
      double const g = static_cast<float>(got[i]), w = static_cast<double>(want[i]);
      got_finite = got_finite && std::isfinite(g);
      want_finite = want_finite && std::isfinite(w);
      same = same && g == w;
    }
    // An LSE of -inf says that nothing is seen.
    bool const nothing = dim == 1 && std::isinf(static_cast<double>(want[begin]));
    if (nothing ? !same : got_finite != want_finite) return static_cast<std::int64_t>(begin) / dim;
    for (std::size_t i = begin; want_finite && i < begin + static_cast<std::size_t>(dim); ++i) {
      finite_got.push_back(static_cast<float>(got[i]));
      finite_want.push_back(static_cast<double>(want[i]));
    }
  }
  CHECK(relative_error(finite_got, finite_want) < tolerance);
  return -1;
}

/// The rows of o, lse and the gradients that are not finite are those of an oracle that multiplies visible
/// pairs alone, and all others are right.
template <int HeadDim, bool has_backward, class T, Mask M>
void rows_are_the_oracles(testing::Sequence<T> const& got, M const& mask, float scale) {
  double const tolerance = std::is_same_v<T, float> ? 1e-5 : 2e-2;
  testing::Dense const want = testing::dense<HeadDim>(got, mask, scale, has_backward);
  CHECK(first_difference(got.o, want.o, HeadDim, tolerance) == -1);
  CHECK(first_difference(got.lse, want.lse, 1, tolerance) == -1);
  if constexpr (has_backward) {
    CHECK(first_difference(got.dq, want.dq, HeadDim, tolerance) == -1);
    CHECK(first_difference(got.dk, want.dk, HeadDim, tolerance) == -1);
    CHECK(first_difference(got.dv, want.dv, HeadDim, tolerance) == -1);
  }
}

/// With one row of an input that is not finite, rows are the oracle's in every world. `with_world(ranks, f)`
/// calls f(world). Each world gets `draws` poisons.
template <int HeadDim, class S, class Traits = DefaultTraits, Mask M, class WithWorld = WithLocalWorld>
void poison_stays_where_it_is_seen(M const& mask, Problem const& problem, std::vector<int> const& worlds,
                                   int draws, WithWorld const& with_world = {}) {
  using T = typename Traits::Element;
  using Attn = DistAttn<HeadDim, M, S, Traits>;
  INFO("LIGHTSEQ_SEED=", run_seed(), ", seqlen ", problem.seqlen, ", mask ", std::string(name_of<M>()));
  static std::mt19937_64 random(run_seed());
  int draw = static_cast<int>(random() % 4);
  auto const fresh = testing::random_sequence<T>(problem, HeadDim, random());
  for (int const ranks : worlds)
    with_world(ranks, [&](auto& world) {
      for (int i = 0; i < draws; ++i, ++draw) {
        std::int64_t const tokens[] = {0, problem.seqlen / 2, problem.seqlen - 1,
                                       static_cast<std::int64_t>(random() >> 8)};
        Poison const poison{draw % 4, tokens[random() % 4] % problem.seqlen, random(), random() % 2 == 0,
                            poisons()[random() % poisons().size()]};
        INFO("ranks ", ranks, ", ", poison.text());
        auto got = fresh;
        poison.spoil(got);
        REQUIRE(testing::run_world<Attn>(world, problem, mask, S{}, got) == "");
        if (!std::is_base_of_v<Host, typename Traits::Device> && poison.is_lone_infinity_of_a_key())
          rows_are_the_oracles<HeadDim, false>(got, mask, problem.scale);
        else
          rows_are_the_oracles<HeadDim, Attn::has_backward>(got, mask, problem.scale);
      }
    });
}

/// Where the scores of the first third of the keys are -inf, queries that see these alone have no softmax,
/// which is not to see nothing, and all others give them no weight.
template <int HeadDim, class S, class Traits = DefaultTraits, Mask M, class WithWorld = WithLocalWorld>
void scores_may_be_minus_infinity(M const& mask, Problem const& problem, std::vector<int> const& worlds,
                                  WithWorld const& with_world = {}) {
  using T = typename Traits::Element;
  using Attn = DistAttn<HeadDim, M, S, Traits>;
  INFO("LIGHTSEQ_SEED=", run_seed(), ", seqlen ", problem.seqlen, ", mask ", std::string(name_of<M>()));
  auto fresh = testing::random_sequence<T>(problem, HeadDim, stream_seed(601));
  for (std::size_t i = 0; i < fresh.q.size(); i += HeadDim)
    fresh.q[i] = T(std::abs(static_cast<float>(fresh.q[i])) + 0.1f);
  std::size_t const of_token = fresh.k.size() / static_cast<std::size_t>(problem.batch * problem.seqlen);
  for (std::size_t i = 0; i < fresh.k.size(); i += HeadDim)
    if (static_cast<std::int64_t>(i / of_token) % problem.seqlen < problem.seqlen / 3)
      fresh.k[i] = T(-std::numeric_limits<float>::infinity());
  for (int const ranks : worlds)
    with_world(ranks, [&](auto& world) {
      INFO("ranks ", ranks);
      auto got = fresh;
      REQUIRE(testing::run_world<Attn>(world, problem, mask, S{}, got) == "");
      rows_are_the_oracles<HeadDim, Attn::has_backward>(got, mask, problem.scale);
    });
}

/// Fills what nobody sees, queries that see no key and keys that no query sees, with what `next()` gives.
template <class T, Mask M, class Next>
void fill_unseen(testing::Sequence<T>& s, M const& mask, Next next) {
  std::int64_t const tokens = s.q_shape.tokens;
  auto const fill = [&](std::vector<T>& tensor, Shape const& shape, std::int64_t token) {
    std::int64_t const run = shape.heads * shape.dim;
    for (std::int64_t b = 0; b < shape.batch; ++b)
      for (std::int64_t i = 0; i < run; ++i)
        tensor[static_cast<std::size_t>((b * tokens + token) * run + i)] = T(next());
  };
  for (std::int64_t token = 0; token < tokens; ++token) {
    bool sees = false, seen = false;
    for (std::int64_t other = 0; other < tokens; ++other) {
      sees = sees || mask.visible(token, other);
      seen = seen || mask.visible(other, token);
    }
    if (!sees) fill(s.q, s.q_shape, token), fill(s.d_o, s.q_shape, token);
    if (!seen) fill(s.k, s.kv_shape, token), fill(s.v, s.kv_shape, token);
  }
}

/// What nobody sees may hold anything, huge numbers too: all results are those of zeros there.
template <int HeadDim, class S, class Traits = DefaultTraits, Mask M, class WithWorld = WithLocalWorld>
void unseen_may_hold_anything(M const& mask, Problem const& problem, std::vector<int> const& worlds,
                              WithWorld const& with_world = {}) {
  using T = typename Traits::Element;
  using Attn = DistAttn<HeadDim, M, S, Traits>;
  double const tolerance = std::is_same_v<T, float> ? 1e-5 : 2e-2;
  INFO("LIGHTSEQ_SEED=", run_seed(), ", seqlen ", problem.seqlen, ", mask ", std::string(name_of<M>()));
  auto zeros = testing::random_sequence<T>(problem, HeadDim, stream_seed(600));
  fill_unseen(zeros, mask, [] { return 0.0f; });
  testing::Dense const want = testing::dense<HeadDim>(zeros, mask, problem.scale, Attn::has_backward);
  for (int const ranks : worlds)
    with_world(ranks, [&](auto& world) {
      for (std::size_t i = 0; i <= poisons().size(); ++i) {
        float const value = i < poisons().size() ? poisons()[i] : 1e38f;
        INFO("ranks ", ranks, ", padding of ", value);
        auto got = zeros;
        fill_unseen(got, mask, [&] { return value; });
        REQUIRE(testing::run_world<Attn>(world, problem, mask, S{}, got) == "");
        CHECK(relative_error(got.o, want.o) < tolerance);
        CHECK(lse_error(got.lse, want.lse) < 1e-5);
        if constexpr (Attn::has_backward) {
          CHECK(relative_error(got.dq, want.dq) < tolerance);
          CHECK(relative_error(got.dk, want.dk) < tolerance);
          CHECK(relative_error(got.dv, want.dv) < tolerance);
        }
      }
    });
}

}  // namespace lightseq::test
