// SPDX-License-Identifier: Apache-2.0
#include "kernel/host/laws.hpp"

namespace lightseq::test {

constexpr int dim = 16;

/// A tensor inside a larger one whose other elements are `outside`.
template <class T>
struct Embedded {
  std::vector<T> memory;
  Tensor<T> tensor;
  Shape shape;

  Embedded(Shape const& s, std::vector<T> const& values, T outside, std::int64_t row_heads)
      : memory(static_cast<std::size_t>(s.batch * (s.tokens + 2) * row_heads * (dim + 5) + 4), outside),
        tensor(memory.data() + 3,
               Strides{(s.tokens + 2) * row_heads * (dim + 5), row_heads * (dim + 5), dim + 5}),
        shape(s) {
    host::copy(Tensor<T const>(values.data()), tensor, shape);
  }

  std::vector<T> values() const {
    std::vector<T> packed(static_cast<std::size_t>(shape.batch * shape.tokens * shape.heads * dim));
    host::copy(Tensor<T const>(tensor), Tensor<T>(packed.data()), shape);
    return packed;
  }

  /// Whether the elements outside the tensor still hold `outside`.
  bool outside_holds(T outside) const {
    std::vector<T> rest = memory;
    Tensor<T> const same(rest.data() + 3, tensor.strides);
    host::for_each_row(shape, [&](std::int64_t b, std::int64_t t, std::int64_t h) {
      std::fill_n(same.at(b, t, h), dim, outside);
    });
    return std::all_of(rest.begin(), rest.end(), [&](T x) { return x == outside; });
  }
};

TEST_CASE_TEMPLATE("strided tensors give the bits of packed ones, and nothing else is written", T, float,
                   bfloat16) {
  Positions const queries = Zigzag::shard(0, 2, 230), keys = Zigzag::shard(1, 2, 230);
  Case<dim, T> const c(queries, keys, 2, 4, 2);
  auto const want = run(c, Holes{});
  T const garbage = T(std::numeric_limits<float>::quiet_NaN());
  float const mark = -12345;

  Embedded<T> const q(c.q_shape, c.q, garbage, 7), d_o(c.q_shape, c.d_o, garbage, 5);
  Embedded<T> const k(c.kv_shape, c.k, garbage, 3), v(c.kv_shape, c.v, garbage, 4);
  std::vector<float> const q_zeros(c.q.size()), kv_zeros(c.k.size());
  Embedded<float> o(c.q_shape, want.dq, mark, 4);
  Embedded<float> dq(c.q_shape, q_zeros, mark, 6), dk(c.kv_shape, kv_zeros, mark, 2),
      dv(c.kv_shape, kv_zeros, mark, 5);
  // Statistics with a gap behind each head.
  std::int64_t const rows = queries.rows();
  std::vector<float> lse(static_cast<std::size_t>(8 * (rows + 3)), mark), delta(lse);
  RowStats<float> const lse_rows(lse.data(), 4 * (rows + 3), rows + 3);
  RowStats<float> const delta_rows(delta.data(), 4 * (rows + 3), rows + 3);

  std::vector<float> no_o, no_lse;
  auto forward = c.forward_call(no_o, no_lse);
  forward.q = q.tensor;
  forward.k = k.tensor;
  forward.v = v.tensor;
  forward.out = {o.tensor, lse_rows};
  Scratch const scratch(std::max(host::forward_scratch_bytes<dim>(), host::backward_scratch_bytes<dim>()));
  host::forward<dim>(forward, Holes{}, scratch.data());
  CHECK(o.values() == want.o);
  CHECK(o.outside_holds(mark));
  auto packed_lse = poisoned_vector<float>(c.row_count());
  host::copy(lse_rows, c.rows(packed_lse), c.q_shape);
  CHECK(packed_lse == want.lse);
  CHECK(std::count(lse.begin(), lse.end(), mark) == 8 * 3);

  host::delta(o.tensor, d_o.tensor, delta_rows, c.q_shape);
  std::vector<float> none;
  auto backward = c.backward_call(none, none, none);
  backward.q = q.tensor;
  backward.k = k.tensor;
  backward.v = v.tensor;
  backward.d_o = d_o.tensor;
  backward.lse = lse_rows;
  backward.delta = delta_rows;
  backward.dq = dq.tensor;
  backward.dk = dk.tensor;
  backward.dv = dv.tensor;
  host::backward<dim>(backward, Holes{}, scratch.data());
  CHECK(dq.values() == want.dq);
  CHECK(dk.values() == want.dk);
  CHECK(dv.values() == want.dv);
  CHECK((dq.outside_holds(mark) && dk.outside_holds(mark) && dv.outside_holds(mark)));
}

TEST_CASE("a bfloat16 output is the float output, rounded") {
  Positions const positions{{{0, 150}}};
  Case<dim, bfloat16> const c(positions, positions, 1, 2, 1);
  auto const want = run(c, Causal{});
  auto o = poisoned_vector<bfloat16>(c.size(c.q_shape));
  auto lse = poisoned_vector<float>(c.row_count());
  Scratch const scratch(host::forward_scratch_bytes<dim>());
  host::forward<dim>(c.forward_call(o, lse), Causal{}, scratch.data());
  CHECK(lse == want.lse);
  for (std::size_t i = 0; i < o.size(); ++i) REQUIRE(o[i] == bfloat16(want.o[i]));
}

}  // namespace lightseq::test
