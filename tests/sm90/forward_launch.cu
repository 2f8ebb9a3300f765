// SPDX-License-Identifier: Apache-2.0
#include "sm90/forward_laws.cuh"

#include <string>

#include "lightseq/mask/causal.hpp"
#include "lightseq/mask/full.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

using Kernel = sm90::ForwardKernel<128, bfloat16, bfloat16, Causal>;

ForwardCall<bfloat16, bfloat16> call_on(bfloat16* data, float* lse, std::int64_t rows) {
  ForwardCall<bfloat16, bfloat16> call;
  call.q = call.k = call.v = Tensor<bfloat16 const>{data};
  call.queries = call.keys = {{{0, rows, 1}, {}}};
  call.o = data;
  call.lse = RowStats<float>::packed(lse, 1, rows);
  return call;
}

}  // namespace

TEST_CASE("the sm_90 forward kernel says which stride the copy engine does not take") {
  REQUIRE(device_is(9, 0));
  DeviceArray<bfloat16> const data(100 * 1000);
  DeviceArray<float> const lse(100);
  DeviceArray<char> const workspace(16);
  Kernel kernel;
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

TEST_CASE("a captured sm_90 forward gives the same bits when replayed") {
  REQUIRE(device_is(9, 0));
  constexpr std::int64_t rows = 1111;
  DeviceArray<bfloat16> const data(random_vector<bfloat16>(rows * 128, 1)),
      o(poisoned_vector<bfloat16>(rows * 128));
  DeviceArray<float> const lse(poisoned_vector<float>(rows));
  DeviceArray<char> const workspace(16);
  Kernel kernel;
  REQUIRE(kernel.prepare().ok());
  auto call = call_on(data.data(), lse.data(), rows);
  call.o = o.data();
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

TEST_CASE("the sm_90 forward kernel addresses tensors of more than 2^31 elements") {
  REQUIRE(device_is(9, 0));
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
  call.o = {part(3), strides};
  call.scale = c.scale;
  Kernel kernel;
  REQUIRE(kernel.prepare().ok());
  REQUIRE(kernel.launch(call, {}, workspace.data(), nullptr).ok());
  ForwardResult<bfloat16> got{std::vector<bfloat16>(rows * 128), lse.values()};
  check_cuda(cudaMemcpy2D(got.o.data(), 256, part(3), row * 2, 256, rows, cudaMemcpyDeviceToHost));
  check_result(c, Causal{}, got);
}
