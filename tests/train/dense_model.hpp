// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "../../examples/apps/train_lm/parameters.hpp"

namespace lightseq::test {

/// What the example's model is meant to compute, written from its definition: a whole text, in double, one
/// token at a time, with nothing split, fused or kept.
class DenseModel {
 public:
  using Row = std::vector<double>;

  DenseModel(train_lm::ModelSize const& size, std::size_t head_dim, train_lm::Parameters const& parameters)
      : size_(size), head_dim_(head_dim), values(parameters.values.begin(), parameters.values.end()) {
    for (auto const& entry : parameters.entries) first_[entry.name] = entry.first;
  }

  /// Mean over the tokens of -log p(next byte).
  double loss(std::span<std::uint8_t const> text) const {
    std::size_t const tokens = text.size() - 1, dim = unsign(size_.dim);
    std::vector<Row> x;
    for (std::size_t t = 0; t < tokens; ++t) {
      auto const first = values.begin() + static_cast<std::ptrdiff_t>(text[t] * dim);
      x.emplace_back(first, first + size_.dim);
    }
    for (std::int64_t i = 0; i < size_.layers; ++i) {
      std::string const name = "layer" + std::to_string(i) + ".";
      add_attention(name, x);
      for (Row& row : x) add_feed_forward(name + "ffn.", row);
    }
    double total = 0;
    for (std::size_t t = 0; t < tokens; ++t) {
      Row const logits = times("embedding", norm("norm", x[t]), 256);
      double sum = 0;
      for (double const logit : logits) sum += std::exp(logit);
      total += std::log(sum) - logits[text[t + 1]];
    }
    return total / static_cast<double>(tokens);
  }

 private:
  static std::size_t unsign(std::int64_t n) { return static_cast<std::size_t>(n); }

  Row times(std::string const& name, Row const& x, std::size_t out) const {
    double const* const w = values.data() + first_.at(name);
    Row y(out);
    for (std::size_t i = 0; i < out; ++i)
      for (std::size_t j = 0; j < x.size(); ++j) y[i] += w[i * x.size() + j] * x[j];
    return y;
  }

  Row norm(std::string const& name, Row const& x) const {
    double const* const gain = values.data() + first_.at(name);
    double squares = 0;
    for (double const value : x) squares += value * value;
    Row y;
    for (std::size_t i = 0; i < x.size(); ++i)
      y.push_back(gain[i] * x[i] / std::sqrt(squares / static_cast<double>(x.size()) + 1e-5));
    return y;
  }

  void rotate(Row& x, std::size_t position) const {
    std::size_t const half = head_dim_ / 2;
    for (std::size_t head = 0; head < x.size(); head += head_dim_)
      for (std::size_t i = 0; i < half; ++i) {
        double const angle = static_cast<double>(position) *
                             std::pow(10000, -2 * static_cast<double>(i) / static_cast<double>(head_dim_));
        double const a = x[head + i], b = x[head + half + i];
        x[head + i] = std::cos(angle) * a - std::sin(angle) * b;
        x[head + half + i] = std::sin(angle) * a + std::cos(angle) * b;
      }
  }

  void add_attention(std::string const& name, std::vector<Row>& x) const {
    std::size_t const heads = unsign(size_.heads), kv_heads = unsign(size_.kv_heads);
    std::vector<Row> k, v;
    for (std::size_t t = 0; t < x.size(); ++t) {
      Row const n = norm(name + "norm", x[t]);
      Row q = times(name + "q", n, heads * head_dim_);
      k.push_back(times(name + "k", n, kv_heads * head_dim_));
      v.push_back(times(name + "v", n, kv_heads * head_dim_));
      rotate(q, t);
      rotate(k[t], t);
      Row o(q.size());
      for (std::size_t head = 0; head < heads; ++head)
        attend(q, k, v, head * head_dim_, head / (heads / kv_heads) * head_dim_, o);
      Row const y = times(name + "out", o, x[t].size());
      for (std::size_t i = 0; i < y.size(); ++i) x[t][i] += y[i];
    }
  }

  /// One head of one query, which sees all keys so far.
  void attend(Row const& q, std::vector<Row> const& k, std::vector<Row> const& v, std::size_t q_first,
              std::size_t kv_first, Row& o) const {
    Row p;
    double sum = 0;
    for (Row const& key : k) {
      double dot = 0;
      for (std::size_t i = 0; i < head_dim_; ++i) dot += q[q_first + i] * key[kv_first + i];
      p.push_back(std::exp(dot / std::sqrt(static_cast<double>(head_dim_))));
      sum += p.back();
    }
    for (std::size_t t = 0; t < p.size(); ++t)
      for (std::size_t i = 0; i < head_dim_; ++i) o[q_first + i] += p[t] / sum * v[t][kv_first + i];
  }

  void add_feed_forward(std::string const& name, Row& x) const {
    Row const n = norm(name + "norm", x);
    Row hidden = times(name + "up", n, unsign(size_.hidden()));
    Row const gate = times(name + "gate", n, hidden.size());
    for (std::size_t i = 0; i < hidden.size(); ++i) hidden[i] *= gate[i] / (1 + std::exp(-gate[i]));
    Row const y = times(name + "down", hidden, x.size());
    for (std::size_t i = 0; i < y.size(); ++i) x[i] += y[i];
  }

  train_lm::ModelSize size_;
  std::size_t head_dim_;
  std::map<std::string, std::size_t> first_;

 public:
  Row values;  ///< of all parameters, as in Parameters
};

}  // namespace lightseq::test
