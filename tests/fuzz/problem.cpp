// SPDX-License-Identifier: Apache-2.0
// Any problem, window and world: either an Error, or shards, covers and plans that agree with each other.
#include <fuzzer/FuzzedDataProvider.h>

#include <cstdint>
#include <limits>

#include "lightseq/lightseq.hpp"

namespace {

constexpr int head_dim = 64;
constexpr std::int64_t max = std::numeric_limits<std::int64_t>::max();

void require(bool right) {
  if (!right) __builtin_trap();
}

/// Small, near the largest, or anything: sizes at which things go wrong.
std::int64_t size(FuzzedDataProvider& data) {
  switch (data.ConsumeIntegralInRange(0, 3)) {
    case 0:
      return data.ConsumeIntegralInRange<std::int64_t>(-1, 40);
    case 1:
      return max - data.ConsumeIntegralInRange<std::int64_t>(0, 40);
    case 2:
      return std::int64_t{1} << data.ConsumeIntegralInRange(0, 62);
    default:
      return data.ConsumeIntegral<std::int64_t>();
  }
}

std::int64_t not_negative(FuzzedDataProvider& data) { return size(data) & max; }

/// A validated problem fits, and its defaults are filled in.
void check_validated(lightseq::Problem const& given) {
  lightseq::Problem const problem = lightseq::validated(given, head_dim);
  require(problem.batch >= 1 && problem.seqlen >= 1 && problem.heads >= 1 && problem.kv_heads >= 1);
  require(problem.heads % problem.kv_heads == 0 && problem.scale >= 0);
  auto const elements = static_cast<__int128>(problem.batch) * problem.seqlen * problem.heads * head_dim;
  require(elements <= max);
}

/// The shards of all ranks are as many tokens as the sequence has, each within it and none in two.
template <class Partition>
void check_shards(FuzzedDataProvider& data, int world, std::int64_t seqlen) {
  std::int64_t total = 0;
  for (int rank = 0; rank < world; ++rank) {
    lightseq::Positions const shard = Partition::shard(rank, world, seqlen);
    require(shard.rows() >= 0 && shard.rows() <= lightseq::max_shard_rows<Partition>(world, seqlen));
    total += shard.rows();
    if (shard.rows() == 0) continue;
    std::int64_t const position =
        shard.position(data.ConsumeIntegralInRange<std::int64_t>(0, shard.rows() - 1));
    require(position >= 0 && position < seqlen);
    for (int other = 0; other < world; ++other) {
      if (other == rank) continue;
      for (lightseq::Segment const& s : Partition::shard(other, world, seqlen).segments)
        require(s.rows == 0 || position < s.begin || position > s.position(s.rows - 1) ||
                (position - s.begin) % s.stride != 0);
    }
  }
  require(total == seqlen);
}

/// cover() claims nothing of a rectangle that visible() denies at a place in it.
template <class Mask>
void check_cover(FuzzedDataProvider& data, Mask const& mask, std::int64_t seqlen) {
  auto const range = [&] {
    auto const begin = data.ConsumeIntegralInRange<std::int64_t>(0, seqlen - 1);
    return lightseq::Range{begin, data.ConsumeIntegralInRange<std::int64_t>(begin + 1, seqlen)};
  };
  lightseq::Range const queries = range(), keys = range();
  lightseq::Cover const cover = mask.cover(queries, keys);
  if (cover == lightseq::Cover::partial) return;
  for (int i = 0; i < 8; ++i) {
    auto const query = data.ConsumeIntegralInRange<std::int64_t>(queries.begin, queries.end - 1);
    auto const key = data.ConsumeIntegralInRange<std::int64_t>(keys.begin, keys.end - 1);
    require(mask.visible(query, key) == (cover == lightseq::Cover::full));
  }
}

/// Every rank's plans and workspace.
template <class Mask, class Schedule>
void check_plans(lightseq::LocalWorld& world, lightseq::Problem const& problem, Mask const& mask) {
  using Attn = lightseq::DistAttn<head_dim, Mask, Schedule>;
  for (lightseq::Pass const pass : {lightseq::Pass::forward, lightseq::Pass::backward}) {
    std::int64_t sends = 0, recvs = 0;
    for (int rank = 0; rank < world.world(); ++rank) {
      Attn const attn(world[rank], problem, mask);
      require(attn.workspace_bytes() >= 0 && attn.bytes_sent(pass) >= 0);
      for (lightseq::Step const& step : attn.plan(pass).steps) {
        require(step.sends.size() + step.recvs.size() <= lightseq::Plan::max_group);
        sends += static_cast<std::int64_t>(step.sends.size());
        recvs += static_cast<std::int64_t>(step.recvs.size());
        for (lightseq::Transfer const& t : step.recvs) {
          auto const shard = Schedule::Partition::shard(t.shard, world.world(), problem.seqlen);
          auto const rows = lightseq::row_span(t.rows, shard.rows()).count;
          require(attn.extents().message_bytes(t.payload, pass, rows) <= attn.workspace_bytes());
        }
      }
    }
    require(sends == recvs);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* bytes, std::size_t count) {
  FuzzedDataProvider data(bytes, count);
  lightseq::Problem const problem{size(data), size(data), size(data), size(data),
                                  data.ConsumeFloatingPoint<float>()};
  lightseq::SlidingWindow const window{not_negative(data), not_negative(data)};
  lightseq::SlidingWindow const causal_window{window.left, 0};
  lightseq::LocalWorld world(data.ConsumeIntegralInRange(1, 9));
  try {
    check_validated(problem);
    check_plans<lightseq::Causal, lightseq::Balanced>(world, problem, {});
    lightseq::for_each_type<lightseq::FlatSchedules>([&]<class S>() {
      bool const serves_all = lightseq::laws::proved_complete<S, lightseq::Full>();
      check_plans<lightseq::SlidingWindow, S>(world, problem, serves_all ? window : causal_window);
    });
  } catch (lightseq::Error const&) {
  }

  if (problem.seqlen < 1) return 0;
  check_shards<lightseq::Contiguous>(data, world.world(), problem.seqlen);
  check_shards<lightseq::Zigzag>(data, world.world(), problem.seqlen);
  check_shards<lightseq::Striped>(data, world.world(), problem.seqlen);
  check_cover(data, lightseq::Causal{}, problem.seqlen);
  check_cover(data, window, problem.seqlen);
  return 0;
}
