// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstdint>
#include <limits>

#include "lightseq/core/error.hpp"
#include "lightseq/core/exact_math.hpp"

LIGHTSEQ_EXACT_MATH_BEGIN

namespace lightseq {

/// One self-attention over a whole sequence, whatever the number of ranks that share it.
struct Problem {
  std::int64_t batch = 1;
  std::int64_t seqlen = 0;    ///< tokens of the whole sequence, all ranks together
  std::int64_t heads = 1;     ///< query heads
  std::int64_t kv_heads = 0;  ///< key/value heads, a divisor of heads; 0 means as many as heads
  float scale = 0;            ///< factor on q.k before the softmax; 0 means 1 / sqrt(head dim)
  /// Documents that a pack has at most, at most seqlen; 0 means seqlen. Only schedules that plan for each
  /// batch ask for it.
  std::int64_t max_documents = 0;
};

/// The factor on q.k that a problem asks for: its own, or 1 / sqrt(head_dim) where it gives 0.
inline float softmax_scale(float scale, int head_dim) {
  return scale > 0 ? scale : 1.0f / std::sqrt(static_cast<float>(head_dim));
}

/// The problem with its defaults filled in. It need not make sense.
inline Problem with_defaults(Problem problem, int head_dim) {
  if (problem.kv_heads == 0) problem.kv_heads = problem.heads;
  problem.scale = softmax_scale(problem.scale, head_dim);
  return problem;
}

/// Product of sizes that are not negative; -1 if it does not fit in 63 bits.
template <class... Sizes>
constexpr std::int64_t checked_product(Sizes... sizes) {
  if ((false || ... || (sizes == 0))) return 0;
  std::int64_t product = 1;
  bool fits = true;
  auto const multiply = [&](std::int64_t size) {
    if (product > std::numeric_limits<std::int64_t>::max() / size) fits = false;
    if (fits) product *= size;
  };
  (multiply(static_cast<std::int64_t>(sizes)), ...);
  return fits ? product : -1;
}

/// The sum of two sizes that are not negative, or the largest that 63 bits hold.
constexpr std::int64_t capped_sum(std::int64_t a, std::int64_t b) {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  return a > most - b ? most : a + b;
}

/// The widest thing ever made of a problem, a workspace with all its messages on ranks that share one token,
/// has not as many bytes for each element of q.
inline constexpr std::int64_t most_bytes_an_element = 256;

/// The problem with its defaults filled in. Throws Error, with the numbers, on one that makes no sense.
inline Problem validated(Problem const& given, int head_dim) {
  Problem const problem = with_defaults(given, head_dim);
  if (problem.batch < 1) fail("batch is ", problem.batch, ", it must be at least 1");
  if (problem.seqlen < 1) fail("seqlen is ", problem.seqlen, ", it must be at least 1");
  if (problem.heads < 1) fail("heads is ", problem.heads, ", it must be at least 1");
  if (given.kv_heads < 0) fail("kv_heads is ", given.kv_heads, ", it must not be negative");
  if (problem.heads % problem.kv_heads != 0)
    fail("heads is ", problem.heads, ", which is not a multiple of kv_heads, ", problem.kv_heads);
  if (checked_product(problem.batch, problem.seqlen, problem.heads, head_dim, most_bytes_an_element) < 0)
    fail("batch ", problem.batch, " x seqlen ", problem.seqlen, " x heads ", problem.heads, " x head dim ",
         head_dim, " overflows 63 bits");
  if (!(given.scale >= 0) || given.scale > std::numeric_limits<float>::max())
    fail("scale is ", given.scale, ", it must be positive and finite, or 0 for 1 / sqrt(head dim)");
  return problem;
}

}  // namespace lightseq

LIGHTSEQ_EXACT_MATH_END
