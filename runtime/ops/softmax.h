// Softmax, log-softmax and L2 normalisation along one axis, whichever it is.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

// x seen as (outer, size, inner) around one axis.
struct AxisSplit {
  int64_t outer = 1, size = 1, inner = 1;
};
AxisSplit split_at(const Shape& shape, int axis);

struct AxisAttrs {
  int axis = -1;
  template <class Self, class V>
  static void visit(Self& s, V&& v) { v("axis", s.axis); }
};

struct Softmax {
  static constexpr std::string_view name = "softmax";
  static constexpr Precision precision = Precision::full;
  struct Attrs : AxisAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.outputs = 1}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// y, dy -> y (dy - sum(y dy)).
struct SoftmaxGrad {
  static constexpr std::string_view name = "softmax_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : AxisAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

struct LogSoftmax {
  static constexpr std::string_view name = "log_softmax";
  static constexpr Precision precision = Precision::full;
  struct Attrs : AxisAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.outputs = 1}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

// y, dy -> dy - exp(y) sum(dy).
struct LogSoftmaxGrad {
  static constexpr std::string_view name = "log_softmax_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : AxisAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
};

struct L2NormaliseAttrs {
  int axis = -1;
  double eps = 1e-12;
  template <class Self, class V>
  static void visit(Self& s, V&& v) { v("axis", s.axis); v("eps", s.eps); }
};

// x -> y = x / norm and norm = max(||x||, eps), with size 1 along the axis: the rule of
// torch.nn.functional.normalize.
struct L2Normalise {
  static constexpr std::string_view name = "l2_normalise";
  static constexpr Precision precision = Precision::full;
  struct Attrs : L2NormaliseAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.outputs = 3}; }
  static Tensors backward(const Attrs&, const Saved&, const Tensors& dout);
  static std::vector<Sample> samples();
  // Norms up to this one were clamped: such rows have gradient dy / eps. The margin is for an eps that
  // was rounded to the tensor's dtype.
  static double clamp_limit(const L2NormaliseAttrs& a) { return a.eps * (1 + 1e-2); }
};

// y, norm, dy -> (dy - y sum(y dy)) / norm.
struct L2NormaliseGrad {
  static constexpr std::string_view name = "l2_normalise_grad";
  static constexpr Precision precision = Precision::full;
  struct Attrs : L2NormaliseAttrs {};
  static Metas infer(const Attrs&, MetaSpan in);
  static Cost cost(const Attrs&, MetaSpan in, MetaSpan out);
  static Saves saves(const Attrs&) { return {.inputs = 7}; }
  static Tensors decompose(const Attrs&, const Tensors& in);
  static std::vector<Sample> samples();
};

Tensor softmax(const Tensor& x, int axis = -1);
Tensor log_softmax(const Tensor& x, int axis = -1);
Tensor l2_normalise(const Tensor& x, int axis = -1, double eps = 1e-12);

}  // namespace voxlab
