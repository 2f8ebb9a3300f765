// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/sm90/forward.cuh"

#include "laws/forward_kernel.cuh"
#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"
#include "lightseq/mask/sliding_window.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// Attends the keys in `parts` calls on one result, which begins as that of no keys.
template <int HeadDim, class T, class M>
void check_in_place(M const& mask, std::uint64_t stream) {
  for (std::int64_t const parts : {2, 5}) {
    auto const c = some_case<HeadDim, T>(stream + 10 * static_cast<std::uint64_t>(parts), 700);
    DeviceArray<T> const q(c.q), k(c.k), v(c.v);
    auto const rows = static_cast<std::size_t>(c.rows());
    DeviceArray<float> const o(
        std::vector<float>(static_cast<std::size_t>(c.extent(c.query_shape(), c.q_strides))));
    DeviceArray<float> const top(std::vector<float>(rows, -INFINITY)), sum(std::vector<float>(rows, 0.0f));
    DeviceArray<char> const workspace(16);
    ForwardCall<T, Partial<float>> call;
    call.q = {q.data(), c.q_strides};
    call.queries = c.queries;
    call.out = {{o.data(), c.q_strides},
                RowStats<float>::packed(top.data(), c.heads, c.queries.rows()),
                RowStats<float>::packed(sum.data(), c.heads, c.queries.rows())};
    call.carried = call.out;
    call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads, call.scale = c.scale;
    sm90::ForwardKernel<HeadDim, T, Partial<float>, M> kernel;
    REQUIRE(kernel.prepare().ok());
    for (std::int64_t part = 0; part < parts; ++part) {
      std::int64_t const first = part * c.keys.rows() / parts, end = (part + 1) * c.keys.rows() / parts;
      call.k = Tensor<T const>{k.data(), c.kv_strides}.from(first);
      call.v = Tensor<T const>{v.data(), c.kv_strides}.from(first);
      call.keys = c.keys.slice(first, end - first);
      REQUIRE(kernel.launch(call, mask, workspace.data(), nullptr).ok());
    }
    ForwardResults<Partial<float>> got{{}, {}, top.values(), sum.values()};
    auto const strided = o.values();
    for (std::int64_t b = 0; b < c.batch; ++b)
      for (std::int64_t t = 0; t < c.queries.rows(); ++t)
        for (std::int64_t h = 0; h < c.heads; ++h) {
          float const* const row = Tensor<float const>{strided.data(), c.q_strides}.at(b, t, h);
          got.o.insert(got.o.end(), row, row + HeadDim);
        }
    check_result(c, mask, got);
  }
}

}  // namespace

TEST_CASE("the sm_90 forward kernel may continue in place, from nothing too") {
  REQUIRE(compute_capability() == 90);
  check_in_place<128, bfloat16>(Full{}, 100);
  check_in_place<128, bfloat16>(EqualDocuments{60}, 200);
  check_in_place<128, float16>(SlidingWindow{50, 0}, 300);
  check_in_place<64, bfloat16>(Causal{}, 400);
  check_in_place<64, bfloat16>(EqualDocuments{60}, 500);
  check_in_place<80, bfloat16>(Causal{}, 600);
  check_in_place<16, float16>(EqualDocuments{60}, 700);
  check_in_place<192, bfloat16>(EqualDocuments{60}, 800);
}

TEST_CASE("the sm_90 forward kernel says which float output or input TMA does not take") {
  REQUIRE(compute_capability() == 90);
  DeviceArray<bfloat16> const data(100 * 128);
  DeviceArray<float> const o(100 * 128), stats(100);
  DeviceArray<char> const workspace(16);
  sm90::ForwardKernel<128, bfloat16, Partial<float>, Full> kernel;
  REQUIRE(kernel.prepare().ok());
  ForwardCall<bfloat16, Partial<float>> call;
  call.q = call.k = call.v = Tensor<bfloat16 const>{data.data()};
  call.queries = call.keys = {{{0, 90, 1}, {}}};
  call.out.top = call.out.sum = RowStats<float>::packed(stats.data(), 1, 90);
  call.carried = call.out;
  call.out.o = o.data() + 2;
  CHECK(kernel.launch(call, {}, workspace.data(), nullptr).message() ==
        "the address of o is 8, which is not a multiple of 16");
  call.out.o = o.data();
  call.carried.o = {o.data(), {0, 130, 128}};
  CHECK(kernel.launch(call, {}, workspace.data(), nullptr).message() ==
        "the token stride of carried o is 130, which is not a multiple of 4");
}
