// SPDX-License-Identifier: Apache-2.0
#include <cstring>

#include "lightseq/kernel/sm90/backward.cuh"

#include "laws/backward_kernel.cuh"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// What a call that starts from no gradients of queries, and wants them rounded, leaves.
template <int HeadDim, class T, bool Deterministic, class M>
void check_finished(BackwardCase<HeadDim, T> const& c, M const& mask, int sm_margin) {
  using Kernel = sm90::BackwardKernel<HeadDim, T, T, M, Deterministic>;
  Shape const shape = c.query_shape();
  auto const size = c.extent(shape, c.dq_strides);
  std::vector<float> const sums_before = poisoned_vector<float>(size);
  std::vector<T> const before = poisoned_vector<T>(size);
  DeviceArray<T> const q(c.q), k(c.k), v(c.v), d_o(c.d_o), dq(before);
  DeviceArray<T> const dk(poisoned_vector<T>(c.extent(c.key_shape(), c.dk_strides)));
  DeviceArray<T> const dv(poisoned_vector<T>(c.extent(c.key_shape(), c.dv_strides)));
  DeviceArray<float> const lse(c.lse), delta(c.delta), sums(sums_before);
  DeviceArray<char> const workspace(
      Kernel::workspace_bytes(c.batch, c.heads, c.queries.rows(), c.keys.rows()));
  workspace.fill(0xff);
  BackwardCall<T, float, T> call;
  call.q = {q.data(), c.q_strides}, call.d_o = {d_o.data(), c.d_o_strides};
  call.k = {k.data(), c.kv_strides}, call.v = {v.data(), c.kv_strides};
  call.lse = RowStats<float>::packed(lse.data(), c.heads, c.queries.rows());
  call.delta = RowStats<float>::packed(delta.data(), c.heads, c.queries.rows());
  call.queries = c.queries, call.keys = c.keys;
  call.dq = {sums.data(), c.dq_strides}, call.dq_out = {dq.data(), c.dq_strides}, call.dq_zero = true;
  call.dk = {dk.data(), c.dk_strides}, call.dv = {dv.data(), c.dv_strides};
  call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads, call.scale = c.scale;
  Kernel kernel;
  REQUIRE(kernel.prepare().ok());
  REQUIRE(kernel.launch(call, mask, workspace.data(), nullptr, sm_margin).ok());
  INFO("seed ", run_seed(), ", head dim ", HeadDim, ", batch ", c.batch, ", heads ", c.heads, "/", c.kv_heads,
       ", queries ", c.queries.rows(), ", keys ", c.keys.rows(), ", margin ", sm_margin);

  std::vector<T> const rounded = dq.values();
  std::vector<float> const floats = sums.values();
  CHECK(gradient_error(added_rows(rounded, before, shape, c.dq_strides), c.want_dq) < gradient_tolerance<T>);
  bool same = true;
  Tensor<T const> const rows{rounded.data(), c.dq_strides};
  Tensor<float const> const float_rows{floats.data(), c.dq_strides};
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t t = 0; t < shape.tokens; ++t)
      for (std::int64_t h = 0; h < shape.heads; ++h)
        for (int d = 0; d < HeadDim; ++d) {
          T const want(float_rows.at(b, t, h)[d]);
          same &= std::memcmp(&want, rows.at(b, t, h) + d, sizeof(T)) == 0;
        }
  CHECK(same);

  // The sums that are there count unless told otherwise.
  call.dq_zero = false;
  REQUIRE(kernel.launch(call, mask, workspace.data(), nullptr, sm_margin).ok());
  auto twice = c.want_dq;
  for (double& x : twice) x *= 2;
  CHECK(gradient_error(added_rows(dq.values(), before, shape, c.dq_strides), twice) < gradient_tolerance<T>);
  call.dq_zero = true, call.dq_out = {};
  dq.fill(0xff);
  REQUIRE(kernel.launch(call, mask, workspace.data(), nullptr, sm_margin).ok());
  std::vector<float> const again = sums.values();
  std::vector<double> sum_rows;
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t t = 0; t < shape.tokens; ++t)
      for (std::int64_t h = 0; h < shape.heads; ++h)
        for (int d = 0; d < HeadDim; ++d)
          sum_rows.push_back(Tensor<float const>{again.data(), c.dq_strides}.at(b, t, h)[d]);
  CHECK(gradient_error(sum_rows, c.want_dq) < gradient_tolerance<T>);
}

template <int HeadDim, class T, bool Deterministic, class M>
void check_finished(M const& mask, std::uint64_t stream, int cases) {
  for (int i = 0; i < cases; ++i) {
    auto const c = some_backward_case<HeadDim, T>(mask, stream + 10 * static_cast<std::uint64_t>(i),
                                                  i % 2 == 0 ? 150 : 1500);
    check_finished<HeadDim, T, Deterministic>(c, mask, i % 2 == 0 ? 0 : 50 * i);
  }
}

}  // namespace

TEST_CASE("the sm_90 backward kernel starts from zero and rounds the gradients of queries") {
  REQUIRE(compute_capability() == 90);
  check_finished<64, bfloat16, false>(Causal{}, 110000, 4);
  check_finished<64, bfloat16, true>(Full{}, 111000, 4);
  check_finished<128, bfloat16, false>(Full{}, 112000, 4);
  check_finished<128, bfloat16, true>(Causal{}, 113000, 4);
  check_finished<128, float16, false>(EqualDocuments{90}, 114000, 4);
  check_finished<96, bfloat16, false>(SlidingWindow{70, 0}, 115000, 4);
  check_finished<256, bfloat16, false>(Causal{}, 116000, 2);
  check_finished<128, bfloat16, true>(EqualDocuments{90}, 118000, 4);
}

TEST_CASE("gradients of queries that meet no keys are zeros") {
  REQUIRE(compute_capability() == 90);
  auto c = some_backward_case<64, bfloat16>(Full{}, 117000, 300);
  c.keys = {};
  c.lse.assign(c.lse.size(), -std::numeric_limits<float>::infinity());
  c.want_dq.assign(c.want_dq.size(), 0);
  check_finished<64, bfloat16, false>(c, Full{}, 0);
  check_finished<64, bfloat16, true>(c, Full{}, 0);
}
