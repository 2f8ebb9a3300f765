// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lightseq/core/range.hpp"
#include "lightseq/partition/gather.hpp"
#include "parameters.hpp"

/// What a rank reads of the text of a step.
namespace train_lm {

/// The positions of a rank's rows.
inline std::vector<Index> listed(lightseq::Positions const& rows) {
  std::vector<Index> positions;
  for (Index row = 0; row < rows.rows(); ++row) positions.push_back(rows.position(row));
  return positions;
}

/// A rank's rows of a text of `of` bytes and the one that follows them. Tokens and labels go by position in
/// the whole text: any partition will do, and the last token of a shard has its label like any other.
struct Share {
  Index of;
  std::vector<std::uint8_t> tokens, labels;  ///< a label is the byte after its token
  std::vector<Index> positions;              ///< within the document

  /// Of a text that is one document.
  Share(lightseq::Positions const& rows, std::span<std::uint8_t const> text)
      : of(std::ssize(text) - 1), positions(listed(rows)) {
    for (Index const position : positions) {
      tokens.push_back(text[static_cast<std::size_t>(position)]);
      labels.push_back(text[static_cast<std::size_t>(position) + 1]);
    }
  }

  /// Of a text that is packed documents.
  Share(lightseq::Pieces const& pieces, int rank, std::span<std::uint8_t const> text)
      : of(std::ssize(text) - 1),
        tokens(static_cast<std::size_t>(pieces.rows(rank))),
        labels(tokens.size()),
        positions(tokens.size()) {
    gather(pieces, rank, text, tokens);
    gather(pieces, rank, text.subspan(1), labels);
    position_ids(pieces, rank, positions);
  }
};

}  // namespace train_lm
