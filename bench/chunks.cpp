// SPDX-License-Identifier: Apache-2.0
// How BalancedChunks deals out the equal chunks of a sequence under masks of all kinds, beside contiguous
// shards, zigzag and a min-heap of the same chunks: the cost of the costliest rank over the mean, and the
// rows that ranks receive. Prints a row a mask and world; --help lists the options.
#include <chrono>
#include <cstdint>
#include <random>
#include <string>
#include <utility>

#include "bench/support/chunks.hpp"
#include "bench/support/row.hpp"
#include "examples/support/options.hpp"
#include "lightseq/partition/balanced_chunks.hpp"
#include "lightseq/schedule/chunk_keys.hpp"
#include "lightseq/schedule/mask_chunks.hpp"
#include "lightseq/schedule/packed_plan.hpp"

using namespace lightseq;

namespace {

template <class F>
double milliseconds(F const& f) {
  auto const begin = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
}

void add(bench::Row& row, std::string const& rule, bench::ChunkFigures const& f) {
  row(rule + "_max_over_mean", f.max_over_mean)(rule + "_received", f.received)(
      rule + "_most_received", f.most_received)(rule + "_pieces", f.pieces);
}

void measure(char const* name, Mask auto const& mask, std::int64_t tokens, int world, std::int64_t chunks) {
  ChunkTable table(1, 1);
  double const table_ms = milliseconds([&] { table = chunk_table(mask, tokens, chunks); });
  BalancedChunks balanced(chunks, world);
  Pieces pieces(world, chunks);
  double const deal_ms = milliseconds([&] {
    if (Text const fault = balanced.partition(table, pieces); !fault.empty()) fail(fault);
  });
  bench::Row row;
  row("mask", std::string(name))("world", world)("tokens", tokens)("chunk", tokens / chunks);
  add(row, "balanced", bench::figures(table, bench::chunks_of(table, pieces)));
  add(row, "min_heap", bench::figures(table, bench::min_heap_chunks(table, world)));
  add(row, "contiguous", bench::figures(table, bench::contiguous_chunks(table, world)));
  add(row, "zigzag", bench::figures(table, bench::zigzag_chunks(table, world)));
  PackedPlan plan(world - 1, world, chunks, pieces.max_rows());
  double const plan_ms = milliseconds([&] { plan.assign(pieces, ChunkKeys(table)); });
  row("table_ms", table_ms)("deal_ms", deal_ms)("plan_ms", plan_ms)("steps", plan.steps()).print();
}

}  // namespace

int main(int argc, char** argv) {
  support::Options options({{"--world", "8,64", "ranks; a list"},
                            {"--rows", "512", "tokens of a chunk"},
                            {"--chunks", "16", "of a rank, an even number"}});
  return support::run_main(argc, argv, options, [&] {
    std::int64_t const rows = options.whole("--rows", 1, 1 << 16);
    int const chunks = options.small("--chunks", 2, 1024);
    for (std::int64_t const ranks : options.whole_numbers("--world", 1, 1024)) {
      int const world = static_cast<int>(ranks);
      std::int64_t const tokens = rows * chunks * world;
      std::mt19937_64 random(42);
      bench::for_each_chunked_mask(tokens, world, random, [&](char const* name, Mask auto const& mask) {
        measure(name, mask, tokens, world, std::int64_t{chunks} * world);
      });
    }
    return 0;
  });
}
