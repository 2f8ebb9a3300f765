// SPDX-License-Identifier: Apache-2.0
#pragma once
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <span>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "formulas.hpp"
#include "kernels.cuh"
#include "lightseq/core/element.hpp"
#include "lightseq/core/range.hpp"
#include "lightseq/testing/cuda.cuh"
#include "parameters.hpp"

/// The layers of layers.hpp for one rank of a GPU.
namespace train_lm::gpu {

using lightseq::testing::check_cuda;
using lightseq::testing::DeviceArray;

/// Throws cuBLAS's words for a call that failed.
inline void check_cublas(cublasStatus_t status) {
  if (status != CUBLAS_STATUS_SUCCESS)
    throw std::runtime_error(std::string("cuBLAS: ") + cublasGetStatusString(status));
}

/// Products of matrices in bfloat16, summed up in float, on one stream. Each stream has a handle with a
/// workspace of its own: then no product depends on what other streams do.
class Products {
 public:
  explicit Products(cudaStream_t stream) : workspace_(std::int64_t{32} << 20) {
    check_cublas(cublasCreate(&handle_));
    check_cublas(cublasSetStream(handle_, stream));
    check_cublas(cublasSetWorkspace(handle_, workspace_.data(), workspace_.span().size()));
  }
  Products(Products const&) = delete;
  ~Products() { cublasDestroy(handle_); }

  /// c [m, n] = a b, where a is [m, k] and b is [k, n], each stored so or as its transpose.
  template <class T>
  void multiply(cublasOperation_t a_stored, cublasOperation_t b_stored, Index m, Index n, Index k,
                bfloat16 const* a, bfloat16 const* b, Put put, T* c) const {
    if (m == 0 || n == 0 || k == 0) return;  // a rank without tokens has nothing to add
    auto const size = [](Index i) { return static_cast<int>(i); };
    constexpr auto type = std::is_same_v<T, float> ? CUDA_R_32F : CUDA_R_16BF;
    float const one = 1, beta = put == Put::onto ? 1.0f : 0.0f;
    // cuBLAS reads column by column, and so sees every matrix as its transpose: c^T = b^T a^T.
    check_cublas(cublasGemmEx(handle_, b_stored, a_stored, size(n), size(m), size(k), &one, b, CUDA_R_16BF,
                              size(b_stored == CUBLAS_OP_T ? k : n), a, CUDA_R_16BF,
                              size(a_stored == CUBLAS_OP_T ? m : k), &beta, c, type, size(n),
                              CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
  }

 private:
  DeviceArray<std::byte> workspace_;
  cublasHandle_t handle_ = nullptr;
};

/// A rank's parameters in device memory.
struct DeviceParameters {
  DeviceArray<float> values;      ///< the masters, which the optimiser moves
  DeviceArray<bfloat16> rounded;  ///< their copies for the matrix products
  DeviceArray<float> gradients;   ///< and after them the loss: one sum over the ranks serves both

  explicit DeviceParameters(std::vector<float> const& first)
      : values(first), rounded(std::ssize(first)), gradients(std::ssize(first) + 1) {
    launch(round, blocks_for(size()), nullptr, values.data(), rounded.data(), size());
  }
  Index size() const { return std::ssize(values.span()); }
  float* loss() const { return gradients.data() + size(); }
};

/// One rank's layers. Every call enqueues on the rank's stream. As on the CPU activations are [rows, width],
/// and gradients of weights add up.
class Layers {
 public:
  /// For rows at these positions of the text.
  Layers(Parameters const& first, std::span<Index const> positions, Index head_dim, cudaStream_t stream)
      : stream_(stream),
        rows_(std::ssize(positions)),
        half_(head_dim / 2),
        products_(stream),
        parameters_(first.values),
        turns_(turns(positions, head_dim)),
        scales_(rows_) {}

  cudaStream_t stream() const { return stream_; }
  Index rows() const { return rows_; }
  DeviceParameters const& parameters() const { return parameters_; }
  float* values(Weight const& w) const { return parameters_.values.data() + w.first(); }
  float* gradients(Weight const& w) const { return parameters_.gradients.data() + w.first(); }

  /// y = x w^T.
  template <class T>
  void linear(Weight const& w, bfloat16 const* x, Put put, T* y) const {
    products_.multiply(CUBLAS_OP_N, CUBLAS_OP_T, rows_, w.rows(), w.cols(), x, rounded(w), put, y);
  }
  template <class T>
  void linear_backward(Weight const& w, bfloat16 const* x, bfloat16 const* dy, Put put, T* dx) const {
    products_.multiply(CUBLAS_OP_T, CUBLAS_OP_N, w.rows(), w.cols(), rows_, dy, x, Put::onto, gradients(w));
    products_.multiply(CUBLAS_OP_N, CUBLAS_OP_N, rows_, w.cols(), w.rows(), dy, rounded(w), put, dx);
  }

  /// y = gain * x / rms(x).
  void norm(Weight const& gain, float const* x, bfloat16* y) const {
    launch(gpu::norm, rows_, stream_, x, values(gain), gain.cols(), y);
  }
  /// Adds to dx.
  void norm_backward(Weight const& gain, float const* x, float const* dy, float* dx) const {
    Index const dim = gain.cols();
    launch(gpu::norm_backward, rows_, stream_, x, dy, values(gain), dim, scales_.data(), dx);
    launch(gain_backward, (dim + 31) / 32, stream_, x, dy, scales_.data(), rows_, dim, gradients(gain));
  }

  /// x [rows, heads, head_dim], in place.
  void rope(Index heads, bfloat16* x) const { turn(heads, 1, x); }
  void rope_backward(Index heads, bfloat16* dx) const { turn(heads, -1, dx); }

  /// y = silu(gate) * up, of `width` columns each.
  void swiglu(bfloat16 const* gate, bfloat16 const* up, Index width, bfloat16* y) const {
    launch(gpu::swiglu, blocks_for(rows_ * width), stream_, gate, up, y, rows_ * width);
  }
  /// Puts the gradients where gate and up were.
  void swiglu_backward(bfloat16* gate, bfloat16* up, bfloat16 const* dy, Index width) const {
    launch(gpu::swiglu_backward, blocks_for(rows_ * width), stream_, gate, up, dy, rows_ * width);
  }

  void copy(float const* from, Index width, float* to) const {
    auto const size = static_cast<std::size_t>(rows_ * width) * sizeof(float);
    check_cuda(cudaMemcpyAsync(to, from, size, cudaMemcpyDeviceToDevice, stream_));
  }
  void round(float const* from, Index width, bfloat16* to) const {
    launch(gpu::round, blocks_for(rows_ * width), stream_, from, to, rows_ * width);
  }

 private:
  bfloat16 const* rounded(Weight const& w) const { return parameters_.rounded.data() + w.first(); }

  void turn(Index heads, float direction, bfloat16* x) const {
    Index const pairs = rows_ * heads * half_;
    launch(gpu::turn, blocks_for(pairs), stream_, turns_.data(), heads, half_, direction, x, pairs);
  }

  cudaStream_t stream_;
  Index rows_, half_;
  Products products_;
  DeviceParameters parameters_;
  DeviceArray<Turn> turns_;    // [rows, head_dim / 2]
  DeviceArray<float> scales_;  // [rows], of one norm's backward
};

}  // namespace train_lm::gpu
