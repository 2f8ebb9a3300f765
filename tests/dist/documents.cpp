// SPDX-License-Identifier: Apache-2.0
#include "lightseq/mask/documents.hpp"

#include <random>
#include <thread>

#include "laws/agreement.hpp"
#include "laws/dist_attn.hpp"
#include "support/gpu_like_host.hpp"
#include "support/packs.hpp"

using namespace lightseq;
using namespace lightseq::test;

TEST_CASE("packed documents equal dense attention under every schedule that serves them") {
  std::mt19937_64 random(stream_seed(1));
  equals_dense_under_each(Documents<>(random_ends(random, 97, 40)));
  equals_dense_under_each(Documents<Full>(random_ends(random, 97, 9)));
  equals_dense_under_each(Documents<SlidingWindow>(random_ends(random, 70, 40), {6, 2}));  // 27 see nothing
  equals_dense<ZigzagRing, Bf16Traits>(Documents<>(random_ends(random, 97, 60)));
}

TEST_CASE("a device that does not read the host's memory finds the documents in its workspace") {
  std::mt19937_64 random(stream_seed(2));
  equals_dense<Ring, GpuLike>(Documents<>(random_ends(random, 97, 30)));
}

TEST_CASE("ranks that are given other documents hear of it") {
  auto const text = [](std::vector<std::int64_t> const& first, std::vector<std::int64_t> const& second) {
    LocalWorld world(2);
    std::string texts[2];
    run_ranks(world, [&](Local& comm) {
      Documents<> const documents(comm.rank() == 0 ? first : second);
      texts[comm.rank()] = outcome<small_head_dim, Ring, DefaultTraits>(comm, agreed_problem, documents);
    });
    CHECK(texts[0] == texts[1]);
    return texts[0];
  };
  CHECK(text({10, 40}, {10, 40}) == "ok");
  CHECK(text({10, 40}, {40}) == "the ranks disagree: the number of documents is 1 on rank 1 and 2 on rank 0");
  CHECK(text({10, 40}, {11, 40}).find("the masks differ") != std::string::npos);
  // Documents that do not fit are refused by who comes first, or disagree with those of who came before.
  std::string const beyond = ": Documents: document 1 ends at token 41, but the sequence has 40 tokens";
  CHECK(text({10, 41}, {10, 41}).ends_with(beyond));
  std::string const of_one = text({10, 40}, {10, 41});
  CHECK((of_one == "rank 1" + beyond || of_one.find("the masks differ") != std::string::npos));
}

TEST_CASE("a document that ends after the sequence is an Error with its number, before any call") {
  LocalWorld world(1);
  auto const said = [&](std::vector<std::int64_t> const& ends) {
    return outcome<small_head_dim, Ring, DefaultTraits>(world[0], agreed_problem, Documents<Full>(ends));
  };
  CHECK(said({40}) == "ok");
  CHECK(said({39}) == "ok");
  CHECK(said({41}) == "Documents: document 0 ends at token 41, but the sequence has 40 tokens");
  CHECK(said({1, 40, 41, 50}) == "Documents: document 2 ends at token 41, but the sequence has 40 tokens");
}
