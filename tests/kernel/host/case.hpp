// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "lightseq/core/problem.hpp"
#include "lightseq/kernel/host/attention.hpp"
#include "lightseq/kernel/host/row_ops.hpp"
#include "lightseq/kernel/reference.hpp"
#include "lightseq/partition/striped.hpp"
#include "lightseq/partition/zigzag.hpp"
#include "support/data.hpp"
#include "support/masks.hpp"

namespace lightseq::test {

/// Any mask behind one type, so that a kernel is compiled once for all of them. It counts what it is asked.
class AnyMask {
 public:
  template <Mask M>
  AnyMask(M const& mask, std::string name)
      : name_(name),
        visible_([mask](std::int64_t q, std::int64_t k) { return mask.visible(q, k); }),
        cover_([mask](Range q, Range k) { return mask.cover(q, k); }),
        keys_of_([mask](Range q) { return keys_within(mask, q); }),
        queries_of_([mask](Range k) { return queries_within(mask, k); }) {}

  bool visible(std::int64_t query, std::int64_t key) const { return ++*asked_, visible_(query, key); }
  Cover cover(Range queries, Range keys) const { return ++*asked_tiles_, cover_(queries, keys); }
  Range keys_of(Range queries) const { return keys_of_(queries); }
  Range queries_of(Range keys) const { return queries_of_(keys); }

  std::string const& name() const { return name_; }
  std::int64_t asked() const { return *asked_; }
  std::int64_t asked_tiles() const { return *asked_tiles_; }

 private:
  std::string name_;
  std::function<bool(std::int64_t, std::int64_t)> visible_;
  std::function<Cover(Range, Range)> cover_;
  std::function<Range(Range)> keys_of_, queries_of_;
  std::shared_ptr<std::int64_t> asked_ = std::make_shared<std::int64_t>(0);
  std::shared_ptr<std::int64_t> asked_tiles_ = std::make_shared<std::int64_t>(0);
};
static_assert(BoundedMask<AnyMask>);

/// Holes all over, some queries that see nothing, some keys that nobody sees, and a cover that never helps.
struct Holes {
  static constexpr bool visible(std::int64_t query, std::int64_t key) {
    if (query % 5 == 3 || key % 11 == 7) return false;
    return (static_cast<std::uint64_t>(query * 31 + key * 17) * 0x9e3779b97f4a7c15u >> 61) > 3;
  }
  static constexpr Cover cover(Range, Range) { return Cover::partial; }
};
static_assert(Mask<Holes>);

/// One of every mask.
inline std::vector<AnyMask> all_masks() {
  std::vector<AnyMask> masks{{Holes{}, "holes"}};
  for_each_mask([&](auto const& mask, char const* name) { masks.push_back({mask, name}); });
  return masks;
}

/// A fresh number in low, ..., high for every call.
inline std::int64_t random_between(std::int64_t low, std::int64_t high) {
  static std::mt19937_64 engine(run_seed());
  return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
}

/// Queries and keys somewhere in a sequence.
struct Layout {
  char const* name;
  Positions queries, keys;
};

/// Every way that shards can lie to each other, with random sizes of up to `most` rows.
inline std::vector<Layout> all_layouts(std::int64_t most) {
  auto const some = [&] { return random_between(1, most); };
  auto const one = [](std::int64_t begin, std::int64_t rows) { return Positions{{{begin, rows, 1}, {}}}; };
  std::int64_t const n = some(), total = 2 * some() + 3;
  Positions const zigzag = Zigzag::shard(1, 2, total);
  return {
      {"a whole sequence", one(0, n), one(0, n)},
      {"zigzag shards", Zigzag::shard(0, 2, total), zigzag},
      {"zigzag shard and itself", zigzag, zigzag},
      {"upper half of a zigzag shard", zigzag.slice(zigzag.rows() / 2, zigzag.rows() - zigzag.rows() / 2),
       Zigzag::shard(0, 2, total)},
      {"striped shards", Striped::shard(1, 3, total), Striped::shard(2, 3, total)},
      {"striped against zigzag", Striped::shard(0, 2, total), Zigzag::shard(1, 3, total)},
      {"later queries", one(n + 9, some()), one(3, some())},
      {"earlier queries", one(3, some()), one(most + 7, some())},
      {"first segment empty", {{{5, 0, 1}, {20, some(), 2}}}, {{{0, 0, 1}, {0, some(), 1}}}},
      {"one query", one(random_between(0, n), 1), one(0, n)},
      {"one key", one(0, n), one(random_between(0, n), 1)},
      {"no queries", {}, one(0, n)},
      {"no keys", one(0, n), {}},
      {"nothing", {}, {}},
  };
}

/// Memory for a kernel, filled with NaNs.
class Scratch {
 public:
  explicit Scratch(std::int64_t bytes)
      : bytes_(static_cast<std::size_t>(bytes)),
        data_(static_cast<std::byte*>(::operator new (bytes_, std::align_val_t{128}))) {
    std::memset(data_, 0xff, bytes_);
  }
  ~Scratch() { ::operator delete (data_, std::align_val_t{128}); }
  Scratch(Scratch const&) = delete;
  Scratch& operator=(Scratch const&) = delete;

  std::byte* data() const { return data_; }

 private:
  std::size_t bytes_;
  std::byte* data_;
};

/// Memory of a partial result.
struct Part {
  std::vector<float> o, top, sum;

  Partial<float> view(std::int64_t heads, std::int64_t rows) {
    return {o.data(), RowStats<float>::packed(top.data(), heads, rows),
            RowStats<float>::packed(sum.data(), heads, rows)};
  }
  friend bool operator==(Part const&, Part const&) = default;
};

/// One attention between two shards, with its inputs.
template <int D, Element T>
struct Case {
  Positions queries, keys;
  std::int64_t batch = 1, heads = 1, kv_heads = 1;
  float scale = softmax_scale(0, D);
  Shape q_shape, kv_shape;
  std::vector<T> q, k, v, d_o;

  Case(Positions const& at_queries, Positions const& at_keys, std::int64_t batches = 1,
       std::int64_t all_heads = 1, std::int64_t shared_heads = 1)
      : queries(at_queries), keys(at_keys), batch(batches), heads(all_heads), kv_heads(shared_heads) {
    q_shape = {batch, queries.rows(), heads, D};
    kv_shape = {batch, keys.rows(), kv_heads, D};
    static std::uint64_t stream = 0;
    q = random_vector<T>(size(q_shape), ++stream);
    k = random_vector<T>(size(kv_shape), ++stream);
    v = random_vector<T>(size(kv_shape), ++stream);
    d_o = random_vector<T>(size(q_shape), ++stream);
  }

  static std::int64_t size(Shape const& s) { return s.batch * s.tokens * s.heads * s.dim; }
  std::int64_t row_count() const { return batch * heads * queries.rows(); }

  template <class Stat>
  RowStats<Stat> rows(std::vector<Stat>& stats) const {
    return RowStats<Stat>::packed(stats.data(), heads, queries.rows());
  }

  template <class Out, class Stat>
  ForwardCall<T, Finished<Out, Stat>> forward_call(std::vector<Out>& o, std::vector<Stat>& lse) const {
    ForwardCall<T, Finished<Out, Stat>> call;
    fill(call);
    call.out = {o.data(), rows(lse)};
    return call;
  }

  /// The same with a partial result.
  ForwardCall<T, Partial<float>> partial_call(Part& part) const {
    ForwardCall<T, Partial<float>> call;
    fill(call);
    call.out = part.view(heads, queries.rows());
    return call;
  }

  /// A partial result for these queries, of NaNs.
  Part poisoned_part() const {
    return {poisoned_vector<float>(size(q_shape)), poisoned_vector<float>(row_count()),
            poisoned_vector<float>(row_count())};
  }

  template <class Grad>
  BackwardCall<T, Grad> backward_call(std::vector<Grad>& dq, std::vector<Grad>& dk,
                                      std::vector<Grad>& dv) const {
    BackwardCall<T, Grad> call;
    fill(call);
    call.d_o = d_o.data();
    call.dq = dq.data();
    call.dk = dk.data();
    call.dv = dv.data();
    return call;
  }

 private:
  template <class Call>
  void fill(Call& call) const {
    call.q = q.data();
    call.k = k.data();
    call.v = v.data();
    call.queries = queries;
    call.keys = keys;
    call.batch = batch;
    call.heads = heads;
    call.kv_heads = kv_heads;
    call.scale = scale;
  }
};

/// What both passes give.
template <class Number, class Out = Number>
struct Results {
  std::vector<Out> o;
  std::vector<Number> lse, dq, dk, dv;
  friend bool operator==(Results const&, Results const&) = default;
};

/// Both passes of the host kernels. Gradients start from zero; everything else starts as NaN.
template <int Width = simd::native_width, int D, Element T, Mask M>
Results<float> run(Case<D, T> const& c, M const& mask) {
  Results<float> r{poisoned_vector<float>(c.size(c.q_shape)), poisoned_vector<float>(c.row_count()),
                   std::vector<float>(c.q.size()), std::vector<float>(c.k.size()),
                   std::vector<float>(c.v.size())};
  Scratch const forward_scratch(host::forward_scratch_bytes<D>());
  auto const forward = c.forward_call(r.o, r.lse);
  host::forward<D, Width>(forward, mask, forward_scratch.data());

  auto delta = poisoned_vector<float>(c.row_count());
  host::delta(Tensor(r.o.data()), Tensor(c.d_o.data()), c.rows(delta), c.q_shape);
  auto backward = c.backward_call(r.dq, r.dk, r.dv);
  backward.lse = c.rows(r.lse);
  backward.delta = c.rows(delta);
  Scratch const backward_scratch(host::backward_scratch_bytes<D>());
  host::backward<D, Width>(backward, mask, backward_scratch.data());
  return r;
}

/// Both passes of the oracle.
template <int D, Element T, Mask M>
Results<double> oracle(Case<D, T> const& c, M const& mask) {
  Results<double> r{
      std::vector<double>(c.q.size()), std::vector<double>(static_cast<std::size_t>(c.row_count())),
      std::vector<double>(c.q.size()), std::vector<double>(c.k.size()), std::vector<double>(c.v.size())};
  reference::forward<D>(c.forward_call(r.o, r.lse), mask);
  reference::backward<D>(c.backward_call(r.dq, r.dk, r.dv), mask);
  return r;
}

/// The largest error of the five results. Where a query sees one key its gradient is a difference of equal
/// numbers, so the norm that an error is held against is never taken smaller than that of d_o or 1.
template <int D, Element T, class Number, class Out>
double worst_error(Case<D, T> const& c, Results<Number, Out> const& got, Results<double> const& want) {
  double squares = 1;
  for (T const x : c.d_o) squares += std::pow(static_cast<float>(x), 2);
  auto const error = [&](auto const& g, auto const& w) {
    double norm = 0;
    for (double const x : w)
      if (std::isfinite(x)) norm += x * x;
    double const relative = relative_error(g, w);
    return norm > 0 ? relative * std::sqrt(norm / std::max(norm, squares)) : relative / std::sqrt(squares);
  };
  return std::max({relative_error(got.o, want.o), error(got.lse, want.lse), error(got.dq, want.dq),
                   error(got.dk, want.dk), error(got.dv, want.dv)});
}

}  // namespace lightseq::test
