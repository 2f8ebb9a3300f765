// SPDX-License-Identifier: Apache-2.0
#include "laws/agreement.hpp"

#include <array>

#include "lightseq/transport/agreement.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

LocalOptions const patient{.timeout = std::chrono::minutes(5)};

}  // namespace

TEST_CASE("when one rank is built differently, all say so, and nobody waits") {
  auto const all = ways<DefaultTraits>();
  for (int const ranks : {2, 3, 8})
    for (int const other : {0, 1, ranks - 1})
      for (std::size_t way = 1; way < all.size(); ++way) {
        CAPTURE(ranks);
        CAPTURE(way);
        LocalWorld world(ranks, patient);
        std::vector<std::string> said(static_cast<std::size_t>(ranks));
        run_ranks(world, [&](Local& comm) {
          said[static_cast<std::size_t>(comm.rank())] = all[comm.rank() == other ? way : 0].run(comm);
        });
        all_say_what_differs(said, all[way].differs, other);
      }
}

TEST_CASE("the first number that differs on any rank is named, the version before all others") {
  Terms mine;
  mine.add("first", 10);
  mine.add("second", 20);
  using Values = std::array<std::int64_t, Terms::capacity>;
  std::vector<Values> values(5, mine.values);
  auto const said = [&] { return first_difference(mine, values).message(); };
  CHECK(said() == "ok");
  values[4][2] = 21;
  CHECK(said() == "the ranks disagree: second is 21 on rank 4 and 20 on rank 0");
  values[2][2] = 22;
  CHECK(said() == "the ranks disagree: second is 22 on rank 2 and 20 on rank 0");
  values[3][1] = 11;
  CHECK(said() == "the ranks disagree: first is 11 on rank 3 and 10 on rank 0");
  values[0][1] = 12;
  CHECK(said() == "the ranks disagree: first is 10 on rank 1 and 12 on rank 0");
  values[4][0] = version + 1;
  CHECK(said() == sentence("the ranks disagree: the library's version is ", version + 1, " on rank 4 and ",
                           version, " on rank 0"));
  // What another version has besides is not compared: only it has names for that.
  values.assign(5, mine.values);
  values[1][3] = 5;
  CHECK(said() == "ok");
}

TEST_CASE(
    "one thread may construct all ranks; the one that differs is told at once, the others when called") {
  using Attn = DistAttn<small_head_dim, Causal, Balanced>;
  Problem const one{.seqlen = 30, .heads = 2}, two{.seqlen = 31, .heads = 2};
  LocalWorld world(3, patient);
  // Each rank's n-th is compared with the others' n-th, however far ahead a rank is.
  for (int const rank : {1, 0, 2})
    for (Problem const& problem : {one, two, one}) CHECK_NOTHROW(Attn(world[rank], problem));
  CHECK_NOTHROW(Attn(world[2], one));
  CHECK_NOTHROW(Attn(world[0], one));
  CHECK(world.failed_rank() == -1);
  char const* const text = "lightseq: the ranks disagree: seqlen is 31 on rank 1 and 30 on rank 2";
  CHECK_THROWS_WITH_AS(Attn(world[1], two), text, Error);
  CHECK(world.failed_rank() == 1);
  for (int const rank : {0, 1, 2}) {
    CHECK("lightseq: " + world[rank].start({}, {}).message() == text);
    CHECK("lightseq: " + world[rank].finish().message() == text);
    CHECK_THROWS_WITH_AS(Attn(world[rank], one), text, Error);
  }
}

namespace {

/// Masks that hold what bytes cannot compare: addresses, and padding.
struct Starts : Causal {
  std::int64_t const* starts = nullptr;
  std::int64_t digest() const { return starts[0]; }
};
struct Padded : Causal {
  std::int64_t number = 0;
  bool flag = false;
};
struct Addresses : Causal {
  std::int64_t const* starts = nullptr;
};

}  // namespace

TEST_CASE("masks are compared by what they cover, and by their digest or their bytes") {
  std::int64_t const here[] = {5}, there[] = {5}, elsewhere[] = {6};
  CHECK(checksum(Starts{{}, here}, 100) == checksum(Starts{{}, there}, 100));
  CHECK(checksum(Starts{{}, here}, 100) != checksum(Starts{{}, elsewhere}, 100));
  CHECK(checksum(Addresses{{}, here}, 100) != checksum(Addresses{{}, there}, 100));
  CHECK(checksum(Padded{{}, 1, true}, 100) == checksum(Padded{{}, 2, false}, 100));
  CHECK(checksum(Full{}, 100) != checksum(Causal{}, 100));
  for (std::int64_t const seqlen : {std::int64_t{-5}, std::int64_t{0}, std::int64_t{1}, std::int64_t{31},
                                    std::numeric_limits<std::int64_t>::max()})
    CHECK(checksum(SlidingWindow{3}, seqlen) != checksum(SlidingWindow{4}, seqlen));
}
