// SPDX-License-Identifier: Apache-2.0
#include "lightseq/exec/arguments.hpp"

#include <doctest/doctest.h>

#include <random>
#include <set>
#include <string>

#include "support/data.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

/// The addresses of all elements of an argument, one by one.
std::multiset<std::uintptr_t> addresses(Argument const& a) {
  std::multiset<std::uintptr_t> all;
  auto const [x, y, z] = a.dimensions;
  for (std::int64_t i = 0; i < x.extent; ++i)
    for (std::int64_t j = 0; j < y.extent; ++j)
      for (std::int64_t k = 0; k < z.extent; ++k)
        for (std::int64_t d = 0; d < a.dim; ++d) {
          std::int64_t const element = i * x.stride + j * y.stride + k * z.stride + d;
          all.insert(reinterpret_cast<std::uintptr_t>(a.data) +
                     static_cast<std::uintptr_t>(element * a.element_bytes));
        }
  return all;
}

bool unique(Argument const& a) {
  auto const all = addresses(a);
  return std::set(all.begin(), all.end()).size() == all.size();
}

bool intersect(Argument const& a, Argument const& b) {
  auto const of_a = addresses(a), of_b = addresses(b);
  return std::any_of(of_a.begin(), of_a.end(), [&](auto address) { return of_b.count(address) > 0; });
}

struct Random {
  std::mt19937_64 engine;
  std::int64_t operator()(std::int64_t low, std::int64_t high) {
    return std::uniform_int_distribution<std::int64_t>(low, high)(engine);
  }
};

/// A small tensor of floats in `memory`, with strides in any order and gaps now and then.
Argument random_argument(Random& random, float* memory) {
  Argument a{"x", memory + random(0, 40), sizeof(float), true, {}, random(1, 4)};
  std::int64_t inner = a.dim;
  std::array<int, 3> order{0, 1, 2};
  std::shuffle(order.begin(), order.end(), random.engine);
  for (int const i : order) {
    auto& d = a.dimensions[static_cast<std::size_t>(i)];
    d = {"batch stride", random(1, 3), inner + random(0, 1) * random(0, 5)};
    if (d.extent > 1) inner = (d.extent - 1) * d.stride + inner;
  }
  return a;
}

}  // namespace

TEST_CASE(
    "strides pass if and only if each dimension clears those within it, and then no two elements meet") {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Random random{std::mt19937_64(stream_seed(0))};
  std::vector<float> memory(1000);
  int passed = 0, refused = 0;
  for (int n = 0; n < 3000; ++n) {
    Argument a = random_argument(random, memory.data());
    if (random(0, 1) == 1) a.dimensions[static_cast<std::size_t>(random(0, 2))].stride = random(-3, 12);
    bool const ok = check_strides(a).ok();
    if (ok) CHECK(unique(a));
    if (!unique(a)) CHECK(!ok);
    ++(ok ? passed : refused);
  }
  CHECK(passed > 300);
  CHECK(refused > 300);
}

TEST_CASE("tensors that share an element always overlap; tensors apart or interleaved by a period do not") {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Random random{std::mt19937_64(stream_seed(1))};
  std::vector<float> memory(1000);
  int shared = 0, apart = 0;
  for (int n = 0; n < 5000; ++n) {
    Argument const a = random_argument(random, memory.data()), b = random_argument(random, memory.data());
    REQUIRE(check_strides(a).ok());
    if (intersect(a, b)) {
      ++shared;
      CHECK(overlap(a, b));
      CHECK(overlap(b, a));
    } else if (!overlap(a, b)) {
      ++apart;
    }
  }
  CHECK(shared > 500);
  CHECK(apart > 500);
}

TEST_CASE("tensors of different element types that share a byte always overlap") {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Random random{std::mt19937_64(stream_seed(3))};
  std::vector<float> memory(1000);
  auto const bytes = [](Argument a) {
    a.dim *= a.element_bytes;
    for (auto& d : a.dimensions) d.stride *= a.element_bytes;
    a.element_bytes = 1;
    return a;
  };
  int shared = 0, apart = 0;
  for (int n = 0; n < 5000; ++n) {
    Argument const a = random_argument(random, memory.data());
    Argument b = random_argument(random, memory.data());
    b.element_bytes = std::array{1, 2, 8}[static_cast<std::size_t>(n % 3)];
    if (intersect(bytes(a), bytes(b))) {
      ++shared;
      CHECK(overlap(a, b));
      CHECK(overlap(b, a));
    } else if (!overlap(a, b)) {
      ++apart;
    }
  }
  CHECK(shared > 500);
  CHECK(apart > 500);
}

TEST_CASE("an address or a stride that is no multiple of the alignment is named") {
  alignas(16) static float memory[64];
  Random random;
  INFO("seed ", run_seed());
  for (int i = 0; i < 2000; ++i) {
    std::int64_t const offset = random(0, 3) * random(0, 2), token = random(2, 40), head = random(2, 40);
    Shape const shape{1, random(1, 2), random(1, 2), 2};
    Argument const a = tensor_argument("x", Tensor<float>(memory + offset, {77, token, head}), shape, 16);
    Status const status = check_alignment(a);
    bool const token_counts = shape.tokens > 1 && token % 4 != 0;
    bool const head_counts = shape.heads > 1 && head % 4 != 0;
    CHECK(status.ok() == (offset % 4 == 0 && !token_counts && !head_counts));
    if (status.ok()) continue;
    CHECK(status.code == Code::misaligned);
    std::string const which = offset % 4 != 0 ? "address" : token_counts ? "token stride" : "head stride";
    CHECK(status.other == which);
    CHECK(status.have == (offset % 4 != 0 ? offset % 4 * 4 : token_counts ? token : head));
    CHECK(status.need == (offset % 4 != 0 ? 16 : 4));
  }
}

TEST_CASE("slices of one fused tensor overlap exactly when they share an element") {
  INFO("LIGHTSEQ_SEED=", run_seed());
  Random random{std::mt19937_64(stream_seed(2))};
  std::vector<float> memory(4000);
  for (int n = 0; n < 2000; ++n) {
    // [batch, token, slots, dim] or [batch, slots, token, dim]: each slice is a run of slots.
    std::int64_t const batch = random(1, 3), tokens = random(2, 4), slots = random(2, 6), dim = random(1, 4);
    bool const heads_outside = random(0, 1) == 1;
    std::int64_t const token_stride = heads_outside ? dim : slots * dim;
    std::int64_t const head_stride = heads_outside ? tokens * dim : dim;
    auto const slice = [&] {
      std::int64_t const first = random(0, slots - 1), count = random(1, slots - first);
      return Argument{"x",
                      memory.data() + first * head_stride,
                      sizeof(float),
                      true,
                      {{{"batch", batch, slots * tokens * dim},
                        {"token", tokens, token_stride},
                        {"head", count, head_stride}}},
                      dim};
    };
    Argument const a = slice(), b = slice();
    CHECK(overlap(a, b) == intersect(a, b));
  }
}

TEST_CASE("strides that are all zero pass where no dimension is longer than one, and only there") {
  float memory[8] = {};
  for (std::int64_t const batch : {1, 2})
    for (std::int64_t const tokens : {1, 2})
      for (std::int64_t const heads : {1, 2}) {
        Shape const shape{batch, tokens, heads, 8};
        Status const status =
            check_strides(tensor_argument("x", Tensor<float>(memory, Strides{0, 0, 0}), shape));
        CHECK(status.ok() == (batch * tokens * heads == 1));
        if (!status.ok())
          CHECK(status.message().find(" is 0, at least 8 elements are needed") != std::string::npos);
        CHECK(check_strides(tensor_argument("x", Tensor<float>(memory), shape)).ok());
      }
}

TEST_CASE_TEMPLATE("an address is as aligned as its type asks for, whatever the device", T, float, bfloat16,
                   float16 const) {
  alignas(16) static std::byte memory[64] = {};
  for (std::size_t offset = 0; offset < 8; ++offset) {
    auto* const data = reinterpret_cast<T*>(memory + offset);
    Status const status = check_alignment(tensor_argument("x", Tensor<T>(data), {1, 2, 1, 2}));
    CHECK(status.ok() == (offset % alignof(T) == 0));
    if (status.ok()) continue;
    CHECK(status.message() == "the address of x is " + std::to_string(offset % alignof(T)) +
                                  ", which is not a multiple of " + std::to_string(alignof(T)));
  }
}
