// ONNX forms of the ops that work in any order of axes: views, copies, elementwise arithmetic,
// reductions.
#include <algorithm>
#include <numbers>

#include "experiments/export/onnx_ops.h"

namespace voxlab {
namespace {

// Where axis `axis` (negative: from the end) of a value stands in the file.
int64_t placed(const OnnxGraph& g, int value, int axis) {
  return position(g.layout(value), g.shape(value).index(axis));
}

// The value as it was made.
std::string as_made(OnnxGraph& g, int value) {
  const Layout layout = g.layout(value);
  return g.get(value, layout);
}

void same_value(OnnxGraph& g, const TraceStep& s) {
  g.set(s.outputs[0], as_made(g, s.inputs[0]), g.layout(s.inputs[0]));
}

std::string as_floats(OnnxGraph& g, const std::string& boolean) {
  return g.node("Cast", {boolean}, {{"to", onnx_type(DType::f32)}});
}

// x Phi(x) = x / 2 (1 + erf(x / sqrt(2))): Gelu is an operator from opset 20 only.
std::string gelu(OnnxGraph& g, const std::string& x) {
  const std::string erf = g.node("Erf", {g.node("Div", {x, g.scalar(std::numbers::sqrt2)})});
  const std::string twice = g.node("Mul", {x, g.node("Add", {erf, g.scalar(1)})});
  return g.node("Mul", {twice, g.scalar(0.5)});
}

std::string affine(OnnxGraph& g, std::string x, double alpha, double beta) {
  if (alpha != 1) x = g.node("Mul", {x, g.scalar(alpha)});
  return beta == 0 ? x : g.node("Add", {x, g.scalar(beta)});
}

void softmax(const char* type, const AxisAttrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  g.set(s.outputs[0], g.node(type, {as_made(g, x)}, {{"axis", placed(g, x, a.axis)}}), g.layout(x));
}

}  // namespace

// ---- views and copies ----

void emit(const Reshape::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const Layout ours = as_ours(a.shape.rank());
  g.set(s.outputs[0], g.node("Reshape", {g.get(s.inputs[0]), g.integers(sizes(a.shape, ours))}),
        ours);
}

// Nothing happens in the file: the same tensor, read in another order of axes.
void emit(const Permute::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  Layout layout;
  for (int axis : g.layout(s.inputs[0])) layout.push_back(position(a.axes, axis));
  g.set(s.outputs[0], as_made(g, s.inputs[0]), layout);
}

void emit(const Split::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  const auto pieces = g.node("Split", {as_made(g, x), g.integers(a.sizes)},
                             {{"axis", placed(g, x, a.axis)}}, a.sizes.size());
  for (size_t i = 0; i < pieces.size(); ++i) g.set(s.outputs[i], pieces[i], g.layout(x));
}

void emit(const Slice::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  const int64_t end = a.length == 0 ? a.start : a.start + (a.length - 1) * a.step + 1;
  g.set(s.outputs[0],
        g.node("Slice", {as_made(g, x), g.integers({a.start}), g.integers({end}),
                         g.integers({placed(g, x, a.axis)}), g.integers({a.step})}),
        g.layout(x));
}

void emit(const Broadcast::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const Layout layout = g.common_layout({s.inputs[0]}, a.shape.rank());
  g.set(s.outputs[0],
        g.node("Expand", {g.get(s.inputs[0], layout), g.integers(sizes(a.shape, layout))}), layout);
}

void emit(const Contiguous::Attrs&, OnnxGraph& g, const TraceStep& s) { same_value(g, s); }

void emit(const Cast::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  if (a.dtype == g.dtype(x)) return same_value(g, s);
  g.set(s.outputs[0], g.node("Cast", {as_made(g, x)}, {{"to", onnx_type(a.dtype)}}), g.layout(x));
}

void emit(const Concat::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const Shape& shape = g.shape(s.outputs[0]);
  const Layout layout = g.common_layout(s.inputs, shape.rank());
  std::vector<std::string> pieces;
  for (int piece : s.inputs) pieces.push_back(g.get(piece, layout));
  const int64_t axis = position(layout, shape.index(a.axis));
  g.set(s.outputs[0], g.node("Concat", pieces, {{"axis", axis}}), layout);
}

void emit(const Pad::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  const auto axis = static_cast<size_t>(placed(g, x, a.axis)),
             rank = static_cast<size_t>(g.rank(x));
  std::vector<int64_t> pads(2 * rank);  // before every axis, then after every axis
  pads[axis] = a.before;
  pads[rank + axis] = a.after;
  g.set(s.outputs[0], g.node("Pad", {as_made(g, x), g.integers(pads), g.scalar(a.value)}),
        g.layout(x));
}

void emit(const Gather::Attrs&, OnnxGraph& g, const TraceStep& s) {
  g.set(s.outputs[0],
        g.node("Gather", {g.get(s.inputs[0]), g.get(s.inputs[1])}, {{"axis", int64_t{0}}}),
        as_ours(g.rank(s.outputs[0])));
}

// ---- elementwise ----

void emit(const Unary::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const std::string x = as_made(g, s.inputs[0]);
  const auto y = [&]() -> std::string {
    switch (a.kind) {
      case UnaryKind::affine:
        return affine(g, x, a.alpha, a.beta);
      case UnaryKind::relu:
        return g.node("Relu", {x});
      case UnaryKind::leaky_relu:
        return g.node("LeakyRelu", {x}, {{"alpha", static_cast<float>(a.alpha)}});
      case UnaryKind::gelu:
        return gelu(g, x);
      case UnaryKind::hardswish:
        return g.node("HardSwish", {x});
      case UnaryKind::sigmoid:
        return g.node("Sigmoid", {x});
      case UnaryKind::tanh:
        return g.node("Tanh", {x});
      case UnaryKind::exp:
        return g.node("Exp", {x});
      case UnaryKind::log:
        return g.node("Log", {x});
      case UnaryKind::sqrt:
        return g.node("Sqrt", {x});
      case UnaryKind::rsqrt:
        return g.node("Reciprocal", {g.node("Sqrt", {x})});
      case UnaryKind::square:
        return g.node("Mul", {x, x});
      case UnaryKind::abs:
        return g.node("Abs", {x});
      case UnaryKind::erf:
        return g.node("Erf", {x});
      case UnaryKind::reciprocal:
        return g.node("Reciprocal", {x});
      case UnaryKind::step:
        return as_floats(g, g.node("Greater", {x, g.scalar(0)}));
    }
    return {};
  };
  g.set(s.outputs[0], y(), g.layout(s.inputs[0]));
}

void emit(const Binary::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const Layout layout = g.common_layout(s.inputs, g.rank(s.outputs[0]));
  const std::vector<std::string> in{g.get(s.inputs[0], layout), g.get(s.inputs[1], layout)};
  const auto y = [&]() -> std::string {
    switch (a.kind) {
      case BinaryKind::add:
        return g.node("Add", in);
      case BinaryKind::sub:
        return g.node("Sub", in);
      case BinaryKind::mul:
        return g.node("Mul", in);
      case BinaryKind::div:
        return g.node("Div", in);
      case BinaryKind::equal:
        return as_floats(g, g.node("Equal", in));
    }
    return {};
  };
  g.set(s.outputs[0], y(), layout);
}

// ---- along axes ----

void emit(const Reduce::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  const Layout& layout = g.layout(x);
  const auto reduced = reduced_axes(a, g.shape(x));
  std::vector<int64_t> axes;
  Layout kept;  // the result's own axes are numbered without the reduced ones
  for (size_t i = 0; i < layout.size(); ++i) {
    const auto axis = static_cast<size_t>(layout[i]);
    if (reduced[axis]) axes.push_back(static_cast<int64_t>(i));
    if (!reduced[axis])
      kept.push_back(layout[i] - static_cast<int>(std::count(reduced.begin(),
                                                             reduced.begin() + layout[i], true)));
  }
  std::vector<std::string> in{as_made(g, x)};
  std::vector<OnnxAttribute> attributes{{"keepdims", int64_t{a.keep}}};
  const char* type = a.kind == ReduceKind::sum    ? "ReduceSum"
                     : a.kind == ReduceKind::mean ? "ReduceMean"
                     : a.kind == ReduceKind::max  ? "ReduceMax"
                                                  : "ReduceSumSquare";
  if (a.kind == ReduceKind::sum) {  // an input since opset 13, for the others from 18
    in.push_back(g.integers(axes));
  } else {
    attributes.push_back({"axes", axes});
  }
  g.set(s.outputs[0], g.node(type, in, attributes), a.keep ? layout : kept);
}

void emit(const Softmax::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  softmax("Softmax", a, g, s);
}
void emit(const LogSoftmax::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  softmax("LogSoftmax", a, g, s);
}

void emit(const L2Normalise::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  const std::string in = as_made(g, x);
  const std::vector<int64_t> axes{placed(g, x, a.axis)};
  const std::string length = g.node("ReduceL2", {in}, {{"axes", axes}, {"keepdims", int64_t{1}}});
  const std::string norm = g.node("Max", {length, g.scalar(a.eps)});
  g.set(s.outputs[0], g.node("Div", {in, norm}), g.layout(x));
  g.set(s.outputs[1], norm, g.layout(x));
}

}  // namespace voxlab
