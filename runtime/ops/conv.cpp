#include "runtime/ops/conv.h"

#include "runtime/ops/call.h"
#include "runtime/ops/reduce.h"

namespace voxlab {
namespace {

int64_t pick(std::string_view op, std::string_view what, const std::vector<int64_t>& values, int spatial,
             int axis, int64_t least) {
  if (values.size() != 1 && static_cast<int>(values.size()) != spatial)
    fail(op, std::string(what) + " has " + std::to_string(values.size()) + " entries for " +
                 std::to_string(spatial) + " spatial axes");
  const int64_t value = values.size() == 1 ? values[0] : values[static_cast<size_t>(axis)];
  if (value < least) fail(op, std::string(what) + " " + std::to_string(value) + " is below " + std::to_string(least));
  return value;
}

void check_ranks(std::string_view op, const Meta& a, const Meta& b, std::string_view a_name,
                 std::string_view b_name) {
  const int rank = a.shape.rank();
  if (rank != 4 && rank != 5)
    fail(op, std::string(a_name) + " must be (N, H, W, C) or (N, D, H, W, C), got " + a.to_string());
  if (b.shape.rank() != rank)
    fail(op, std::string(b_name) + " " + b.to_string() + " does not go with " + std::string(a_name) + " " + a.to_string());
  if (a.dtype != b.dtype)
    fail(op, std::string(a_name) + " " + a.to_string() + " and " + std::string(b_name) + " " + b.to_string() + " have different dtypes");
}

std::vector<int64_t> spatial_of(const Shape& activation) {
  return {activation.begin() + 1, activation.end() - 1};
}

// Fills everything but checks nothing that infer has checked.
ConvGeometry geometry_of(std::string_view op, const ConvOptions& o, const Shape& x, const Shape& w, const Shape& y) {
  ConvGeometry g;
  const int spatial = x.rank() - 2;
  g.batch = x[0];
  g.groups = o.groups;
  g.in_channels = x[-1];
  g.out_channels = y[-1];
  g.in.fill(1); g.out.fill(1); g.kernel.fill(1); g.stride.fill(1); g.padding.fill(0); g.dilation.fill(1);
  for (int i = 0; i < spatial; ++i) {
    const auto at = static_cast<size_t>(i + 3 - spatial);
    g.in[at] = x[i + 1];
    g.out[at] = y[i + 1];
    g.kernel[at] = w[i];
    g.stride[at] = pick(op, "stride", o.stride, spatial, i, 1);
    g.padding[at] = pick(op, "padding", o.padding, spatial, i, 0);
    g.dilation[at] = pick(op, "dilation", o.dilation, spatial, i, 1);
  }
  return g;
}

int64_t out_size(std::string_view op, const ConvOptions& o, const Shape& x, int64_t kernel, int spatial, int axis) {
  const int64_t stride = pick(op, "stride", o.stride, spatial, axis, 1);
  const int64_t reach = pick(op, "dilation", o.dilation, spatial, axis, 1) * (kernel - 1) + 1;
  const int64_t padded = x[axis + 1] + 2 * pick(op, "padding", o.padding, spatial, axis, 0);
  if (kernel < 1 || padded < reach)
    fail(op, "kernel of reach " + std::to_string(reach) + " does not fit axis " + std::to_string(axis + 1) +
                 " of " + x.to_string());
  return (padded - reach) / stride + 1;
}

void check_groups(std::string_view op, int64_t groups, int64_t in_channels, int64_t out_channels) {
  if (groups < 1 || in_channels % groups != 0 || out_channels % groups != 0)
    fail(op, std::to_string(groups) + " groups do not divide " + std::to_string(in_channels) + " input and " +
                 std::to_string(out_channels) + " output channels");
}

// The output shape of a convolution of x by w; every check of a forward convolution.
Shape conv_shape(std::string_view op, const ConvOptions& o, const Meta& x, const Meta& w) {
  check_ranks(op, x, w, "input", "weight");
  check_groups(op, o.groups, x.shape[-1], w.shape[-1]);
  if (w.shape[-2] * o.groups != x.shape[-1])
    fail(op, "input has " + std::to_string(x.shape[-1]) + " channels, weight " + w.to_string() + " in " +
                 std::to_string(o.groups) + " groups takes " + std::to_string(w.shape[-2] * o.groups));
  const int spatial = x.shape.rank() - 2;
  Shape y{x.shape[0]};
  for (int i = 0; i < spatial; ++i) y.push_back(out_size(op, o, x.shape, w.shape[i], spatial, i));
  y.push_back(w.shape[-1]);
  return y;
}

Cost conv_cost(const ConvGeometry& g, bool bias = false) {
  const int64_t outputs = g.batch * g.out[0] * g.out[1] * g.out[2] * g.out_channels;
  return {.macs = g.macs(), .flops = 2 * g.macs() + (bias ? outputs : 0)};
}

Tensor sum_bias(const Tensor& dy) {
  std::vector<int> axes;
  for (int i = 0; i + 1 < dy.rank(); ++i) axes.push_back(i);
  return sum(dy, axes);
}

Tensor dgrad(const ConvOptions& o, const Tensor& dy, const Tensor& w, const Shape& x) {
  return call1<ConvDgrad>({o, spatial_of(x)}, {dy, w});
}
Tensor wgrad(const ConvOptions& o, const Tensor& x, const Tensor& dy, const Shape& w) {
  return call1<ConvWgrad>({o, {w.begin(), w.end() - 2}}, {x, dy});
}

}  // namespace

int64_t ConvGeometry::macs() const {
  return batch * out[0] * out[1] * out[2] * out_channels * kernel[0] * kernel[1] * kernel[2] * (in_channels / groups);
}

// ---- conv ----

Metas Conv::infer(const Attrs& a, MetaSpan in) {
  const Shape y = conv_shape(name, a, in[0], in[1]);
  if (in.size() > 2 && in[2].shape != Shape{0} && in[2].shape != Shape{y[-1]})
    fail(name, "bias " + in[2].to_string() + " for " + std::to_string(y[-1]) + " output channels");
  return {{y, in[0].dtype, in[0].device}};
}

ConvGeometry Conv::geometry(const Attrs& a, const Shape& x, const Shape& w, const Shape& y) {
  return geometry_of(name, a, x, w, y);
}

Cost Conv::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  return conv_cost(geometry(a, in[0].shape, in[1].shape, out[0].shape), in.size() > 2 && in[2].numel() > 0);
}

Tensors Conv::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  Tensors d(saved.inputs());
  if (saved.needs(0)) d[0] = dgrad(a, dout[0], saved.in(1), saved.in_meta(0).shape);
  if (saved.needs(1)) d[1] = wgrad(a, saved.in(0), dout[0], saved.in_meta(1).shape);
  if (saved.inputs() > 2 && saved.needs(2)) d[2] = sum_bias(dout[0]);
  return d;
}

std::vector<Sample> Conv::samples() {
  const auto c = [](std::vector<int64_t> s, std::vector<int64_t> p, std::vector<int64_t> d = {1}, int64_t g = 1) {
    return Attrs{{std::move(s), std::move(p), std::move(d), g}};
  };
  return {
      sample<Conv>("3x3x3", c({1}, {1}), {{.shape = {2, 3, 4, 5, 3}}, {.shape = {3, 3, 3, 3, 4}}, {.shape = {4}}}),
      sample<Conv>("no bias", c({1}, {0}), {{.shape = {1, 4, 4, 4, 2}}, {.shape = {2, 3, 1, 2, 5}}}),
      sample<Conv>("patch", c({1, 2, 2}, {0}), {{.shape = {1, 2, 4, 6, 1}}, {.shape = {1, 2, 2, 1, 7}}, {.shape = {7}}}),
      sample<Conv>("stride 2", c({2}, {1}), {{.shape = {1, 5, 6, 7, 4}}, {.shape = {3, 3, 3, 4, 3}}}),
      sample<Conv>("dilated", c({1, 2, 1}, {2, 1, 0}, {2, 1, 2}), {{.shape = {1, 5, 5, 6, 2}}, {.shape = {3, 2, 2, 2, 3}}}),
      sample<Conv>("grouped", c({1}, {1}, {1}, 2), {{.shape = {1, 3, 3, 4, 4}}, {.shape = {3, 3, 3, 2, 6}}, {.shape = {6}}}),
      sample<Conv>("depthwise 7", c({1}, {3}, {1}, 5), {{.shape = {1, 4, 5, 8, 5}}, {.shape = {7, 7, 7, 1, 5}}}),
      sample<Conv>("channel-wise 1-4", c({1}, {0}, {1}, 3), {{.shape = {2, 2, 3, 3, 3}}, {.shape = {1, 1, 1, 1, 12}}, {.shape = {12}}}),
      sample<Conv>("channel-wise 4-1", c({1}, {0}, {1}, 17), {{.shape = {1, 1, 2, 2, 68}}, {.shape = {1, 1, 1, 4, 17}}, {.shape = {17}}}),
      sample<Conv>("channel-wise 1-2", c({1}, {0}, {1}, 17), {{.shape = {1, 2, 3, 17}}, {.shape = {1, 1, 1, 34}}}),
      sample<Conv>("channel-wise 8-1", c({1}, {0}, {1}, 3), {{.shape = {2, 1, 1, 3, 24}}, {.shape = {1, 1, 1, 8, 3}}}),
      sample<Conv>("channel-wise 1-1", c({1}, {0}, {1}, 17), {{.shape = {1, 2, 3, 17}}, {.shape = {1, 1, 1, 17}}, {.shape = {17}}}),
      sample<Conv>("1x1x1", c({1}, {0}), {{.shape = {2, 3, 3, 5, 17}}, {.shape = {1, 1, 1, 17, 14}}, {.shape = {14}}}),
      sample<Conv>("2-d", c({1}, {1}), {{.shape = {2, 6, 7, 3}}, {.shape = {3, 3, 3, 5}}, {.shape = {5}}}),
      sample<Conv>("depthwise plane", c({1}, {1}, {1}, 67), {{.shape = {2, 4, 6, 67}}, {.shape = {3, 3, 1, 67}}, {.shape = {67}}}),
      sample<Conv>("2-d stride", c({2, 1}, {1, 0}), {{.shape = {1, 9, 8, 16}}, {.shape = {3, 3, 16, 33}}}),
      refused<Conv>("does not fit axis 1", c({1}, {0}), {{.shape = {1, 2, 4, 4, 2}}, {.shape = {3, 3, 3, 2, 2}}}),
      refused<Conv>("input has 2 channels", c({1}, {1}), {{.shape = {1, 4, 4, 4, 2}}, {.shape = {3, 3, 3, 3, 2}}}),
      refused<Conv>("2 groups do not divide", c({1}, {1}, {1}, 2), {{.shape = {1, 4, 4, 4, 3}}, {.shape = {3, 3, 3, 3, 2}}}),
      refused<Conv>("stride has 2 entries", c({1, 1}, {1}), {{.shape = {1, 4, 4, 4, 2}}, {.shape = {3, 3, 3, 2, 2}}}),
      refused<Conv>("bias", c({1}, {1}), {{.shape = {1, 4, 4, 2}}, {.shape = {3, 3, 2, 2}}, {.shape = {3}}}),
      refused<Conv>("must be (N, H, W, C)", c({1}, {1}), {{.shape = {4, 4, 2}}, {.shape = {3, 2, 2}}})};
}

// ---- conv_dgrad ----

Metas ConvDgrad::infer(const Attrs& a, MetaSpan in) {
  check_ranks(name, in[0], in[1], "output gradient", "weight");
  const int spatial = in[0].shape.rank() - 2;
  if (static_cast<int>(a.input.size()) != spatial) fail(name, "input size has the wrong number of axes");
  Shape x{in[0].shape[0]};
  for (int64_t size : a.input) x.push_back(size);
  x.push_back(in[1].shape[-2] * a.groups);
  const Meta x_meta{x, in[0].dtype, in[0].device};
  const Shape y = conv_shape(name, a, x_meta, in[1]);
  if (!(y == in[0].shape))
    fail(name, "a convolution of " + x.to_string() + " gives " + y.to_string() + ", not " + in[0].shape.to_string());
  return {x_meta};
}

Cost ConvDgrad::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  return conv_cost(geometry_of(name, a, out[0].shape, in[1].shape, in[0].shape));
}

Tensors ConvDgrad::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  Tensors d(2);
  if (saved.needs(0)) d[0] = conv(dout[0], saved.in(1), {}, a);
  if (saved.needs(1)) d[1] = wgrad(a, dout[0], saved.in(0), saved.in_meta(1).shape);
  return d;
}

std::vector<Sample> ConvDgrad::samples() {
  const auto c = [](std::vector<int64_t> s, std::vector<int64_t> p, std::vector<int64_t> in, std::vector<int64_t> d = {1}, int64_t g = 1) {
    return Attrs{{std::move(s), std::move(p), std::move(d), g}, std::move(in)};
  };
  return {
      sample<ConvDgrad>("3x3x3", c({1}, {1}, {3, 4, 5}), {{.shape = {2, 3, 4, 5, 4}}, {.shape = {3, 3, 3, 3, 4}}}),
      sample<ConvDgrad>("patch", c({1, 2, 2}, {0}, {2, 5, 6}), {{.shape = {1, 2, 2, 3, 7}}, {.shape = {1, 2, 2, 3, 7}}}),
      sample<ConvDgrad>("stride 2", c({2}, {1}, {5, 6, 7}), {{.shape = {1, 3, 3, 4, 3}}, {.shape = {3, 3, 3, 4, 3}}}),
      sample<ConvDgrad>("dilated", c({1, 2, 1}, {2, 1, 0}, {5, 5, 6}, {2, 1, 2}), {{.shape = {1, 5, 3, 4, 3}}, {.shape = {3, 2, 2, 2, 3}}}),
      sample<ConvDgrad>("grouped", c({1}, {1}, {3, 3, 4}, {1}, 2), {{.shape = {1, 3, 3, 4, 6}}, {.shape = {3, 3, 3, 2, 6}}}),
      sample<ConvDgrad>("depthwise 7", c({1}, {3}, {4, 5, 8}, {1}, 5), {{.shape = {1, 4, 5, 8, 5}}, {.shape = {7, 7, 7, 1, 5}}}),
      sample<ConvDgrad>("channel-wise 1-4", c({1}, {0}, {1, 2, 2}, {1}, 17), {{.shape = {1, 1, 2, 2, 68}}, {.shape = {1, 1, 1, 1, 68}}}),
      sample<ConvDgrad>("channel-wise 4-1", c({1}, {0}, {1, 2, 2}, {1}, 17), {{.shape = {1, 1, 2, 2, 17}}, {.shape = {1, 1, 1, 4, 17}}}),
      sample<ConvDgrad>("depthwise plane", c({1}, {1, 0}, {4, 7}, {1}, 67), {{.shape = {1, 4, 5, 67}}, {.shape = {3, 3, 1, 67}}}),
      sample<ConvDgrad>("2-d", c({2, 1}, {1}, {6, 7}), {{.shape = {2, 3, 7, 5}}, {.shape = {3, 3, 3, 5}}}),
      refused<ConvDgrad>("gives", c({2}, {1}, {9, 6, 7}), {{.shape = {1, 3, 3, 4, 3}}, {.shape = {3, 3, 3, 4, 3}}})};
}

// ---- conv_wgrad ----

Metas ConvWgrad::infer(const Attrs& a, MetaSpan in) {
  check_ranks(name, in[0], in[1], "input", "output gradient");
  check_groups(name, a.groups, in[0].shape[-1], in[1].shape[-1]);
  if (static_cast<int>(a.kernel.size()) != in[0].shape.rank() - 2) fail(name, "kernel size has the wrong number of axes");
  Shape w;
  for (int64_t size : a.kernel) w.push_back(size);
  w.push_back(in[0].shape[-1] / a.groups);
  w.push_back(in[1].shape[-1]);
  const Meta w_meta{w, in[0].dtype, in[0].device};
  const Shape y = conv_shape(name, a, in[0], w_meta);
  if (!(y == in[1].shape))
    fail(name, "a convolution of " + in[0].shape.to_string() + " gives " + y.to_string() + ", not " + in[1].shape.to_string());
  return {w_meta};
}

Cost ConvWgrad::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  return conv_cost(geometry_of(name, a, in[0].shape, out[0].shape, in[1].shape));
}

Tensors ConvWgrad::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  Tensors d(2);
  if (saved.needs(0)) d[0] = dgrad(a, saved.in(1), dout[0], saved.in_meta(0).shape);
  if (saved.needs(1)) d[1] = conv(saved.in(0), dout[0], {}, a);
  return d;
}

std::vector<Sample> ConvWgrad::samples() {
  const auto c = [](std::vector<int64_t> s, std::vector<int64_t> p, std::vector<int64_t> k, std::vector<int64_t> d = {1}, int64_t g = 1) {
    return Attrs{{std::move(s), std::move(p), std::move(d), g}, std::move(k)};
  };
  return {
      sample<ConvWgrad>("3x3x3", c({1}, {1}, {3, 3, 3}), {{.shape = {2, 3, 4, 5, 3}}, {.shape = {2, 3, 4, 5, 4}}}),
      sample<ConvWgrad>("patch", c({1, 2, 2}, {0}, {1, 2, 2}), {{.shape = {1, 2, 5, 6, 3}}, {.shape = {1, 2, 2, 3, 7}}}),
      sample<ConvWgrad>("stride 2", c({2}, {1}, {3, 3, 3}), {{.shape = {1, 5, 6, 7, 4}}, {.shape = {1, 3, 3, 4, 3}}}),
      sample<ConvWgrad>("dilated", c({1, 2, 1}, {2, 1, 0}, {3, 2, 2}, {2, 1, 2}), {{.shape = {1, 5, 5, 6, 2}}, {.shape = {1, 5, 3, 4, 3}}}),
      sample<ConvWgrad>("grouped", c({1}, {1}, {3, 3, 3}, {1}, 2), {{.shape = {1, 3, 3, 4, 4}}, {.shape = {1, 3, 3, 4, 6}}}),
      sample<ConvWgrad>("depthwise 7", c({1}, {3}, {7, 7, 7}, {1}, 5), {{.shape = {1, 4, 5, 8, 5}}, {.shape = {1, 4, 5, 8, 5}}}),
      sample<ConvWgrad>("channel-wise 1-4", c({1}, {0}, {1, 1, 1}, {1}, 3), {{.shape = {2, 1, 5, 7, 3}}, {.shape = {2, 1, 5, 7, 12}}}),
      sample<ConvWgrad>("channel-wise 4-1", c({1}, {0}, {1, 1, 1}, {1}, 17), {{.shape = {1, 1, 2, 2, 68}}, {.shape = {1, 1, 2, 2, 17}}}),
      sample<ConvWgrad>("depthwise plane", c({1}, {0, 2}, {3, 3}, {1}, 67), {{.shape = {2, 4, 5, 67}}, {.shape = {2, 2, 7, 67}}}),
      sample<ConvWgrad>("2-d", c({1}, {1}, {3, 3}), {{.shape = {2, 6, 7, 3}}, {.shape = {2, 6, 7, 5}}}),
      refused<ConvWgrad>("gives", c({1}, {1}, {3, 3, 3}), {{.shape = {1, 5, 6, 7, 4}}, {.shape = {1, 3, 3, 4, 3}}})};
}

// ---- conv_transpose ----

Metas ConvTranspose::infer(const Attrs& a, MetaSpan in) {
  check_ranks(name, in[0], in[1], "input", "weight");
  if (in[0].shape[-1] != in[1].shape[-1])
    fail(name, "input has " + std::to_string(in[0].shape[-1]) + " channels, weight " + in[1].to_string() + " takes " +
                   std::to_string(in[1].shape[-1]));
  const int64_t channels = in[1].shape[-2] * a.groups;
  check_groups(name, a.groups, in[0].shape[-1], channels);
  const int spatial = in[0].shape.rank() - 2;
  Shape y{in[0].shape[0]};
  for (int i = 0; i < spatial; ++i) {
    const int64_t stride = pick(name, "stride", a.stride, spatial, i, 1);
    const int64_t extra = pick(name, "output_padding", a.output_padding, spatial, i, 0);
    const int64_t dilation = pick(name, "dilation", a.dilation, spatial, i, 1);
    if (extra >= stride && extra >= dilation && extra > 0)
      fail(name, "output_padding " + std::to_string(extra) + " is not below stride or dilation");
    const int64_t size = (in[0].shape[i + 1] - 1) * stride - 2 * pick(name, "padding", a.padding, spatial, i, 0) +
                         dilation * (in[1].shape[i] - 1) + extra + 1;
    if (size < 1) fail(name, "output axis " + std::to_string(i + 1) + " would have size " + std::to_string(size));
    y.push_back(size);
  }
  y.push_back(channels);
  return {{y, in[0].dtype, in[0].device}};
}

Cost ConvTranspose::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  return conv_cost(geometry_of(name, a, out[0].shape, in[1].shape, in[0].shape));
}

Tensors ConvTranspose::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  Tensors d(2);
  if (saved.needs(0)) d[0] = conv(dout[0], saved.in(1), {}, a);
  if (saved.needs(1)) d[1] = wgrad(a, dout[0], saved.in(0), saved.in_meta(1).shape);
  return d;
}

std::vector<Sample> ConvTranspose::samples() {
  const auto c = [](std::vector<int64_t> s, std::vector<int64_t> p, std::vector<int64_t> extra = {0}) {
    return Attrs{{std::move(s), std::move(p), {1}, 1}, std::move(extra)};
  };
  return {
      sample<ConvTranspose>("k = s", c({1, 2, 4}, {0}), {{.shape = {2, 2, 3, 2, 5}}, {.shape = {1, 2, 4, 3, 5}}}),
      sample<ConvTranspose>("k = s, 16", c({2}, {0}), {{.shape = {1, 2, 3, 3, 32}}, {.shape = {2, 2, 2, 16, 32}}}),
      sample<ConvTranspose>("overlapping", c({2}, {1}, {1}), {{.shape = {1, 2, 3, 3, 4}}, {.shape = {3, 3, 3, 2, 4}}}),
      sample<ConvTranspose>("2-d", c({2}, {0}), {{.shape = {1, 3, 4, 6}}, {.shape = {2, 2, 3, 6}}}),
      refused<ConvTranspose>("input has 4 channels", c({2}, {0}), {{.shape = {1, 2, 2, 2, 4}}, {.shape = {2, 2, 2, 4, 3}}}),
      refused<ConvTranspose>("output_padding", c({2}, {0}, {2}), {{.shape = {1, 2, 2, 4}}, {.shape = {2, 2, 3, 4}}})};
}

Tensor conv(const Tensor& x, const Tensor& w, const Tensor& b, ConvOptions options) {
  return call1<Conv>({std::move(options)}, b ? Tensors{x, w, b} : Tensors{x, w});
}
Tensor conv_transpose(const Tensor& x, const Tensor& w, ConvOptions options, std::vector<int64_t> output_padding) {
  return call1<ConvTranspose>({std::move(options), std::move(output_padding)}, {x, w});
}

}  // namespace voxlab
