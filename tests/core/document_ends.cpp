// SPDX-License-Identifier: Apache-2.0
#include "lightseq/core/document_ends.hpp"

#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

using namespace lightseq;
using std::int64_t;

namespace {

std::string fault(DocumentEnds const& documents, int64_t max_documents = 100, int64_t max_tokens = 1000) {
  return std::string(documents.fault(max_documents, max_tokens).view());
}

}  // namespace

TEST_CASE("ends are the same as int64 and as int32, with the leading 0 and without") {
  std::vector<int64_t> const longs{3, 4, 10}, longs_with_zero{0, 3, 4, 10};
  std::vector<std::int32_t> const ints{3, 4, 10};
  std::array<std::int32_t, 4> const cu_seqlens{0, 3, 4, 10};
  for (DocumentEnds const& documents :
       {DocumentEnds(longs), DocumentEnds(longs_with_zero), DocumentEnds(ints), DocumentEnds(cu_seqlens),
        DocumentEnds(std::span(cu_seqlens))}) {
    CHECK(documents.count() == 3);
    CHECK(documents.tokens() == 10);
    for (int64_t d = 0; d < 3; ++d) {
      CHECK(documents.end(d) == longs[static_cast<std::size_t>(d)]);
      CHECK(documents.begin(d) == longs_with_zero[static_cast<std::size_t>(d)]);
      CHECK(documents.length(d) == documents.end(d) - documents.begin(d));
      for (int64_t token = documents.begin(d); token < documents.end(d); ++token)
        CHECK(documents.document_of(token) == d);
    }
    CHECK(fault(documents) == "");
    CHECK(fault(documents, 3, 10) == "");
  }
}

TEST_CASE("what is no list of documents is told with the document and the numbers") {
  using Ends = std::vector<std::int32_t>;
  CHECK(fault(DocumentEnds()) == "the list of documents is empty");
  CHECK(fault(Ends{}) == "the list of documents is empty");
  CHECK(fault(Ends{0}) == "the list of documents is empty");
  CHECK(fault(Ends{0, 3, 5, 5, 9}) == "document 2 ends at token 5, but begins at token 5");
  CHECK(fault(Ends{3, 5, 4, 9}) == "document 2 ends at token 4, but begins at token 5");
  CHECK(fault(Ends{-1, 5}) == "document 0 ends at token -1, but begins at token 0");
  CHECK(fault(Ends{0, 0, 5}) == "document 0 ends at token 0, but begins at token 0");
  CHECK(fault(Ends{0, 3, 5, 6}, 2) == "there are 3 documents, and max_documents is 2");
  CHECK(fault(Ends{0, 3, 5, 9}, 9, 7) == "document 2 ends at token 9, but the sequence has 7 tokens");
  CHECK(fault(Ends{0, 9, 12}, 9, 7) == "document 0 ends at token 9, but the sequence has 7 tokens");
}
