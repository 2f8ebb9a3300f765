// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/core/problem.hpp"
#include "lightseq/predict/advise.hpp"
#include "lightseq/predict/advise_packed.hpp"
#include "lightseq/predict/degrees.hpp"
#include "lightseq/predict/units.hpp"

/// How many GPUs should share a sequence, and what the others should do.
namespace lightseq {

/// What is asked of degrees besides the problem.
struct DegreeQuestion {
  bool with_backward = true;      ///< training: both passes; else the forward
  std::int64_t memory_limit = 0;  ///< bytes of a GPU, see Advice::memory_bytes(); 0: no limit
  std::vector<Rest> rests = {Rest::data, Rest::tensor};
  bool activations = true;   ///< count activation_seconds(); else they are left out, and the sentences say so
  double margin = 0.01;      ///< in which two ways are as fast
  Execution execution = {};  ///< how a step is run
  /// Hears of each way once its numbers are there: how many there are, of how many.
  std::function<void(int, int)> progress = {};
};

/// What advise_degrees() finds.
struct DegreeRanking {
  std::string first;               ///< what to know first: whether fewer GPUs are faster
  std::vector<DegreeAdvice> rows;  ///< those that fit, the fastest first, then those that do not fit
};

/// Ranks all splits of a cluster. `ask(problem, world, topology)` is the ranking of schedules for one group,
/// the fastest first.
template <class Ask>
class DegreeSearch {
 public:
  DegreeSearch(Problem const& problem, int head_dim, std::int64_t element_bytes, int world,
               Topology const& cluster, DegreeQuestion const& question, Ask ask)
      : problem_(problem),
        head_dim_(head_dim),
        element_bytes_(element_bytes),
        world_(world),
        cluster_(cluster),
        question_(question),
        ask_(std::move(ask)) {}

  DegreeRanking run() {
    if (question_.rests.empty()) fail("the GPUs beside a sequence are given nothing to do");
    if (question_.memory_limit < 0) fail("the memory limit is ", question_.memory_limit, " bytes");
    DegreeRanking ranking;
    std::vector<Split> const all = splits(world_, cluster_.ranks_per_node, question_.rests);
    for (Split const& split : all) {
      if (auto row = judge(split); !row.advice.schedule.empty()) ranking.rows.push_back(std::move(row));
      if (question_.progress) question_.progress(++judged_, static_cast<int>(all.size()));
    }
    if (ranking.rows.empty()) fail("none of the schedules serves this mask, on any number of GPUs");
    std::stable_sort(ranking.rows.begin(), ranking.rows.end(),
                     [](DegreeAdvice const& a, DegreeAdvice const& b) {
                       return std::pair(!a.fits, a.seconds()) < std::pair(!b.fits, b.seconds());
                     });
    for (DegreeAdvice& row : ranking.rows) row.why = why(row);
    ranking.first = first(ranking.rows);
    return ranking;
  }

 private:
  bool fits(Advice const& advice) const {
    return question_.memory_limit == 0 || advice.memory_bytes() <= question_.memory_limit;
  }

  /// The fastest that fits; where none does, that of least memory.
  Advice choice(std::vector<Advice> const& ranking) const {
    auto const best = std::find_if(ranking.begin(), ranking.end(), [&](Advice const& a) { return fits(a); });
    if (best != ranking.end()) return *best;
    auto const least = std::min_element(ranking.begin(), ranking.end(), [](auto const& a, auto const& b) {
      return a.memory_bytes() < b.memory_bytes();
    });
    return least == ranking.end() ? Advice{} : *least;
  }

  double activations(Split const& split, Problem const& whole) const {
    if (!question_.activations) return 0;
    int const passes = question_.with_backward ? 2 : 1;
    return passes * activation_seconds(split, whole, head_dim_, element_bytes_, cluster_);
  }

  DegreeAdvice judge(Split const& split) {
    DegreeAdvice row{split, Portion::of(split, problem_)};
    row.advice = seek(split, row.portion);
    row.activation_seconds = activations(split, problem_);
    row.fits = fits(row.advice);
    double const tokens = static_cast<double>(problem_.batch) * static_cast<double>(problem_.seqlen);
    row.tokens_per_second = tokens / row.seconds();
    Problem one = problem_;
    one.batch = 1;
    Portion const mine = Portion::of(split, one);
    bool const same = mine.problem.batch == row.portion.problem.batch &&
                      topology_of(split, cluster_, mine.idle_groups).between.bytes_per_second ==
                          topology_of(split, cluster_, row.portion.idle_groups).between.bytes_per_second;
    row.sequence_seconds = activations(split, one) + (same ? row.advice : seek(split, mine)).seconds();
    return row;
  }

  /// The best for a group that has such a portion.
  Advice seek(Split const& split, Portion const& portion) {
    return choice(ask_(portion.problem, split.degree, topology_of(split, cluster_, portion.idle_groups)));
  }

  static std::string counted(std::int64_t count, char const* what) {
    return sentence(count, ' ', what, count == 1 ? "" : "s");
  }

  std::string who(DegreeAdvice const& row) const {
    Split const& s = row.split;
    Problem const& p = row.portion.problem;
    if (s.groups == 1)
      return world_ == 1 ? "The GPU has whole sequences"
                         : sentence("All ", world_, " GPUs share each sequence");
    std::string const group = s.degree == 1
                                  ? sentence(s.groups, " single GPUs")
                                  : sentence(s.groups, " groups of ", s.degree, " GPUs, ",
                                             s.degree == s.ranks_per_node ? "each " : "", row.place(), ",");
    std::string text = s.rest == Rest::data
                           ? sentence(group, " have ", counted(p.batch, "sequence"), " each")
                           : sentence(group, " have ", counted(p.heads, "query head"), " and ",
                                      counted(p.kv_heads, "key/value head"), " each");
    if (s.rest == Rest::data && row.portion.idle_groups == 0 && p.batch * s.groups > problem_.batch)
      text += " or one less";
    if (row.portion.idle_groups > 0) text += sentence(", but ", row.portion.idle_groups, " of them none");
    if (row.portion.computed_heads > problem_.heads)
      text += sentence(", padded to ", row.portion.computed_heads, " query heads for ", problem_.heads);
    return text;
  }

  std::string why(DegreeAdvice const& row) const {
    std::string text =
        sentence(who(row), ": ", row.advice.name(), " takes ", seconds_text(row.advice.seconds()));
    if (row.split.rest == Rest::tensor && row.split.groups > 1)
      text += row.activation_seconds > 0
                  ? sentence(", activations ", seconds_text(row.activation_seconds), " more")
                  : ", exchanges of activations left out";
    text += sentence(", ", count_text(row.tokens_per_second), " tokens/s, ",
                     bytes_text(row.advice.memory_bytes()), " a GPU");
    if (!row.fits) text += sentence(", which does not fit into ", bytes_text(question_.memory_limit));
    return text;
  }

  /// What of two is better, for one sequence alone: the others' GPUs may be idle.
  std::string first_for_one(std::span<DegreeAdvice const> fitting) const {
    auto const least = [](DegreeAdvice const& a, DegreeAdvice const& b) {
      return std::pair(a.sequence_seconds, a.split.degree) < std::pair(b.sequence_seconds, b.split.degree);
    };
    std::vector<DegreeAdvice> alone;  // without tensor parallelism, in which all GPUs share the sequence
    for (DegreeAdvice const& row : fitting)
      if (row.split.groups == 1 || row.split.rest == Rest::data) alone.push_back(row);
    auto const best = std::min_element(alone.begin(), alone.end(), least);
    auto const all = std::find_if(alone.begin(), alone.end(),
                                  [](DegreeAdvice const& row) { return row.split.groups == 1; });
    if (best == alone.end()) return "";
    return sentence(fewer(*best, all == alone.end() ? nullptr : &*all),
                    heads_too(*std::min_element(fitting.begin(), fitting.end(), least), *best), ". ");
  }

  /// Whether the best of those that split a sequence alone has fewer GPUs than all, which may not fit.
  std::string fewer(DegreeAdvice const& best, DegreeAdvice const* all) const {
    std::string const of_best =
        sentence(counted(best.split.degree, "GPU"), best.split.degree == 1 ? " takes " : " take ",
                 seconds_text(best.sequence_seconds));
    if (all == nullptr)
      return sentence("For one sequence alone ", of_best, "; all ", world_,
                      ", with the whole batch, do not fit");
    if (all->sequence_seconds > (1 + question_.margin) * best.sequence_seconds)
      return sentence("Fewer GPUs are faster: for one sequence alone ", of_best, ", all ", world_, " take ",
                      seconds_text(all->sequence_seconds));
    return sentence("For one sequence alone no fewer GPUs are faster than all ", world_, ", which take ",
                    seconds_text(all->sequence_seconds));
  }

  /// What is faster for one sequence where heads are shared too; nothing where nothing is. No schedule is
  /// named: the row's is the whole batch's.
  std::string heads_too(DegreeAdvice const& any, DegreeAdvice const& best) const {
    if (best.sequence_seconds <= (1 + question_.margin) * any.sequence_seconds) return "";
    return sentence("; where its heads are shared too, ", any.gpus(), " take ",
                    seconds_text(any.sequence_seconds));
  }

  std::string first(std::vector<DegreeAdvice> const& rows) const {
    if (!rows.front().fits) {
      auto const least = std::min_element(rows.begin(), rows.end(), [](auto const& a, auto const& b) {
        return a.advice.memory_bytes() < b.advice.memory_bytes();
      });
      return sentence("Nothing fits into ", bytes_text(question_.memory_limit), " a GPU: the least is ",
                      bytes_text(least->advice.memory_bytes()), ", by ", least->name(), ".");
    }
    auto const end = std::find_if(rows.begin(), rows.end(), [](auto const& row) { return !row.fits; });
    std::span<DegreeAdvice const> const fitting(rows.begin(), end);
    if (world_ == 1) return rows.front().why + ".";
    DegreeAdvice const& best = rows.front();
    std::string text = first_for_one(fitting);
    text += problem_.batch == 1
                ? sentence("The most tokens a second")
                : sentence("For the ", problem_.batch, " sequences of the batch the most tokens a second");
    text += sentence(" come from ", best.name(), ": ", count_text(best.tokens_per_second));
    auto const all =
        std::find_if(fitting.begin(), fitting.end(), [](auto const& row) { return row.split.groups == 1; });
    if (best.split.groups > 1 && all != fitting.end())
      text += sentence(", against ", count_text(all->tokens_per_second), " where all ", world_,
                       " share each sequence");
    return text + ".";
  }

  Problem problem_;
  int head_dim_;
  std::int64_t element_bytes_;
  int world_;
  Topology cluster_;
  DegreeQuestion const& question_;
  Ask ask_;
  int judged_ = 0;
};

/// How many of `world` GPUs should share a sequence: every divisor of the world is a degree, with the ranks
/// of a sequence close together and apart, and the rest of the GPUs data or tensor parallel, see splits() and
/// Portion. Each way has the best schedule and route of advise() for it. Throws Error as advise() does. It
/// takes a few times as long as advise(). Left out: gradients of weights that data parallel groups add up.
template <class List = Schedules, Mask M>
DegreeRanking advise_degrees(Problem const& asked, int head_dim, std::int64_t element_bytes, M const& mask,
                             int world, Topology const& topology, ComputeModel const& compute,
                             DegreeQuestion const& question = {}) {
  auto const ask = [&](Problem const& problem, int ranks, Topology const& cluster) {
    return advise<List>(problem, head_dim, element_bytes, mask, ranks, cluster, compute,
                        question.with_backward, {}, question.execution);
  };
  return DegreeSearch(validated(asked, head_dim), head_dim, element_bytes, world, validated(topology, world),
                      question, ask)
      .run();
}

/// The same of a pack of documents, by advise_packed(). Every sequence of a batch has the same documents.
template <class List = Schedules, Mask Inner>
DegreeRanking advise_degrees(Problem const& asked, int head_dim, std::int64_t element_bytes,
                             Documents<Inner> const& documents, int world, Topology const& topology,
                             ComputeModel const& compute, DegreeQuestion const& question = {}) {
  auto const ask = [&](Problem const& problem, int ranks, Topology const& cluster) {
    return advise_packed<List>(problem, head_dim, element_bytes, documents, ranks, cluster, compute,
                               question.with_backward, {}, question.execution);
  };
  return DegreeSearch(validated(asked, head_dim), head_dim, element_bytes, world, validated(topology, world),
                      question, ask)
      .run();
}

}  // namespace lightseq
