// SPDX-License-Identifier: Apache-2.0
#include "lightseq/kernel/gpu/launcher.cuh"

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/device.cuh"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// Counts its thread blocks.
struct Count {
  int* blocks = nullptr;
};
__global__ void count_blocks(Count const count) {
  if (threadIdx.x == 0) atomicAdd(count.blocks, 1);
}

}  // namespace

TEST_CASE("a launcher takes a kernel with nothing in it for one that was not compiled") {
  Launcher<Count> launcher;
  Status const status = launcher.prepare(&count_blocks, "the counting kernel", "sm_80", 32, 0);
  CHECK(status.code == Code::not_compiled);
  CHECK(std::string(status.subject) == "the counting kernel");
  CHECK(std::string(status.other) == "sm_80");
}

TEST_CASE("a launch has the blocks that were asked for, and one without blocks does nothing") {
  DeviceArray<int> const counted(std::vector<int>{0});
  check_cuda(launch_kernel(&count_blocks, {0, 32}, nullptr, Count{counted.data()}));
  CHECK(counted.values() == std::vector{0});
  check_cuda(load_kernel(&count_blocks));
  check_cuda(launch_kernel(&count_blocks, {17, 32}, nullptr, Count{counted.data()}));
  CHECK(counted.values() == std::vector{17});
}

TEST_CASE("a launch that CUDA refuses says so itself") {
  DeviceArray<int> const counted(std::vector<int>{0});
  cudaError_t const error = launch_kernel(&count_blocks, {1, 4096}, nullptr, Count{counted.data()});
  CHECK(error == cudaErrorInvalidValue);
  (void)cudaGetLastError();
}
