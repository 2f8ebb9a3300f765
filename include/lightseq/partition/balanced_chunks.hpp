// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <tuple>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/core/text.hpp"
#include "lightseq/partition/chunk_table.hpp"
#include "lightseq/partition/pieces.hpp"

namespace lightseq {

/// Who owns which chunks, as many each, and what the ranks then have to do.
struct ChunkDraft {
  std::vector<std::int32_t> chunks;  ///< rank 0's, rank 1's, ...
  std::vector<std::int64_t> costs;   ///< of ranks
  std::int64_t most = 0;             ///< of these
  std::int64_t rows = 0;             ///< that all ranks receive

  std::span<std::int32_t> of(std::size_t rank) {
    std::size_t const each = chunks.size() / costs.size();
    return std::span(chunks).subspan(rank * each, each);
  }
};

/// Deals out the equal chunks of a sequence so that every rank has as many and about the same cost, whatever
/// the mask, and few rows travel: chunks that see the same keys go to one rank where costs allow. The
/// costliest rank has at most 1.05 of the mean, where chunks can be exchanged so that it does, or else no
/// more than where the costliest chunk always goes to the rank with the least to do. If that is as even, no
/// more rows travel than there. The result is a function of the arguments alone, the same on every machine;
/// the object is storage, allocated once, for one call at a time. A call takes O(chunks * ranks) steps, and
/// for each of at most 8 exchanges a rank a step for each of its chunks and each of others'.
class BalancedChunks {
 public:
  /// Room for so many chunks, of one rank or all. Throws Error where a number is not positive.
  BalancedChunks(std::int64_t max_chunks, int world) : max_chunks_(max_chunks), world_(world) {
    if (max_chunks < 1 || world < 1)
      fail("balanced chunks cannot serve ", max_chunks, " chunks on ", world, " ranks");
    std::size_t const chunks = index(max_chunks), ranks = index(world);
    for (ChunkDraft* draft : {&draft_, &best_}) draft->chunks.reserve(chunks), draft->costs.resize(ranks);
    needed_.reserve(chunks * words_of(max_chunks)), union_.reserve(words_of(max_chunks));
    left_.reserve(chunks), kept_.reserve(chunks), windows_.reserve(chunks), table_.reserve(chunks);
    exchanges_.reserve(2 * most_compared), received_.resize(ranks), counts_.resize(ranks);
  }

  /// Fills `pieces`, of which the whole sequence is the one document. Gives a sentence with the numbers, and
  /// leaves `pieces` empty, where the chunks cannot be dealt out; else nothing. Allocates nothing.
  [[nodiscard]] Text partition(ChunkTable const& table, Pieces& pieces) noexcept {
    if (Text const fault = this->fault(table, pieces); !fault.empty()) return pieces.clear(), fault;
    begin(table);
    deal_costliest_first();
    std::int64_t const excess = merit(draft_).first;
    std::int64_t const most_rows = excess == 0 ? draft_.rows : largest<std::int64_t>;
    Merit least{largest<std::int64_t>, 0};
    for (auto const deal :
         {&BalancedChunks::deal_windows, &BalancedChunks::deal_halves, &BalancedChunks::deal_in_order}) {
      (this->*deal)();
      if (draft_.rows > most_rows || merit(draft_) > least) continue;
      least = merit(draft_);
      std::swap(best_, draft_);
    }
    if (least.first > excess) {
      deal_costliest_first();
      std::swap(best_, draft_);
      deal_alike_together();
      if (draft_.rows <= best_.rows) std::swap(best_, draft_);
    }
    return list(pieces);
  }

 private:
  using Word = std::uint64_t;
  static constexpr std::int64_t word_bits = 64;

  /// Of how many windows, and exchanges, with the best costs the rows are compared.
  static constexpr std::size_t most_compared = 64;

  /// In hundredths of the mean what a rank may cost, what it is brought to by exchanges if it costs more, and
  /// how far a window's cost may be from the mean.
  static constexpr std::int64_t most_share = 105, goal = 103, window_error = 2;

  /// A tile of 32 heads of 128 takes 0.45 us at 600 TFLOP/s, about as long as so many rows of 8 on their way
  /// at 300 GB/s.
  static constexpr std::int64_t rows_a_tile = 32;

  /// Of all chunks, in tiles.
  static constexpr std::int64_t most_cost = std::int64_t{1} << 40;

  /// Chunks first, ... of those that are left, the first one after the last one, and how far their cost is
  /// from what it should be.
  struct Window {
    std::int64_t error = 0;
    std::size_t first = 0;
    friend auto operator<=>(Window const&, Window const&) = default;
  };

  /// One chunk of the costliest rank for another one.
  struct Exchange {
    std::int64_t error = 0;  ///< how far both ranks' costs are apart then
    std::size_t rank = 0, given = 0, taken = 0;
    friend auto operator<=>(Exchange const&, Exchange const&) = default;
  };

  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  static std::size_t words_of(std::int64_t chunks) { return index(tiles_of(chunks, word_bits)); }

  Text fault(ChunkTable const& table, Pieces const& pieces) const {
    if (pieces.world() != world_)
      return Text("the table of pieces is for ") + pieces.world() + " ranks, the chunks for " + world_;
    if (table.count() > max_chunks_)
      return Text("there are ") + table.count() + " chunks, and room for " + max_chunks_;
    if (table.count() % world_ != 0)
      return Text() + table.count() + " chunks cannot be dealt out evenly to " + world_ + " ranks";
    if (!table.complete()) return "the table of chunks does not tell of all of them";
    std::int64_t left = most_cost;
    for (std::int64_t chunk = 0; chunk < table.count(); ++chunk) {
      if (table.cost(chunk) < 0 || table.cost(chunk) > left)
        return Text("chunk ") + chunk + " costs " + table.cost(chunk) + ", and all may cost 0 to " +
               most_cost;
      left -= table.cost(chunk);
    }
    return {};
  }

  /// Takes note of the chunks that each chunk sees keys of, as bits.
  void begin(ChunkTable const& table) {
    given_ = &table;
    each_ = index(table.count() / world_), words_ = words_of(table.count());
    draft_.chunks.resize(index(table.count())), best_.chunks.resize(index(table.count()));
    union_.resize(words_);
    needed_.assign(index(table.count()) * words_, 0);
    total_ = 0;
    for (std::int64_t chunk = 0; chunk < table.count(); ++chunk) {
      total_ += table.cost(chunk);
      Word* const words = needed(chunk);
      for (Range const& keys : table.keys(chunk))
        for (std::int64_t key = table.chunk_of(keys.begin); key <= table.chunk_of(keys.end - 1); ++key)
          words[key / word_bits] |= Word{1} << key % word_bits;
    }
    goal_ = share(goal);
  }

  Word* needed(std::int64_t chunk) { return needed_.data() + index(chunk) * words_; }
  std::int64_t cost(std::int64_t chunk) const { return given_->cost(chunk); }

  /// So many hundredths of a rank's mean cost.
  std::int64_t share(std::int64_t hundredths) const {
    return total_ * hundredths / (100 * std::int64_t{world_});
  }

  /// How many chunks some chunks see keys of, these themselves left out.
  std::int64_t chunks_received(std::span<std::int32_t const> chunks) {
    std::fill(union_.begin(), union_.end(), 0);
    for (std::int32_t const chunk : chunks)
      for (std::size_t w = 0; w < words_; ++w) union_[w] |= needed(chunk)[w];
    for (std::int32_t const chunk : chunks)
      union_[index(chunk / word_bits)] &= ~(Word{1} << chunk % word_bits);
    std::int64_t count = 0;
    for (Word const word : union_) count += std::popcount(word);
    return count;
  }

  /// Adds up what ranks have to do.
  void measure() {
    draft_.most = draft_.rows = 0;
    for (std::size_t rank = 0; rank < draft_.costs.size(); ++rank) {
      std::int64_t& sum = draft_.costs[rank] = 0;
      for (std::int32_t const chunk : draft_.of(rank)) sum += cost(chunk);
      draft_.most = std::max(draft_.most, sum);
      draft_.rows += rows_received(*given_, draft_.of(rank));
    }
  }

  /// Less is better: first of all the cost above what may be, then about the time that a rank takes.
  using Merit = std::pair<std::int64_t, std::int64_t>;
  Merit merit(ChunkDraft const& draft) const {
    return {std::max<std::int64_t>(0, draft.most - share(most_share)),
            rows_a_tile * world_ * draft.most + draft.rows};
  }

  /// Neighbours together.
  void deal_in_order() {
    std::iota(draft_.chunks.begin(), draft_.chunks.end(), 0);
    measure();
  }

  /// As Zigzag does: to each rank half of its chunks from the front, and half from the back.
  void deal_halves() {
    auto const front = static_cast<std::int32_t>(each_ - each_ / 2),
               back = static_cast<std::int32_t>(each_ / 2);
    auto next = draft_.chunks.begin();
    for (std::int32_t rank = 0; rank < world_; ++rank) {
      std::iota(next, next + front, rank * front);
      std::iota(next + front, next + front + back,
                static_cast<std::int32_t>(given_->count()) - (rank + 1) * back);
      next += front + back;
    }
    measure();
  }

  /// The costliest chunk to the rank with the least cost that still takes some.
  void deal_costliest_first() {
    left_.resize(draft_.chunks.size());
    std::iota(left_.begin(), left_.end(), 0);
    std::sort(left_.begin(), left_.end(), [this](std::int32_t a, std::int32_t b) {
      return std::pair(-cost(a), a) < std::pair(-cost(b), b);
    });
    std::fill(draft_.costs.begin(), draft_.costs.end(), 0);
    std::fill(counts_.begin(), counts_.end(), 0);
    for (std::int32_t const chunk : left_) {
      std::size_t rank = counts_.size();
      for (std::size_t r = 0; r < counts_.size(); ++r)
        if (counts_[r] < each_ && (rank == counts_.size() || draft_.costs[r] < draft_.costs[rank])) rank = r;
      draft_.of(rank)[counts_[rank]++] = chunk;
      draft_.costs[rank] += cost(chunk);
    }
    measure();
  }

  /// Deals out the best draft with the same costs, but of chunks that cost the same neighbours together.
  void deal_alike_together() {
    auto const cost_of = [this](std::int32_t chunk) { return std::pair(cost(chunk), chunk); };
    std::fill(counts_.begin(), counts_.end(), 0);
    for (std::size_t rank = 0; rank < counts_.size(); ++rank) std::ranges::sort(best_.of(rank), {}, cost_of);
    std::ranges::sort(left_, {}, cost_of);
    for (std::size_t i = 0, rank = 0; i < left_.size(); ++i) {
      if (i == 0 || cost(left_[i]) != cost(left_[i - 1])) rank = 0;
      while (counts_[rank] == each_ || cost(best_.of(rank)[counts_[rank]]) != cost(left_[i])) ++rank;
      draft_.of(rank)[counts_[rank]++] = left_[i];
    }
    measure();
  }

  /// Rank after rank a window of neighbours among those that are left. Of all windows, the first chunk after
  /// the last one, the mean costs what a rank should, and their costs change by chunks: one is near. Then
  /// chunks are exchanged until costs are even.
  void deal_windows() {
    left_.resize(draft_.chunks.size());
    std::iota(left_.begin(), left_.end(), 0);
    std::int64_t remaining = total_;
    for (std::size_t rank = 0; rank < draft_.costs.size(); ++rank) {
      auto const own = draft_.of(rank);
      take(best_window(remaining / (world_ - static_cast<std::int64_t>(rank)), own), own);
      draft_.costs[rank] = 0;
      for (std::int32_t const chunk : own) draft_.costs[rank] += cost(chunk);
      remaining -= draft_.costs[rank];
    }
    even_out();
    measure();
  }

  void copy_window(std::size_t first, std::span<std::int32_t> to) const {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] = left_[(first + i) % left_.size()];
  }

  /// Of the windows with nearly that cost the one that needs the fewest chunks of others; else the nearest.
  std::size_t best_window(std::int64_t wanted, std::span<std::int32_t> scratch) {
    windows_.clear();
    std::int64_t sum = 0;
    for (std::size_t i = 0; i < each_; ++i) sum += cost(left_[i]);
    for (std::size_t first = 0; first < left_.size(); ++first) {
      windows_.push_back({std::abs(sum - wanted), first});
      sum += cost(left_[(first + each_) % left_.size()]) - cost(left_[first]);
    }
    keep_best(windows_);
    std::int64_t const most_error = share(window_error);
    std::int64_t fewest = largest<std::int64_t>;
    std::size_t best = 0;
    for (Window const& w : windows_) {
      if (w.error > most_error && fewest < largest<std::int64_t>) break;
      copy_window(w.first, scratch);
      if (std::int64_t const received = chunks_received(scratch); received < fewest)
        fewest = received, best = w.first;
    }
    return best;
  }

  /// Moves a window from those that are left to a rank.
  void take(std::size_t first, std::span<std::int32_t> own) {
    copy_window(first, own);
    kept_.clear();
    for (std::size_t i = each_; i < left_.size(); ++i) kept_.push_back(left_[(first + i) % left_.size()]);
    left_.swap(kept_);
  }

  /// Leaves the least of a list, in their order.
  template <class T>
  static void keep_best(std::vector<T>& list) {
    std::size_t const kept = std::min(most_compared, list.size());
    std::partial_sort(list.begin(), list.begin() + static_cast<std::ptrdiff_t>(kept), list.end());
    list.resize(kept);
  }

  /// Exchanges chunks of the costliest rank for cheaper ones of others, as long as that helps.
  void even_out() {
    for (std::size_t rank = 0; rank < received_.size(); ++rank)
      received_[rank] = chunks_received(draft_.of(rank));
    for (int i = 0; i < 8 * world_; ++i) {
      auto const most = std::max_element(draft_.costs.begin(), draft_.costs.end());
      if (*most <= goal_) return;
      if (!exchange_of(static_cast<std::size_t>(most - draft_.costs.begin()))) return;
    }
  }

  /// The exchange after which both ranks are within the goal and the fewest chunks travel; else the one after
  /// which the costlier one of both has least. False if none helps.
  bool exchange_of(std::size_t rank) {
    exchanges_.clear();
    Exchange best;
    std::int64_t least = draft_.costs[rank];
    auto const own = draft_.of(rank);
    for (std::size_t other = 0; other < draft_.costs.size(); ++other) {
      auto const others = draft_.of(other);
      for (std::size_t i = 0; other != rank && i < each_; ++i)
        for (std::size_t k = 0; k < each_; ++k) {
          std::int64_t const moved = cost(own[i]) - cost(others[k]);
          if (moved <= 0) continue;
          std::int64_t const mine = draft_.costs[rank] - moved, its = draft_.costs[other] + moved;
          Exchange const exchange{std::abs(mine - its), other, i, k};
          if (std::max(mine, its) < least) least = std::max(mine, its), best = exchange;
          if (std::max(mine, its) > goal_) continue;
          if (exchanges_.size() == 2 * most_compared) keep_best(exchanges_);
          exchanges_.push_back(exchange);
        }
    }
    if (least == draft_.costs[rank]) return false;
    if (!exchanges_.empty()) best = fewest_chunks(rank);
    exchange(rank, best);
    for (std::size_t const r : {rank, best.rank}) received_[r] = chunks_received(draft_.of(r));
    return true;
  }

  void exchange(std::size_t rank, Exchange const& exchange) {
    std::int32_t &given = draft_.of(rank)[exchange.given], &taken = draft_.of(exchange.rank)[exchange.taken];
    draft_.costs[rank] += cost(taken) - cost(given);
    draft_.costs[exchange.rank] += cost(given) - cost(taken);
    std::swap(given, taken);
  }

  /// Of the listed exchanges that leave both ranks' costs nearest the one after which they need the fewest
  /// chunks more.
  Exchange fewest_chunks(std::size_t rank) {
    keep_best(exchanges_);
    std::int64_t fewest = largest<std::int64_t>;
    Exchange best;
    for (Exchange const& tried : exchanges_) {
      exchange(rank, tried);
      std::int64_t const more = chunks_received(draft_.of(rank)) + chunks_received(draft_.of(tried.rank)) -
                                received_[rank] - received_[tried.rank];
      exchange(rank, tried);
      if (more < fewest) fewest = more, best = tried;
    }
    return best;
  }

  /// Writes the best draft as a table, in the order of the tokens.
  Text list(Pieces& pieces) {
    table_.resize(best_.chunks.size());
    for (std::size_t rank = 0; rank < best_.costs.size(); ++rank)
      for (std::int32_t const chunk : best_.of(rank)) {
        Range const tokens = given_->tokens_of(chunk);
        table_[index(chunk)] = {
            .rank = static_cast<std::int32_t>(rank), .begin = tokens.begin, .rows = tokens.size()};
      }
    std::int64_t const end = given_->tokens();
    return pieces.assign(std::span(&end, 1), table_);
  }

  std::int64_t max_chunks_;
  int world_;
  ChunkTable const* given_ = nullptr;  ///< what is dealt out
  std::size_t each_ = 0;               ///< chunks of a rank
  std::int64_t total_ = 0, goal_ = 0;  ///< cost of all chunks, and of a rank at most
  std::size_t words_ = 0;              ///< for a bit of each chunk
  std::vector<Word> needed_, union_;
  ChunkDraft draft_, best_;
  std::vector<std::int32_t> left_, kept_;
  std::vector<std::size_t> counts_;     ///< of ranks' chunks
  std::vector<std::int64_t> received_;  ///< chunks that ranks need of others
  std::vector<Window> windows_;
  std::vector<Exchange> exchanges_;
  std::vector<Piece> table_;
};

}  // namespace lightseq
