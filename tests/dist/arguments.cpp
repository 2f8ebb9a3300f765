// SPDX-License-Identifier: Apache-2.0
#include <functional>
#include <limits>

#include "laws/dist_attn.hpp"

using namespace lightseq;
using namespace lightseq::test;

namespace {

using Attn = DistAttn<small_head_dim, Causal, Balanced>;
constexpr std::int64_t dim = small_head_dim;
Problem const problem{.batch = 2, .seqlen = 24, .heads = 4, .kv_heads = 2};

/// All that one rank brings to a forward and a backward.
struct Call {
  testing::Sequence<float> part;
  std::vector<std::byte> memory;
  Inputs<float> in;
  Outputs<float> out;
  BackwardInputs<float> backward_in;
  Gradients<float> gradients;
  std::span<std::byte> workspace;

  explicit Call(Attn const& attn)
      : part(testing::part_of(testing::random_sequence<float>(problem, dim, stream_seed(0)),
                              attn.positions())),
        memory(static_cast<std::size_t>(attn.workspace_bytes())),
        in(part.inputs()),
        out(part.outputs()),
        backward_in(part.backward_inputs()),
        gradients(part.gradients()),
        workspace(memory) {}
};

struct Fault {
  char const* message;
  std::function<void(Call&)> make;
};

// The tokens of a rank are 24 / 2 = 12, q is [2, 12, 4, 16], k and v are [2, 12, 2, 16].
std::vector<Fault> const forward_faults{
    {"q is a null pointer", [](Call& c) { c.in.q.data = nullptr; }},
    {"k is a null pointer", [](Call& c) { c.in.k.data = nullptr; }},
    {"v is a null pointer", [](Call& c) { c.in.v.data = nullptr; }},
    {"o is a null pointer", [](Call& c) { c.out.o.data = nullptr; }},
    {"lse is a null pointer", [](Call& c) { c.out.lse = nullptr; }},
    {"the head stride of q is 15, at least 16 elements are needed",
     [](Call& c) {
       c.in.q.strides = {768, 64, 15};
     }},
    {"the token stride of k is 31, at least 32 elements are needed",
     [](Call& c) {
       c.in.k.strides = {384, 31, 16};
     }},
    {"the batch stride of v is 383, at least 384 elements are needed",
     [](Call& c) {
       c.in.v.strides = {383, 32, 16};
     }},
    {"the token stride of o is -64, at least 16 elements are needed",
     [](Call& c) {
       c.out.o.strides = {768, -64, 16};
     }},
    {"the token stride of q is 4611686018427387904, which overflows 63 bits",
     [](Call& c) {
       c.in.q.strides = {768, std::int64_t{1} << 62, 16};
     }},
    {"the batch stride of q is 0, at least 16 elements are needed",
     [](Call& c) {
       c.in.q.strides = {0, 0, 0};
     }},
    {"the address of k is 2, which is not a multiple of 4",
     [](Call& c) {
       c.in.k.data = reinterpret_cast<float const*>(reinterpret_cast<char const*>(c.in.k.data) + 2);
     }},
    {"o overlaps q, and one of them is written", [](Call& c) { c.out.o.data = c.part.q.data(); }},
    {"o overlaps v, and one of them is written", [](Call& c) { c.out.o.data = c.part.v.data(); }},
    {"o overlaps lse, and one of them is written", [](Call& c) { c.out.lse = c.out.o.data + 10; }},
    {"q overlaps workspace, and one of them is written",
     [](Call& c) { c.in.q.data = reinterpret_cast<float*>(c.memory.data()); }}};

std::vector<Fault> const backward_faults{
    {"o is a null pointer", [](Call& c) { c.backward_in.o.data = nullptr; }},
    {"lse is a null pointer", [](Call& c) { c.backward_in.lse = nullptr; }},
    {"d_o is a null pointer", [](Call& c) { c.backward_in.d_o.data = nullptr; }},
    {"dq is a null pointer", [](Call& c) { c.gradients.dq.data = nullptr; }},
    {"dk is a null pointer", [](Call& c) { c.gradients.dk.data = nullptr; }},
    {"dv is a null pointer", [](Call& c) { c.gradients.dv.data = nullptr; }},
    {"the token stride of d_o is 63, at least 64 elements are needed",
     [](Call& c) {
       c.backward_in.d_o.strides = {768, 63, 16};
     }},
    {"the head stride of dk is 0, at least 16 elements are needed",
     [](Call& c) {
       c.gradients.dk.strides = {384, 32, 0};
     }},
    {"the batch stride of d_o is 0, at least 16 elements are needed",
     [](Call& c) {
       c.backward_in.d_o = {c.part.d_o.data(), Strides{0, 0, 0}};
     }},
    {"the address of dv is 1, which is not a multiple of 4",
     [](Call& c) {
       c.gradients.dv.data = reinterpret_cast<float*>(reinterpret_cast<char*>(c.gradients.dv.data) + 1);
     }},
    {"dq overlaps d_o, and one of them is written", [](Call& c) { c.gradients.dq.data = c.part.d_o.data(); }},
    {"dk overlaps dv, and one of them is written", [](Call& c) { c.gradients.dk.data = c.part.dv.data(); }}};

}  // namespace

TEST_CASE("each wrong argument gets its own error before any message is sent, and the next call is served") {
  LocalWorld world(2, {.timeout = std::chrono::seconds(60)});
  std::vector<std::vector<std::string>> got(2);
  std::vector<std::string> want;
  for (Fault const& fault : forward_faults) want.push_back(fault.message);
  for (Fault const& fault : backward_faults) want.push_back(fault.message);
  std::string const need = std::to_string(Attn(world[0], problem).workspace_bytes(Pass::forward));
  std::string const other_need = std::to_string(Attn(world[1], problem).workspace_bytes(Pass::forward));
  std::string const have = std::to_string(Attn(world[0], problem).workspace_bytes(Pass::forward) - 1);
  std::string const other_have = std::to_string(Attn(world[1], problem).workspace_bytes(Pass::forward) - 1);

  run_ranks(world, [&](Local& comm) {
    Attn attn(comm, problem);
    auto& messages = got[static_cast<std::size_t>(comm.rank())];
    for (Fault const& fault : forward_faults) {
      Call call(attn);
      fault.make(call);
      messages.push_back(attn.forward(call.in, call.out, call.workspace).message());
    }
    for (Fault const& fault : backward_faults) {
      Call call(attn);
      fault.make(call);
      messages.push_back(attn.backward(call.backward_in, call.gradients, call.workspace).message());
    }
    Call call(attn);
    auto const small =
        call.workspace.first(static_cast<std::size_t>(attn.workspace_bytes(Pass::forward)) - 1);
    messages.push_back(attn.forward(call.in, call.out, small).message());
    messages.push_back(attn.forward(call.in, call.out, call.workspace).message());
  });
  want.push_back("the workspace holds " + have + " bytes, " + need + " are needed");
  want.push_back("ok");
  CHECK(got[0] == want);
  want[want.size() - 2] = "the workspace holds " + other_have + " bytes, " + other_need + " are needed";
  CHECK(got[1] == want);
}

TEST_CASE("fused and transposed tensors are served, inputs and gradients alike") {
  std::int64_t const tokens = problem.seqlen, width = (4 + 2 + 2) * dim;
  LocalWorld world(1);
  Attn attn(world[0], problem);
  Call want(attn);
  REQUIRE(attn.forward(want.in, want.out, want.workspace).ok());
  REQUIRE(attn.backward(want.backward_in, want.gradients, want.workspace).ok());

  // One tensor holds q, k and v of a token beside each other; another their gradients.
  Strides const fused{tokens * width, width, dim};
  auto qkv = poisoned_vector<float>(2 * tokens * width), d_qkv = qkv;
  Tensor<float> const q(qkv.data(), fused), k(qkv.data() + 4 * dim, fused), v(qkv.data() + 6 * dim, fused);
  host::copy(want.in.q, q, want.part.q_shape);
  host::copy(want.in.k, k, want.part.kv_shape);
  host::copy(want.in.v, v, want.part.kv_shape);
  Gradients<float> const gradients{
      {d_qkv.data(), fused}, {d_qkv.data() + 4 * dim, fused}, {d_qkv.data() + 6 * dim, fused}};

  // o is [batch, head, token, dim].
  auto o = poisoned_vector<float>(2 * 4 * tokens * dim);
  Tensor<float> const transposed(o.data(), {4 * tokens * dim, dim, tokens * dim});
  Call call(attn);
  REQUIRE(attn.forward({q, k, v}, {transposed, call.out.lse}, call.workspace).message() == "ok");
  REQUIRE(attn.backward({q, k, v, transposed, call.out.lse, call.backward_in.d_o}, gradients, call.workspace)
              .message() == "ok");

  auto const packed = [](Tensor<float> const& tensor, Shape const& shape) {
    auto values = poisoned_vector<float>(testing::elements(shape));
    host::copy(tensor, Tensor<float>(values.data()), shape);
    return values;
  };
  CHECK(packed(transposed, want.part.q_shape) == want.part.o);
  CHECK(call.part.lse == want.part.lse);
  CHECK(packed(gradients.dq, want.part.q_shape) == want.part.dq);
  CHECK(packed(gradients.dk, want.part.kv_shape) == want.part.dk);
  CHECK(packed(gradients.dv, want.part.kv_shape) == want.part.dv);
}

TEST_CASE("a fused output that reaches into its neighbour is found") {
  std::int64_t const tokens = problem.seqlen, width = (4 + 2 + 2) * dim;
  LocalWorld world(1);
  Attn attn(world[0], problem);
  Call call(attn);
  std::vector<float> d_qkv(static_cast<std::size_t>(2 * tokens * width + 8));
  Strides const fused{tokens * width, width, dim};
  for (std::int64_t const shift : {-dim, std::int64_t{-8}, std::int64_t{8}, dim}) {
    CAPTURE(shift);
    call.gradients = {
        {d_qkv.data(), fused}, {d_qkv.data() + 4 * dim + shift, fused}, {d_qkv.data() + 6 * dim, fused}};
    std::string const message = attn.backward(call.backward_in, call.gradients, call.workspace).message();
    CHECK(message == (shift < 0 ? "dq overlaps dk, and one of them is written"
                                : "dk overlaps dv, and one of them is written"));
  }
}

TEST_CASE("a problem that makes no sense is refused with its numbers") {
  auto const text = [](Problem const& bad) -> std::string {
    LocalWorld world(1);
    try {
      Attn const attn(world[0], bad);
    } catch (Error const& error) {
      return error.what();
    }
    return "accepted";
  };
  CHECK(text({.batch = 0, .seqlen = 8}) == "lightseq: batch is 0, it must be at least 1");
  CHECK(text({.seqlen = -3}) == "lightseq: seqlen is -3, it must be at least 1");
  CHECK(text({.seqlen = 8, .heads = 6, .kv_heads = 4}) ==
        "lightseq: heads is 6, which is not a multiple of kv_heads, 4");
  CHECK(text({.seqlen = std::int64_t{1} << 55, .heads = 4}) ==
        "lightseq: batch 1 x seqlen 36028797018963968 x heads 4 x head dim 16 overflows 63 bits");
}

namespace {

/// Contiguous, but the last token is nobody's.
struct Short {
  static constexpr Positions shard(int rank, int world, std::int64_t seqlen) {
    return Contiguous::shard(rank, world, seqlen - 1);
  }
};

}  // namespace

TEST_CASE("a schedule whose partition leaves a token out is refused on every rank") {
  for (int const ranks : {1, 3}) {
    LocalWorld world(ranks);
    std::string text;
    try {
      run_ranks(world, [](Local& comm) { DistAttn<dim, Causal, RingOver<Short>>(comm, problem); });
    } catch (Error const& error) {
      text = error.what();
    }
    CHECK(text.ends_with(sentence("the partition gives ", ranks, " ranks 23 of 24 tokens")));
  }
}

TEST_CASE("a problem of the largest size that passes has a workspace, in 63 bits; one beyond does not pass") {
  auto const bytes = [&]<class Traits>(Traits, std::int64_t batch, std::int64_t seqlen, Pass pass) {
    LocalWorld world(2);
    using Any = DistAttn<small_head_dim, Causal, Balanced, Traits>;
    return Any(world[0], {.batch = batch, .seqlen = seqlen, .heads = 4}).workspace_bytes(pass);
  };
  struct Bf16 : DefaultTraits {
    using Element = bfloat16;
  };
  std::int64_t const tokens =
      std::numeric_limits<std::int64_t>::max() / (4 * small_head_dim * most_bytes_an_element);
  for (Pass const pass : {Pass::forward, Pass::backward}) {
    CHECK(bytes(Bf16{}, 1, tokens, pass) > tokens * 4 * small_head_dim);
    CHECK(bytes(Bf16{}, tokens / 2, 2, pass) > tokens * 4 * small_head_dim);
    CHECK(bytes(DefaultTraits{}, tokens / 2, 2, pass) > tokens * 4 * small_head_dim);
    CHECK_THROWS_AS(bytes(DefaultTraits{}, 1, tokens + 1, pass), Error);
  }
}
