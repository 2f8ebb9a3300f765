// SPDX-License-Identifier: Apache-2.0
#include "laws/agreement.hpp"
#include "lightseq/mask/laws.hpp"

#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>

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
  Fingerprint mine;
  mine.add("first", 10);
  mine.add("second", 20);
  std::vector<Statement> all(5, Statement(mine));
  auto const said = [&] { return verdict(mine, all).message(); };
  CHECK(said() == "ok");
  all[4].values[2] = 21;
  CHECK(said() == "the ranks disagree: second is 21 on rank 4 and 20 on rank 0");
  all[2].values[2] = 22;
  CHECK(said() == "the ranks disagree: second is 22 on rank 2 and 20 on rank 0");
  all[3].values[1] = 11;
  all[1].failure = "a consequence";
  CHECK(said() == "the ranks disagree: first is 11 on rank 3 and 10 on rank 0");
  all[0].values[1] = 12;
  CHECK(said() == "the ranks disagree: first is 10 on rank 1 and 12 on rank 0");
  all[4].values[0] = version + 1;
  CHECK(said() == sentence("the ranks disagree: the library's version is ", version + 1, " on rank 4 and ",
                           version, " on rank 0"));
  // What another version has besides is not compared: only it has names for that.
  all.assign(5, Statement(mine));
  all[1].values[3] = 5;
  CHECK(said() == "ok");
  // A rank that cannot even say its numbers is not compared beyond the version.
  all[1] = Statement(Fingerprint{.failure = "no words"});
  CHECK(said() == "rank 1: no words");
  all.assign(5, Statement(mine));
  // Where all are alike it is the lowest rank that cannot be constructed, if one cannot.
  for (int const rank : {4, 3, 0}) {
    all[static_cast<std::size_t>(rank)].failure = sentence("no room on ", rank);
    CHECK(said() == sentence("rank ", rank, ": no room on ", rank));
  }
}

TEST_CASE("what one rank cannot construct no rank does: all say what that rank says, and nobody waits") {
  for (int const ranks : {2, 3, 4, 8}) {
    CAPTURE(ranks);
    auto const said_by_all = [&](auto way) {
      LocalWorld world(ranks, patient);
      std::vector<std::string> said(static_cast<std::size_t>(ranks));
      run_ranks(world, [&](Local& comm) { said[static_cast<std::size_t>(comm.rank())] = way(comm); });
      for (std::string const& text : said) CHECK(text == said[0]);
      CHECK(said[0].starts_with(sentence("rank ", world.failed_rank(), ": ")));
      return said[0].substr(said[0].find(": ") + 2);
    };
    CHECK(said_by_all([](Local& comm) { return of_throwing_schedule<DefaultTraits>(comm); }) ==
          throwing_schedule_says(ranks));
    for (int lowest = 0; lowest < ranks; ++lowest)
      for (int const other : {lowest, ranks - 1})
        CHECK(said_by_all([&](Local& comm) {
                return of_lacking_device<DefaultTraits>(comm, {lowest, other});
              }) == lacking_device_says(ranks));
    CHECK(said_by_all([&](Local& comm) {
            return of_throwing_mask<DefaultTraits>(comm, ranks - 1);
          }).find("the table of queries ") != std::string::npos);
    if (ranks == 4) {
      std::string const said = said_by_all([](Local& comm) { return of_unserved_mask<DefaultTraits>(comm); });
      CHECK(said.substr(0, 50) == std::string(unserved_mask_says).substr(0, 50));  // of another shard, maybe
    }
  }
}

/// Every `period`-th key up to the query; cover() answers alike whatever the period.
template <int period>
struct Dilated {
  static constexpr bool visible(std::int64_t query, std::int64_t key) {
    return key <= query && (query - key) % period == 0;
  }
  static constexpr Cover cover(Range queries, Range keys) {
    return keys.begin >= queries.end ? Cover::none : Cover::partial;
  }
};

TEST_CASE("masks that cover alike and show other pairs are told apart") {
  for (std::int64_t const seqlen : {16, 40, 64, 96, 1000})
    for (int const other : {0, 1, 2}) {
      Problem const problem{.seqlen = seqlen};
      LocalWorld world(3, {.timeout = std::chrono::minutes(1)});
      std::vector<std::string> said(3);
      run_ranks(world, [&](Local& comm) {
        said[static_cast<std::size_t>(comm.rank())] =
            comm.rank() == other ? outcome<16, Ring, DefaultTraits>(comm, problem, Dilated<2>{})
                                 : outcome<16, Ring, DefaultTraits>(comm, problem, Dilated<3>{});
      });
      for (std::string const& text : said) CHECK(text.starts_with("the ranks disagree: the masks differ: "));
    }
}

TEST_CASE(
    "of ranks that one thread constructs, the earlier hear in their first call that a later one failed") {
  using Attn = DistAttn<small_head_dim, Causal, Ring, OnDevice<DefaultTraits>>;
  Problem const problem{.seqlen = 30, .heads = 2};
  for (int failing = 0; failing < 3; ++failing) {
    LocalWorld world(3, patient);
    std::string const text = sentence("rank ", failing, ": rows of up to 10 find no device");
    std::vector<std::unique_ptr<Attn>> earlier;
    for (int rank = 0; rank < 3; ++rank) {
      lacks_device = rank == failing;
      if (rank < failing)
        earlier.push_back(std::make_unique<Attn>(world[rank], problem));
      else
        CHECK_THROWS_WITH_AS(Attn(world[rank], problem), ("lightseq: " + text).c_str(), Error);
      lacks_device = false;
    }
    for (auto const& attn : earlier) {
      auto whole = testing::random_sequence<float>(problem, small_head_dim, 1);
      CHECK(testing::run_rank(*attn, whole).message() == text);
      CHECK(attn->failure().message() == text);
    }
  }
  // A rank that is alone tells nobody, and its transport serves on.
  LocalWorld world(1);
  lacks_device = true;
  CHECK_THROWS_WITH_AS(Attn(world[0], problem), "lightseq: rows of up to 30 find no device", Error);
  lacks_device = false;
  auto whole = testing::random_sequence<float>(problem, small_head_dim, 1);
  Attn attn(world[0], problem);
  CHECK(testing::run_rank(attn, whole).message() == "ok");
}

TEST_CASE("ranks that call two layers in different orders hear it, whichever pass it is") {
  using Attn = DistAttn<small_head_dim, Causal, Ring>;
  Problem const problem{.seqlen = 12, .heads = 2};
  for (int const ranks : {2, 3})
    for (int const other : {0, ranks - 1})
      for (bool const backward : {false, true}) {
        CAPTURE(ranks);
        CAPTURE(other);
        CAPTURE(backward);
        LocalWorld world(ranks, patient);
        std::vector<std::string> said(static_cast<std::size_t>(ranks));
        run_ranks(world, [&](Local& comm) {
          Attn first(comm, problem), second(comm, problem);
          auto part = testing::part_of(testing::random_sequence<float>(problem, small_head_dim, 1),
                                       first.positions());
          std::vector<std::byte> workspace(static_cast<std::size_t>(first.workspace_bytes()));
          Status status;
          auto const call = [&](Attn& attn, bool back) {
            if (!status.ok()) return;
            status = back ? attn.backward(part.backward_inputs(), part.gradients(), workspace)
                          : attn.forward(part.inputs(), part.outputs(), workspace);
          };
          call(first, false);
          call(second, false);
          if (status.ok() && comm.rank() == other) call(first, backward), call(second, true);
          if (status.ok() && comm.rank() != other) call(second, true), call(first, backward);
          said[static_cast<std::size_t>(comm.rank())] = status.message();
        });
        for (int rank = 0; rank < ranks; ++rank) {
          std::string const& text = said[static_cast<std::size_t>(rank)];
          CAPTURE(text);
          CHECK(text.find(backward ? " of step 0 of the backward of object 0"
                                   : " of the forward of object 0") != std::string::npos);
          CHECK(text.find(" of the backward of object 1") != std::string::npos);
          CHECK((text.find("rank ") == 0 && text.find(" sent kv of step 0") != std::string::npos));
        }
      }
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
  char const* const text = "lightseq: the ranks disagree: seqlen is 30 on rank 2 and 31 on rank 1";
  CHECK_THROWS_WITH_AS(Attn(world[1], two), text, Error);
  CHECK(world.failed_rank() == 1);
  for (int const rank : {0, 1, 2}) {
    CHECK("lightseq: " + world[rank].start({}, {}).message() == text);
    CHECK("lightseq: " + world[rank].finish().message() == text);
    CHECK_THROWS_WITH_AS(Attn(world[rank], one), text, Error);
  }
}

TEST_CASE("the text says the values, where there are words for them") {
  struct Words {
    std::string text;
    std::function<std::string(Local&)> mine, other;
  };
  auto const way = [](auto mask, Problem const& problem = agreed_problem) {
    return [=](Local& c) { return outcome<16, Ring, DefaultTraits>(c, problem, mask); };
  };
  Problem half = agreed_problem;
  half.scale = 0.5f;
  auto const ring = [](ListRing const& schedule) {
    return
        [=](Local& c) { return outcome<16, ListRing, DefaultTraits>(c, agreed_problem, Full{}, schedule); };
  };
  auto const nodes = [](int ranks) {
    return [=](Local& c) {
      return outcome<16, TwoLevelRing, DefaultTraits>(c, agreed_problem, Full{}, TwoLevelRing{ranks});
    };
  };
  Words const cases[] = {
      {"scale is 0.5 on rank 1 and 0.25 on rank 0", way(Full{}), way(Full{}, half)},
      {"the element type is bfloat16 on rank 1 and float on rank 0", way(Full{}),
       [](Local& c) { return outcome<16, Ring, InBf16<DefaultTraits>>(c, agreed_problem, Full{}); }},
      {"the route is neighbour on rank 1 and owner on rank 0", way(Full{}),
       [](Local& c) { return outcome<16, Ring, ByNeighbour<DefaultTraits>>(c, agreed_problem, Full{}); }},
      {"the traits' inference is yes on rank 1 and no on rank 0", way(Full{}),
       [](Local& c) { return outcome<16, Ring, WithoutBackward<DefaultTraits>>(c, agreed_problem, Full{}); }},
      {"the window's left is 5 on rank 1 and 4 on rank 0", way(SlidingWindow{4, 0}),
       way(SlidingWindow{5, 0})},
      {"the masks differ: rank 1 has another one than rank 0", way(Full{}), way(Causal{})},
      {"the masks differ: rank 1 has another one than rank 0", way(SlidingWindow{4, 0}), way(Causal{})},
      {"the masks differ: rank 1 has another one than rank 0", way(PaddedMask{{}, true, 1}),
       way(PaddedMask{{}, true, 2})},
      {"the masks differ: rank 1 has another one than rank 0", way(ListMask{}), way(ListMask{{}, {7, 8}})},
      {"the mask's slope is 0.125 on rank 1 and 0.25 on rank 0", way(FloatMask{}),
       way(FloatMask{{}, 0.125f})},
      {"the schedules differ: rank 1 has another one than rank 0", ring({{}, {1, 2}}), ring({{}, {1}})},
      {"the schedule's ranks_per_node is 2 on rank 1 and 1 on rank 0", nodes(1), nodes(2)},
  };
  for (Words const& c : cases) {
    LocalWorld world(2, patient);
    std::vector<std::string> said(2);
    run_ranks(world, [&](Local& comm) {
      said[static_cast<std::size_t>(comm.rank())] = (comm.rank() == 1 ? c.other : c.mine)(comm);
    });
    for (std::string const& text : said) CHECK(text == "the ranks disagree: " + c.text);
  }
  // A mask that is wrong and another one: all say what was found first.
  {
    LocalWorld world(2, patient);
    std::vector<std::string> said(2);
    run_ranks(world, [&](Local& comm) {
      said[static_cast<std::size_t>(comm.rank())] = way(SlidingWindow{comm.rank() == 1 ? -1 : 4, 0})(comm);
    });
    CHECK(said[0] == said[1]);
    std::string const& text = said[0];
    CAPTURE(text);
    CHECK((text == "the ranks disagree: the window's left is -1 on rank 1 and 4 on rank 0" ||
           text.starts_with("rank 1: SlidingWindow{-1, 0}: ")));
  }
  // Equal values agree, whatever their bytes.
  LocalWorld world(2, patient);
  std::vector<std::string> said(2);
  run_ranks(world, [&](Local& comm) {
    FloatMask const mask{{}, comm.rank() == 1 ? -0.0f : 0.0f};
    said[static_cast<std::size_t>(comm.rank())] =
        outcome<16, Ring, DefaultTraits>(comm, agreed_problem, mask);
  });
  CHECK(said == std::vector<std::string>{"ok", "ok"});
}

TEST_CASE("a window with a negative side is an Error that names it, on every rank alike") {
  for (SlidingWindow const& window : {SlidingWindow{-1, 0}, SlidingWindow{-1, -1}, SlidingWindow{3, -4}}) {
    LocalWorld world(3, patient);
    std::vector<std::string> said(3);
    run_ranks(world, [&](Local& comm) {
      said[static_cast<std::size_t>(comm.rank())] =
          outcome<16, Ring, DefaultTraits>(comm, agreed_problem, window);
    });
    for (std::string const& text : said) {
      CHECK(text == said[0]);
      CHECK(text.find(sentence(": SlidingWindow{", window.left, ", ", window.right, "}: ")) ==
            6);  // "rank 0"
    }
  }
}

namespace {

/// Holds an address: equal masks hold different ones.
struct Starts : Causal {
  std::int64_t const* starts = nullptr;
  std::int64_t digest() const { return starts[0]; }
};

}  // namespace

TEST_CASE("masks are compared by what they cover, and by their digest or their bytes") {
  std::int64_t const here[] = {5}, there[] = {5}, elsewhere[] = {6};
  CHECK(checksum(Starts{{}, here}, 100) == checksum(Starts{{}, there}, 100));
  CHECK(checksum(Starts{{}, here}, 100) != checksum(Starts{{}, elsewhere}, 100));
  CHECK(checksum(PaddedMask{{}, true, 1}, 100) == checksum(PaddedMask{{}, true, 1}, 100));
  CHECK(checksum(PaddedMask{{}, true, 1}, 100) != checksum(PaddedMask{{}, false, 1}, 100));
  CHECK(checksum(Full{}, 100) != checksum(Causal{}, 100));
  for (std::int64_t const seqlen : {std::int64_t{-5}, std::int64_t{0}, std::int64_t{1}, std::int64_t{31},
                                    std::numeric_limits<std::int64_t>::max()})
    CHECK(checksum(SlidingWindow{3}, seqlen) != checksum(SlidingWindow{4}, seqlen));
}

TEST_CASE("a problem's zeros are what they stand for") {
  auto const fingerprint = []<int HeadDim>(Problem const& problem) {
    return fingerprint_of<HeadDim, DefaultTraits>(problem, Full{}, Ring{}, 4);
  };
  for (std::int64_t heads = 1; heads <= 9; ++heads) {
    Problem const zeros{.seqlen = 40, .heads = heads};
    auto const check = [&]<int HeadDim>() {
      Problem said = zeros;
      said.kv_heads = heads;
      said.scale = 1 / std::sqrt(static_cast<float>(HeadDim));
      Fingerprint const mine = fingerprint.template operator()<HeadDim>(zeros);
      CHECK(compare(mine, 0, fingerprint.template operator()<HeadDim>(said).values, 1).ok());
      said.kv_heads = heads + 1;
      CHECK_FALSE(compare(mine, 0, fingerprint.template operator()<HeadDim>(said).values, 1).ok());
    };
    check.template operator()<16>(), check.template operator()<40>(), check.template operator()<128>();
  }
}

TEST_CASE("schedules are compared by what they do, and by what they hold, even where they throw") {
  CHECK(checksum(ListRing{{}, {1}}, 4) == checksum(ListRing{{}, {1}}, 4));
  CHECK(checksum(ListRing{{}, {1}}, 4) != checksum(ListRing{{}, {2}}, 4));
  CHECK(checksum(Ring{}, 4) != checksum(StripedRing{}, 4));
  CHECK(checksum(TwoLevelRing{3}, 4) != checksum(TwoLevelRing{5}, 4));
}

namespace {

/// A mask and a schedule that divide by what they hold: asked with a 0, the process dies.
struct InChunks {
  std::int64_t size = 1;
  bool visible(std::int64_t query, std::int64_t key) const { return query / size == key / size; }
  Cover cover(Range queries, Range keys) const {
    return visible(queries.begin, keys.begin) && visible(queries.end - 1, keys.end - 1) &&
                   visible(queries.begin, queries.end - 1)
               ? Cover::full
               : Cover::partial;
  }
  std::string fault() const { return size > 0 ? "" : "InChunks: size is 0"; }
};
struct DividingRing : Ring {
  int size = 1;
  std::optional<Work> at(int rank, int step, int world) const { return Ring::at(rank, step / size, world); }
  std::string fault() const { return size > 0 ? "" : "DividingRing: size is 0"; }
};

}  // namespace

TEST_CASE("a mask or schedule that makes no sense to itself is asked nothing else") {
  for (int const ranks : {1, 2, 5}) {
    LocalWorld masks(ranks), schedules(ranks);
    run_ranks(masks, [](Local& comm) {
      std::string const said = outcome<16, Ring, DefaultTraits>(comm, agreed_problem, InChunks{0});
      CHECK_MESSAGE(said.find("InChunks: size is 0") != said.npos, said);
    });
    run_ranks(schedules, [](Local& comm) {
      DividingRing schedule;
      schedule.size = 0;
      std::string const said =
          outcome<16, DividingRing, DefaultTraits>(comm, agreed_problem, Full{}, schedule);
      CHECK_MESSAGE(said.find("DividingRing: size is 0") != said.npos, said);
    });
  }
  CHECK(laws::first_fault(InChunks{0}, 100) == "InChunks: size is 0");
}
