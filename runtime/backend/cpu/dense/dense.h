// Dense compute core of the CPU backend: convolution with both gradients and matrix products on raw
// pointers. Knows nothing of tensors or ops; the caller checks shapes and owns all memory.
//
// Layouts: activations (N, D, H, W, C), weights (KD, KH, KW, IC / groups, OC); two-dimensional data
// has D = KD = 1. Inputs are f32 or bf16, sums are always f32, outputs are f32 or bf16.
// Same inputs, thread count and instruction set give the same bits.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string_view>

#include "runtime/core/dtype.h"

namespace voxlab::cpu {

// How products of f32 tensors are formed: `strict` multiplies in f32; `bf16x3` splits each factor into two
// bf16 parts and sums three products on AMX (relative error about 5e-6), strict where AMX is
// absent; `bf16` rounds each factor to bf16, but for depthwise kernels and, without tiles, sums over a few channels, which
// stay f32. Of
// bf16 tensors they are always products of bf16. Minimal filtering on bf16 rounds its points in the factors' place.
enum class Precision : uint8_t { strict, bf16x3, bf16 };

enum class Activation : uint8_t { none, relu, leaky_relu, gelu, hardswish };

// Applied to every output element after the sum: activation(value + bias[column] + residual).
struct Epilogue {
  const float* bias = nullptr;      // one value an output channel
  const float* residual = nullptr;  // laid out like the output; not with a strided matrix C
  const uint16_t* residual_bf16 = nullptr;  // in its place, of convolutions
  Activation activation = Activation::none;
  float slope = 0.01F;  // of leaky_relu below zero
};

// Constant weights in the form that a kernel reads, made once for many calls: see keep_conv_weights.
struct KeptWeights;

struct ConstBuffer {
  const void* data = nullptr;
  DType dtype = DType::f32;
  // Of the same values, or null; of weights alone, whose data may then be null: a call that meets a value which is not finite
  // takes the weights as they are kept, rounded to what the precision holds.
  const KeptWeights* kept = nullptr;
};

struct Buffer {
  void* data = nullptr;
  DType dtype = DType::f32;
  // Nobody reads it soon: f32 matrix products and weight gradients on tiles write whole lines past the caches, which saves
  // reading them first.
  bool far = false;
};

// The last channels of a convolution's input, where they lie in a second tensor, compact.
struct SecondInput {
  ConstBuffer buffer;
  int64_t channels = 0;
};

// The input is read as activation((x - mean) * scale + shift), values by sample and channel. Its border stays zero. Minimal
// filtering takes none, relu and leaky_relu.
struct InputNorm {
  const float* mean;
  const float* scale;
  const float* shift;
  Activation activation = Activation::none;
  float slope = 0.01F;
};

struct ConvExtras {
  SecondInput second;
  const InputNorm* norm = nullptr;  // or null; not with a second input
  float* moments = nullptr;         // or null: mean and variance of y by sample and channel, before y is rounded
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

// Whether conv_forward (or with `transposed` conv_dgrad) of f32 tensors would read and write bf16 in their places without
// a pass of its own. Products are then of bf16.
bool takes_bf16(const ConvGeometry& geometry, bool transposed, Precision precision);

// The same of conv_wgrad's x and dy.
bool wgrad_takes_bf16(const ConvGeometry& geometry, Precision precision);

// The implementation's name where a convolution of x and, if extras.second has channels, of that does the extras on its way,
// else empty: by direct products of bf16, and by minimal filtering of f32 tensors. What is at hand of `extras`: types,
// channels and the activation of the norm.
std::string_view takes_extras(const ConvGeometry& geometry, DType x, const ConvExtras& extras, DType y, Precision precision);
// conv_forward with them. It returns false, y in an unspecified state, when a value is not finite and the products are direct
// ones of bf16.
bool conv_forward_with(const ConvExtras& extras, const ConvGeometry& geometry, ConstBuffer x, ConstBuffer w, Buffer y,
                       const Epilogue& epilogue, Precision precision);

// dx of conv_forward: also the transposed convolution, whose input is dy and output dx.
std::string_view conv_dgrad(const ConvGeometry& geometry, ConstBuffer dy, ConstBuffer w, Buffer dx,
                            const Epilogue& epilogue = {}, Precision precision = Precision::strict);

// dw of conv_forward; with a second input x holds the first channels alone.
std::string_view conv_wgrad(const ConvGeometry& geometry, ConstBuffer x, ConstBuffer dy, Buffer dw,
                            Precision precision = Precision::strict, const SecondInput& second = {});
// Whether it reads a second input where it lies; other kernels join the two.
bool wgrad_takes_two(const ConvGeometry& geometry, int64_t second_channels, Precision precision);

// What may stand beside the f32 weights w in calls of conv_forward (or with `transposed` conv_dgrad) of this geometry and
// precision. Null where their kernel has no such form, and where a weight is not finite.
std::shared_ptr<const KeptWeights> keep_conv_weights(const ConvGeometry& geometry, const float* w, bool transposed,
                                                     Precision precision);

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

// The same of B, as for keep_conv_weights. With it tiles pay for smaller products, so matmul may choose another kernel.
std::shared_ptr<const KeptWeights> keep_matrix(const MatmulShape& shape, const float* b, Precision precision);
bool takes_bf16(const MatmulShape& shape, const KeptWeights* kept, Precision precision);  // A and C, as for convolutions

}  // namespace voxlab::cpu
