// Dense compute core of the CPU backend: convolution with both gradients and matrix products on raw
// pointers. Knows nothing of tensors or ops; the caller checks shapes and owns all memory.
//
// Layouts: activations (N, D, H, W, C), weights (KD, KH, KW, IC / groups, OC); two-dimensional data
// has D = KD = 1. Inputs are f32 or bf16, sums are always f32, outputs are f32 or bf16.
// Same inputs, thread count and instruction set give the same bits.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "runtime/core/dtype.h"

namespace voxlab::cpu {

// How products of f32 tensors are formed: `strict` multiplies in f32; `bf16x3` splits each factor into two
// bf16 parts and sums three products on AMX (relative error about 5e-6), strict where AMX is
// absent; `bf16` rounds each factor to bf16, but for depthwise kernels and sums over a few channels, which stay f32. Of
// bf16 tensors they are always products of bf16. Minimal filtering on bf16 rounds its points in the factors' place.
enum class Precision : uint8_t { strict, bf16x3, bf16 };

enum class Activation : uint8_t { none, relu, leaky_relu, gelu, hardswish };

// Applied to every output element after the sum: activation(value + bias[column] + residual).
struct Epilogue {
  const float* bias = nullptr;      // one value an output channel
  const float* residual = nullptr;  // laid out like an f32 output; not with a strided matrix C
  Activation activation = Activation::none;
  float slope = 0.01F;  // of leaky_relu below zero
};

struct ConstBuffer {
  const void* data = nullptr;
  DType dtype = DType::f32;
};

struct Buffer {
  void* data = nullptr;
  DType dtype = DType::f32;
};

// The last channels of a convolution's input, where they lie in a second f32 tensor, compact.
struct SecondInput {
  const float* data = nullptr;
  int64_t channels = 0;
};

// Forward convolution geometry; the gradients take the geometry of the forward they belong to.
struct ConvGeometry {
  int64_t batch = 1;
  std::array<int64_t, 3> in = {1, 1, 1};  // D, H, W
  int64_t in_channels = 1;
  int64_t out_channels = 1;
  std::array<int64_t, 3> kernel = {1, 1, 1};
  std::array<int64_t, 3> stride = {1, 1, 1};
  std::array<int64_t, 3> pad = {0, 0, 0};  // on both sides
  std::array<int64_t, 3> dilation = {1, 1, 1};
  int64_t groups = 1;

  std::array<int64_t, 3> out() const;
};

// All return the name of the implementation that ran, e.g. "cpu.conv.avx512.fma", for profiles;
// called with null data they only name the one that would run.

// y = epilogue(x * w)
std::string_view conv_forward(const ConvGeometry& geometry, ConstBuffer x, ConstBuffer w, Buffer y,
                              const Epilogue& epilogue = {},
                              Precision precision = Precision::strict);

// The same of an f32 input in two parts. Where reads_two_inputs says no, they are joined in `joined`, of the whole
// input's size (also where a value is not finite, then in memory of its own).
bool reads_two_inputs(const ConvGeometry& geometry, Precision precision);
std::string_view conv_forward_of_two(const ConvGeometry& geometry, const float* first, const SecondInput& second,
                                     ConstBuffer w, Buffer y, const Epilogue& epilogue, Precision precision,
                                     float* joined);

// dx of conv_forward: also the transposed convolution, whose input is dy and output dx.
std::string_view conv_dgrad(const ConvGeometry& geometry, ConstBuffer dy, ConstBuffer w, Buffer dx,
                            const Epilogue& epilogue = {}, Precision precision = Precision::strict);

// dw of conv_forward
std::string_view conv_wgrad(const ConvGeometry& geometry, ConstBuffer x, ConstBuffer dy, Buffer dw,
                            Precision precision = Precision::strict);

// Distances in elements between neighbours along each axis of a matrix.
struct MatrixStrides {
  int64_t row = 0;
  int64_t col = 1;
};

// One batch axis; a stride of 0 repeats the matrix.
struct BatchAxis {
  int64_t size = 1;
  int64_t a = 0;
  int64_t b = 0;
  int64_t c = 0;
};

// C (m x n) = epilogue(A (m x k) B (k x n)) for every batch index; a transpose is a choice of
// strides.
struct MatmulShape {
  int64_t m = 0;
  int64_t n = 0;
  int64_t k = 0;
  MatrixStrides a;
  MatrixStrides b;
  MatrixStrides c;
  std::array<BatchAxis, 3> batch = {};
};

std::string_view matmul(const MatmulShape& shape, ConstBuffer a, ConstBuffer b, Buffer c,
                        const Epilogue& epilogue = {}, Precision precision = Precision::strict);

}  // namespace voxlab::cpu
