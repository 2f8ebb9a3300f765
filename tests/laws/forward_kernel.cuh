// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "lightseq/kernel/call.hpp"
#include "lightseq/kernel/gpu/fragment.cuh"
#include "lightseq/kernel/reference.hpp"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"
#include "support/data.hpp"
#include "support/device.cuh"
#include "support/rules.hpp"

/// What every forward kernel for the GPU must do. `Kernel` is its class template, of a head dim, an element
/// type, a result and a mask; `stream` picks the random data.
namespace lightseq::test {

/// Largest relative errors of o in the element type and of lse, against the dense oracle.
template <class T>
constexpr double o_tolerance = std::is_same_v<T, float16> ? 1e-3 : 5e-3;
constexpr double lse_tolerance = 1e-5;

/// Which documents tokens belong to decides what they see, and no key that is a multiple of 5 is seen: rows
/// without keys, tiles without pairs, and no tile that is full.
struct EqualDocuments {
  std::int64_t length;
  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return query / length == key / length && key % 5 != 0;
  }
  LIGHTSEQ_HD constexpr Cover cover(Range queries, Range keys) const {
    bool const apart =
        (queries.end - 1) / length < keys.begin / length || (keys.end - 1) / length < queries.begin / length;
    return apart ? Cover::none : Cover::partial;
  }
};
static_assert(Mask<EqualDocuments>);

/// A window whose cover never helps: its bounds do, those of queries more than those of keys.
struct LazyWindow {
  std::int64_t left;
  LIGHTSEQ_HD constexpr bool visible(std::int64_t query, std::int64_t key) const {
    return key <= query && query - key <= left;
  }
  LIGHTSEQ_HD constexpr Cover cover(Range, Range) const { return Cover::partial; }
  LIGHTSEQ_HD constexpr Range keys_of(Range queries) const { return {queries.begin - left, queries.end}; }
  LIGHTSEQ_HD constexpr Range queries_of(Range keys) const { return {keys.begin, Range::everything().end}; }
};
static_assert(BoundedMask<LazyWindow>);

/// A problem for the forward kernel with its data, on host and device.
template <int HeadDim, class T>
struct ForwardCase {
  Positions queries, keys;
  std::int64_t batch, heads, kv_heads;
  Strides q_strides, kv_strides;  ///< of q and o, and of k and v
  std::vector<T> q, k, v;
  float scale = 1 / std::sqrt(static_cast<float>(HeadDim));

  Shape query_shape() const { return {batch, queries.rows(), heads, HeadDim}; }
  Shape key_shape() const { return {batch, keys.rows(), kv_heads, HeadDim}; }
  std::int64_t rows() const { return batch * heads * queries.rows(); }

  static std::int64_t extent(Shape const& shape, Strides const& strides) {
    return (shape.batch - 1) * strides.batch + std::max<std::int64_t>(shape.tokens - 1, 0) * strides.token +
           (shape.heads - 1) * strides.head + HeadDim;
  }

  /// Fills the tensors with normal numbers, q with `spread` times them.
  void fill(std::uint64_t stream, float spread = 1) {
    q = random_vector<T>(extent(query_shape(), q_strides), stream);
    k = random_vector<T>(extent(key_shape(), kv_strides), stream + 1);
    v = random_vector<T>(extent(key_shape(), kv_strides), stream + 2);
    for (T& value : q) value = T(static_cast<float>(value) * spread);
  }

  template <class M>
  void oracle(M const& mask, std::vector<double>& o, std::vector<double>& lse) const {
    o.assign(static_cast<std::size_t>(rows() * HeadDim), 0);
    lse.assign(static_cast<std::size_t>(rows()), 0);
    ForwardCall<T, Finished<double, double>> call;
    call.q = {q.data(), q_strides};
    call.k = {k.data(), kv_strides};
    call.v = {v.data(), kv_strides};
    call.queries = queries, call.keys = keys;
    call.out.o = {o.data(), Strides::packed(query_shape())};
    call.out.lse = RowStats<double>::packed(lse.data(), heads, queries.rows());
    call.batch = batch, call.heads = heads, call.kv_heads = kv_heads, call.scale = scale;
    reference::forward<HeadDim>(call, mask);
  }
};

/// Strides of some layout that engines use: packed, heads first, or one of several tensors in each token's
/// row.
inline Strides some_layout(Shape const& shape, int choice) {
  if (choice == 0) return Strides::packed(shape);
  if (choice == 1) return {shape.heads * shape.tokens * shape.dim, shape.dim, shape.tokens * shape.dim};
  std::int64_t const row = 3 * shape.heads * shape.dim + 8;
  return {shape.tokens * row + 24, row, shape.dim + 8};
}

/// `rows` rows of at most two segments with strides and gaps.
inline Positions some_positions(std::mt19937_64& random, std::int64_t rows) {
  auto const below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  std::int64_t const stride = 1 + below(3), first = random() % 2 == 0 ? rows : below(rows + 1);
  std::int64_t const begin = below(100);
  return {{{begin, first, stride}, {begin + first * stride + below(300), rows - first, stride}}};
}

template <int HeadDim, class T>
ForwardCase<HeadDim, T> some_case(std::uint64_t stream, std::int64_t longest) {
  std::mt19937_64 random(stream_seed(stream));
  auto const below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  ForwardCase<HeadDim, T> c;
  c.kv_heads = 1 + below(2);
  c.heads = c.kv_heads * (1 + below(3));
  c.batch = 1 + below(2);
  c.queries = some_positions(random, 1 + below(longest));
  c.keys = random() % 4 == 0 ? c.queries : some_positions(random, 1 + below(longest));
  c.q_strides = some_layout(c.query_shape(), static_cast<int>(below(3)));
  c.kv_strides = some_layout(c.key_shape(), static_cast<int>(below(3)));
  c.fill(stream + 1);
  return c;
}

/// What the kernel made of a case; the outputs are packed and were poisoned.
template <class Result>
struct ForwardResults {
  std::vector<OutputOf<Result>> o;
  std::vector<float> lse;       ///< of a Finished result
  std::vector<float> top, sum;  ///< of a Partial one
};

/// What a result says of a case's rows.
template <class Case, class T>
ForwardResults<Finished<T>> const& finished(Case const&, ForwardResults<Finished<T>> const& result) {
  return result;
}
template <int HeadDim, class T>
ForwardResults<Finished<float>> finished(ForwardCase<HeadDim, T> const& c,
                                         ForwardResults<Partial<float>> const& part) {
  ForwardResults<Finished<float>> result{part.o, {}, {}, {}};
  for (std::size_t row = 0; row < part.sum.size(); ++row) {
    double const sum = part.sum[row], lse = (part.top[row] + std::log2(sum)) * std::log(2.0);
    bool const empty = sum == 0 && part.top[row] == -INFINITY;
    result.lse.push_back(empty ? -INFINITY : sum == 0 ? NAN : static_cast<float>(lse));
    // o is [batch, token, head, dim] and the sums are [batch, head, token].
    std::size_t const tokens = static_cast<std::size_t>(c.queries.rows()),
                      heads = static_cast<std::size_t>(c.heads);
    std::size_t const batch = row / tokens / heads, head = row / tokens % heads, token = row % tokens;
    float* const o = result.o.data() + ((batch * tokens + token) * heads + head) * HeadDim;
    for (int d = 0; d < HeadDim && !empty; ++d) o[d] = static_cast<float>(o[d] / sum);
  }
  return result;
}

/// Runs the keys `first`, ..., `first + count - 1` of a case, from `carried` on if there is one.
template <template <int, class, class, Mask> class Kernel, class Result, int HeadDim, class T, class M>
ForwardResults<Result> run_forward(ForwardCase<HeadDim, T> const& c, M const& mask, std::int64_t first,
                                   std::int64_t count,
                                   ForwardResults<Partial<float>> const* carried = nullptr,
                                   int sm_margin = 0) {
  using Out = OutputOf<Result>;
  DeviceArray<T> const q(c.q), k(c.k), v(c.v);
  std::int64_t const o_size = c.extent(c.query_shape(), c.q_strides);
  DeviceArray<Out> const o(poisoned_vector<Out>(o_size));
  DeviceArray<float> const lse(poisoned_vector<float>(c.rows())), sum(poisoned_vector<float>(c.rows()));
  ForwardResults<Partial<float>> const nothing{{0}, {}, {0}, {0}};
  DeviceArray<float> const carried_o(carried != nullptr ? carried->o : nothing.o);
  DeviceArray<float> const carried_top(carried != nullptr ? carried->top : nothing.top);
  DeviceArray<float> const carried_sum(carried != nullptr ? carried->sum : nothing.sum);
  DeviceArray<char> const workspace(std::int64_t{Kernel<HeadDim, T, Result, M>::workspace_bytes});
  auto const stats = [&](DeviceArray<float> const& array) {
    return RowStats<float>::packed(array.data(), c.heads, c.queries.rows());
  };
  ForwardCall<T, Result> call;
  call.q = {q.data(), c.q_strides};
  call.k = Tensor<T const>{k.data(), c.kv_strides}.from(first);
  call.v = Tensor<T const>{v.data(), c.kv_strides}.from(first);
  call.queries = c.queries, call.keys = c.keys.slice(first, count);
  call.out.o = {o.data(), c.q_strides};
  if constexpr (is_finished<Result>)
    call.out.lse = stats(lse);
  else
    call.out.top = stats(lse), call.out.sum = stats(sum);
  if (carried != nullptr)
    call.carried = {
        {carried_o.data(), Strides::packed(c.query_shape())}, stats(carried_top), stats(carried_sum)};
  call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads, call.scale = c.scale;
  Kernel<HeadDim, T, Result, M> kernel;
  for (Status const& status :
       {kernel.prepare(), kernel.launch(call, mask, workspace.data(), nullptr, sm_margin)})
    if (!status.ok()) throw std::runtime_error(status.message());
  ForwardResults<Result> result;
  if constexpr (is_finished<Result>)
    result.lse = lse.values();
  else
    result.top = lse.values(), result.sum = sum.values();
  std::vector<Out> const strided = o.values();
  for (std::int64_t b = 0; b < c.batch; ++b)
    for (std::int64_t t = 0; t < c.queries.rows(); ++t)
      for (std::int64_t h = 0; h < c.heads; ++h) {
        Out const* const row = Tensor<Out const>{strided.data(), c.q_strides}.at(b, t, h);
        result.o.insert(result.o.end(), row, row + HeadDim);
      }
  return result;
}

template <template <int, class, class, Mask> class Kernel, class Result, int HeadDim, class T, class M>
ForwardResults<Result> run_forward(ForwardCase<HeadDim, T> const& c, M const& mask) {
  return run_forward<Kernel, Result>(c, mask, 0, c.keys.rows());
}

/// Runs a case in calls that continue from one another, and the last one with this result.
template <template <int, class, class, Mask> class Kernel, class Result, int HeadDim, class T, class M>
ForwardResults<Result> run_parts(ForwardCase<HeadDim, T> const& c, M const& mask, std::int64_t parts) {
  ForwardResults<Partial<float>> carried;
  std::int64_t first = 0;
  for (std::int64_t part = 0; part + 1 < parts; ++part) {
    std::int64_t const count = (part + 1) * c.keys.rows() / parts - first;
    carried = run_forward<Kernel, Partial<float>>(c, mask, first, count, part == 0 ? nullptr : &carried);
    first += count;
  }
  return run_forward<Kernel, Result>(c, mask, first, c.keys.rows() - first, parts == 1 ? nullptr : &carried);
}

/// What a failed check says of its case.
template <int HeadDim, class T>
std::string words(ForwardCase<HeadDim, T> const& c) {
  std::ostringstream text;
  text << "seed " << run_seed() << ", head dim " << HeadDim << ", batch " << c.batch << ", heads " << c.heads
       << "/" << c.kv_heads << ", queries " << c.queries.segments[0].rows << "+" << c.queries.segments[1].rows
       << " stride " << c.queries.segments[0].stride << ", keys " << c.keys.segments[0].rows << "+"
       << c.keys.segments[1].rows << " stride " << c.keys.segments[0].stride << ", scale " << c.scale;
  return text.str();
}

/// The result is what the oracle says, up to rounding in T.
template <int HeadDim, class T, class Result, class M>
void check_result(ForwardCase<HeadDim, T> const& c, M const& mask, ForwardResults<Result> const& result,
                  double slack = 1) {
  std::vector<double> o, lse;
  c.oracle(mask, o, lse);
  auto const& got = finished(c, result);
  INFO(words(c));
  CHECK(relative_error(got.o, o) < slack * o_tolerance<T>);
  CHECK(lse_error(got.lse, lse) < slack * lse_tolerance);
}

/// The kernel equals the oracle for random lengths, heads, strides and positions.
template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class Result, class M>
void check_many(M const& mask, int cases, std::uint64_t stream) {
  for (int i = 0; i < cases; ++i) {
    auto const c =
        some_case<HeadDim, T>(stream + 10 * static_cast<std::uint64_t>(i), i % 2 == 0 ? 300 : 1000);
    check_result(c, mask, run_forward<Kernel, Result>(c, mask));
  }
}

/// So it does for any mask.
template <template <int, class, class, Mask> class Kernel, int HeadDim>
void check_masks(std::uint64_t stream) {
  check_many<Kernel, HeadDim, bfloat16, Finished<bfloat16>>(Full{}, 12, stream);
  check_many<Kernel, HeadDim, bfloat16, Finished<bfloat16>>(Causal{}, 16, stream + 1000);
  check_many<Kernel, HeadDim, bfloat16, Finished<bfloat16>>(SlidingWindow{70, 0}, 6, stream + 2000);
  check_many<Kernel, HeadDim, bfloat16, Finished<bfloat16>>(SlidingWindow{5, 260}, 6, stream + 3000);
  check_many<Kernel, HeadDim, bfloat16, Finished<bfloat16>>(EqualDocuments{90}, 8, stream + 4000);
}

/// So it does where rules make the scores, of pairs wherever they are or of each pair apart; whether all
/// scores of a tile are near for a soft cap, some, or none.
template <template <int, class, class, Mask> class Kernel, int HeadDim>
void check_rules(std::uint64_t stream) {
  using Result = Finished<bfloat16>;
  for (float const cap : {50.0f, 2.0f, 0.3f})
    check_many<Kernel, HeadDim, bfloat16, Result>(Scored{Causal{}, SoftCap{cap}}, 4, stream++);
  check_many<Kernel, HeadDim, bfloat16, Result>(Scored{Causal{}, Fading{0.01f}}, 4, stream + 3000);
}
template <template <int, class, class, Mask> class Kernel>
void check_more_rules(std::uint64_t stream) {
  check_many<Kernel, 128, bfloat16, Partial<float>>(Scored{Full{}, SoftCap{2}}, 6, stream);
  check_many<Kernel, 128, float16, Finished<float16>>(Scored{SlidingWindow{70, 5}, Squashed{}}, 6,
                                                      stream + 1000);
  check_many<Kernel, 128, bfloat16, Finished<bfloat16>>(Scored{EqualDocuments{90}, SoftCap{1}}, 6,
                                                        stream + 2000);
}

/// So it does for float16 and for partial results.
template <template <int, class, class, Mask> class Kernel>
void check_types(std::uint64_t stream) {
  check_many<Kernel, 64, float16, Finished<float16>>(Causal{}, 8, stream);
  check_many<Kernel, 128, float16, Finished<float16>>(Full{}, 8, stream + 1000);
  check_many<Kernel, 128, float16, Partial<float>>(Causal{}, 8, stream + 2000);
  check_many<Kernel, 64, bfloat16, Partial<float>>(Causal{}, 8, stream + 3000);
  check_many<Kernel, 128, bfloat16, Partial<float>>(EqualDocuments{200}, 8, stream + 4000);
}

/// So it does for every head dim of `16 * (N + 1)`.
template <template <int, class, class, Mask> class Kernel, class T, int... N>
void check_head_dims(std::integer_sequence<int, N...>) {
  (check_many<Kernel, 16 * (N + 1), T, Finished<T>>(Causal{}, 4, 16'000 * (N + 1)), ...);
}

/// Scores that grow from key to key, as large as they come, leave the result exact.
template <template <int, class, class, Mask> class Kernel>
void check_growing_scores(std::uint64_t stream) {
  for (float const spread : {8.0f, 40.0f, 150.0f})
    for (std::uint64_t i = 0; i < 4; ++i) {
      auto c = some_case<128, bfloat16>(stream + 10 * i, 700);
      c.fill(stream + 1000 + 10 * i, spread);
      check_result(c, Full{}, run_forward<Kernel, Finished<bfloat16>>(c, Full{}), 4);
      auto d = some_case<64, float16>(stream + 2000 + 10 * i, 700);
      d.fill(stream + 3000 + 10 * i, spread);
      check_result(d, Causal{}, run_forward<Kernel, Finished<float16>>(d, Causal{}), 4);
    }
}

/// The kernel gives the same bits each time, whatever multiprocessors it has.
template <template <int, class, class, Mask> class Kernel>
void check_same_bits(std::uint64_t stream) {
  for (std::uint64_t i = 0; i < 4; ++i) {
    auto const c = some_case<128, bfloat16>(stream + 10 * i, 1500);
    auto const once = run_forward<Kernel, Finished<bfloat16>>(c, Causal{});
    for (int const margin : {0, 7, 131, 1000}) {
      auto const again =
          run_forward<Kernel, Finished<bfloat16>>(c, Causal{}, 0, c.keys.rows(), nullptr, margin);
      CHECK(again.o == once.o);
      CHECK(again.lse == once.lse);
    }
  }
}

/// Attention in parts, each call continuing from the last one's result, equals attention at once.
template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class M>
void check_parts(M const& mask, std::uint64_t stream) {
  for (std::int64_t const parts : {2, 3, 8}) {
    auto const c = some_case<HeadDim, T>(stream + 10 * static_cast<std::uint64_t>(parts), 900);
    check_result(c, mask, run_parts<Kernel, Finished<T>>(c, mask, parts));
    check_result(c, mask, run_parts<Kernel, Partial<float>>(c, mask, parts));
  }
}

/// The errors of many parts are no larger than those of one.
template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class M>
void check_many_parts(M const& mask, std::uint64_t stream) {
  auto c = some_case<HeadDim, T>(stream, 900);
  c.keys = {{{0, 900, 1}, {}}}, c.queries = {{{500, 400, 1}, {}}};
  c.q_strides = Strides::packed(c.query_shape()), c.kv_strides = Strides::packed(c.key_shape());
  c.fill(stream + 1);
  std::vector<double> o, lse;
  c.oracle(mask, o, lse);
  double const once = relative_error(run_forward<Kernel, Finished<T>>(c, mask).o, o);
  double const often = relative_error(run_parts<Kernel, Finished<T>>(c, mask, 64).o, o);
  INFO(words(c));
  CAPTURE(once);
  CHECK(often < 1.25 * once);
}

template <template <int, class, class, Mask> class Kernel>
void check_parts(std::uint64_t stream) {
  check_parts<Kernel, 128, bfloat16>(Full{}, stream);
  check_parts<Kernel, 128, bfloat16>(Causal{}, stream + 100);
  check_parts<Kernel, 64, bfloat16>(Causal{}, stream + 200);
  check_parts<Kernel, 64, float16>(Full{}, stream + 300);
  check_parts<Kernel, 128, float16>(Causal{}, stream + 400);
  check_parts<Kernel, 192, bfloat16>(Causal{}, stream + 500);
  check_many_parts<Kernel, 128, bfloat16>(Full{}, stream + 600);
  check_many_parts<Kernel, 64, float16>(Causal{}, stream + 700);
  check_many_parts<Kernel, 192, bfloat16>(Full{}, stream + 800);
}

/// Whether both say the same of each number: that it is one, or that it is none. An LSE of no keys is one.
template <class Got>
bool equally_finite(std::vector<Got> const& got, std::vector<double> const& want) {
  auto const none = [](double x) { return x != -INFINITY && !std::isfinite(x); };
  bool all = got.size() == want.size();
  for (std::size_t i = 0; all && i < got.size(); ++i) all = none(static_cast<float>(got[i])) == none(want[i]);
  return all;
}

/// The numbers of a result that are numbers, and those of the oracle in their place.
template <class Got>
double finite_error(std::vector<Got> got, std::vector<double> want) {
  for (std::size_t i = 0; i < got.size(); ++i)
    if (!std::isfinite(want[i])) want[i] = 0, got[i] = Got(0.0f);
  return relative_error(got, want);
}

/// As check_result(), where the oracle has numbers; elsewhere the results have none either.
template <int HeadDim, class T, class M, class... Results>
void check_poisoned(ForwardCase<HeadDim, T> const& c, M const& mask, Results const&... results) {
  std::vector<double> o, lse;
  c.oracle(mask, o, lse);
  INFO(words(c));
  auto const check = [&](auto const& result) {
    auto const& got = finished(c, result);
    CHECK(equally_finite(got.o, o));
    CHECK(equally_finite(got.lse, lse));
    CHECK(finite_error(got.o, o) < 2 * o_tolerance<T>);
    CHECK(finite_error(got.lse, lse) < 2 * lse_tolerance);
  };
  (check(results), ...);
}

/// Puts `poison` into one row of a tensor, or into one of its elements.
template <class T>
void put(std::vector<T>& tensor, Strides const& strides, Shape const& shape, float poison, bool whole,
         std::mt19937_64& random) {
  auto const below = [&](std::int64_t n) {
    return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
  };
  T* const row =
      Tensor<T>{tensor.data(), strides}.at(below(shape.batch), below(shape.tokens), below(shape.heads));
  if (whole)
    std::fill_n(row, shape.dim, T(poison));
  else
    row[below(shape.dim)] = T(poison);
}

/// A NaN or an infinity in a row of q, k or v reaches the rows that see it and no other, at once and in
/// parts.
template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class M>
void check_poison(M const& mask, std::uint64_t stream) {
  std::mt19937_64 random(stream_seed(stream));
  for (std::uint64_t i = 0; i < 12; ++i) {
    auto c = some_case<HeadDim, T>(stream + 10 * i, i % 2 == 0 ? 150 : 400);
    if (i % 3 != 2) c.keys = {{{0, c.keys.rows(), 1}, {}}}, c.queries = {{{0, c.queries.rows(), 1}, {}}};
    float const poison = i % 4 == 0 ? INFINITY : i % 4 == 1 ? -INFINITY : NAN;
    for (int tensor = 0; tensor < 3; ++tensor) {
      auto d = c;
      bool const whole = random() % 2 == 0;
      CAPTURE(tensor);
      CAPTURE(poison);
      CAPTURE(whole);
      if (tensor == 0) put(d.q, d.q_strides, d.query_shape(), poison, whole, random);
      if (tensor == 1) put(d.k, d.kv_strides, d.key_shape(), poison, whole, random);
      if (tensor == 2) put(d.v, d.kv_strides, d.key_shape(), poison, whole, random);
      check_poisoned(d, mask, run_forward<Kernel, Finished<T>>(d, mask),
                     run_parts<Kernel, Finished<T>>(d, mask, 3),
                     run_parts<Kernel, Partial<float>>(d, mask, 2));
    }
  }
}

/// What lies behind the end of the keys may be anything.
template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class M>
void check_padding(M const& mask, std::uint64_t stream) {
  for (std::uint64_t i = 0; i < 4; ++i) {
    auto c = some_case<HeadDim, T>(stream + 10 * i, 400);
    std::int64_t const rows = c.keys.rows() / 2 + 1;
    for (std::int64_t b = 0; b < c.batch; ++b)
      for (std::int64_t t = rows; t < c.keys.rows(); ++t)
        for (std::int64_t h = 0; h < c.kv_heads; ++h)
          for (auto* const tensor : {&c.k, &c.v})
            std::fill_n(Tensor<T>{tensor->data(), c.kv_strides}.at(b, t, h), HeadDim, T(NAN));
    c.keys = c.keys.slice(0, rows);
    check_result(c, mask, run_forward<Kernel, Finished<T>>(c, mask));
  }
}

/// A query that sees keys whose scores are all -inf has no softmax; where it sees others too, in whichever
/// part, these decide.
template <template <int, class, class, Mask> class Kernel, int HeadDim, class T>
void check_no_softmax(std::uint64_t stream) {
  auto c = some_case<HeadDim, T>(stream, 200);
  c.keys = {{{0, 300, 1}, {}}}, c.queries = {{{0, 300, 1}, {}}};
  c.q_strides = Strides::packed(c.query_shape()), c.kv_strides = Strides::packed(c.key_shape());
  c.fill(stream + 1);
  for (std::size_t i = 0; i < c.q.size(); i += HeadDim) c.q[i] = T(1.0f);
  for (std::int64_t const first : {0, 100, 150, 299})
    for (std::int64_t token = first; token < std::min<std::int64_t>(first + 60, 300); ++token)
      *Tensor<T>{c.k.data(), c.kv_strides}.at(0, token, 0) = T(-INFINITY);
  for (std::int64_t const parts : {1, 2, 3, 5}) {
    CAPTURE(parts);
    check_poisoned(c, Causal{}, run_parts<Kernel, Finished<T>>(c, Causal{}, parts),
                   run_parts<Kernel, Partial<float>>(c, Causal{}, parts));
    check_poisoned(c, SlidingWindow{20, 0}, run_parts<Kernel, Finished<T>>(c, SlidingWindow{20, 0}, parts));
  }
}

template <template <int, class, class, Mask> class Kernel, int HeadDim>
void check_poison(std::uint64_t stream) {
  check_poison<Kernel, HeadDim, bfloat16>(Causal{}, stream);
  check_poison<Kernel, HeadDim, bfloat16>(SlidingWindow{20, 0}, stream + 1000);
  check_poison<Kernel, HeadDim, bfloat16>(EqualDocuments{90}, stream + 2000);
  check_poison<Kernel, HeadDim, float16>(Causal{}, stream + 3000);
  check_padding<Kernel, HeadDim, bfloat16>(Causal{}, stream + 4000);
  check_padding<Kernel, HeadDim, float16>(Causal{}, stream + 5000);
  check_no_softmax<Kernel, HeadDim, bfloat16>(stream + 6000);
}

/// Scores of any size, for scales of any size, at once and in parts. q and k are small integers: then scores
/// are exact, and two of them are equal or far apart.
template <template <int, class, class, Mask> class Kernel, int HeadDim, class T, class M>
void check_scale(M const& mask, float scale, std::uint64_t stream) {
  auto c = some_case<HeadDim, T>(stream, 700);
  for (auto* const tensor : {&c.q, &c.k})
    for (T& x : *tensor) x = T(std::clamp(std::round(static_cast<float>(x)), -2.0f, 2.0f));
  c.scale = scale;
  std::vector<double> o, lse;
  c.oracle(mask, o, lse);
  INFO(words(c));
  auto const check = [&](auto const& result) {
    auto const& got = finished(c, result);
    CHECK(relative_error(got.o, o) < o_tolerance<T>);
    CHECK(lse_error(got.lse, lse) < (scale > 1 ? 3e-7 : lse_tolerance));
  };
  for (std::int64_t const parts : {1, 2, 7}) {
    CAPTURE(parts);
    check(run_parts<Kernel, Finished<T>>(c, mask, parts));
    check(run_parts<Kernel, Partial<float>>(c, mask, parts));
  }
}

template <template <int, class, class, Mask> class Kernel, int HeadDim, class T>
void check_scales(std::uint64_t stream) {
  for (float const scale : {1e-42f, 1e-30f, 1e-5f, 3e2f, 3e4f, 3e5f, 3e6f, 3e7f, 1e12f, 1e25f, 1e35f})
    for (int i = 0; i < 2; ++i) check_scale<Kernel, HeadDim, T>(Causal{}, scale, stream++);
}

/// A call whose queries, keys and values are the same rows of one head.
inline ForwardCall<bfloat16> call_on(bfloat16* data, float* lse, std::int64_t rows) {
  ForwardCall<bfloat16> call;
  call.q = call.k = call.v = Tensor<bfloat16 const>{data};
  call.queries = call.keys = {{{0, rows, 1}, {}}};
  call.out.o = data;
  call.out.lse = RowStats<float>::packed(lse, 1, rows);
  return call;
}

/// The kernel says which stride or address it does not take, and which positions.
template <template <int, class, class, Mask> class Kernel>
void check_refusals() {
  DeviceArray<bfloat16> const data(100 * 1000);
  DeviceArray<float> const lse(100);
  DeviceArray<char> const workspace(16);
  Kernel<128, bfloat16, Finished<bfloat16>, Causal> kernel;
  REQUIRE(kernel.prepare().ok());
  auto call = call_on(data.data(), lse.data(), 100);
  call.k.strides = {0, 132, 128};
  Status status = kernel.launch(call, {}, workspace.data(), nullptr);
  CHECK(status.code == Code::misaligned);
  CHECK(status.message() == "the token stride of k is 132, which is not a multiple of 8");
  call = call_on(data.data() + 1, lse.data(), 100);
  CHECK(kernel.launch(call, {}, workspace.data(), nullptr).message() ==
        "the address of q is 2, which is not a multiple of 16");
  call = call_on(data.data(), lse.data(), 100);
  call.queries.segments[0].begin = std::int64_t{1} << 40;
  CHECK(kernel.launch(call, {}, workspace.data(), nullptr).code == Code::too_large);
}

/// A captured launch gives the same bits when replayed.
template <template <int, class, class, Mask> class Kernel>
void check_replay() {
  constexpr std::int64_t rows = 1111;
  DeviceArray<bfloat16> const data(random_vector<bfloat16>(rows * 128, 1)),
      o(poisoned_vector<bfloat16>(rows * 128));
  DeviceArray<float> const lse(poisoned_vector<float>(rows));
  DeviceArray<char> const workspace(16);
  Kernel<128, bfloat16, Finished<bfloat16>, Causal> kernel;
  REQUIRE(kernel.prepare().ok());
  auto call = call_on(data.data(), lse.data(), rows);
  call.out.o = o.data();
  REQUIRE(kernel.launch(call, {}, workspace.data(), nullptr).ok());
  auto const want = o.values();
  CHECK(lse.values()[0] == lse.values()[0]);

  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  check_cuda(cudaStreamCreate(&stream));
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal));
  REQUIRE(kernel.launch(call, {}, workspace.data(), stream).ok());
  check_cuda(cudaStreamEndCapture(stream, &graph));
  check_cuda(cudaGraphInstantiate(&replay, graph, 0));
  for (int i = 0; i < 3; ++i) {
    check_cuda(cudaMemsetAsync(o.data(), 0xff, rows * 128 * sizeof(bfloat16), stream));
    check_cuda(cudaGraphLaunch(replay, stream));
    CHECK(o.values() == want);
  }
  check_cuda(cudaGraphExecDestroy(replay));
  check_cuda(cudaGraphDestroy(graph));
  check_cuda(cudaStreamDestroy(stream));
}

/// The kernel addresses tensors of more than 2^31 elements.
template <template <int, class, class, Mask> class Kernel>
void check_large_strides() {
  constexpr std::int64_t rows = 260, row = 8'589'936;
  static_assert((rows - 1) * row > (std::int64_t{1} << 31) && row % 8 == 0);
  ForwardCase<128, bfloat16> c;
  c.queries = c.keys = {{{0, rows, 1}, {}}};
  c.batch = c.heads = c.kv_heads = 1;
  c.q_strides = c.kv_strides = Strides::packed(c.query_shape());
  c.fill(7);
  // q, k, v and o lie side by side in rows that are far apart.
  DeviceArray<bfloat16> const memory((rows - 1) * row + 4 * 128);
  auto const part = [&](int i) { return memory.data() + i * 128; };
  auto const upload = [&](std::vector<bfloat16> const& values, int i) {
    check_cuda(cudaMemcpy2D(part(i), row * 2, values.data(), 256, 256, rows, cudaMemcpyHostToDevice));
  };
  upload(c.q, 0), upload(c.k, 1), upload(c.v, 2), upload(poisoned_vector<bfloat16>(rows * 128), 3);
  DeviceArray<float> const lse(poisoned_vector<float>(rows));
  DeviceArray<char> const workspace(16);
  auto call = call_on(part(0), lse.data(), rows);
  Strides const strides{rows * row, row, 128};
  call.q = {part(0), strides}, call.k = {part(1), strides}, call.v = {part(2), strides};
  call.out.o = {part(3), strides};
  call.scale = c.scale;
  Kernel<128, bfloat16, Finished<bfloat16>, Causal> kernel;
  REQUIRE(kernel.prepare().ok());
  REQUIRE(kernel.launch(call, {}, workspace.data(), nullptr).ok());
  ForwardResults<Finished<bfloat16>> got{std::vector<bfloat16>(rows * 128), lse.values(), {}, {}};
  check_cuda(cudaMemcpy2D(got.o.data(), 256, part(3), row * 2, 256, rows, cudaMemcpyDeviceToHost));
  check_result(c, Causal{}, got);
}

}  // namespace lightseq::test
