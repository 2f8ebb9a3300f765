// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/packed_attn.hpp"

/// What ranks hear that plan different documents and ask each other.
namespace lightseq::test {

/// Documents that all ranks plan but one, which plans others, and the document that differs.
struct DifferentPacks {
  std::vector<std::int64_t> usual, other;
  std::int64_t document = 0;

  /// What all say where `rank` is the other one.
  std::string differs(int rank) const {
    auto const end = [&](std::vector<std::int64_t> const& ends) {
      auto const at = static_cast<std::size_t>(document);
      return at < ends.size() ? std::to_string(ends[at]) : "missing";
    };
    auto const &first = rank == 0 ? other : usual, &second = rank == 0 ? usual : other;
    return sentence("the ranks disagree: the end of document ", document, " is ", end(second), " on rank ",
                    rank == 0 ? 1 : rank, " and ", end(first), " on rank 0");
  }
};

inline constexpr Problem pack_problem{.seqlen = 12000, .heads = 1, .max_documents = 6000};

/// Packs of 1 to 5000 documents of two tokens each, of which one has ended earlier, at every place that a
/// search may take for another, or is missing; after it all ends may differ.
inline std::vector<DifferentPacks> different_packs() {
  std::vector<DifferentPacks> packs;
  for (std::int64_t const documents : {1, 2, 31, 32, 33, 34, 1025, 5000})
    for (std::int64_t const at : {std::int64_t{0}, documents / 2, documents - 1}) {
      std::vector<std::int64_t> usual;
      for (std::int64_t d = 1; d <= documents; ++d) usual.push_back(2 * d);
      std::vector<std::int64_t> earlier = usual, shifted = usual;
      --earlier[static_cast<std::size_t>(at)];
      for (auto d = static_cast<std::size_t>(at); d < shifted.size(); ++d) ++shifted[d];
      packs.push_back({usual, earlier, at});
      packs.push_back({usual, shifted, at});
      if (at == 0) continue;
      std::vector<std::int64_t> const fewer(usual.begin(), usual.begin() + at);
      packs.push_back({usual, fewer, at});
      packs.push_back({fewer, usual, at});
    }
  return packs;
}

/// What agree() says of these documents, or, where they are none, without a plan.
template <class Traits>
class PackAsker {
 public:
  using Attn = DistAttn<16, Documents<Causal>, PackedRing, Traits>;
  explicit PackAsker(typename Traits::Transport& transport)
      : attn_(transport, pack_problem), batch_(attn_.batch()) {}

  std::string ask(std::vector<std::int64_t> const& ends) {
    return after(ends.empty() ? Text() : attn_.plan(ends, batch_));
  }
  std::string ask(std::vector<std::int64_t> const& ends, std::vector<Piece> const& table) {
    return after(attn_.plan(ends, table, batch_));
  }

 private:
  std::string after(Text const& fault) {
    return fault.empty() ? attn_.agree(batch_).message() : std::string(fault.view());
  }
  Attn attn_;
  PackedBatch batch_;
};

/// Asks for every pair of packs, with each rank of `world` for the other one: what a rank finds wrong in it.
/// Between them all plan the same, and agree.
template <class Traits>
std::string first_wrong_agreement(typename Traits::Transport& transport, int world) {
  PackAsker<Traits> asker(transport);
  for (DifferentPacks const& packs : different_packs())
    for (int const other : {0, world - 1}) {
      std::string const said = asker.ask(transport.rank() == other ? packs.other : packs.usual);
      std::string const want = packs.differs(other);
      if (said != want) return sentence("'", said, "' in place of '", want, "'");
      if (std::string const same = asker.ask(packs.usual); same != "ok") return "after it: " + same;
    }
  std::vector<Piece> const tables[]{{{0, 0, 0, 10}}, {{world - 1, 0, 0, 4}, {0, 0, 4, 6}}};
  std::string const said = asker.ask({10}, tables[transport.rank() == 0 ? 0 : 1]);
  return said == "the ranks disagree: the tables differ: rank 1 has another one than rank 0" ? "" : said;
}

}  // namespace lightseq::test
