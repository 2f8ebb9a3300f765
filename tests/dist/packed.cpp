// SPDX-License-Identifier: Apache-2.0
#include "lightseq/packed_attn.hpp"

#include <random>

#include "laws/dist_attn.hpp"
#include "laws/packed_agreement.hpp"
#include "lightseq/testing/packed.hpp"
#include "support/gpu_like_host.hpp"
#include "support/masks.hpp"
#include "support/packs.hpp"
#include "support/rules.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

using std::int64_t;

int64_t below(std::mt19937_64& random, int64_t n) {
  return std::uniform_int_distribution<int64_t>(0, n - 1)(random);
}

/// Ends of documents of at most so many tokens. `Long` ones have gradients that are no rounding errors.
template <bool Long>
std::vector<int64_t> some_ends(std::mt19937_64& random, int64_t tokens) {
  int64_t const least = Long ? tokens / 2 : 1;
  int64_t const some = least + below(random, tokens - least + 1);
  return random_ends(random, some, least + below(random, some - least + 1));
}

/// A table that deals documents out at random.
std::vector<Piece> random_table(std::mt19937_64& random, DocumentEnds const& documents, int world) {
  std::vector<Piece> table;
  for (int64_t d = 0; d < documents.count(); ++d)
    for (int64_t begin = 0, rows = 0; begin < documents.length(d); begin += rows) {
      rows = 1 + below(random, documents.length(d) - begin);
      table.push_back(
          {static_cast<std::int32_t>(below(random, world)), static_cast<std::int32_t>(d), begin, rows});
    }
  std::shuffle(table.begin(), table.end(), random);
  return table;
}

/// O, LSE, dQ, dK and dV of packs equal dense attention in double, in every world, one pack after another
/// with the same objects; the packs are dealt out by balanced packing, or at random.
template <class Traits = DefaultTraits, Mask Inner = Causal>
void packs_equal_dense(std::mt19937_64& random, Problem const& problem, Inner const& inner = {}) {
  using Attn = DistAttn<small_head_dim, Documents<Inner>, PackedRing, Traits>;
  using T = typename Traits::Element;
  INFO("LIGHTSEQ_SEED=", run_seed());
  for (int const ranks : {1, 2, 3, 5, 8}) {
    std::vector<std::vector<int64_t>> packs;
    std::vector<std::vector<Piece>> tables;
    for (int i = 0; i < 4; ++i) {
      packs.push_back(some_ends<!std::is_same_v<T, float>>(random, problem.seqlen));
      tables.push_back(i % 2 == 0 ? std::vector<Piece>() : random_table(random, packs.back(), ranks));
    }
    packs.push_back({problem.seqlen});
    tables.emplace_back();
    LocalWorld world(ranks);
    std::vector<testing::Sequence<T>> sequences;
    for (std::size_t i = 0; i < packs.size(); ++i) {
      Problem part = problem;
      part.seqlen = packs[i].back();
      sequences.push_back(testing::random_sequence<T>(part, small_head_dim, random()));
      if constexpr (Traits::sinks) testing::add_sinks(sequences.back(), random());
    }
    std::vector<std::string> faults(static_cast<std::size_t>(ranks));
    run_ranks(world, [&](Local& comm) {
      Attn attn(comm, problem, inner, {.max_rows = problem.seqlen, .max_pieces = problem.seqlen});
      PackedBatch batch = attn.batch();
      std::string& fault = faults[static_cast<std::size_t>(comm.rank())];
      for (std::size_t i = 0; i < packs.size() && fault.empty(); ++i)
        fault = tables[i].empty() ? testing::run_packed_rank(attn, batch, packs[i], sequences[i])
                                  : testing::run_packed_rank(attn, batch, packs[i], sequences[i],
                                                             std::span<Piece const>(tables[i]));
    });
    for (std::string const& fault : faults) REQUIRE(fault == "");
    for (std::size_t i = 0; i < packs.size(); ++i) {
      INFO("ranks ", ranks, ", pack ", i, " of ", packs[i].size(), " documents, ", packs[i].back(),
           " tokens");
      testing::Errors errors = testing::dense_errors<small_head_dim>(
          sequences[i], Documents<Inner>(packs[i], inner), problem.scale);
      // The gradients of a few tokens may be little more than rounding errors.
      if (packs[i].back() < 30)
        for (double* gradient : {&errors.dq, &errors.dk, &errors.dv}) *gradient /= 10;
      within_bounds<T>(errors);
    }
  }
}

}  // namespace

TEST_CASE("packs of documents equal dense attention, however they are dealt out") {
  std::mt19937_64 random(stream_seed(1));
  packs_equal_dense(random, {.seqlen = 150, .heads = 4, .kv_heads = 2});
  packs_equal_dense<Bf16Traits>(random, {.batch = 2, .seqlen = 90, .heads = 2, .kv_heads = 1, .scale = 0.7f});
  packs_equal_dense<DefaultTraits, Full>(random, {.seqlen = 80, .heads = 2});
  packs_equal_dense<GpuLike>(random, {.seqlen = 97, .heads = 2, .kv_heads = 1});
  packs_equal_dense<DefaultTraits, PrefixLm>(random, {.seqlen = 60, .heads = 2}, {5});
  packs_equal_dense<DefaultTraits, SlidingWindow>(random, {.seqlen = 120, .heads = 2}, {17, 3});
  packs_equal_dense<DefaultTraits, BoundedWithin>(random, {.seqlen = 80, .heads = 2}, {{{5, 30}, {2, 25}}});
  packs_equal_dense<DefaultTraits, Mirrored>(random, {.seqlen = 80, .heads = 2}, {40, 5});
}

TEST_CASE("packs have rules and sinks, and rules are asked with positions in documents") {
  std::mt19937_64 random(stream_seed(2));
  Problem const problem{.seqlen = 110, .heads = 4, .kv_heads = 2};
  packs_equal_dense<SinkTraits>(random, problem);
  packs_equal_dense<SinkTraits>(random, problem, Scored{Causal{}, SoftCap{0.7f}});
  packs_equal_dense<GpuLike>(random, problem, Scored{Causal{}, Squashed{}});
  packs_equal_dense<DefaultTraits>(random, problem, Scored{Full{}, Fading{0.3f}});
  packs_equal_dense<DefaultTraits>(random, problem, Scored{PrefixLm{5}, SoftCap{0.7f}});
}

TEST_CASE("ranks that plan other documents hear of it") {
  using Attn = DistAttn<small_head_dim, Documents<Causal>, PackedRing>;
  Problem const problem{.seqlen = 64, .heads = 2};
  std::vector<int64_t> const first{40, 64}, second{41, 64};
  for (bool const asks : {true, false}) {
    LocalWorld world(2);
    std::string texts[2];
    run_ranks(world, [&](Local& comm) {
      Attn attn(comm, problem);
      PackedBatch batch = attn.batch();
      REQUIRE(attn.plan(comm.rank() == 0 ? first : second, batch).empty());
      Status status = asks ? attn.agree(batch) : Status{};
      if (status.ok()) {
        auto part = testing::part_of(testing::random_sequence<float>(problem, small_head_dim, 1),
                                     testing::OwnTokens{batch.pieces(), comm.rank()});
        std::vector<std::byte> workspace(static_cast<std::size_t>(attn.workspace_bytes()));
        status = attn.forward(part.inputs(), part.outputs(), workspace, batch);
      }
      texts[comm.rank()] = status.message();
    });
    for (std::string const& text : texts) {
      CAPTURE(text);
      if (asks)
        CHECK(text == "the ranks disagree: the end of document 0 is 41 on rank 1 and 40 on rank 0");
      else
        CHECK(text.find("has planned other documents than rank") != std::string::npos);
    }
  }
}

TEST_CASE(
    "ranks that plan other documents hear of the first, and those that came before in their next call") {
  for (DifferentPacks const& packs : different_packs())
    for (int const other : {0, 1}) {
      LocalWorld world(2);
      PackAsker<DefaultTraits> asker[]{PackAsker<DefaultTraits>(world[0]),
                                       PackAsker<DefaultTraits>(world[1])};
      auto const ask = [&](int rank) { return asker[rank].ask(rank == other ? packs.other : packs.usual); };
      CHECK(ask(0) == "ok");
      CHECK(ask(1) == packs.differs(other));
      CHECK(ask(0) == packs.differs(other));
    }
}

TEST_CASE("a rank without a plan keeps nobody waiting in agree()") {
  using Attn = DistAttn<small_head_dim, Documents<Causal>, PackedRing>;
  for (bool const other_plans : {true, false}) {
    LocalWorld world(2);
    Status statuses[2];
    run_ranks(world, [&](Local& comm) {
      Attn attn(comm, {.seqlen = 64, .heads = 2});
      PackedBatch batch = attn.batch();
      if (comm.rank() == 1 && other_plans) REQUIRE(attn.plan(std::vector<int64_t>{64}, batch).empty());
      statuses[comm.rank()] = attn.agree(batch);
    });
    CAPTURE(other_plans);
    for (Status const& status : statuses) {
      CAPTURE(status.message());
      if (!other_plans) CHECK(status.code == Code::not_planned);
    }
    if (other_plans)
      CHECK((statuses[0].code == Code::disagreement || statuses[1].code == Code::disagreement));
  }
}

TEST_CASE("ranks may have a table in any order, and cut anyhow") {
  using Attn = DistAttn<small_head_dim, Documents<Causal>, PackedRing>;
  Problem const problem{.seqlen = 64, .heads = 2};
  std::vector<int64_t> const ends{40, 64};
  std::vector<Piece> const tables[]{
      {{0, 0, 0, 30}, {1, 0, 30, 10}, {1, 1, 0, 24}},
      {{1, 1, 0, 24}, {1, 1, 24, 0}, {1, 0, 30, 10}, {0, 0, 12, 18}, {0, 0, 0, 12}}};
  auto sequence = testing::random_sequence<float>(problem, small_head_dim, stream_seed(3));
  std::string faults[2];
  LocalWorld world(2);
  run_ranks(world, [&](Local& comm) {
    Attn attn(comm, problem, {}, {.max_rows = 34});
    PackedBatch batch = attn.batch();
    std::span<Piece const> const table = tables[comm.rank()];
    faults[comm.rank()] = testing::run_packed_rank(attn, batch, ends, sequence, table);
  });
  for (std::string const& fault : faults) CHECK(fault == "");
  within_bounds<float>(testing::dense_errors<small_head_dim>(sequence, Documents<Causal>(ends)));
}

TEST_CASE("a batch serves all objects with the mask that it was planned for") {
  using Window = DistAttn<small_head_dim, Documents<SlidingWindow>, PackedRing>;
  using Whole = DistAttn<small_head_dim, Documents<Full>, PackedRing>;
  Problem const problem{.seqlen = 64, .heads = 2};
  LocalWorld world(1);
  Window narrow(world[0], problem, {3, 0}), same(world[0], problem, {3, 0}), wide(world[0], problem, {9, 0});
  Whole whole(world[0], problem);
  PackedBatch batch = narrow.batch();
  REQUIRE(narrow.plan(std::vector<int64_t>{40, 64}, batch).empty());
  auto part = testing::random_sequence<float>(problem, small_head_dim, 1);
  std::vector<std::byte> workspace(static_cast<std::size_t>(narrow.workspace_bytes()));
  auto const code = [&](auto& attn) {
    return attn.forward(part.inputs(), part.outputs(), workspace, batch).code;
  };
  CHECK(code(narrow) == Code::ok);
  CHECK(code(same) == Code::ok);
  CHECK(code(wide) == Code::not_planned);
  CHECK(code(whole) == Code::not_planned);
}

TEST_CASE("what cannot be planned is said with the document and the numbers") {
  using Attn = DistAttn<small_head_dim, Documents<Causal>, PackedRing>;
  LocalWorld world(1);
  Attn attn(world[0], {.seqlen = 64, .heads = 2, .max_documents = 3});
  PackedBatch batch = attn.batch();
  using Ends = std::vector<int64_t>;
  auto const said = [&](Ends const& ends) {
    Text const fault = attn.plan(ends, batch);
    CHECK(!batch.planned());
    return std::string(fault.view());
  };
  CHECK(said({}) == "the list of documents is empty");
  CHECK(said({10, 10, 64}) == "document 1 ends at token 10, but begins at token 10");
  CHECK(said({10, 65}) == "document 1 ends at token 65, but the sequence has 64 tokens");
  CHECK(said({1, 2, 3, 4}) == "there are 4 documents, and max_documents is 3");
  std::vector<Piece> const missing{{.rank = 0, .document = 0, .rows = 9}},
      twice{{.rows = 10}, {.begin = 3, .rows = 2}};
  CHECK(attn.plan(Ends{10}, missing, batch).view() == "token 9, in document 0, belongs to no rank");
  CHECK(attn.plan(Ends{10}, twice, batch).view() ==
        "token 3, in document 0, belongs to rank 0 and to rank 0");
  Attn little(world[0], {.seqlen = 64, .heads = 2}, {}, {.max_rows = 9});
  PackedBatch little_batch = little.batch();
  CHECK(little.plan(Ends{10}, little_batch).view() ==
        "a rank owns 10 tokens, and max_tokens() is 9: the schedule's max_rows makes room for more");
  REQUIRE(attn.plan(Ends{10}, batch).empty());
  CHECK(!attn.plan(Ends{}, missing, batch).empty());
  CHECK(attn.tokens(batch) == 0);
  float nothing = 0;
  CHECK(attn.forward({&nothing, &nothing, &nothing}, {&nothing, &nothing}, {}, batch).code ==
        Code::not_planned);
  REQUIRE(attn.plan(Ends{10, 64}, batch).empty());
  Attn larger(world[0], {.seqlen = 65, .heads = 2, .max_documents = 3});
  CHECK(larger.forward({&nothing, &nothing, &nothing}, {&nothing, &nothing}, {}, batch).code ==
        Code::not_planned);
  CHECK(larger.plan(Ends{10}, batch).view().find("another object") != std::string_view::npos);
  CHECK_THROWS_WITH_AS(Attn(world[0], {.seqlen = 64, .heads = 2}, {}, {.slack = -1}),
                       doctest::Contains("none may be negative"), Error);
  CHECK_THROWS_WITH_AS(Attn(world[0], {.seqlen = 64, .heads = 2}, {}, {.cost = {.rows = 100}}),
                       doctest::Contains("both must be powers of two"), Error);
  Attn const unlimited(world[0], {.seqlen = 64, .heads = 2}, {}, {.max_pieces = largest<int64_t>});
  CHECK(unlimited.batch().pieces().max_pieces() == 64);
}
