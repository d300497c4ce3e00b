// The block of 3D UX-Net (Lee et al., arXiv 2209.15076, section 3.2: depth-wise convolution scaling) in one pass each way:
// layer norm, each channel spread to R of its own, GELU, those added up again, a factor for each channel, the residual.
// Plans (runtime/plan) put these ops in place of those that they stand for; networks never call them.
#pragma once

#include "runtime/ops/conv.h"
#include "runtime/ops/norm.h"

namespace voxlab {

// What follows x in the inputs of these ops, in this order; all but `expand` and `reduce` may be left out. Weights are those of
// grouped 1x1x1 convolutions: expand (1..., 1, C R), reduce (1..., R, C).
enum class ScalingInput : size_t { norm_weight, norm_bias, expand, expand_bias, reduce, reduce_bias, gamma };
constexpr size_t scaling_inputs = 7;

// x (..., C), the seven above, residual (optional, like x) ->
// y = residual + gamma (reduce_bias + sum_r reduce_r gelu(expand_r layer_norm(x) + expand_bias_r)), mean (...), rstd (...).
struct NormScaling {
  static constexpr std::string_view name = "norm_scaling";
  static constexpr Precision precision = Precision::full;
  struct Attrs : EpsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// dy, x, the seven above, mean, rstd -> dx and the gradients of the seven, also of those left out. All between is computed again.
struct NormScalingGrad {
  static constexpr std::string_view name = "norm_scaling_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : EpsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// x (N, ..., C), w, b (optional): see Conv; then the seven above -> x + the rest of NormScaling on conv(x, w, b), for
// inference: nothing of what lies between is kept.
struct ConvNormScaling {
  static constexpr std::string_view name = "conv_norm_scaling";
  static constexpr Precision precision = Precision::full;
  struct Attrs : ConvOptions, EpsAttrs {
    template <class Self, class V>
    static void visit(Self& s, V&& v) { ConvOptions::visit(s, v); EpsAttrs::visit(s, v); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

}  // namespace voxlab
