// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/value.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/core/fingerprint.hpp"
#include "support/data.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

enum class Kind : unsigned char { one, two };

struct Plain {
  int a = 0, b = 0;
};
struct Padded {
  bool a = false;
  int64_t b = 0;
};
struct Digested {
  bool a = false;
  std::vector<double> b;
  int64_t digest() const { return digest_of(a, b); }
};
struct Empty {};

static_assert(Comparable<Empty> && Comparable<Plain> && Comparable<Digested> && Comparable<int>);
static_assert(!Comparable<Padded> && !Comparable<float> && !Comparable<std::vector<int>>);
static_assert(digest_of(1, 2.5, Kind::two, Plain{3, 4}) == digest_of(1, 2.5, Kind::two, Plain{3, 4}));

}  // namespace

TEST_CASE("equal values have one digest: zero with either sign, every NaN, lists of any kind") {
  double const nan = std::numeric_limits<double>::quiet_NaN();
  CHECK(digest_of(0.0) == digest_of(-0.0));
  CHECK(digest_of(0.0f) == digest_of(-0.0f));
  CHECK(digest_of(nan) == digest_of(-nan));
  CHECK(digest_of(0.5f) == digest_of(0.5));
  std::vector<int> const list{1, 2, 3};
  CHECK(digest_of(list) == digest_of(std::span(list)));
  CHECK(digest_of(list) == digest_of(std::array{1, 2, 3}));
  CHECK(digest_of(std::vector<std::pair<int, float>>{{1, 0.0f}}) ==
        digest_of(std::vector<std::pair<int, float>>{{1, -0.0f}}));
  CHECK(digest_of(Digested{true, {1, -0.0}}) == digest_of(Digested{true, {1, 0.0}}));
  CHECK(digest_of(std::map<int, double>{{1, 2}, {3, 4}}) == digest_of(std::map<int, double>{{3, 4}, {1, 2}}));
}

TEST_CASE("different values have different digests: one number, the order, the length, where a list ends") {
  std::vector<int64_t> const digests{
      digest_of(),
      digest_of(0),
      digest_of(0, 0),
      digest_of(1, 0),
      digest_of(0, 1),
      digest_of(1.0),
      digest_of(-1.0),
      digest_of(std::numeric_limits<double>::infinity()),
      digest_of(-std::numeric_limits<double>::infinity()),
      digest_of(std::numeric_limits<double>::quiet_NaN()),
      digest_of(std::numeric_limits<double>::denorm_min()),
      digest_of(std::vector<int>{}, std::vector<int>{1}),
      digest_of(std::vector<int>{1}, std::vector<int>{}),
      digest_of(std::vector<int>{2, 1}),
      digest_of(std::vector<int>{1, 2}),
      digest_of(std::vector<int>{1, 2, 3}),
      digest_of(std::vector<bool>{true, false}),
      digest_of(std::string("ab")),
      digest_of(std::string("ba")),
      digest_of(Digested{true, {1, 2}}),
      digest_of(Digested{false, {1, 2}}),
      digest_of(Plain{1, 2}),
      digest_of(Plain{2, 1}),
  };
  CHECK(std::set(digests.begin(), digests.end()).size() == digests.size());
  std::mt19937_64 random(test::run_seed());
  std::vector<double> table(100);
  for (double& number : table) number = static_cast<double>(random() % 1000) / 7;
  int64_t const digest = digest_of(table);
  for (double& number : table) {
    double const before = number;
    number = before + 1e-9;
    CHECK(digest_of(table) != digest);
    number = before;
  }
  CHECK(digest_of(table) == digest);
}

TEST_CASE("terms say numbers, floats with the digits they need, and yes or no") {
  auto const said = [](auto mine, auto theirs) {
    Fingerprint a, b;
    a.add("it", mine);
    b.add("it", theirs);
    return compare(a, 0, b.values, 1).message();
  };
  CHECK(said(3, 4) == "the ranks disagree: it is 4 on rank 1 and 3 on rank 0");
  CHECK(said(0.1f, 0.1f + 1e-8f) == "the ranks disagree: it is 0.10000001 on rank 1 and 0.1 on rank 0");
  CHECK(said(0.1, 1e300) == "the ranks disagree: it is 1e+300 on rank 1 and 0.1 on rank 0");
  CHECK(said(true, false) == "the ranks disagree: it is no on rank 1 and yes on rank 0");
  CHECK(said(0.0, -0.0) == "ok");
  CHECK(said(0.0f, -0.0f) == "ok");
  Fingerprint many;
  for (int i = 0; i < 100; ++i) many.add("one of many", i);
  CHECK(many.count == Fingerprint::capacity);
}
