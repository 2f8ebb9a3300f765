// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "lightseq/core/error.hpp"
#include "lightseq/mask/mask.hpp"
#include "lightseq/mask/packed_rows.hpp"
#include "lightseq/partition/pieces.hpp"
#include "lightseq/schedule/needed_rows.hpp"
#include "lightseq/schedule/packed_plan.hpp"
#include "lightseq/schedule/payload.hpp"

/// What all ranks' plans for a pack must keep. The laws ask the pieces and the plans, and never who made
/// these. Each gives a sentence about the first thing that is wrong, or nothing.
namespace lightseq::test {

/// The plans of all ranks, copied: a test may change them.
struct PackedPlans {
  struct Group {
    std::vector<RowTransfer> sends, recvs;
  };
  struct Step {
    std::vector<RowRun> queries, keys;
    std::int64_t rows = 0;
    std::vector<Group> groups;
  };

  Pieces const* pieces = nullptr;
  std::int64_t slot_rows = 0;
  std::vector<std::vector<Step>> ranks;
  std::vector<Step> wholes;  ///< what each rank has as a whole

  int world() const { return pieces->world(); }
  std::vector<Step> const& of(int rank) const { return ranks[static_cast<std::size_t>(rank)]; }

  void add(PackedPlan const& plan) {
    auto const copy = [](auto const& list) { return std::vector(list.begin(), list.end()); };
    auto& steps = ranks.emplace_back();
    for (int step = 0; step < plan.steps(); ++step) {
      PackedStep const from = plan[step];
      steps.push_back({copy(from.queries), copy(from.keys), from.key_rows.rows, {}});
      for (int i = 0; i < plan.groups(step); ++i)
        steps.back().groups.push_back({copy(plan.group(step, i).sends), copy(plan.group(step, i).recvs)});
    }
    PackedStep const whole = plan.whole();
    wholes.push_back({copy(whole.queries), copy(whole.keys), whole.key_rows.rows, {}});
  }

  /// Calls `visit(s, step)` for the steps of a rank, and for what it has as a whole, which is of its own rows
  /// as step 0 is, until one returns a sentence.
  template <class Visit>
  std::string first_fault(int rank, Visit visit) const {
    std::string fault;
    for (std::size_t s = 0; s < of(rank).size() && fault.empty(); ++s)
      if (fault = visit(s, of(rank)[s]); !fault.empty()) fault = sentence("step ", s, ": ", fault);
    if (fault.empty())
      if (fault = visit(std::size_t{0}, wholes[static_cast<std::size_t>(rank)]); !fault.empty())
        fault = sentence("whole documents: ", fault);
    return fault.empty() ? fault : sentence("rank ", rank, ", ", fault);
  }
};

/// Derives the plans of all ranks.
template <class KeysOf>
PackedPlans packed_plans(Pieces const& pieces, std::int64_t slot_rows, KeysOf keys_of) {
  PackedPlans plans{&pieces, slot_rows, {}, {}};
  for (int rank = 0; rank < pieces.world(); ++rank) {
    PackedPlan plan(rank, pieces.world(), pieces.max_pieces(), slot_rows);
    plan.assign(pieces, keys_of);
    plans.add(plan);
  }
  return plans;
}

/// Tokens of the rows of each rank's shard, and then of each slot: -1 where no message has written a row.
class RowTokens {
 public:
  explicit RowTokens(PackedPlans const& plans) : documents_(index(plans.pieces->tokens())) {
    for (int rank = 0; rank < plans.world(); ++rank) {
      auto& steps = ranks_.emplace_back();
      for (PackedPlans::Step const& step : plans.of(rank)) steps.emplace_back(index(step.rows), -1);
      steps[0].assign(index(plans.pieces->rows(rank)), -1);
    }
    for (Piece const& piece : plans.pieces->all())
      for (std::int64_t i = 0; i < piece.rows; ++i) {
        documents_[index(piece.token + i)] = {piece.document, piece.begin + i, piece.rank};
        (*this)(piece.rank, 0)[index(piece.row + i)] = piece.token + i;
      }
  }

  std::vector<std::int64_t>& operator()(int rank, std::size_t step) { return ranks_[index(rank)][step]; }
  std::vector<std::int64_t> const& operator()(int rank, std::size_t step) const {
    return ranks_[index(rank)][step];
  }

  /// Where a token is in its document, and whose it is.
  struct Place {
    std::int32_t document = 0;
    std::int64_t position = 0;
    int owner = 0;
  };
  Place const& place(std::int64_t token) const { return documents_[index(token)]; }
  std::int64_t tokens() const { return std::ssize(documents_); }

 private:
  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  std::vector<std::vector<std::vector<std::int64_t>>> ranks_;
  std::vector<Place> documents_;
};

/// Steps and slots have their size, and groups theirs; messages stay in the world, the shards and the slots.
inline std::string sizes_fault(PackedPlans const& plans) {
  Pieces const& pieces = *plans.pieces;
  for (int rank = 0; rank < plans.world(); ++rank) {
    auto const& steps = plans.of(rank);
    if (steps.empty() || steps.size() != plans.of(0).size())
      return sentence("rank ", rank, " has ", steps.size(), " steps, rank 0 ", plans.of(0).size());
    std::int64_t const shared = pieces.shared_rows(rank);
    if (steps[0].rows != shared || !steps[0].groups.empty())
      return sentence("rank ", rank, " does not begin with its own keys alone");
    auto const& whole = plans.wholes[static_cast<std::size_t>(rank)];
    if (whole.rows != pieces.rows(rank) - shared || (!whole.queries.empty() && whole.queries[0].row < shared))
      return sentence("rank ", rank, " has ", whole.rows, " rows of whole documents");
    for (std::size_t s = 1; s < steps.size(); ++s) {
      auto const& step = steps[s];
      auto const where = sentence("rank ", rank, ", step ", s, ": ");
      if (step.rows < 0 || step.rows > plans.slot_rows)
        return sentence(where, "a slot of ", step.rows, " rows");
      if (std::ssize(step.queries) + std::ssize(step.keys) > PackedPlan::max_runs(pieces.max_pieces()))
        return sentence(where, step.queries.size(), " and ", step.keys.size(), " runs");
      for (auto const& group : step.groups) {
        if (group.sends.size() > RowGroup::max_messages || group.recvs.size() > RowGroup::max_messages ||
            group.sends.size() + group.recvs.size() == 0)
          return sentence(where, "a group of ", group.sends.size(), " and ", group.recvs.size(), " messages");
        for (bool const sends : {true, false})
          for (RowTransfer const& t : sends ? group.sends : group.recvs)
            if (t.peer < 0 || t.peer >= plans.world() || t.peer == rank || t.row < 0 || t.rows < 1 ||
                t.row + t.rows > (sends ? shared : step.rows))
              return sentence(where, "a message of ", t.rows, " rows from ", t.row, " on, peer ", t.peer);
      }
    }
  }
  return {};
}

/// Goes through all ranks' groups as PackedExecution does: a group ends where the groups of all its messages'
/// other ends are open. The n-th message to a rank is the n-th that this one receives.
class PackedReplay {
 public:
  PackedReplay(PackedPlans const& plans, Pass pass, RowTokens& tokens)
      : plans_(plans), tokens_(tokens), channels_(index(plans.world() * plans.world())) {
    for (int rank = 0; rank < plans.world(); ++rank) {
      add_turns(plans.of(rank), pass == Pass::backward);
      auto& returned = returned_.emplace_back();
      for (auto const& step : plans.of(rank)) returned.emplace_back(index(step.rows));
    }
  }

  /// Fills the slots: every row is written once, and in a backward its gradient returns once, to its owner.
  std::string run() {
    for (int rank = 0; rank < plans_.world() && fault_.empty(); ++rank) open(rank);
    for (bool moved = true; moved && fault_.empty();) {
      moved = false;
      for (int rank = 0; rank < plans_.world() && fault_.empty(); ++rank)
        while (fault_.empty() && ranks_[index(rank)].may_end(*this, rank)) {
          ++ranks_[index(rank)].done;
          open(rank);
          moved = true;
        }
    }
    for (int rank = 0; rank < plans_.world() && fault_.empty(); ++rank)
      if (Turns const& turns = ranks_[index(rank)]; turns.done < turns.all.size())
        fault_ =
            sentence("rank ", rank, " waits for ever in its group ", turns.done, " of ", turns.all.size());
    return fault_;
  }

  /// All gradients have returned.
  std::string returned_fault() const {
    for (int rank = 0; rank < plans_.world(); ++rank)
      for (std::size_t step = 1; step < plans_.of(rank).size(); ++step)
        for (std::size_t row = 0; row < returned_[index(rank)][step].size(); ++row)
          if (!returned_[index(rank)][step][row])
            return sentence("rank ", rank, ", step ", step, ": the gradient of row ", row,
                            " does not return");
    return {};
  }

 private:
  struct Message : RowTransfer {
    std::size_t step = 0;
    bool returns = false;
  };
  struct Turn {
    std::vector<Message> out, in;
  };
  struct Turns {
    std::vector<Turn> all;
    std::size_t done = 0;

    bool may_end(PackedReplay& replay, int rank) const {
      if (done == all.size()) return false;
      auto const& out = all[done].out;
      auto const& in = all[done].in;
      return std::all_of(out.begin(), out.end(),
                         [&](Message const& m) {
                           Channel const& c = replay.channel(rank, m.peer);
                           return c.received.size() >= c.sent.size();
                         }) &&
             std::all_of(in.begin(), in.end(), [&](Message const& m) {
               Channel const& c = replay.channel(m.peer, rank);
               return c.sent.size() >= c.received.size();
             });
    }
  };
  struct Channel {
    std::vector<Message> sent, received;
    std::size_t matched = 0;
  };

  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }
  Channel& channel(int from, int to) { return channels_[index(from * plans_.world() + to)]; }

  void add_turns(std::vector<PackedPlans::Step> const& steps, bool backward) {
    auto& turns = ranks_.emplace_back().all;
    auto const add = [&](std::size_t step, bool returns) {
      for (auto const& group : steps[step].groups) {
        Turn& turn = turns.emplace_back();
        for (RowTransfer const& t : group.sends) (returns ? turn.in : turn.out).push_back({t, step, returns});
        for (RowTransfer const& t : group.recvs) (returns ? turn.out : turn.in).push_back({t, step, returns});
      }
    };
    for (std::size_t round = 0; round < steps.size() + 1; ++round) {
      if (round + 1 < steps.size()) add(round + 1, false);
      if (backward && round > 1) add(round - 1, true);
    }
  }

  void open(int rank) {
    Turns const& turns = ranks_[index(rank)];
    if (turns.done == turns.all.size()) return;
    for (Message const& m : turns.all[turns.done].out) channel(rank, m.peer).sent.push_back(m);
    for (Message const& m : turns.all[turns.done].in) channel(m.peer, rank).received.push_back(m);
    for (Message const& m : turns.all[turns.done].out) match(rank, m.peer);
    for (Message const& m : turns.all[turns.done].in) match(m.peer, rank);
  }

  void match(int from, int to) {
    Channel& c = channel(from, to);
    for (; c.matched < std::min(c.sent.size(), c.received.size()) && fault_.empty(); ++c.matched) {
      Message const &sent = c.sent[c.matched], &received = c.received[c.matched];
      if (sent.rows != received.rows || sent.step != received.step || sent.returns != received.returns)
        fault_ = sentence("rank ", from, " sends ", sent.rows, " rows for step ", sent.step, ", and rank ",
                          to, " awaits ", received.rows, " for step ", received.step);
      else if (sent.returns)
        take_gradients(from, to, sent, received);
      else
        take_keys(from, to, sent, received);
    }
  }

  void take_keys(int from, int to, Message const& sent, Message const& received) {
    for (std::int64_t i = 0; i < sent.rows; ++i) {
      std::int64_t& token = tokens_(to, received.step)[index(received.row + i)];
      if (token >= 0)
        fault_ = sentence("rank ", to, ", step ", received.step, ": row ", received.row + i,
                          " of the slot is written twice");
      token = tokens_(from, 0)[index(sent.row + i)];
    }
  }

  void take_gradients(int from, int to, Message const& sent, Message const& received) {
    for (std::int64_t i = 0; i < sent.rows; ++i) {
      std::int64_t const row = sent.row + i;
      if (returned_[index(from)][sent.step][index(row)])
        fault_ =
            sentence("rank ", from, ", step ", sent.step, ": the gradient of row ", row, " returns twice");
      returned_[index(from)][sent.step][index(row)] = true;
      if (tokens_(from, sent.step)[index(row)] != tokens_(to, 0)[index(received.row + i)])
        fault_ = sentence("rank ", to, " adds the gradient of row ", row, " of rank ", from, "'s step ",
                          sent.step, " to another token's");
    }
  }

  PackedPlans const& plans_;
  RowTokens& tokens_;
  std::vector<Channel> channels_;
  std::vector<Turns> ranks_;
  std::vector<std::vector<std::vector<bool>>> returned_;
  std::string fault_;
};

/// Every row of every slot has come.
inline std::string slots_fault(PackedPlans const& plans, RowTokens const& tokens) {
  for (int rank = 0; rank < plans.world(); ++rank)
    for (std::size_t step = 1; step < plans.of(rank).size(); ++step) {
      auto const& slot = tokens(rank, step);
      auto const missing = std::find(slot.begin(), slot.end(), -1);
      if (missing != slot.end())
        return sentence("rank ", rank, ", step ", step, ": row ", missing - slot.begin(), " does not come");
    }
  return {};
}

/// A rank gets all rows that add_needed_rows() lists, each once, and no others.
template <class KeysOf>
std::string needed_fault(PackedPlans const& plans, RowTokens const& tokens, KeysOf keys_of) {
  for (int rank = 0; rank < plans.world(); ++rank) {
    std::vector<Piece> rows;
    for (int owner = 0; owner < plans.world(); ++owner)
      add_needed_rows(*plans.pieces, rank, owner, rows, keys_of);
    std::vector<std::int64_t> needed, got;
    for (Piece const& part : rows)
      for (std::int64_t i = 0; i < part.rows; ++i) needed.push_back(part.token + i);
    for (std::size_t step = 1; step < plans.of(rank).size(); ++step)
      got.insert(got.end(), tokens(rank, step).begin(), tokens(rank, step).end());
    std::sort(needed.begin(), needed.end()), std::sort(got.begin(), got.end());
    if (auto const twice = std::adjacent_find(got.begin(), got.end()); twice != got.end())
      return sentence("rank ", rank, " gets token ", *twice, " twice");
    if (needed != got)
      return sentence("rank ", rank, " gets ", got.size(), " rows, or others, and needs ", needed.size());
  }
  return {};
}

/// What RowRun says of the runs of a side, whose rows have these tokens.
inline std::string side_fault(std::vector<RowRun> const& runs, std::vector<std::int64_t> const& row_tokens,
                              RowTokens const& tokens) {
  std::int64_t end = 0;
  for (std::size_t i = 0; i < runs.size(); ++i) {
    RowRun const& run = runs[i];
    if (run.rows < 1 || run.row < end || run.all_rows().end > std::ssize(row_tokens))
      return sentence("run ", i, " has ", run.rows, " rows from ", run.row, " on, after row ", end);
    end = run.all_rows().end;
    auto const place = [&](std::int64_t row) {
      return tokens.place(row_tokens[static_cast<std::size_t>(row)]);
    };
    std::int32_t const document = place(run.row).document;
    for (std::int64_t row = run.row; row < end; ++row)
      if (place(row).document != document || place(row).position != run.position + row - run.row)
        return sentence("run ", i, " has row ", row, " of another document or position");
    if (i == 0 || runs[i - 1].first != run.first) continue;
    RowRun const& last = runs[i - 1];
    if (last.all_rows().end != run.row || last.positions().end > run.position || last.end != run.end ||
        place(last.row).document != document)
      return sentence("runs ", i - 1, " and ", i, " do not lie together");
  }
  return {};
}

/// Runs name each other, document by document, in the same order on both sides.
inline std::string links_fault(PackedPlans::Step const& step) {
  auto const linked = [](std::vector<RowRun> const& runs, std::int32_t from, std::int32_t to,
                         std::int32_t first, std::int32_t end) {
    bool all = from < to && to <= std::ssize(runs);
    for (std::int32_t i = from; all && i < to; ++i)
      all = runs[static_cast<std::size_t>(i)].first == first && runs[static_cast<std::size_t>(i)].end == end;
    return all;
  };
  std::int32_t q = 0, k = 0;
  while (q < std::ssize(step.queries) && k < std::ssize(step.keys)) {
    std::int32_t const after_q = step.keys[static_cast<std::size_t>(k)].end,
                       after_k = step.queries[static_cast<std::size_t>(q)].end;
    if (!linked(step.queries, q, after_q, k, after_k) || !linked(step.keys, k, after_k, q, after_q))
      return sentence("runs from ", q, " and ", k, " on do not name each other");
    q = after_q, k = after_k;
  }
  if (q < std::ssize(step.queries) || k < std::ssize(step.keys)) return "runs that see nothing";
  return {};
}

/// The runs keep what RowRun says, each document has its runs at one place, and all rows of a slot are in
/// one.
inline std::string runs_fault(PackedPlans const& plans, RowTokens const& tokens) {
  for (int rank = 0; rank < plans.world(); ++rank) {
    std::string const found = plans.first_fault(rank, [&](std::size_t s, PackedPlans::Step const& step) {
      std::string fault = side_fault(step.queries, tokens(rank, 0), tokens);
      if (fault.empty()) fault = side_fault(step.keys, tokens(rank, s), tokens);
      if (fault.empty()) fault = links_fault(step);
      std::int64_t rows = 0;
      for (RowRun const& run : step.keys) rows += run.rows;
      if (fault.empty() && rows != step.rows) fault = "rows of the slot are in no run";
      for (std::size_t i = 0; i < step.queries.size() && fault.empty(); ++i) {
        RowRun const& query = step.queries[i];
        RowRun const& key = step.keys[static_cast<std::size_t>(query.first)];
        auto const token = [&](std::size_t of, std::int32_t row) {
          return tokens(rank, of)[static_cast<std::size_t>(row)];
        };
        if (tokens.place(token(0, query.row)).document != tokens.place(token(s, key.row)).document)
          fault = sentence("run ", i, " sees keys of another document");
        if (i > 0 && step.queries[i - 1].first != query.first &&
            tokens.place(token(0, step.queries[i - 1].row)).document >=
                tokens.place(token(0, query.row)).document)
          fault = sentence("run ", i, " is of a document that came before");
      }
      return fault;
    });
    if (!found.empty()) return found;
  }
  return {};
}

/// Every visible pair of tokens is attended once, over all ranks and steps, no other pair ever, and, where
/// `AllSeen`, every row of a slot is seen: pair by pair, for few tokens. A few rectangles of each step are
/// covered as its pairs say.
template <Mask Inner, bool AllSeen = true>
class PairsOnce {
 public:
  PairsOnce(PackedPlans const& plans, RowTokens const& tokens, Inner const& inner, std::mt19937_64& random)
      : plans_(plans),
        tokens_(tokens),
        inner_(inner),
        random_(random),
        seen_(static_cast<std::size_t>(tokens.tokens() * tokens.tokens())) {}

  std::string fault() {
    for (int rank = 0; rank < plans_.world(); ++rank) {
      std::string const fault = plans_.first_fault(
          rank, [&](std::size_t s, PackedPlans::Step const& step) { return step_fault(rank, s, step); });
      if (!fault.empty()) return fault;
    }
    for (std::int64_t q = 0; q < tokens_.tokens(); ++q)
      for (std::int64_t k = 0; k < tokens_.tokens(); ++k) {
        auto const &query = tokens_.place(q), &key = tokens_.place(k);
        bool const visible = query.document == key.document && inner_.visible(query.position, key.position);
        if (int const times = seen_[at(q, k)]; times != (visible ? 1 : 0))
          return sentence("query ", q, " sees key ", k, " ", times, " times");
      }
    return {};
  }

 private:
  std::size_t at(std::int64_t query, std::int64_t key) const {
    return static_cast<std::size_t>(query * tokens_.tokens() + key);
  }

  std::string step_fault(int rank, std::size_t s, PackedPlans::Step const& step) {
    auto const &queries = tokens_(rank, 0), &keys = tokens_(rank, s);
    if (step.queries.empty()) return step.rows == 0 ? "" : "nobody sees the slot";
    PackedRows<Inner> const mask({step.queries.data(), static_cast<int>(step.queries.size())},
                                 {step.keys.data(), static_cast<int>(step.keys.size())}, inner_);
    pairs_.assign(queries.size() * keys.size(), false);
    for (std::size_t k = 0; k < keys.size(); ++k) {
      bool seen = false;
      for (std::size_t q = 0; q < queries.size(); ++q) {
        auto const query = static_cast<std::int64_t>(q), key = static_cast<std::int64_t>(k);
        bool const visible = mask.visible(query, key);
        if constexpr (HasRows<PackedRows<Inner>>)
          if (mask.row(query)(key) != visible || mask.column(key)(query) != visible)
            return sentence("row ", q, " or column ", k, " is not as their pair");
        if (!visible) continue;
        pairs_[q * keys.size() + k] = seen = true;
        ++seen_[at(queries[q], keys[k])];
      }
      if (AllSeen && s > 0 && !seen) return sentence("nobody sees row ", k);
    }
    for (std::size_t i = 0; AllSeen && i < step.queries.size(); ++i) {
      bool const inner = i > 0 && i + 1 < step.queries.size() &&
                         step.queries[i - 1].first == step.queries[i].first &&
                         step.queries[i + 1].first == step.queries[i].first;
      if (s > 0 && !inner && !sees(step.queries[i], keys.size()))
        return sentence("run ", i, " sees nothing and lies at an end of its document's");
    }
    for (int i = 0; i < 4; ++i)
      if (std::string const fault =
              rectangle_fault(mask, some(queries.size()), some(keys.size()), keys.size());
          !fault.empty())
        return fault;
    return {};
  }

  bool sees(RowRun const& queries, std::size_t columns) const {
    auto const pairs = [&](std::int64_t row) {
      return pairs_.begin() + row * static_cast<std::ptrdiff_t>(columns);
    };
    return std::find(pairs(queries.row), pairs(queries.all_rows().end), true) !=
           pairs(queries.all_rows().end);
  }

  Range some(std::size_t rows) {
    auto const below = [&](std::int64_t n) {
      return std::uniform_int_distribution<std::int64_t>(0, n - 1)(random_);
    };
    std::int64_t const begin = below(static_cast<std::int64_t>(rows));
    return {begin, begin + 1 + below(static_cast<std::int64_t>(rows) - begin)};
  }

  std::string rectangle_fault(PackedRows<Inner> const& mask, Range const& queries, Range const& keys,
                              std::size_t columns) const {
    Cover const cover = mask.cover(queries, keys);
    Range const bound = mask.keys_of(queries), back = mask.queries_of(keys);
    RangePair const parts = key_ranges_within(mask, queries);
    for (std::int64_t q = queries.begin; q < queries.end; ++q)
      for (std::int64_t k = keys.begin; k < keys.end; ++k) {
        bool const visible = pairs_[static_cast<std::size_t>(q) * columns + static_cast<std::size_t>(k)];
        if (cover == (visible ? Cover::none : Cover::full) ||
            (visible && (!bound.contains(k) || !back.contains(q) || !parts.touches({k, k + 1}))))
          return sentence("the rectangle of queries ", queries.begin, " to ", queries.end, " and keys ",
                          keys.begin, " to ", keys.end, " is not as its pair ", q, ", ", k);
      }
    return {};
  }

  PackedPlans const& plans_;
  RowTokens const& tokens_;
  Inner const& inner_;
  std::mt19937_64& random_;
  std::vector<std::uint8_t> seen_;
  std::vector<bool> pairs_;
};

/// What is wrong with the messages and runs of the plans of all ranks, and with which rows travel; `pairs`
/// looks at the pairs of these tokens besides.
template <class KeysOf, class Pairs>
std::string packed_plan_fault(PackedPlans const& plans, KeysOf const& keys_of, Pairs pairs) {
  if (std::string const fault = sizes_fault(plans); !fault.empty()) return fault;
  RowTokens tokens(plans), again(plans);
  PackedReplay forward(plans, Pass::forward, tokens), backward(plans, Pass::backward, again);
  std::string fault = forward.run();
  if (fault.empty()) fault = backward.run();
  if (fault.empty()) fault = backward.returned_fault();
  if (fault.empty()) fault = slots_fault(plans, tokens);
  if (fault.empty()) fault = needed_fault(plans, tokens, keys_of);
  if (fault.empty()) fault = runs_fault(plans, tokens);
  if (fault.empty()) fault = pairs(tokens);
  return fault;
}

/// The same for a mask within documents; pair by pair only where `pairs`.
template <Mask Inner>
std::string packed_plan_fault(PackedPlans const& plans, Inner const& inner, bool pairs,
                              std::mt19937_64& random) {
  auto const keys_of = [&](Range const& queries) { return keys_within(inner, queries); };
  return packed_plan_fault(plans, keys_of, [&](RowTokens const& tokens) {
    return pairs ? PairsOnce(plans, tokens, inner, random).fault() : std::string();
  });
}

}  // namespace lightseq::test
