// SPDX-License-Identifier: Apache-2.0
#include "lightseq/mask/documents.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "laws/mask.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/laws.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "support/data.hpp"
#include "support/masks.hpp"
#include "support/packs.hpp"

using namespace lightseq;
using std::int64_t;

namespace {

/// What an error says without the library's name; empty where there is none.
template <class Int>
std::string fault_of(std::vector<Int> const& ends) {
  try {
    Documents<> const documents(ends);
    return "";
  } catch (Error const& error) {
    return std::string(error.what()).substr(std::string("lightseq: ").size());
  }
}

/// The same mask by going through the ends one by one.
template <Mask Inner>
bool visible_by_scan(std::vector<int64_t> const& ends, Inner const& inner, int64_t query, int64_t key) {
  int64_t begin = 0;
  for (int64_t const end : ends) {
    if (begin <= query && query < end)
      return begin <= key && key < end && inner.visible(query - begin, key - begin);
    begin = end;
  }
  return false;
}

}  // namespace

TEST_CASE_TEMPLATE("documents show what a scan of their ends shows, in whole and over a copy of their data",
                   Inner, Full, Causal, SlidingWindow, test::PrefixLm) {
  std::mt19937_64 random(test::stream_seed(1));
  for (int pack = 0; pack < 6; ++pack)
    for (Inner const& inner : test::samples<Inner>()) {
      std::vector<int64_t> const ends = test::random_ends(random, 60, 25);
      Documents<Inner> const documents(ends, inner);
      std::vector<int64_t> copy(ends.size());
      std::memcpy(copy.data(), documents.data().data(), documents.data().size());
      auto const view = view_of(documents, std::as_bytes(std::span(copy)).data());
      bool same = true;
      for (int64_t q = 0; q < 66; ++q)
        for (int64_t k = 0; k < 66; ++k) {
          bool const want = visible_by_scan(ends, inner, q, k);
          same &= documents.visible(q, k) == want && view.visible(q, k) == want;
        }
      CHECK(same);
      test::check_mask(documents, true);
      test::check_mask(view, true, 9);
    }
}

TEST_CASE("documents are right at any size") {
  std::mt19937_64 random(test::stream_seed(2));
  for (int64_t const tokens : {int64_t{3000}, int64_t{1} << 20, int64_t{1} << 40}) {
    Documents<> const documents(test::random_ends(random, tokens, tokens / 7 + 1));
    CHECK(laws::first_fault(documents, tokens + tokens / 10, test::run_seed()) == "");
    CHECK(laws::first_fault(documents, tokens, test::run_seed()) == "");
  }
}

TEST_CASE("cu_seqlens are taken as they are") {
  std::vector<std::int32_t> const cu_seqlens{0, 5, 6, 40};
  std::vector<int64_t> const ends{5, 6, 40};
  CHECK(Documents<>(cu_seqlens).digest() == Documents<>(ends).digest());
  CHECK(std::ranges::equal(Documents<>(cu_seqlens).ends(), ends));
}

TEST_CASE("documents that differ have other digests") {
  std::vector<int64_t> const ends{5, 6, 40}, others{5, 7, 40}, fewer{5, 40};
  CHECK(Documents<>(ends).digest() != Documents<>(others).digest());
  CHECK(Documents<>(ends).digest() != Documents<>(fewer).digest());
  using Windows = Documents<SlidingWindow>;
  CHECK(Windows(ends, {3, 0}).digest() != Windows(ends, {4, 0}).digest());
}

TEST_CASE("ends that are none are refused, with the document and the numbers") {
  CHECK(fault_of(std::vector<int64_t>{}) == "Documents: the list of documents is empty");
  CHECK(fault_of(std::vector<std::int32_t>{0}) == "Documents: the list of documents is empty");
  CHECK(fault_of(std::vector<int64_t>{7, 7}) ==
        "Documents: document 1 ends at token 7, but begins at token 7");
  CHECK(fault_of(std::vector<std::int32_t>{0, 7, 12, 3}) ==
        "Documents: document 2 ends at token 3, but begins at token 12");
  CHECK(fault_of(std::vector<int64_t>{-4, 3}) ==
        "Documents: document 0 ends at token -4, but begins at token 0");
  CHECK(fault_of(std::vector<int64_t>{1}) == "");
}

TEST_CASE("documents have the faults of their inner mask, and name its values") {
  std::vector<int64_t> const ends{5, 40};
  CHECK(Documents<>(ends).fault() == "");
  CHECK(Documents<SlidingWindow>(ends, {-3, 0}).fault() == SlidingWindow{-3, 0}.fault());
  Fingerprint names;
  Documents<SlidingWindow>(ends, {3, 0}).name_values(names);
  CHECK(names.count == Fingerprint{}.count + 3);
}
