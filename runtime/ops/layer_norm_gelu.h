// A layer norm and the GELU behind it (the mix feed-forward of Xie et al., SegFormer, arXiv 2105.15203, as DAE-Former has it),
// forward and backward in one pass each. Plans (runtime/plan) put them in place of the ops they stand for; networks never call
// them.
#pragma once

#include "runtime/ops/conv.h"
#include "runtime/ops/norm.h"

namespace voxlab {

// x (..., C), weight (C) and bias (C) optional -> gelu(layer_norm(x)), mean (...), rstd (...).
struct LayerNormGelu {
  static constexpr std::string_view name = "layer_norm_gelu";
  static constexpr Precision precision = Precision::full;
  struct Attrs : EpsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// dy, x, weight (optional), bias (optional), mean, rstd -> dx, dweight (C), dbias (C). The norm's output is computed again.
struct LayerNormGeluGrad {
  static constexpr std::string_view name = "layer_norm_gelu_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : EpsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// x (N, ..., C), w, b (optional): see Conv; then weight (C) and bias (C) of the norm, optional ->
// gelu(layer_norm(conv(x, w, b))), for inference: nothing of what lies between is kept.
struct ConvNormGelu {
  static constexpr std::string_view name = "conv_norm_gelu";
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
