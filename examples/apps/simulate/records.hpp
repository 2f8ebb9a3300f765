// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "examples/apps/simulate/cases.hpp"
#include "lightseq/core/json.hpp"

/// Every number, for programs: seconds, bytes, FLOPs, tokens.
namespace lightseq::simulator {

/// Some numbers, as JSON.
struct Numbers {
  std::vector<double> values;
  std::string text() const {
    std::string text;
    for (double const value : values) text += (text.empty() ? "" : ", ") + json_number(value);
    return "[" + text + "]";
  }
};

/// Names with what they stand for, in order.
using Value = std::variant<std::string, double, std::int64_t, bool, Numbers>;
using Record = std::vector<std::pair<std::string, Value>>;

inline JsonObject json(Record const& record) {
  JsonObject object;
  for (auto const& field : record)
    std::visit([&](auto const& value) { object.add(field.first, value); }, field.second);
  return object;
}

/// A cell of a CSV file, in quotes where it must be; a list has blanks between its numbers.
inline std::string csv_cell(Value const& value) {
  std::string text = std::visit(
      []<class T>(T const& given) {
        if constexpr (std::is_same_v<T, std::string>) return given;
        if constexpr (std::is_arithmetic_v<T>) return json_number(given);
        std::string list;
        if constexpr (std::is_same_v<T, Numbers>)
          for (double const number : given.values) list += (list.empty() ? "" : " ") + json_number(number);
        return list;
      },
      value);
  if (text.find_first_of(",\"\n\r") == text.npos) return text;
  for (std::size_t at = text.find('"'); at != text.npos; at = text.find('"', at + 2)) text.insert(at, 1, '"');
  return '"' + text + '"';
}

/// What one way costs.
inline Record record(Case const& c, Advice const& a) {
  double const tokens = static_cast<double>(c.problem.batch) * static_cast<double>(c.problem.seqlen);
  return {{"schedule", a.schedule},
          {"route", std::string(a.route == Route::owner ? "owner" : "neighbour")},
          {"partition", a.partition},
          {"seconds_are_lower_bounds", a.at_least},
          {"schedule_ranks_per_node", std::int64_t{a.ranks_per_node}},
          {"forward_seconds", a.forward_seconds},
          {"backward_seconds", a.backward_seconds},
          {"seconds", a.seconds()},
          {"tokens_per_second", tokens / a.seconds()},
          {"efficiency", a.efficiency(c.world, c.compute.peak_flops)},
          {"flops", a.flops},
          {"work_seconds", a.work},
          {"merge_seconds", a.merge},
          {"message_wait_seconds", a.message_wait},
          {"idle_seconds", a.idle},
          {"bytes_sent", a.bytes_sent},
          {"bytes_between_nodes", a.bytes_between},
          {"key_rows_received", a.rows_received},
          {"workspace_bytes", a.workspace_bytes},
          {"tensor_bytes", a.tensor_bytes},
          {"memory_bytes", a.memory_bytes()},
          {"fits", c.memory_limit == 0 || a.memory_bytes() <= c.memory_limit},
          {"forward_steps", Numbers{a.forward_steps}},
          {"backward_steps", Numbers{a.backward_steps}},
          {"type", a.type},
          {"traits", a.traits},
          {"argument", a.argument},
          {"why", a.why}};
}

/// What a split of the cluster costs, with its best way.
inline Record record(Case const& c, DegreeAdvice const& row) {
  Record result{{"degree", std::int64_t{row.split.degree}},
                {"groups", std::int64_t{row.split.groups}},
                {"group_ranks_per_node", std::int64_t{row.split.ranks_per_node}},
                {"rest", std::string(row.split.rest == Rest::data ? "data" : "tensor")},
                {"sequences_of_a_group", row.portion.problem.batch},
                {"heads_of_a_rank", row.portion.problem.heads},
                {"kv_heads_of_a_rank", row.portion.problem.kv_heads},
                {"computed_heads", row.portion.computed_heads},
                {"idle_groups", std::int64_t{row.portion.idle_groups}},
                {"activation_seconds", row.activation_seconds},
                {"batch_seconds", row.seconds()},
                {"one_sequence_seconds", row.sequence_seconds},
                {"batch_tokens_per_second", row.tokens_per_second}};
  Case group = c;
  group.world = row.split.degree;
  group.problem = row.portion.problem;
  for (auto& field : record(group, row.advice)) result.push_back(std::move(field));
  result.back().second = row.why;
  return result;
}

/// A line of the calibration, and what the model predicts for it.
inline Record record(Case const&, Residual const& r) {
  return {{"measured", r.measured.name()},
          {"measured_seqlen", r.measured.seqlen},
          {"measured_batch", r.measured.extents.batch},
          {"measured_heads", r.measured.extents.heads},
          {"measured_kv_heads", r.measured.extents.kv_heads},
          {"measured_seconds", r.measured.seconds},
          {"predicted_seconds", r.predicted}};
}

/// The case: what lists and presets stand for.
inline Record record(Case const& c) {
  return {{"world", std::int64_t{c.world}},
          {"seqlen", c.problem.seqlen},
          {"kv_heads", c.problem.kv_heads},
          {"documents", static_cast<std::int64_t>(c.ends.size())},
          {"ranks_per_node", std::int64_t{c.topology.ranks_per_node}},
          {"inside_bytes_per_second", c.topology.inside.bytes_per_second},
          {"inside_latency_seconds", c.topology.inside.latency},
          {"between_bytes_per_second", c.topology.between.bytes_per_second},
          {"between_latency_seconds", c.topology.between.latency},
          {"sharing", std::string(c.topology.sharing == Sharing::none   ? "none"
                                  : c.topology.sharing == Sharing::rank ? "rank"
                                                                        : "node")},
          {"exchange_multiprocessors", std::int64_t{c.topology.exchange_units}},
          {"forward_flops_per_second", c.compute.forward_flops},
          {"backward_flops_per_second", c.compute.backward_flops},
          {"carry_bytes_per_second", c.compute.carry_bytes},
          {"memory_bytes_per_second", c.compute.memory_bytes},
          {"launch_seconds", c.compute.launch},
          {"backward_launch_seconds", c.compute.backward_launch},
          {"multiprocessors", std::int64_t{c.compute.units}},
          {"tile_rows", c.compute.tile},
          {"forward_hidden_pair", c.compute.forward_weights.hidden},
          {"backward_hidden_pair", c.compute.backward_weights.hidden},
          {"forward_partial_pair", c.compute.forward_weights.partial},
          {"backward_partial_pair", c.compute.backward_weights.partial},
          {"forward_row", c.compute.forward_weights.row},
          {"backward_row", c.compute.backward_weights.row},
          {"peak_flops_per_second", c.compute.peak_flops}};
}

/// All rows of a run. Options are echoed in each format.
class Records {
 public:
  explicit Records(Options const& options) : options_(options) {}

  /// A row of a kind, "way", "degree" or "calibration", of a case.
  template <class Row>
  void add(char const* kind, Case const& c, Row const& row) {
    Record all{{"kind", std::string(kind)}};
    for (Record const& part : {record(c), record(c, row)}) all.insert(all.end(), part.begin(), part.end());
    rows_.push_back(std::move(all));
  }

  /// {"options": {"--world": "8", ...}, "rows": [{"kind": "way", ...}, ...]}
  std::string json_text() const {
    JsonObject inputs;
    for (auto const& option : options_.known()) inputs.add(option.name, options_.text(option.name));
    JsonLines lines;
    for (Record const& row : rows_) lines.add(json(row));
    return JsonObject().add("options", inputs).add("rows", lines).text() + "\n";
  }

  /// A column for each option, named as it is, and for each name of a row; what a row lacks is empty.
  std::string csv_text() const {
    std::vector<std::string> columns;
    for (Record const& row : rows_)
      for (auto const& field : row)
        if (std::find(columns.begin(), columns.end(), field.first) == columns.end())
          columns.push_back(field.first);
    std::string header, inputs, text;
    for (auto const& option : options_.known()) {
      header += (header.empty() ? "" : ",") + option.name;
      inputs += (inputs.empty() && &option == &options_.known().front() ? "" : ",") +
                csv_cell(options_.text(option.name));
    }
    for (std::string const& column : columns) header += ',' + column;
    text = header + '\n';
    for (Record const& row : rows_) {
      text += inputs;
      for (std::string const& column : columns) {
        auto const found =
            std::find_if(row.begin(), row.end(), [&](auto const& field) { return field.first == column; });
        text += ',' + (found == row.end() ? "" : csv_cell(found->second));
      }
      text += '\n';
    }
    return text;
  }

 private:
  Options const& options_;
  std::vector<Record> rows_;
};

}  // namespace lightseq::simulator
