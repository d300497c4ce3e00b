// Group, layer and batch normalisation and their gradients. Instance normalisation is a group
// normalisation with as many groups as channels.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// All norms are one computation on x seen as (batch, positions, groups, channels): the statistics of
// one (batch, group) are over positions and channels; weight and bias have groups * channels entries.
struct NormGeometry {
  int64_t batch = 1, positions = 1, groups = 1, channels = 1;
  int64_t count() const { return positions * channels; }  // values behind one mean
  int64_t width() const { return groups * channels; }
};

struct GroupNormAttrs {
  int64_t groups = 1;
  double eps = 1e-5;
  template <class Self, class V>
  static void visit(Self& s, V&& v) { v("groups", s.groups); v("eps", s.eps); }
};

struct EpsAttrs {
  double eps = 1e-5;
  template <class Self, class V>
  static void visit(Self& s, V&& v) { v("eps", s.eps); }
};

// x (N, ..., C), weight (C) and bias (C) optional -> y, mean (N, G), rstd (N, G) = 1 / sqrt(var + eps)
// with the biased variance (Wu & He 2018, eq. 1 and 2).
struct GroupNorm {
  static constexpr std::string_view name = "group_norm";
  static constexpr Precision precision = Precision::full;
  struct Attrs : GroupNormAttrs {};
  static NormGeometry geometry(const GroupNormAttrs&, const Shape& x);
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 0b011, .outputs = 0b110}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// dy, x, weight (optional), mean, rstd -> dx, dweight (C), dbias (C).
struct GroupNormGrad {
  static constexpr std::string_view name = "group_norm_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : GroupNormAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 0b11111}; }
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// Over the last axis: x (..., C), weight (C) and bias (C) optional -> y, mean (...), rstd (...).
struct LayerNorm {
  static constexpr std::string_view name = "layer_norm";
  static constexpr Precision precision = Precision::full;
  struct Attrs : EpsAttrs {};
  static NormGeometry geometry(const EpsAttrs&, const Shape& x);
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 0b011, .outputs = 0b110}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// dy, x, weight (optional), mean, rstd -> dx, dweight (C), dbias (C).
struct LayerNormGrad {
  static constexpr std::string_view name = "layer_norm_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : EpsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 0b11111}; }
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// Training mode: x (N, ..., C), weight (C) and bias (C) optional -> y, mean (C), var (C), the biased
// variance of this batch. Running statistics are the module's business.
struct BatchNorm {
  static constexpr std::string_view name = "batch_norm";
  static constexpr Precision precision = Precision::full;
  struct Attrs : EpsAttrs {};
  static NormGeometry geometry(const EpsAttrs&, const Shape& x);
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 0b011, .outputs = 0b110}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// dy, x, weight (optional), mean, var -> dx, dweight (C), dbias (C).
struct BatchNormGrad {
  static constexpr std::string_view name = "batch_norm_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : EpsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 0b11111}; }
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// Evaluation mode: x (N, ..., C), weight (optional), bias (optional), mean, var, all (C) -> y.
struct BatchNormInference {
  static constexpr std::string_view name = "batch_norm_inference";
  static constexpr Precision precision = Precision::full;
  struct Attrs : EpsAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 0b11011}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// x as (batch, positions, groups, channels), and statistics of it as (batch, 1, groups, 1).
Tensor seen(const Tensor& x, const NormGeometry& g);
Tensor statistic(const Tensor& s, const NormGeometry& g);

// y alone; weight and bias may be undefined.
Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& weight = {}, const Tensor& bias = {},
                  double eps = 1e-5);
Tensor layer_norm(const Tensor& x, const Tensor& weight = {}, const Tensor& bias = {}, double eps = 1e-5);
Tensor batch_norm_inference(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean,
                            const Tensor& var, double eps = 1e-5);

}  // namespace voxlab
