// Products and norms with what usually follows them in one pass: a residual is added, then an activation
// applied. Plans (runtime/plan) put them in place of the ops they stand for; networks never call them.
#pragma once

#include <optional>

#include "runtime/ops/conv.h"
#include "runtime/ops/norm.h"
#include "runtime/ops/unary.h"

namespace voxlab {

enum class Activation : uint8_t { none, relu, leaky_relu, gelu, hardswish };
constexpr auto enum_names(Activation) {
  return std::array{std::pair{std::string_view("none"), Activation::none},
                    std::pair{std::string_view("relu"), Activation::relu},
                    std::pair{std::string_view("leaky_relu"), Activation::leaky_relu},
                    std::pair{std::string_view("gelu"), Activation::gelu},
                    std::pair{std::string_view("hardswish"), Activation::hardswish}};
}

// y = activation(value + residual); `slope` is that of leaky_relu below zero.
struct Finish {
  Activation activation = Activation::none;
  double slope = 0.01;
  template <class Self, class V>
  static void visit(Self& s, V&& v) { v("activation", s.activation); v("slope", s.slope); }
};

// The Finish that is this function, if one is.
std::optional<Finish> finish_of(const UnaryAttrs& a);
// What a Finish does to a value, from simpler ops; `residual` may be undefined.
Tensor finished(const Finish& f, const Tensor& value, const Tensor& residual);

// Of a group norm whose moments are known: y = finish((x - mean) rstd weight + bias).
struct KnownNorm {
  GroupNormAttrs norm;
  Finish finish;
};
// From simpler ops. moments (N, C, 2): mean and variance of each channel of x.
Tensor known_norm(const KnownNorm& a, const Tensor& x, const Tensor& moments, const Tensor& weight, const Tensor& bias);

// x, w, b (optional), residual of the output's shape (optional), the input's last channels (optional): see Conv. With
// the last, the input is x and that joined along the channels. With `norm_input` x is normalised first: its moments
// (N, C, 2), weight and bias (optional) follow; it then has one part. With `moments` those of the output are returned too.
struct FusedConv {
  static constexpr std::string_view name = "fused_conv";
  static constexpr Precision precision = Precision::reduced;
  struct Attrs : ConvOptions, Finish {
    bool moments = false;
    bool norm_input = false;
    KnownNorm input = {};
    template <class Self, class V>
    static void visit(Self& s, V&& v) {
      ConvOptions::visit(s, v);
      Finish::visit(s, v);
      v("moments", s.moments);
      v("norm_input", s.norm_input);
      if (!s.norm_input) return;
      v("input_groups", s.input.norm.groups);
      v("input_eps", s.input.norm.eps);
      v("input_activation", s.input.finish.activation);
      v("input_slope", s.input.finish.slope);
    }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// x, w, residual of the output's shape: see ConvTranspose -> y + residual.
struct FusedConvTranspose {
  static constexpr std::string_view name = "fused_conv_transpose";
  static constexpr Precision precision = Precision::reduced;
  struct Attrs : ConvTranspose::Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// x, w, b (optional), residual of the output's shape (optional): see Linear.
struct FusedLinear {
  static constexpr std::string_view name = "fused_linear";
  static constexpr Precision precision = Precision::reduced;
  struct Attrs : Finish {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// x, weight, bias, residual (all but x optional): see GroupNorm; the statistics are not returned. With
// `norm_residual` the residual passes a norm of its own with the same groups: its weight and bias follow. Last may come
// the moments (N, C, 2) of x and of the residual, mean and variance by channel, where they are known.
struct FusedGroupNorm {
  static constexpr std::string_view name = "fused_group_norm";
  static constexpr Precision precision = Precision::full;
  struct Attrs : GroupNormAttrs, Finish {
    bool norm_residual = false;
    template <class Self, class V>
    static void visit(Self& s, V&& v) {
      GroupNormAttrs::visit(s, v);
      Finish::visit(s, v);
      v("norm_residual", s.norm_residual);
    }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

// q (..., M, D), k (..., D, P), v (..., P, E), bias (optional, broadcast to (..., M, P)): softmax(q k + bias) v, whose
// scores are never held whole. Leading axes broadcast; any strides, as in Matmul.
struct FusedAttention {
  static constexpr std::string_view name = "fused_attention";
  static constexpr Precision precision = Precision::reduced;
  static constexpr bool strided = true;
  struct Attrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

}  // namespace voxlab
