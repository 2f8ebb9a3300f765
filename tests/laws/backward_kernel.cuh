// SPDX-License-Identifier: Apache-2.0
#pragma once
#include "laws/forward_kernel.cuh"

/// What every backward kernel for the GPU must do. `Kernel` is its class template, of a head dim, an element
/// type, the type of the gradients of keys and values, a mask and whether it is deterministic; `stream` picks
/// the random data.
namespace lightseq::test {

/// Largest relative error of a gradient against the dense oracle.
template <class T>
constexpr double gradient_tolerance = std::is_same_v<T, float16> ? 2e-3 : 1e-2;

/// |got - want| / |want| in the Frobenius norm, where want counts as no smaller than 1e-3 an element: where
/// each query sees one key alone the gradients vanish, and rounding is all there is.
inline double gradient_error(std::vector<double> const& got, std::vector<double> const& want) {
  double difference = 0, norm = 1e-6 * static_cast<double>(want.size());
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (!std::isfinite(got[i])) return std::numeric_limits<double>::infinity();
    difference += (got[i] - want[i]) * (got[i] - want[i]);
    norm += want[i] * want[i];
  }
  return want.empty() ? 0 : std::sqrt(difference / norm);
}

/// The rows of a strided tensor, packed, as what has been added to `before`, or from zero. Its gaps must be
/// as before.
template <class G>
std::vector<double> added_rows(std::vector<G> const& now, std::vector<G> const& before, Shape const& shape,
                               Strides const& strides, bool from_zero = !std::is_same_v<G, float>) {
  std::vector<double> rows;
  std::vector<bool> gap(now.size(), true);
  Tensor<G const> const to{now.data(), strides}, from{before.data(), strides};
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t t = 0; t < shape.tokens; ++t)
      for (std::int64_t h = 0; h < shape.heads; ++h)
        for (std::int64_t d = 0; d < shape.dim; ++d) {
          G const* const value = to.at(b, t, h) + d;
          double const base = from_zero ? 0.0f : static_cast<float>(from.at(b, t, h)[d]);
          rows.push_back(static_cast<double>(static_cast<float>(*value)) - base);
          gap[static_cast<std::size_t>(value - now.data())] = false;
        }
  bool untouched = true;
  for (std::size_t i = 0; i < now.size(); ++i)
    if (gap[i]) untouched &= __builtin_memcmp(&now[i], &before[i], sizeof(G)) == 0;
  CHECK(untouched);
  return rows;
}

/// Whether all of a packed row is finite.
inline bool is_finite_row(std::vector<double> const& rows, std::int64_t row, int dim) {
  auto const begin = rows.begin() + row * dim;
  return std::all_of(begin, begin + dim, [](double x) { return std::isfinite(x); });
}

/// The rows that are finite are those of the oracle, and hold what it wants. `free(row)` says which may be
/// what they are.
template <class Free>
void check_finite_rows(char const* name, std::vector<double> const& got, std::vector<double> const& want,
                       int dim, double tolerance, Free const& free) {
  std::vector<double> finite, wanted;
  std::int64_t wrong = 0;
  auto const rows = static_cast<std::int64_t>(want.size()) / dim;
  for (std::int64_t row = 0; row < rows; ++row) {
    if (free(row)) continue;
    bool const is_finite = is_finite_row(want, row, dim);
    wrong += is_finite != is_finite_row(got, row, dim);
    if (!is_finite || !is_finite_row(got, row, dim)) continue;
    finite.insert(finite.end(), got.begin() + row * dim, got.begin() + (row + 1) * dim);
    wanted.insert(wanted.end(), want.begin() + row * dim, want.begin() + (row + 1) * dim);
  }
  INFO(name);
  CHECK(wrong == 0);
  CHECK(gradient_error(finite, wanted) < tolerance);
}

/// What a sum starts from: floats are added to, elements are written whatever they hold.
template <class G>
std::vector<G> initial_gradient(std::int64_t size, std::uint64_t stream, bool from_zero) {
  if constexpr (std::is_same_v<G, float>)
    if (!from_zero) return random_vector<float>(size, stream);
  return poisoned_vector<G>(size);
}

/// Whether a kernel can take gradients for zero at first, whatever they hold.
template <class Kernel>
constexpr bool starts_from_zero = requires {
  requires Kernel::zeroes_and_rounds;
};

template <int HeadDim, class T>
struct BackwardCase : ForwardCase<HeadDim, T> {
  std::vector<T> d_o;
  std::vector<float> lse, delta;  ///< [batch, heads, queries.rows()], in double until the end
  Strides d_o_strides, dq_strides, dk_strides, dv_strides;
  std::vector<double> want_dq, want_dk, want_dv;  ///< packed

  /// Adds d_o, the row statistics and what the oracle wants.
  template <class M>
  void complete(M const& mask, std::uint64_t stream, int layout) {
    Shape const q_shape = this->query_shape(), kv_shape = this->key_shape();
    d_o_strides = some_layout(q_shape, layout / 27 % 3);
    dq_strides = some_layout(q_shape, layout % 3);
    dk_strides = some_layout(kv_shape, layout / 3 % 3);
    dv_strides = some_layout(kv_shape, layout / 9 % 3);
    d_o = random_vector<T>(this->extent(q_shape, d_o_strides), stream);
    solve(mask);
  }

  /// Computes from all inputs the row statistics and what the oracle wants.
  template <class M>
  void solve(M const& mask) {
    Shape const q_shape = this->query_shape(), kv_shape = this->key_shape();
    std::vector<double> o, exact_lse;
    this->oracle(mask, o, exact_lse);
    lse.assign(exact_lse.begin(), exact_lse.end());
    delta.clear();
    Tensor<double const> const o_rows{o.data(), Strides::packed(q_shape)};
    Tensor<T const> const d_o_rows{d_o.data(), d_o_strides};
    for (std::int64_t b = 0; b < q_shape.batch; ++b)
      for (std::int64_t h = 0; h < q_shape.heads; ++h)
        for (std::int64_t t = 0; t < q_shape.tokens; ++t) {
          double sum = 0;
          for (int d = 0; d < HeadDim; ++d)
            sum += o_rows.at(b, t, h)[d] * static_cast<float>(d_o_rows.at(b, t, h)[d]);
          delta.push_back(static_cast<float>(sum));
        }
    auto const zeros = [](Shape const& s) {
      return std::vector<double>(static_cast<std::size_t>(s.batch * s.tokens * s.heads * HeadDim));
    };
    want_dq = zeros(q_shape), want_dk = zeros(kv_shape), want_dv = zeros(kv_shape);
    BackwardCall<T, double> call;
    call.q = {this->q.data(), this->q_strides};
    call.k = {this->k.data(), this->kv_strides};
    call.v = {this->v.data(), this->kv_strides};
    call.d_o = {d_o.data(), d_o_strides};
    call.queries = this->queries, call.keys = this->keys;
    call.dq = {want_dq.data(), Strides::packed(q_shape)};
    call.dk = {want_dk.data(), Strides::packed(kv_shape)};
    call.dv = {want_dv.data(), Strides::packed(kv_shape)};
    call.batch = this->batch, call.heads = this->heads, call.kv_heads = this->kv_heads;
    call.scale = this->scale;
    reference::backward<HeadDim>(call, mask);
  }
};

template <int HeadDim, class T, class M>
BackwardCase<HeadDim, T> some_backward_case(M const& mask, std::uint64_t stream, std::int64_t longest) {
  BackwardCase<HeadDim, T> c;
  static_cast<ForwardCase<HeadDim, T>&>(c) = some_case<HeadDim, T>(stream, longest);
  c.complete(mask, stream + 5, static_cast<int>(stream_seed(stream) >> 20 & 0xfff));
  return c;
}

/// Puts an array back to the values it had.
template <class G>
void put_back(DeviceArray<G> const& array, std::vector<G> const& values, cudaStream_t stream) {
  check_cuda(
      cudaMemcpyAsync(array.data(), values.data(), values.size() * sizeof(G), cudaMemcpyDefault, stream));
}

/// A case on the device, with the kernel and the gradients' sums, to which launches of its parts add; where
/// it starts `from_zero` those are poison, and the first part of each is to take them for zero.
template <class Kernel, int HeadDim, class T, class KeyGrad, class M>
class BackwardRun {
 public:
  using Case = BackwardCase<HeadDim, T>;
  BackwardRun(Case const& host, M const& m, bool from_zero = false)
      : c(host),
        mask(m),
        from_zero_(from_zero),
        q(c.q),
        k(c.k),
        v(c.v),
        d_o(c.d_o),
        lse(c.lse),
        delta(c.delta),
        dq_before(initial_gradient<float>(c.extent(c.query_shape(), c.dq_strides), 91, from_zero)),
        dk_before(initial_gradient<KeyGrad>(c.extent(c.key_shape(), c.dk_strides), 92, from_zero)),
        dv_before(initial_gradient<KeyGrad>(c.extent(c.key_shape(), c.dv_strides), 93, from_zero)),
        dq(dq_before),
        dk(dk_before),
        dv(dv_before),
        workspace(Kernel::workspace_bytes(c.batch, c.heads, c.queries.rows(), c.keys.rows())) {
    workspace.fill(0xff);
    require(kernel.prepare());
  }

  /// Adds what the given queries and keys contribute.
  void launch(std::int64_t first_query, std::int64_t queries, std::int64_t first_key, std::int64_t keys,
              int sm_margin = 0, cudaStream_t stream = nullptr) {
    BackwardCall<T, float, KeyGrad> call;
    call.q = Tensor<T const>{q.data(), c.q_strides}.from(first_query);
    call.d_o = Tensor<T const>{d_o.data(), c.d_o_strides}.from(first_query);
    call.k = Tensor<T const>{k.data(), c.kv_strides}.from(first_key);
    call.v = Tensor<T const>{v.data(), c.kv_strides}.from(first_key);
    call.lse = RowStats<float const>(RowStats<float>::packed(lse.data(), c.heads, c.queries.rows()))
                   .from(first_query);
    call.delta = RowStats<float const>(RowStats<float>::packed(delta.data(), c.heads, c.queries.rows()))
                     .from(first_query);
    call.queries = c.queries.slice(first_query, queries);
    call.keys = c.keys.slice(first_key, keys);
    call.dq = Tensor<float>{dq.data(), c.dq_strides}.from(first_query);
    call.dk = Tensor<KeyGrad>{dk.data(), c.dk_strides}.from(first_key);
    call.dv = Tensor<KeyGrad>{dv.data(), c.dv_strides}.from(first_key);
    call.batch = c.batch, call.heads = c.heads, call.kv_heads = c.kv_heads, call.scale = c.scale;
    call.dq_zero = from_zero_ && first_key == 0, call.dkv_zero = from_zero_ && first_query == 0;
    require(kernel.launch(call, mask, workspace.data(), stream, sm_margin));
  }
  void launch(int sm_margin = 0, cudaStream_t stream = nullptr) {
    launch(0, c.queries.rows(), 0, c.keys.rows(), sm_margin, stream);
  }

  /// Puts the sums back to what they were.
  void reset(cudaStream_t stream = nullptr) {
    put_back(dq, dq_before, stream), put_back(dk, dk_before, stream), put_back(dv, dv_before, stream);
  }

  /// The sums are what the oracle says, up to rounding in T.
  void check(double slack = 1) const {
    INFO("seed ", run_seed(), ", head dim ", HeadDim, ", batch ", c.batch, ", heads ", c.heads, "/",
         c.kv_heads, ", queries ", c.queries.segments[0].rows, "+", c.queries.segments[1].rows, " stride ",
         c.queries.segments[0].stride, ", keys ", c.keys.segments[0].rows, "+", c.keys.segments[1].rows,
         " stride ", c.keys.segments[0].stride);
    bool const writes = from_zero_ || !std::is_same_v<KeyGrad, float>;
    auto const query_rows = added_rows(dq.values(), dq_before, c.query_shape(), c.dq_strides, from_zero_);
    auto const key_rows = added_rows(dk.values(), dk_before, c.key_shape(), c.dk_strides, writes);
    auto const value_rows = added_rows(dv.values(), dv_before, c.key_shape(), c.dv_strides, writes);
    CHECK(gradient_error(query_rows, c.want_dq) < slack * gradient_tolerance<T>);
    CHECK(gradient_error(key_rows, c.want_dk) < slack * gradient_tolerance<T>);
    CHECK(gradient_error(value_rows, c.want_dv) < slack * gradient_tolerance<T>);
    // Queries that see nothing get nothing, and neither do keys that nothing sees: not even rounding.
    bool zeros = true;
    for (std::int64_t row = 0; row < c.rows(); ++row) {
      std::int64_t const head = row % c.heads, token = row / c.heads % c.queries.rows();
      std::int64_t const batch = row / c.heads / c.queries.rows();
      float const own =
          RowStats<float const>::packed(c.lse.data(), c.heads, c.queries.rows()).at(batch, head)[token];
      zeros &= std::isfinite(own) || is_zero(query_rows, row);
    }
    for (std::int64_t row = 0; row < c.batch * c.keys.rows() * c.kv_heads; ++row)
      if (is_zero(c.want_dv, row)) zeros &= is_zero(value_rows, row) && is_zero(key_rows, row);
    CHECK(zeros);
  }

  /// The sums are finite where the oracle's are, and then what it says. A query whose own numbers are finite
  /// but that sees an infinite key, with the weight zero, may get finite gradients.
  void check_finite() const {
    bool const writes = from_zero_ || !std::is_same_v<KeyGrad, float>;
    double const tolerance = 2 * gradient_tolerance<T>;  // few rows may be left
    auto const none = [](std::int64_t) { return false; };
    auto const weightless = [&](std::int64_t row) {
      std::int64_t const head = row % c.heads, token = row / c.heads % c.queries.rows();
      std::int64_t const at = (row / c.heads / c.queries.rows() * c.heads + head) * c.queries.rows() + token;
      auto const i = static_cast<std::size_t>(at);
      return std::isfinite(c.lse[i]) && std::isfinite(c.delta[i]) && !is_finite_row(c.want_dq, row, HeadDim);
    };
    check_finite_rows("dq", added_rows(dq.values(), dq_before, c.query_shape(), c.dq_strides, from_zero_),
                      c.want_dq, HeadDim, tolerance, weightless);
    check_finite_rows("dk", added_rows(dk.values(), dk_before, c.key_shape(), c.dk_strides, writes),
                      c.want_dk, HeadDim, tolerance, none);
    check_finite_rows("dv", added_rows(dv.values(), dv_before, c.key_shape(), c.dv_strides, writes),
                      c.want_dv, HeadDim, tolerance, none);
  }

  /// The gradients of values are what the oracle says.
  void check_values(double slack) const {
    bool const writes = from_zero_ || !std::is_same_v<KeyGrad, float>;
    auto const rows = added_rows(dv.values(), dv_before, c.key_shape(), c.dv_strides, writes);
    CHECK(gradient_error(rows, c.want_dv) < slack * gradient_tolerance<T>);
  }

  /// All sums are finite.
  void check_all_finite() const {
    auto const finite = [](std::vector<double> const& rows) {
      return std::all_of(rows.begin(), rows.end(), [](double x) { return std::isfinite(x); });
    };
    bool const writes = from_zero_ || !std::is_same_v<KeyGrad, float>;
    CHECK(finite(added_rows(dq.values(), dq_before, c.query_shape(), c.dq_strides, from_zero_)));
    CHECK(finite(added_rows(dk.values(), dk_before, c.key_shape(), c.dk_strides, writes)));
    CHECK(finite(added_rows(dv.values(), dv_before, c.key_shape(), c.dv_strides, writes)));
  }

 private:
  static void require(Status const& status) {
    if (!status.ok()) throw std::runtime_error(status.message());
  }
  /// Whether the given row is zero.
  static bool is_zero(std::vector<double> const& rows, std::int64_t row) {
    auto const begin = rows.begin() + row * HeadDim;
    return std::all_of(begin, begin + HeadDim, [](double x) { return x == 0; });
  }

  Case const& c;
  M mask;
  bool from_zero_;
  Kernel kernel;
  DeviceArray<T> q, k, v, d_o;
  DeviceArray<float> lse, delta;
  std::vector<float> dq_before;
  std::vector<KeyGrad> dk_before, dv_before;

 public:
  DeviceArray<float> dq;
  DeviceArray<KeyGrad> dk, dv;

 private:
  DeviceArray<char> workspace;
};

/// The kernel equals the oracle for random lengths, heads, strides and positions.
template <template <int, class, class, Mask, bool> class Kernel, int HeadDim, class T, class KeyGrad,
          bool Deterministic, class M>
void check_gradients(M const& mask, int cases, std::uint64_t stream) {
  for (int i = 0; i < cases; ++i) {
    auto const c = some_backward_case<HeadDim, T>(mask, stream + 10 * static_cast<std::uint64_t>(i),
                                                  i % 2 == 0 ? 150 : 600);
    BackwardRun<Kernel<HeadDim, T, KeyGrad, M, Deterministic>, HeadDim, T, KeyGrad, M> run(c, mask);
    run.launch();
    run.check();
  }
}

/// So it does for any mask.
template <template <int, class, class, Mask, bool> class Kernel, int HeadDim, bool Deterministic>
void check_gradients_of_masks(std::uint64_t stream) {
  check_gradients<Kernel, HeadDim, bfloat16, bfloat16, Deterministic>(Full{}, 6, stream);
  check_gradients<Kernel, HeadDim, bfloat16, bfloat16, Deterministic>(Causal{}, 8, stream + 1000);
  check_gradients<Kernel, HeadDim, bfloat16, float, Deterministic>(SlidingWindow{70, 0}, 4, stream + 2000);
  check_gradients<Kernel, HeadDim, bfloat16, float, Deterministic>(SlidingWindow{5, 260}, 4, stream + 3000);
  check_gradients<Kernel, HeadDim, bfloat16, bfloat16, Deterministic>(EqualDocuments{90}, 4, stream + 4000);
}

/// So it does where rules make the scores.
template <template <int, class, class, Mask, bool> class Kernel, int HeadDim>
void check_gradients_of_rules(std::uint64_t stream) {
  for (float const cap : {50.0f, 2.0f, 0.5f})
    check_gradients<Kernel, HeadDim, bfloat16, bfloat16, false>(Scored{Causal{}, SoftCap{cap}}, 4, stream++);
  check_gradients<Kernel, HeadDim, bfloat16, float, false>(Scored{Causal{}, Fading{0.01f}}, 4, stream + 3000);
}
/// So it does for float16 and for gradients of keys and values in float.
template <template <int, class, class, Mask, bool> class Kernel>
void check_gradient_types(std::uint64_t stream) {
  check_gradients<Kernel, 64, float16, float16, false>(Causal{}, 4, stream);
  check_gradients<Kernel, 128, float16, float16, false>(Full{}, 4, stream + 1000);
  check_gradients<Kernel, 128, float16, float, true>(Causal{}, 4, stream + 2000);
  check_gradients<Kernel, 64, bfloat16, float, false>(Causal{}, 4, stream + 3000);
  check_gradients<Kernel, 128, bfloat16, float, false>(EqualDocuments{200}, 4, stream + 4000);
}

/// So it does for every head dim of `16 * (N + 1)`.
template <template <int, class, class, Mask, bool> class Kernel, class T, class KeyGrad, int... N>
void check_gradient_head_dims(std::integer_sequence<int, N...>) {
  (check_gradients<Kernel, 16 * (N + 1), T, KeyGrad, false>(Causal{}, 2, 16'000 * (N + 1)), ...);
}

/// Parts of queries and of keys, each a call of its own, add up to the whole.
template <template <int, class, class, Mask, bool> class Kernel, int HeadDim, bool Deterministic, class M>
void check_gradient_parts(M const& mask, std::uint64_t stream) {
  using Chosen = Kernel<HeadDim, bfloat16, float, M, Deterministic>;
  for (int i = 0; i < (starts_from_zero<Chosen> ? 4 : 2); ++i) {
    std::int64_t const parts = i % 2 == 0 ? 2 : 5;
    auto const c =
        some_backward_case<HeadDim, bfloat16>(mask, stream + 10 * static_cast<std::uint64_t>(parts), 600);
    BackwardRun<Chosen, HeadDim, bfloat16, float, M> run(c, mask, i >= 2);
    auto const cut = [&](std::int64_t rows, std::int64_t part) { return part * rows / parts; };
    for (std::int64_t m = 0; m < parts; ++m)
      for (std::int64_t n = 0; n < parts; ++n) {
        std::int64_t const query = cut(c.queries.rows(), m), key = cut(c.keys.rows(), n);
        run.launch(query, cut(c.queries.rows(), m + 1) - query, key, cut(c.keys.rows(), n + 1) - key);
      }
    run.check();
  }
}

/// The deterministic kernel gives the same bits in each of 20 runs, whatever multiprocessors it has and
/// whatever else the GPU does.
template <template <int, class, class, Mask, bool> class Kernel, int HeadDim, class M>
void check_gradient_bits(M const& mask, std::uint64_t stream, bool from_zero = false) {
  auto const c = some_backward_case<HeadDim, bfloat16>(mask, stream, 1000);
  BackwardRun<Kernel<HeadDim, bfloat16, float, M, true>, HeadDim, bfloat16, float, M> run(c, mask, from_zero);
  run.launch();
  run.check();
  auto const dq = run.dq.values(), dk = run.dk.values(), dv = run.dv.values();
  Streams const streams(2);
  DeviceArray<char> const noise(1 << 26);
  std::mt19937_64 random(stream_seed(stream + 7));
  for (int i = 0; i < 20; ++i) {
    run.reset(streams[0]);
    for (std::uint64_t j = random() % 4; j > 0; --j)
      check_cuda(cudaMemsetAsync(noise.data(), i, random() % (1 << 26), streams[1]));
    run.launch(static_cast<int>(random() % 140), streams[0]);
    CHECK(same_bits(run.dq.values(), dq));
    CHECK(same_bits(run.dk.values(), dk));
    CHECK(same_bits(run.dv.values(), dv));
  }
}

/// The kernel is right whatever multiprocessors it leaves to others.
template <template <int, class, class, Mask, bool> class Kernel>
void check_gradient_margin(std::uint64_t stream) {
  auto const c = some_backward_case<128, bfloat16>(Causal{}, stream, 700);
  for (int const margin : {0, 7, 131, 1000}) {
    BackwardRun<Kernel<128, bfloat16, bfloat16, Causal, false>, 128, bfloat16, bfloat16, Causal> run(
        c, Causal{});
    run.launch(margin);
    run.check();
  }
}

/// The kernel says which stride or address it does not take, and which positions.
template <template <int, class, class, Mask, bool> class Kernel>
void check_gradient_refusals() {
  constexpr std::int64_t rows = 100;
  DeviceArray<bfloat16> const data(rows * 1000);
  DeviceArray<float> const sums(rows * 1000);
  using Causal128 = Kernel<128, bfloat16, float, Causal, false>;
  DeviceArray<char> const workspace(Causal128::workspace_bytes(1, 1, rows, rows));
  Causal128 kernel;
  REQUIRE(kernel.prepare().ok());
  auto const made = [&] {
    BackwardCall<bfloat16, float, float> call;
    call.q = call.k = call.v = call.d_o = Tensor<bfloat16 const>{data.data()};
    call.dq = call.dk = call.dv = sums.data();
    call.lse = call.delta = RowStats<float const>(sums.data(), rows, rows);
    call.queries = call.keys = {{{0, rows, 1}, {}}};
    return call;
  };
  auto call = made();
  call.k.strides = {0, 132, 128};
  Status status = kernel.launch(call, {}, workspace.data(), nullptr);
  CHECK(status.code == Code::misaligned);
  CHECK(status.message() == "the token stride of k is 132, which is not a multiple of 8");
  call = made();
  call.q = Tensor<bfloat16 const>{data.data() + 1};
  CHECK(kernel.launch(call, {}, workspace.data(), nullptr).message() ==
        "the address of q is 2, which is not a multiple of 16");
  call = made();
  call.queries.segments[0].begin = std::int64_t{1} << 40;
  CHECK(kernel.launch(call, {}, workspace.data(), nullptr).code == Code::too_large);
}

/// A captured launch gives the same bits when replayed.
template <template <int, class, class, Mask, bool> class Kernel>
void check_gradient_replay(std::uint64_t stream) {
  auto const c = some_backward_case<128, bfloat16>(Causal{}, stream, 700);
  BackwardRun<Kernel<128, bfloat16, bfloat16, Causal, true>, 128, bfloat16, bfloat16, Causal> run(c,
                                                                                                  Causal{});
  run.launch();
  run.check();
  auto const dq = run.dq.values();
  auto const dk = run.dk.values(), dv = run.dv.values();

  Streams const streams(1);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  check_cuda(cudaStreamBeginCapture(streams[0], cudaStreamCaptureModeGlobal));
  run.launch(0, streams[0]);
  check_cuda(cudaStreamEndCapture(streams[0], &graph));
  check_cuda(cudaGraphInstantiate(&replay, graph, 0));
  for (int i = 0; i < 3; ++i) {
    run.reset(streams[0]);
    check_cuda(cudaGraphLaunch(replay, streams[0]));
    CHECK(same_bits(run.dq.values(), dq));
    CHECK(same_bits(run.dk.values(), dk));
    CHECK(same_bits(run.dv.values(), dv));
  }
  check_cuda(cudaGraphExecDestroy(replay));
  check_cuda(cudaGraphDestroy(graph));
}

/// The kernel addresses tensors of more than 2^31 elements.
template <template <int, class, class, Mask, bool> class Kernel>
void check_large_gradient_strides(std::uint64_t stream) {
  constexpr std::int64_t rows = 260, row = 8'589'936, width = 128 * sizeof(bfloat16);
  static_assert((rows - 1) * row > (std::int64_t{1} << 31) && row % 8 == 0);
  BackwardCase<128, bfloat16> c;
  c.queries = c.keys = {{{0, rows, 1}, {}}};
  c.batch = c.heads = c.kv_heads = 1;
  c.q_strides = c.kv_strides = Strides::packed(c.query_shape());
  c.fill(stream);
  c.complete(Causal{}, stream + 5, 0);
  // The inputs lie side by side in rows that are far apart, and so do the gradients.
  DeviceArray<bfloat16> const inputs((rows - 1) * row + 4 * 128);
  DeviceArray<float> const sums((rows - 1) * row + 3 * 128);
  int part = 0;
  for (auto const* const values : {&c.q, &c.k, &c.v, &c.d_o})
    check_cuda(cudaMemcpy2D(inputs.data() + 128 * part++, row * sizeof(bfloat16), values->data(), width,
                            width, rows, cudaMemcpyHostToDevice));
  check_cuda(cudaMemset2D(sums.data(), row * sizeof(float), 0, 3 * 128 * sizeof(float), rows));
  DeviceArray<float> const lse(c.lse), delta(c.delta);
  using Causal128 = Kernel<128, bfloat16, float, Causal, false>;
  DeviceArray<char> const workspace(Causal128::workspace_bytes(1, 1, rows, rows));
  Strides const strides{rows * row, row, 128};
  BackwardCall<bfloat16, float, float> call;
  call.q = {inputs.data(), strides}, call.k = {inputs.data() + 128, strides};
  call.v = {inputs.data() + 2 * 128, strides}, call.d_o = {inputs.data() + 3 * 128, strides};
  call.lse = RowStats<float>::packed(lse.data(), 1, rows);
  call.delta = RowStats<float>::packed(delta.data(), 1, rows);
  call.queries = c.queries, call.keys = c.keys;
  call.dq = {sums.data(), strides}, call.dk = {sums.data() + 128, strides};
  call.dv = {sums.data() + 2 * 128, strides};
  call.batch = call.heads = call.kv_heads = 1, call.scale = c.scale;
  Causal128 kernel;
  REQUIRE(kernel.prepare().ok());
  REQUIRE(kernel.launch(call, {}, workspace.data(), nullptr).ok());
  part = 0;
  for (auto const* const want : {&c.want_dq, &c.want_dk, &c.want_dv}) {
    std::vector<float> got(rows * 128);
    check_cuda(cudaMemcpy2D(got.data(), 128 * sizeof(float), sums.data() + 128 * part++, row * sizeof(float),
                            128 * sizeof(float), rows, cudaMemcpyDeviceToHost));
    CHECK(gradient_error({got.begin(), got.end()}, *want) < gradient_tolerance<bfloat16>);
  }
}

/// Every seventh query sees nothing, and neither does anything see every fifth key; the others are causal.
struct BlindRows {
  LIGHTSEQ_HD static constexpr bool visible(std::int64_t query, std::int64_t key) {
    return key <= query && query % 7 != 3 && key % 5 != 2;
  }
  LIGHTSEQ_HD static constexpr Cover cover(Range queries, Range keys) {
    return keys.begin >= queries.end ? Cover::none : Cover::partial;
  }
};
static_assert(Mask<BlindRows>);

/// What is not finite in one row of an input makes not finite those rows of the gradients that visible pairs
/// carry it to, and no others; and the others are right.
template <template <int, class, class, Mask, bool> class Kernel, int HeadDim, class T, class KeyGrad,
          bool Deterministic, class M>
void check_poisoned_row(M const& mask, int cases, std::uint64_t stream) {
  static constexpr char const* names[] = {"q", "k", "v", "d_o"};
  for (int i = 0; i < cases; ++i) {
    std::mt19937_64 random(stream_seed(stream + 10 * static_cast<std::uint64_t>(i) + 9));
    auto const below = [&](std::int64_t n) {
      return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(n));
    };
    auto c = some_backward_case<HeadDim, T>(mask, stream + 10 * static_cast<std::uint64_t>(i),
                                            i % 3 == 0 ? 400 : 150);
    int const which = i % 4, kind = i / 4 % 4;
    bool const of_queries = which == 0 || which == 3, single = below(2) == 0;
    Shape const shape = of_queries ? c.query_shape() : c.key_shape();
    T* const data = which == 0   ? c.q.data()
                    : which == 1 ? c.k.data()
                    : which == 2 ? c.v.data()
                                 : c.d_o.data();
    Tensor<T> const tensor{data, which == 0 ? c.q_strides : which == 3 ? c.d_o_strides : c.kv_strides};
    std::int64_t const batch = below(shape.batch), head = below(shape.heads), token = below(shape.tokens);
    constexpr float infinity = std::numeric_limits<float>::infinity();
    T bad(kind == 0 ? std::numeric_limits<float>::quiet_NaN() : kind == 2 ? infinity : -infinity);
    if (kind == 1) bad.bits = 0xffff;
    T* const row = tensor.at(batch, token, head);
    if (!single) std::fill_n(row, HeadDim, bad);
    row[below(HeadDim)] = bad;
    c.solve(mask);
    BackwardRun<Kernel<HeadDim, T, KeyGrad, M, Deterministic>, HeadDim, T, KeyGrad, M> run(c, mask);
    run.launch();
    INFO("seed ", run_seed(), ", stream ", stream, ", case ", i, ", ", names[which], " kind ", kind,
         " single ", single, ", batch ", batch, ", head ", head, ", token ", token, " of ", shape.tokens,
         ", head dim ", HeadDim, ", heads ", c.heads, "/", c.kv_heads, ", queries ",
         c.queries.segments[0].rows, "+", c.queries.segments[1].rows, ", keys ", c.keys.segments[0].rows, "+",
         c.keys.segments[1].rows);
    run.check_finite();
  }
}

/// What nobody sees may hold anything: keys and values that no query sees, and queries and gradients of
/// outputs where these see nothing.
template <template <int, class, class, Mask, bool> class Kernel, int HeadDim, class T, class KeyGrad,
          bool Deterministic, class M>
void check_unseen_rows(M const& mask, int cases, std::uint64_t stream) {
  for (int i = 0; i < cases; ++i) {
    auto c = some_backward_case<HeadDim, T>(mask, stream + 10 * static_cast<std::uint64_t>(i),
                                            i % 2 == 0 ? 150 : 600);
    auto const sees = [&](std::int64_t query, std::int64_t key) {
      return mask.visible(c.queries.position(query), c.keys.position(key));
    };
    auto const poison = [&](std::vector<T>& values, Strides const& strides, Shape const& shape,
                            std::int64_t token) {
      for (std::int64_t b = 0; b < shape.batch; ++b)
        for (std::int64_t h = 0; h < shape.heads; ++h)
          std::fill_n(Tensor<T>{values.data(), strides}.at(b, token, h), HeadDim, poisoned_vector<T>(1)[0]);
    };
    for (std::int64_t key = 0; key < c.keys.rows(); ++key) {
      bool seen = false;
      for (std::int64_t query = 0; query < c.queries.rows(); ++query) seen |= sees(query, key);
      if (seen) continue;
      poison(c.k, c.kv_strides, c.key_shape(), key);
      poison(c.v, c.kv_strides, c.key_shape(), key);
    }
    for (std::int64_t query = 0; query < c.queries.rows(); ++query) {
      bool seen = false;
      for (std::int64_t key = 0; key < c.keys.rows(); ++key) seen |= sees(query, key);
      if (seen) continue;
      poison(c.q, c.q_strides, c.query_shape(), query);
      poison(c.d_o, c.d_o_strides, c.query_shape(), query);
    }
    c.solve(mask);
    BackwardRun<Kernel<HeadDim, T, KeyGrad, M, Deterministic>, HeadDim, T, KeyGrad, M> run(c, mask);
    run.launch();
    run.check();
  }
}

/// Where rules make the scores, too, and for other types and masks.
template <template <int, class, class, Mask, bool> class Kernel>
void check_gradients_of_more_rules(std::uint64_t stream) {
  check_gradients<Kernel, 128, bfloat16, float, true>(Scored{Full{}, SoftCap{2}}, 6, stream);
  check_gradients<Kernel, 128, float16, float16, false>(Scored{SlidingWindow{70, 5}, Squashed{}}, 6,
                                                        stream + 1000);
  check_poisoned_row<Kernel, 128, bfloat16, bfloat16, false>(Scored{BlindRows{}, SoftCap{1}}, 32,
                                                             stream + 2000);
  check_unseen_rows<Kernel, 128, bfloat16, bfloat16, false>(Scored{BlindRows{}, SoftCap{1}}, 4,
                                                            stream + 3000);
}

/// Both, under masks that hide some of every tile, few tiles, and rows from all.
template <template <int, class, class, Mask, bool> class Kernel, int HeadDim, class T, class KeyGrad,
          bool Deterministic>
void check_gradients_beside_nan(std::uint64_t stream) {
  check_poisoned_row<Kernel, HeadDim, T, KeyGrad, Deterministic>(Causal{}, 32, stream);
  check_poisoned_row<Kernel, HeadDim, T, KeyGrad, Deterministic>(EqualDocuments{90}, 32, stream + 1000);
  check_poisoned_row<Kernel, HeadDim, T, KeyGrad, Deterministic>(BlindRows{}, 32, stream + 2000);
  check_unseen_rows<Kernel, HeadDim, T, KeyGrad, Deterministic>(EqualDocuments{90}, 4, stream + 3000);
  check_unseen_rows<Kernel, HeadDim, T, KeyGrad, Deterministic>(BlindRows{}, 4, stream + 4000);
}

/// The weights, and so the gradients of values, are right for logits up to 5000; larger ones are no longer
/// known to 1e-3, and all is finite. (The other gradients are differences that the scale makes large.)
template <template <int, class, class, Mask, bool> class Kernel, int HeadDim, class T>
void check_gradients_of_large_logits(std::uint64_t stream) {
  for (float const largest : {1e3f, 5e3f, 1e4f, 1e6f, 1e9f}) {
    auto c = some_backward_case<HeadDim, T>(Causal{}, stream++, 300);
    // The logits of normal numbers are at most some 4 times their deviation.
    c.scale *= largest / 4;
    c.solve(Causal{});
    BackwardRun<Kernel<HeadDim, T, T, Causal, false>, HeadDim, T, T, Causal> run(c, Causal{});
    run.launch();
    INFO("logits of ", largest);
    if (largest <= 5e3f) run.check_values(2);
    run.check_all_finite();
  }
}

/// No scale is too small or too large where the logits are not.
template <template <int, class, class, Mask, bool> class Kernel, int HeadDim>
void check_gradients_of_scales(std::uint64_t stream) {
  for (float const scale : {1e-42f, 1e-36f, 1e-25f, 1e-12f, 1e12f, 1e25f, 1e36f}) {
    auto c = some_backward_case<HeadDim, bfloat16>(Causal{}, stream++, 300);
    c.scale = scale;
    float const spread = std::min(1e35f, 1 / scale / std::sqrt(static_cast<float>(HeadDim)));
    for (bfloat16& x : c.q) x = bfloat16(static_cast<float>(x) * spread);
    c.solve(Causal{});
    BackwardRun<Kernel<HeadDim, bfloat16, bfloat16, Causal, false>, HeadDim, bfloat16, bfloat16, Causal> run(
        c, Causal{});
    run.launch();
    INFO("scale ", scale);
    run.check();
  }
}

}  // namespace lightseq::test
