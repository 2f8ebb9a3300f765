// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <ranges>
#include <span>

#include "lightseq/core/error.hpp"
#include "lightseq/partition/pieces.hpp"

/// Arrays in host memory that have an entry for each token: of the whole sequence, and of a rank's rows.
namespace lightseq {

/// A rank's pieces. Throws Error where there is no such rank.
inline std::span<Piece const> shard_of(Pieces const& pieces, int rank) {
  if (rank < 0 || rank >= pieces.world())
    fail("rank ", rank, " has no pieces in a world of ", pieces.world(), " ranks");
  return pieces.shard(rank);
}

/// Throws Error, with the numbers, where `array` has no room for `rows` entries of `width` elements each.
template <std::ranges::contiguous_range Array>
void check_room(char const* name, Array const& array, std::int64_t rows, std::int64_t width) {
  if (std::ssize(array) < rows * width)
    fail("the array of ", name, " has ", std::ssize(array), " elements, and ", rows, " rows have ",
         rows * width);
}

/// Copies what a rank's rows have out of a whole sequence's array of `width` elements a token, such as
/// queries or embeddings. `whole` is [pieces.tokens(), width], `own` [pieces.rows(rank), width], without
/// gaps; either may be longer. Allocates nothing. Throws Error where one is too short.
template <std::ranges::contiguous_range Whole, std::ranges::contiguous_range Own>
requires std::same_as<std::ranges::range_value_t<Whole>, std::ranges::range_value_t<Own>>
void gather(Pieces const& pieces, int rank, Whole const& whole, Own&& own, std::int64_t width) {
  auto const shard = shard_of(pieces, rank);
  check_room("all tokens", whole, pieces.tokens(), width);
  check_room("a rank's tokens", own, pieces.rows(rank), width);
  for (Piece const& piece : shard)
    std::copy_n(std::ranges::data(whole) + piece.token * width, piece.rows * width,
                std::ranges::data(own) + piece.row * width);
}

/// The way back: puts what a rank's rows have where it belongs in a whole sequence's array, and touches
/// nothing else there.
template <std::ranges::contiguous_range Own, std::ranges::contiguous_range Whole>
requires std::same_as<std::ranges::range_value_t<Whole>, std::ranges::range_value_t<Own>>
void scatter(Pieces const& pieces, int rank, Own const& own, Whole&& whole, std::int64_t width) {
  auto const shard = shard_of(pieces, rank);
  check_room("a rank's tokens", own, pieces.rows(rank), width);
  check_room("all tokens", whole, pieces.tokens(), width);
  for (Piece const& piece : shard)
    std::copy_n(std::ranges::data(own) + piece.row * width, piece.rows * width,
                std::ranges::data(whole) + piece.token * width);
}

/// The same of arrays with one number a token: tokens, labels, ids.
template <std::ranges::contiguous_range Whole, std::ranges::contiguous_range Own>
requires std::integral<std::ranges::range_value_t<Whole>>
void gather(Pieces const& pieces, int rank, Whole const& whole, Own&& own) {
  gather(pieces, rank, whole, own, 1);
}
template <std::ranges::contiguous_range Own, std::ranges::contiguous_range Whole>
requires std::integral<std::ranges::range_value_t<Own>>
void scatter(Pieces const& pieces, int rank, Own const& own, Whole&& whole) {
  scatter(pieces, rank, own, whole, 1);
}

/// Fills in the position of each of a rank's rows within its document, which rotary embeddings count by.
/// `own` is [pieces.rows(rank)] integers, or longer. Throws Error where it is too short.
template <std::ranges::contiguous_range Own>
requires std::integral<std::ranges::range_value_t<Own>>
void position_ids(Pieces const& pieces, int rank, Own&& own) {
  auto const shard = shard_of(pieces, rank);
  check_room("position ids", own, pieces.rows(rank), 1);
  auto* id = std::ranges::data(own);
  for (Piece const& piece : shard)
    for (std::int64_t row = 0; row < piece.rows; ++row)
      *id++ = static_cast<std::ranges::range_value_t<Own>>(piece.begin + row);
}

}  // namespace lightseq
