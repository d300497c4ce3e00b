// A norm with batch or group statistics and what follows it, in training: unlike FusedGroupNorm (ops/fused.h) it hands its
// statistics on, and its gradient takes the activation's in. Plans put both in place of the ops they stand for.
#pragma once

#include "runtime/ops/fused.h"

namespace voxlab {

struct NormActivationAttrs : GroupNormAttrs, Finish {
  bool over_batch = false;  // as BatchNorm: one mean and variance a channel for all samples; `groups` is not read
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    GroupNormAttrs::visit(s, v);
    Finish::visit(s, v);
    v("over_batch", s.over_batch);
  }
};

// x (N, ..., C), weight (C), bias (C), residual of x's shape, moments (N, C, 2) of x where they are known, all but x
// optional -> finish(norm(x) + residual), mean, spread: as GroupNorm (rstd), or BatchNorm (variance).
struct NormActivation {
  static constexpr std::string_view name = "norm_activation";
  static constexpr Precision precision = Precision::full;
  struct Attrs : NormActivationAttrs {};
  static NormGeometry geometry(const NormActivationAttrs&, const Shape& x);
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// dy, x, weight (optional), bias (optional), mean, spread -> dx, dweight (C), dbias (C), for a norm without a residual and
// an activation whose slope is known from the sign of its input: none, ReLU or leaky ReLU.
struct NormActivationGrad {
  static constexpr std::string_view name = "norm_activation_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : NormActivationAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
  // The slope below zero: 1 without an activation.
  static double slope(const NormActivationAttrs& a) {
    return a.activation == Activation::none ? 1 : a.activation == Activation::relu ? 0 : a.slope;
  }
};

// The sum of two such norms with the same attributes: x, weight, bias of the first and of the second, moments of both x; weights,
// biases and moments optional -> finish(norm(x1) + norm(x2)), mean, spread of the first and of the second.
struct NormSum {
  static constexpr std::string_view name = "norm_sum";
  static constexpr Precision precision = Precision::full;
  struct Attrs : NormActivationAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// dy; x, weight, bias, mean, spread of the first norm and of the second -> dx, dweight, dbias of the first and of the second.
// Activations as of NormActivationGrad, but not none.
struct NormSumGrad {
  static constexpr std::string_view name = "norm_sum_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : NormActivationAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

}  // namespace voxlab
