// Convolution in two or three dimensions with its data and weight gradients as ops of their own, and
// transposed convolution. The four are closed under differentiation.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// One entry per spatial axis, or a single one for all of them.
struct ConvOptions {
  std::vector<int64_t> stride{1};
  std::vector<int64_t> padding{0};
  std::vector<int64_t> dilation{1};
  int64_t groups = 1;
  template <class Self, class V>
  static void visit(Self& s, V&& v) {
    v("stride", s.stride); v("padding", s.padding); v("dilation", s.dilation); v("groups", s.groups);
  }
};

// Sizes of one convolution brought to three spatial axes (a 2-d one has depth 1): what kernels read.
struct ConvGeometry {
  int64_t batch = 1, groups = 1;
  int64_t in_channels = 0, out_channels = 0;
  std::array<int64_t, 3> in{}, out{}, kernel{}, stride{}, padding{}, dilation{};
  int64_t macs() const;  // every tap of every output position, padding included
};

// x (N, ..., C), w (k..., C / groups, O), b (O) optional -> (N, ..., O),
// out = (in + 2 padding - dilation (k - 1) - 1) / stride + 1, cross-correlation as everywhere.
struct Conv {
  static constexpr std::string_view name = "conv";
  static constexpr Precision precision = Precision::reduced;
  struct Attrs : ConvOptions {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
  static ConvGeometry geometry(const Attrs&, const Shape& x, const Shape& w, const Shape& y);
};

// Gradient with respect to the input: dy (N, ..., O), w (k..., C / groups, O) -> dx (N, ..., C) of spatial
// size `input`.
struct ConvDgrad {
  static constexpr std::string_view name = "conv_dgrad";
  static constexpr Precision precision = Precision::reduced;
  struct Attrs : ConvOptions {
    std::vector<int64_t> input;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { ConvOptions::visit(s, v); v("input", s.input); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// Gradient with respect to the weight: x (N, ..., C), dy (N, ..., O) -> dw (k..., C / groups, O).
struct ConvWgrad {
  static constexpr std::string_view name = "conv_wgrad";
  static constexpr Precision precision = Precision::reduced;
  struct Attrs : ConvOptions {
    std::vector<int64_t> kernel;
    template <class Self, class V>
    static void visit(Self& s, V&& v) { ConvOptions::visit(s, v); v("kernel", s.kernel); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// x (N, ..., I), w (k..., O / groups, I) -> (N, ..., O), out = (in - 1) stride - 2 padding +
// dilation (k - 1) + output_padding + 1: the data gradient of the convolution that maps O to I channels,
// and so the same kernels; an op of its own because networks and counting tools name it apart.
struct ConvTranspose {
  static constexpr std::string_view name = "conv_transpose";
  static constexpr Precision precision = Precision::reduced;
  struct Attrs : ConvOptions {
    std::vector<int64_t> output_padding{0};
    template <class Self, class V>
    static void visit(Self& s, V&& v) { ConvOptions::visit(s, v); v("output_padding", s.output_padding); }
  };
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

Tensor conv(const Tensor& x, const Tensor& w, const Tensor& b = {}, ConvOptions options = {});
Tensor conv_transpose(const Tensor& x, const Tensor& w, ConvOptions options = {},
                      std::vector<int64_t> output_padding = {0});

}  // namespace voxlab
