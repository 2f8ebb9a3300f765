// SPDX-License-Identifier: Apache-2.0
#include "lightseq/chunk_attn.hpp"

#include <random>
#include <string>
#include <vector>

#include "laws/dist_attn.hpp"
#include "lightseq/partition/gather.hpp"
#include "lightseq/testing/packed.hpp"
#include "support/gpu_like_host.hpp"
#include "support/intervals.hpp"
#include "support/masks.hpp"
#include "support/packs.hpp"
#include "support/rules.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

using std::int64_t;

/// A mask with holes, whole queries among them that see nothing, and a cover that knows nothing.
struct Holes {
  static constexpr bool visible(int64_t query, int64_t key) {
    return query % 7 != 3 && (query * 5 + key * 3) % 4 != 0;
  }
  static constexpr Cover cover(Range, Range) { return Cover::partial; }
};

/// Blocks of 10 queries see every other block of 10 keys before their own, and their own.
struct EveryOtherBlock {
  static constexpr bool visible(int64_t query, int64_t key) {
    int64_t const distance = query / 10 - key / 10;
    return distance >= 0 && distance % 2 == 0;
  }
  static constexpr Cover cover(Range queries, Range keys) {
    if (keys.begin / 10 > (queries.end - 1) / 10) return Cover::none;
    bool const one = queries.begin / 10 == (queries.end - 1) / 10 && keys.begin / 10 == (keys.end - 1) / 10;
    if (!one) return Cover::partial;
    return visible(queries.begin, keys.begin) ? Cover::full : Cover::none;
  }
};

/// Forward and backward of every rank on its part of a sequence: what went wrong, or nothing.
template <class Attn, Mask M>
std::string run_chunks(int ranks, Problem const& problem, M const& mask, ChunkRing const& schedule,
                       testing::Sequence<typename Attn::Element>& whole) {
  LocalWorld world(ranks);
  std::vector<std::string> faults(static_cast<std::size_t>(ranks));
  run_ranks(world, [&](Local& comm) {
    Attn attn(comm, problem, mask, schedule);
    Status const status = testing::run_rank(attn, testing::OwnTokens{attn.pieces(), comm.rank()}, whole);
    if (!status.ok()) faults[static_cast<std::size_t>(comm.rank())] = status.message();
  });
  for (std::string const& fault : faults)
    if (!fault.empty()) return fault;
  return {};
}

/// O, LSE, dQ, dK and dV equal dense attention in double, in every world, with chunks of several sizes; a
/// second run gives the same bits.
template <class Traits = DefaultTraits, Mask M>
void chunks_equal_dense(M const& any_length) {
  using Attn = DistAttn<small_head_dim, M, ChunkRing, Traits>;
  using T = typename Traits::Element;
  INFO("LIGHTSEQ_SEED=", run_seed());
  for (Problem const& problem : small_problems()) {
    M const mask = within(any_length, problem.seqlen);
    auto fresh = testing::random_sequence<T>(problem, small_head_dim, stream_seed(100));
    if constexpr (Traits::sinks) testing::add_sinks(fresh, stream_seed(104));
    auto const want = testing::dense<small_head_dim>(fresh, mask, problem.scale);
    for (int const ranks : {1, 2, 3, 4, 5, 8})
      for (ChunkRing const& schedule : {ChunkRing{3, 4}, ChunkRing{7, 2}, ChunkRing{}}) {
        INFO("seqlen ", problem.seqlen, ", ranks ", ranks, ", chunks of ", schedule.rows);
        check_runs(fresh, want, [&](testing::Sequence<T>& sequence) {
          return run_chunks<Attn>(ranks, problem, mask, schedule, sequence);
        });
      }
  }
}

}  // namespace

TEST_CASE("chunks under the masks of the catalogue equal dense attention") {
  chunks_equal_dense(Causal{});
  chunks_equal_dense(Full{});
  chunks_equal_dense(SlidingWindow{9, 2});
  chunks_equal_dense<Bf16Traits>(Causal{});
}

TEST_CASE("chunks under intervals and packed documents equal dense attention") {
  std::mt19937_64 random(stream_seed(1));
  chunks_equal_dense(Intervals::shared_prefix(random_ends(random, 97, 40)));
  chunks_equal_dense(Intervals(random_rows(random, 97, 25)));
  chunks_equal_dense(Intervals(random_rows(random, 70, 25)));  // 27 see nothing, and nobody sees them
  chunks_equal_dense<Bf16Traits>(Intervals::block_causal(10, 97));
  chunks_equal_dense(Documents<Causal>(random_ends(random, 97, 30)));
}

TEST_CASE("chunks under users' masks with holes equal dense attention") {
  chunks_equal_dense(Holes{});
  chunks_equal_dense(EveryOtherBlock{});
  chunks_equal_dense(PrefixLm{30});
  chunks_equal_dense(Mirrored{90, 5});
}

TEST_CASE("chunks have rules and sinks") {
  chunks_equal_dense<SinkTraits>(Scored{PrefixLm{30}, Fading{0.2f}});
}

TEST_CASE("a device that does not read the host's memory finds runs and masks in its workspace") {
  std::mt19937_64 random(stream_seed(2));
  chunks_equal_dense<GpuLike>(Intervals(random_rows(random, 97, 30)));
  chunks_equal_dense<GpuLike>(Causal{});
  chunks_equal_dense<GpuLike>(EveryOtherBlock{});
}

TEST_CASE("helpers gather and scatter by the chunks' owners") {
  LocalWorld world(3);
  std::vector<int> text(97), back(97, -1);
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<int>(i);
  for (int rank = 0; rank < 3; ++rank) {
    std::vector<Pieces> pieces;
    run_ranks(world, [&](Local& comm) {
      DistAttn<small_head_dim, Causal, ChunkRing> const attn(comm, {.seqlen = 97, .heads = 2}, {}, {8, 8});
      CHECK(attn.tokens() == attn.pieces().rows(comm.rank()));
      if (comm.rank() == rank) pieces.push_back(attn.pieces());
    });
    auto const rows = static_cast<std::size_t>(pieces[0].rows(rank));
    std::vector<int> own(rows), ids(rows);
    gather(pieces[0], rank, text, own);
    position_ids(pieces[0], rank, ids);
    CHECK(own == ids);
    scatter(pieces[0], rank, own, back);
  }
  CHECK(back == text);
}

TEST_CASE("ranks that are given other chunks or masks hear of it, and what makes no sense is said") {
  using Attn = DistAttn<small_head_dim, SlidingWindow, ChunkRing>;
  auto const text = [](SlidingWindow const& mask, ChunkRing const& schedule, bool both, int64_t seqlen = 64) {
    LocalWorld world(2);
    std::string texts[2];
    run_ranks(world, [&](Local& comm) {
      try {
        bool const as_given = both || comm.rank() == 1;
        Attn const attn(comm, {.seqlen = seqlen, .heads = 2}, as_given ? mask : SlidingWindow{3, 0},
                        as_given ? schedule : ChunkRing{8, 8});
      } catch (Error const& error) {
        texts[comm.rank()] = error.what();
      }
    });
    return texts[0].empty() ? texts[1] : texts[0];
  };
  CHECK(text({3, 0}, {8, 8}, false) == "");
  CHECK(text({3, 0}, {4, 8}, false) ==
        "lightseq: the ranks disagree: the rows of a chunk is 4 on rank 1 and 8 on rank 0");
  CHECK(text({4, 0}, {8, 8}, false) ==
        "lightseq: the ranks disagree: the window's left is 4 on rank 1 and 3 on rank 0");
  CHECK(text({3, 0}, {0, 8}, true).find("ChunkRing{0, 8}: chunks and tiles have at least a row") !=
        std::string::npos);
  CHECK(text({-3, 0}, {8, 8}, true).find("left and right must not be negative") != std::string::npos);
  CHECK(text({3, 0}, {8, 8}, true, 1LL << 40).find("ChunkRing serves at most 2147483647 tokens, not") !=
        std::string::npos);
}
