// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <vector>

#include "bench/support/packs.hpp"
#include "lightseq/schedule/packed_plan.hpp"

/// How well ranks keep pace when they attend a pack, by simulation.
namespace lightseq::bench {

/// Times, in that of a tile of 128 x 128: by default 0.45 us, for 32 heads that share 8 of keys, of 128
/// dimensions in bfloat16, on a GPU that reaches 600 TFLOP/s, with messages at 300 GB/s.
struct PackedRates {
  double launch = 20;    ///< of a step's kernel
  double group = 20;     ///< of a group of messages, beside its rows
  double row = 0.03;     ///< of a row's keys and values on their way
  double carry = 0.024;  ///< of reading and writing a row's output in float, in later steps
};

/// A forward of all ranks.
struct PackedTime {
  double efficiency = 0;  ///< a rank's mean work over the time that all take
  double balance = 0;     ///< what it would be if nobody waited
  double groups = 0;      ///< of messages, of the rank that has most
  double steps = 0;
};

/// Lets ranks go through their rounds as PackedExecution does: a group begins where the one before has ended
/// and the other ends of its messages have come to it, a round where the groups and the work of the one
/// before have ended.
class PackedSimulation {
 public:
  PackedSimulation(DocumentEnds const& documents, Pieces const& pieces, PackedRates const& rates = {})
      : pieces_(pieces), rates_(rates) {
    for (int rank = 0; rank < pieces.world(); ++rank) {
      plans_.emplace_back(rank, pieces.world(), pieces.max_pieces(), pieces.max_rows());
      plans_.back().assign(pieces);
      work_.push_back({local_tiles(documents, pieces.shard(rank)).cost()});
      for (int step = 1; step < plans_.back().steps(); ++step)
        work_.back().push_back(step_work(plans_.back()[step]));
    }
  }

  PackedTime run() const {
    std::vector<double> begin(plans_.size()), works(plans_.size());
    std::vector<int> groups(plans_.size());
    int const steps = plans_[0].steps();
    for (int round = 0; round < steps; ++round) {
      std::vector<double> arrived = begin;
      if (round + 1 < steps) exchange(round + 1, arrived, groups);
      for (std::size_t rank = 0; rank < plans_.size(); ++rank) {
        double const work = work_[rank][static_cast<std::size_t>(round)];
        works[rank] += work;
        double const launch =
            work > 0 ? rates_.launch + rates_.carry * static_cast<double>(rows_carried(rank, round)) : 0;
        begin[rank] = std::max(begin[rank] + work + launch, arrived[rank]);
      }
    }
    auto const most = [](auto const& of_ranks) {
      return static_cast<double>(*std::max_element(of_ranks.begin(), of_ranks.end()));
    };
    double const mean = std::accumulate(works.begin(), works.end(), 0.) / static_cast<double>(works.size());
    return {mean / most(begin), mean / most(works), most(groups), static_cast<double>(steps)};
  }

 private:
  /// Of the tiles of each piece of queries with the keys of its document, which it sees whole or not at all.
  static double step_work(PackedStep const& step) {
    double work = 0;
    for (RowRun const& query : step.queries) {
      std::int64_t rows = 0;
      for (RowRun const& keys : step.keys.subspan(static_cast<std::size_t>(query.first),
                                                  static_cast<std::size_t>(query.end - query.first)))
        if (keys.position < query.position) rows += keys.rows;
      if (rows > 0) work += static_cast<double>(tiles_of(query.rows, 128) * tiles_of(rows, 128)) + 1;
    }
    return work;
  }

  std::int64_t rows_carried(std::size_t rank, int step) const {
    return step > 0 ? plans_[rank][step].query_rows().rows : 0;
  }

  /// How far apart the ranks of a group's messages are.
  int distance(std::size_t rank, RowGroup const& group) const {
    int const from = static_cast<int>(rank), world = pieces_.world();
    return (group.sends.empty() ? from - group.recvs[0].peer + world : group.sends[0].peer - from + world) %
           world;
  }

  /// The messages of a step. The turns are those of the distances.
  void exchange(int step, std::vector<double>& time, std::vector<int>& groups) const {
    std::vector<int> next(plans_.size());
    auto const rows = [](auto const& messages) {
      std::int64_t sum = 0;
      for (RowTransfer const& t : messages) sum += t.rows;
      return static_cast<double>(sum);
    };
    for (int turn = 1; turn < pieces_.world();) {
      std::vector<double> const begin = time;
      bool any = false;
      for (std::size_t rank = 0; rank < plans_.size(); ++rank) {
        if (next[rank] == plans_[rank].groups(step)) continue;
        RowGroup const group = plans_[rank].group(step, next[rank]);
        if (distance(rank, group) != turn) continue;
        for (auto const* messages : {&group.sends, &group.recvs})
          for (RowTransfer const& t : *messages)
            time[rank] = std::max(time[rank], begin[static_cast<std::size_t>(t.peer)]);
        time[rank] += rates_.group + rates_.row * std::max(rows(group.sends), rows(group.recvs));
        ++next[rank], ++groups[rank];
        any = true;
      }
      turn += any ? 0 : 1;
    }
  }

  Pieces const& pieces_;
  PackedRates rates_;
  std::vector<PackedPlan> plans_;
  std::vector<std::vector<double>> work_;  ///< of each rank's steps
};

}  // namespace lightseq::bench
