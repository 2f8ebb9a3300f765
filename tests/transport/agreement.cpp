// SPDX-License-Identifier: Apache-2.0
#include "lightseq/transport/agreement.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "lightseq/transport/local.hpp"
#include "support/data.hpp"

using namespace lightseq;
using namespace lightseq::test;
using std::int64_t;

namespace {

/// Lists of which all but `other`'s are the same, and the first element that differs there.
struct Lists {
  std::vector<int64_t> usual, other;
  int64_t element = 0;

  explicit Lists(std::mt19937_64& random) {
    auto const below = [&](int64_t n) { return std::uniform_int_distribution<int64_t>(0, n - 1)(random); };
    int64_t const sizes[]{1, 2, 31, 32, 33, 1023, 1024, 1025, 3000};
    usual.resize(static_cast<std::size_t>(below(2) == 0 ? sizes[below(9)] : 1 + below(5000)));
    for (int64_t& number : usual) number = below(3);
    other = usual;
    element = below(std::ssize(usual));
    auto const at = static_cast<std::size_t>(element);
    switch (below(4)) {
      case 0:  // shorter
        other.resize(at);
        break;
      case 1:  // longer
        element = std::ssize(usual);
        other.push_back(below(3));
        break;
      case 2:  // from there on
        for (std::size_t i = at; i < other.size(); ++i) other[i] += i == at ? 1 : below(3);
        break;
      default:
        ++other[at];
    }
  }

  std::string said(int rank) const {
    Fingerprint const first{.list = rank == 0 ? other : usual, .element_name = "number"},
        second{.list = rank == 0 ? usual : other};
    return disagreement("number", element, first.element(element), 0, second.element(element),
                        std::max(rank, 1))
        .message();
  }
};

/// A Local that counts the groups in which it has agreed.
struct Counting {
  Local& local;
  int groups = 0;
  int rank() const noexcept { return local.rank(); }
  int world() const noexcept { return local.world(); }
  Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept {
    ++groups;
    return local.start(sends, recvs);
  }
  Status finish() noexcept { return local.finish(); }
};

struct Overloaded : Counting {
  void agree(int) {}
  void agree(Fingerprint const&, int) {}
};
class Private : public Counting {
  void withdraw(Status const&) noexcept {}
};
struct Templated : Counting {
  template <class Ranks>
  void connect(Ranks) {}
};
struct Sound : Counting {
  template <class Ranks>
  Status connect(Ranks, Ranks) {
    return {};
  }
  Status agree(Fingerprint const&) { return {}; }
  void agree(int) {}
};
/// What hides transports of several types.
struct Abstract {
  virtual ~Abstract() = default;
  virtual int rank() const noexcept = 0;
  virtual int world() const noexcept = 0;
  virtual Status start(std::span<Send const> sends, std::span<Receive const> recvs) noexcept = 0;
  virtual Status finish() noexcept = 0;
  virtual Status agree(Fingerprint const& fingerprint) = 0;
};
static_assert(Transport<Abstract> && Agrees<Abstract> && SoundAbilities<Abstract>);
static_assert(Transport<Counting> && SoundAbilities<Counting> && SoundAbilities<Sound>);
static_assert(Transport<Overloaded> && !SoundAbilities<Overloaded>);
static_assert(Transport<Private> && !SoundAbilities<Private>);
static_assert(Transport<Templated> && !SoundAbilities<Templated>);

}  // namespace

TEST_CASE("of lists that differ all ranks get the first element that does, in a few exchanges") {
  std::mt19937_64 random(stream_seed(1));
  INFO("LIGHTSEQ_SEED=", run_seed());
  for (int round = 0; round < 400; ++round) {
    Lists const lists(random);
    int const ranks = 2 + round % 4, other = round / 4 % ranks;
    LocalWorld world(ranks);
    std::vector<std::string> said(static_cast<std::size_t>(ranks));
    std::vector<int> groups(said.size());
    run_ranks(world, [&](Local& local) {
      auto const rank = static_cast<std::size_t>(local.rank());
      Counting counting{local};
      Fingerprint mine{.list = local.rank() == other ? lists.other : lists.usual, .element_name = "number"};
      said[rank] = agree_by_messages(counting, mine).message();
      groups[rank] = counting.groups;
      mine.list = lists.usual;
      if (!agree_by_messages(counting, mine).ok()) said[rank] += ", and then no more";
    });
    for (std::string const& text : said) REQUIRE(text == lists.said(other));
    for (int const count : groups) CHECK(count <= 5);
  }
}

TEST_CASE("where several ranks differ all get the first element that differs on any") {
  std::vector<int64_t> const lists[]{std::vector<int64_t>(5000, 1),
                                     [] {
                                       std::vector<int64_t> list(5000, 1);
                                       list[4000] = 7;
                                       return list;
                                     }(),
                                     std::vector<int64_t>(1234, 1)};
  LocalWorld world(3);
  std::string said[3];
  run_ranks(world, [&](Local& local) {
    Counting counting{local};
    Fingerprint mine{.list = lists[local.rank()], .element_name = "number"};
    mine.failure = "a consequence";
    said[local.rank()] = agree_by_messages(counting, mine).message();
  });
  for (std::string const& text : said)
    CHECK(text == "the ranks disagree: number 1234 is missing on rank 2 and 1 on rank 0");
}

TEST_CASE("Local names the first element that differs, to those that came first in their next call") {
  std::mt19937_64 random(stream_seed(2));
  INFO("LIGHTSEQ_SEED=", run_seed());
  for (int round = 0; round < 200; ++round) {
    Lists const lists(random);
    LocalWorld world(3);
    int const other = 2 * (round % 2);  // the one who hears it, or the one whose list is kept
    auto const agree = [&](int rank) {
      Fingerprint const mine{.list = rank == other ? lists.other : lists.usual, .element_name = "number"};
      return world[rank].agree(mine).message();
    };
    CHECK(agree(0) == "ok");
    if (other == 2) CHECK(agree(1) == "ok");
    std::string const said = agree(3 - 1 - (other == 0 ? 1 : 0));
    CHECK(said == lists.said(other));
    for (int rank = 0; rank < 3; ++rank) CHECK(agree(rank) == said);
  }
}
