// SPDX-License-Identifier: Apache-2.0
// A mask of one's own: prefix-LM, where everybody sees the first tokens (a prompt, an image) and is causal
// beyond. Two members are all that a mask is; the schedules, the messages and the kernels follow. To run it,
// run_world() of lightseq::testing does on every rank what quickstart.cpp does.
#include <cstdio>
#include <random>

#include "lightseq/lightseq.hpp"
#include "lightseq/testing/sequence.hpp"

using lightseq::Cover, lightseq::Range;

struct PrefixLM {
  std::int64_t prefix = 0;

  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return key < prefix || key <= query;
  }

  /// What a rectangle looks like: `none` drops its work and its messages, `full` spares the test of each
  /// pair.
  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    if (keys.end <= prefix) return Cover::full;
    Cover const causal = lightseq::Causal::cover(queries, keys);
    return causal == Cover::none && keys.begin < prefix ? Cover::partial : causal;
  }
};
static_assert(lightseq::Mask<PrefixLM>);

int main() {
  constexpr int ranks = 4, head_dim = 32;
  lightseq::Problem const problem{.batch = 1, .seqlen = 500, .heads = 4, .kv_heads = 2};
  PrefixLM const mask{.prefix = 150};
  auto sequence = lightseq::testing::random_sequence<float>(problem, head_dim, std::random_device{}());
  lightseq::LocalWorld world(ranks);

  using Attn = lightseq::DistAttn<head_dim, PrefixLM, lightseq::ZigzagRing>;
  auto const fault =
      lightseq::testing::run_world<Attn>(world, problem, mask, lightseq::ZigzagRing{}, sequence);
  if (!fault.empty()) {
    std::printf("%s\n", fault.c_str());
    return 1;
  }
  auto const errors = lightseq::testing::dense_errors<head_dim>(sequence, mask);
  std::printf("prefix-LM on %d ranks: worst relative error against dense attention %.1e\n", ranks,
              errors.worst());

  // Balanced computes no query against a later shard, and here some queries see one: it says so.
  using Unserved = lightseq::DistAttn<head_dim, PrefixLM, lightseq::Balanced>;
  try {
    Unserved const attn(world[0], problem, mask);
    return 1;
  } catch (lightseq::Error const& error) {
    std::printf("Balanced: %s\n", error.what());
  }
  return errors.worst() < 1e-5 ? 0 : 1;
}
