// ONNX forms of the ops that want a certain order of axes: convolutions, products, norms, resizing,
// pooling.
#include "experiments/export/onnx_ops.h"

namespace voxlab {
namespace {

constexpr int64_t same_for_all = 1;  // entries of a list that stands for every axis

std::vector<int64_t> for_each_axis(const std::vector<int64_t>& values, int spatial) {
  if (values.size() != same_for_all) return values;
  return std::vector<int64_t>(static_cast<size_t>(spatial), values[0]);
}

// Padding before every axis, then after every axis.
std::vector<int64_t> both_sides(const std::vector<int64_t>& values, int spatial) {
  std::vector<int64_t> pads = for_each_axis(values, spatial);
  pads.insert(pads.end(), pads.begin(), pads.begin() + spatial);
  return pads;
}

bool has(const TraceStep& s, size_t i) { return i < s.inputs.size() && s.inputs[i] >= 0; }

// Our weights (k..., a, b) are ONNX's (b, a, k...), for both kinds of convolution.
Layout weight_layout(int rank) {
  Layout layout{rank - 1, rank - 2};
  for (int axis = 0; axis < rank - 2; ++axis) layout.push_back(axis);
  return layout;
}

std::vector<OnnxAttribute> conv_attributes(const ConvOptions& o, const Shape& weight) {
  const int spatial = weight.rank() - 2;
  return {{"kernel_shape", std::vector<int64_t>(weight.begin(), weight.begin() + spatial)},
          {"strides", for_each_axis(o.stride, spatial)},
          {"pads", both_sides(o.padding, spatial)},
          {"dilations", for_each_axis(o.dilation, spatial)},
          {"group", o.groups}};
}

void convolution(const char* type, OnnxGraph& g, const TraceStep& s,
                 std::vector<OnnxAttribute> attributes) {
  const int x = s.inputs[0], w = s.inputs[1];
  const Layout layout = channels_first(g.rank(x));
  std::vector<std::string> in{g.get(x, layout), g.get(w, weight_layout(g.rank(w)))};
  if (has(s, 2)) in.push_back(g.get(s.inputs[2]));
  g.set(s.outputs[0], g.node(type, in, std::move(attributes)), layout);
}

// A parameter of `channels` values, or that many times `otherwise` where it is left out.
std::string parameter(OnnxGraph& g, const TraceStep& s, size_t i, int64_t channels,
                      double otherwise) {
  return has(s, i) ? g.get(s.inputs[i]) : g.filled(channels, otherwise);
}

}  // namespace

void emit(const Conv::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  convolution("Conv", g, s, conv_attributes(a, g.shape(s.inputs[1])));
}

void emit(const ConvTranspose::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const Shape& weight = g.shape(s.inputs[1]);
  std::vector<OnnxAttribute> attributes = conv_attributes(a, weight);
  attributes.push_back({"output_padding", for_each_axis(a.output_padding, weight.rank() - 2)});
  convolution("ConvTranspose", g, s, std::move(attributes));
}

void emit(const Matmul::Attrs&, OnnxGraph& g, const TraceStep& s) {
  g.set(s.outputs[0], g.node("MatMul", {g.get(s.inputs[0]), g.get(s.inputs[1])}),
        as_ours(g.rank(s.outputs[0])));
}

void emit(const Linear::Attrs&, OnnxGraph& g, const TraceStep& s) {
  std::string y = g.node("MatMul", {g.get(s.inputs[0]), g.get(s.inputs[1])});
  if (has(s, 2)) y = g.node("Add", {y, g.get(s.inputs[2])});
  g.set(s.outputs[0], y, as_ours(g.rank(s.outputs[0])));
}

// GroupNormalization is an operator from opset 18 only: groups are the channels of an instance
// norm, and the affine part, which is one channel's, follows.
void emit(const GroupNorm::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  const Shape& shape = g.shape(x);
  const Layout layout = channels_first(shape.rank());
  const OnnxAttribute eps{"epsilon", static_cast<float>(a.eps)};
  if (a.groups == shape[-1] && shape.rank() > 2) {
    const std::string y =
        g.node("InstanceNormalization",
               {g.get(x, layout), parameter(g, s, 1, a.groups, 1), parameter(g, s, 2, a.groups, 0)},
               {eps});
    return g.set(s.outputs[0], y, layout);
  }
  const int64_t batch = shape[0];
  std::string y = g.node("Reshape", {g.get(x, layout), g.integers({batch, a.groups, -1})});
  y = g.node("InstanceNormalization", {y, g.filled(a.groups, 1), g.filled(a.groups, 0)}, {eps});
  y = g.node("Reshape", {y, g.integers(sizes(shape, layout))});
  if (has(s, 1)) y = g.node("Mul", {y, g.get(s.inputs[1], layout)});
  if (has(s, 2)) y = g.node("Add", {y, g.get(s.inputs[2], layout)});
  g.set(s.outputs[0], y, layout);
}

void emit(const LayerNorm::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  const int64_t channels = g.shape(x)[-1];
  const std::string y =
      g.node("LayerNormalization",
             {g.get(x), parameter(g, s, 1, channels, 1), parameter(g, s, 2, channels, 0)},
             {{"axis", int64_t{-1}}, {"epsilon", static_cast<float>(a.eps)}});
  g.set(s.outputs[0], y, as_ours(g.rank(x)));
}

void emit(const BatchNormInference::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  const Layout layout = channels_first(g.rank(x));
  const int64_t channels = g.shape(x)[-1];
  const std::string y =
      g.node("BatchNormalization",
             {g.get(x, layout), parameter(g, s, 1, channels, 1), parameter(g, s, 2, channels, 0),
              g.get(s.inputs[3]), g.get(s.inputs[4])},
             {{"epsilon", static_cast<float>(a.eps)}});
  g.set(s.outputs[0], y, layout);
}

void emit(const Resize::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0];
  const Layout layout = channels_first(g.rank(x));
  const bool nearest = a.mode == ResizeMode::nearest;
  std::vector<OnnxAttribute> attributes{
      {"mode", std::string(nearest ? "nearest" : "linear")},
      {"coordinate_transformation_mode", std::string(nearest           ? "asymmetric"
                                                     : a.align_corners ? "align_corners"
                                                                       : "half_pixel")}};
  if (nearest) attributes.push_back({"nearest_mode", std::string("floor")});
  // Sizes, not scales: the inputs between them, region of interest and scales, are left out.
  const std::string y =
      g.node("Resize", {g.get(x, layout), "", "", g.integers(sizes(g.shape(s.outputs[0]), layout))},
             std::move(attributes));
  g.set(s.outputs[0], y, layout);
}

void emit(const AvgPool::Attrs& a, OnnxGraph& g, const TraceStep& s) {
  const int x = s.inputs[0], spatial = g.rank(x) - 2;
  const Layout layout = channels_first(g.rank(x));
  const std::string y = g.node("AveragePool", {g.get(x, layout)},
                               {{"kernel_shape", for_each_axis(a.kernel, spatial)},
                                {"strides", for_each_axis(a.stride, spatial)},
                                {"pads", both_sides(a.padding, spatial)},
                                {"count_include_pad", int64_t{a.count_padding}}});
  g.set(s.outputs[0], y, layout);
}

}  // namespace voxlab
