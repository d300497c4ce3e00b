// Matrix products: batched matmul on strided operands, and the linear layer.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// (..., M, K) x (..., K, N) -> (..., M, N); leading axes broadcast. Operands may have any strides, so a
// transpose is a view.
struct Matmul {
  static constexpr std::string_view name = "matmul";
  static constexpr Precision precision = Precision::reduced;
  static constexpr bool strided = true;
  struct Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// x (..., K) w (K, N) + b (N, optional) -> (..., N).
struct Linear {
  static constexpr std::string_view name = "linear";
  static constexpr Precision precision = Precision::reduced;
  struct Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

Tensor matmul(const Tensor& a, const Tensor& b);
Tensor linear(const Tensor& x, const Tensor& w, const Tensor& b = {});

}  // namespace voxlab
