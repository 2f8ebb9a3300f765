// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <random>

#include "kernel/host/laws.hpp"

namespace lightseq::test {

constexpr int dim = 40;
using Floats = std::vector<float>;

/// The rows first, ..., first + count - 1 of a [batch, tokens, 1, dim] tensor, packed.
Floats rows_of_piece(Floats const& from, std::int64_t batch, std::int64_t first, std::int64_t count) {
  std::int64_t const size = static_cast<std::int64_t>(from.size()) / batch;
  Floats part;
  for (std::int64_t b = 0; b < batch; ++b)
    part.insert(part.end(), from.begin() + b * size + first * dim,
                from.begin() + b * size + (first + count) * dim);
  return part;
}

/// Rows first, ..., first + count - 1 of the keys.
struct Piece {
  std::int64_t first, count;
};

/// Random cuts of `rows` rows into pieces, some of them empty.
std::vector<Piece> random_cuts(std::int64_t rows) {
  std::vector<std::int64_t> ends{0, rows};
  for (int i = 0; i < 5; ++i) ends.push_back(random_between(0, rows));
  std::sort(ends.begin(), ends.end());
  std::vector<Piece> pieces;
  for (std::size_t i = 1; i < ends.size(); ++i) pieces.push_back({ends[i - 1], ends[i] - ends[i - 1]});
  std::shuffle(pieces.begin(), pieces.end(), std::mt19937_64(run_seed()));
  return pieces;
}

/// Attention over all keys in pieces of equal size, each of which continues from the last.
template <Mask M>
void in_pieces(Case<dim, float> const& c, std::int64_t pieces, M const& mask, Floats& o, Floats& lse) {
  Scratch const scratch(host::forward_scratch_bytes<dim>());
  Part own = c.poisoned_part();
  std::int64_t const rows = c.keys.rows() / pieces;
  for (std::int64_t i = 0; i < pieces; ++i) {
    auto const attend = [&](auto call) {
      call.keys = c.keys.slice(i * rows, rows);
      call.k = Tensor<float const>(&c.k[static_cast<std::size_t>(i * rows * dim)]);
      call.v = Tensor<float const>(&c.v[static_cast<std::size_t>(i * rows * dim)]);
      if (i > 0) call.carried = own.view(c.heads, c.queries.rows());
      host::forward<dim>(call, mask, scratch.data());
    };
    if (i == pieces - 1)
      attend(c.forward_call(o, lse));
    else
      attend(c.partial_call(own));
  }
}

TEST_CASE("keys attended piece by piece, in any order, give what they give at once") {
  Scratch const scratch(std::max(host::forward_scratch_bytes<dim>(), host::backward_scratch_bytes<dim>()));
  for (AnyMask const& mask : all_masks()) {
    Positions const positions = Zigzag::shard(1, 3, random_between(1, 400));
    Case<dim, float> const c(positions, positions, 2, 2, 1);
    INFO("seed ", run_seed(), ", mask ", mask.name(), ", ", positions.rows(), " rows");
    Results<double> const want = oracle(c, mask);
    std::vector<Piece> const pieces = random_cuts(positions.rows());

    // In turn into other memory and in place; the first piece continues from attention over no keys, or from
    // nothing.
    Results<float> got{
        poisoned_vector<float>(c.size(c.q_shape)), poisoned_vector<float>(c.row_count()), {}, {}, {}};
    Part own = c.poisoned_part(), other = own;
    auto const view = [&](Part& memory) { return memory.view(2, positions.rows()); };
    bool in_place = false, carries = random_between(0, 1) == 0;
    if (carries) host::clear(view(own), c.q_shape);
    for (Piece const& p : pieces) {
      Case<dim, float> part(positions, positions.slice(p.first, p.count), 2, 2, 1);
      part.q = c.q;
      part.k = rows_of_piece(c.k, 2, p.first, p.count);
      part.v = rows_of_piece(c.v, 2, p.first, p.count);
      auto const attend = [&](auto call) {
        if (carries) call.carried = view(own);
        host::forward<dim>(call, mask, scratch.data());
      };
      if (&p == &pieces.back())
        attend(part.forward_call(got.o, got.lse));
      else
        attend(part.partial_call(in_place ? own : other));
      if (!in_place) std::swap(own, other);
      in_place = carries;
      carries = true;
      if (random_between(0, 1) == 0) in_place = false;
    }
    CHECK(relative_error(got.o, want.o) < tolerance);
    CHECK(lse_error(got.lse, want.lse) < tolerance);

    Floats delta = poisoned_vector<float>(c.row_count());
    host::delta(Tensor(got.o.data()), Tensor(c.d_o.data()), c.rows(delta), c.q_shape);
    got.dq.resize(c.q.size());
    got.dk.resize(c.k.size());
    got.dv.resize(c.v.size());
    for (Piece const& p : pieces) {
      Case<dim, float> part(positions, positions.slice(p.first, p.count), 2, 2, 1);
      part.q = c.q;
      part.d_o = c.d_o;
      part.k = rows_of_piece(c.k, 2, p.first, p.count);
      part.v = rows_of_piece(c.v, 2, p.first, p.count);
      auto call = part.backward_call(got.dq, got.dk, got.dv);
      Strides const whole = Strides::packed(c.kv_shape);
      call.dk = Tensor<float>(got.dk.data(), whole).from(p.first);
      call.dv = Tensor<float>(got.dv.data(), whole).from(p.first);
      call.lse = c.rows(got.lse);
      call.delta = c.rows(delta);
      host::backward<dim>(call, mask, scratch.data());
    }
    CHECK(worst_error(c, got, want) < tolerance);
  }
}

TEST_CASE("the error does not grow with the number of pieces") {
  std::int64_t const rows = 960;
  Positions const positions{{{0, rows}}};
  Case<dim, float> const c(positions, positions);
  Results<double> const want = oracle(c, Full{});
  Scratch const scratch(host::forward_scratch_bytes<dim>());
  auto const error = [&](std::int64_t pieces) {
    Floats o = poisoned_vector<float>(c.size(c.q_shape)), lse = poisoned_vector<float>(c.row_count());
    in_pieces(c, pieces, Full{}, o, lse);
    return std::max(relative_error(o, want.o), lse_error(lse, want.lse));
  };
  INFO("seed ", run_seed());
  for (std::int64_t const pieces : {15, 64}) CHECK(error(pieces) < 1.25 * error(1));
}

TEST_CASE("pieces of whole tiles give the bits of all keys at once, whatever the size of the scores") {
  for (float const scale : {0.1f, 10.0f, 1e4f, 1e8f}) {
    Positions const positions{{{0, 960}}};
    Case<dim, float> c(positions, positions, 1, 2, 1);
    c.scale = scale;
    Floats o[2] = {poisoned_vector<float>(c.size(c.q_shape)), poisoned_vector<float>(c.size(c.q_shape))},
           lse[2] = {poisoned_vector<float>(c.row_count()), poisoned_vector<float>(c.row_count())};
    in_pieces(c, 1, Causal{}, o[0], lse[0]);
    in_pieces(c, 15, Causal{}, o[1], lse[1]);
    INFO("seed ", run_seed(), ", scale ", scale);
    CHECK(same_bits(o[0], o[1]));
    CHECK(same_bits(lse[0], lse[1]));
  }
}

TEST_CASE("a carry alone comes back unchanged") {
  Scratch const scratch(host::forward_scratch_bytes<dim>());
  Case<dim, float> const c({{{0, 70}, {90, 30}}}, {}, 1, 3, 1);
  Part carried{random_vector<float>(c.size(c.q_shape), 1), random_vector<float>(c.row_count(), 2),
               random_vector<float>(c.row_count(), 3)};
  Part got = c.poisoned_part();
  auto call = c.partial_call(got);
  call.carried = carried.view(3, 100);
  host::forward<dim>(call, Full{}, scratch.data());
  INFO("seed ", run_seed());
  CHECK(got == carried);
}

TEST_CASE("gradients are added to what is there") {
  Positions const positions{{{0, 100}}};
  Case<dim, float> const c(positions, positions);
  Results<float> const once = run(c, Causal{});
  Results<float> twice = once;
  Scratch const scratch(host::backward_scratch_bytes<dim>());
  Floats delta(c.d_o.size() / dim);
  host::delta(Tensor(once.o.data()), Tensor(c.d_o.data()), c.rows(delta), c.q_shape);
  auto call = c.backward_call(twice.dq, twice.dk, twice.dv);
  call.lse = c.rows(twice.lse);
  call.delta = c.rows(delta);
  host::backward<dim>(call, Causal{}, scratch.data());
  auto const doubled = [](Floats values) {
    for (float& x : values) x *= 2;
    return values;
  };
  INFO("seed ", run_seed());
  CHECK(relative_error(twice.dq, doubled(once.dq)) < 1e-6);
  CHECK(relative_error(twice.dk, doubled(once.dk)) < 1e-6);
  CHECK(relative_error(twice.dv, doubled(once.dv)) < 1e-6);
}

}  // namespace lightseq::test
