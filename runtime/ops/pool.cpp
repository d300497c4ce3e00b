#include "runtime/ops/pool.h"

#include <algorithm>

#include "runtime/ops/call.h"

namespace voxlab {
namespace {

int64_t pick(const std::vector<int64_t>& values, int axis) {
  return values.size() == 1 ? values[0] : values[static_cast<size_t>(axis)];
}

// The shape that pooling makes of x; every check of both ops.
Shape pooled(std::string_view op, const AvgPoolAttrs& a, const Shape& x) {
  const int spatial = x.rank() - 2;
  if (spatial < 1 || spatial > 3)
    fail(op, "expected one to three spatial axes, got " + x.to_string());
  for (const auto& [what, values] :
       {std::pair("kernel", &a.kernel), {"stride", &a.stride}, {"padding", &a.padding}})
    if (values->size() != 1 && static_cast<int>(values->size()) != spatial)
      fail(op, std::string(what) + " has " + std::to_string(values->size()) + " entries for " +
                   std::to_string(spatial) + " spatial axes");
  Shape y = x;
  for (int axis = 0; axis < spatial; ++axis) {
    const int64_t kernel = pick(a.kernel, axis), stride = pick(a.stride, axis),
                  padding = pick(a.padding, axis);
    if (kernel < 1 || stride < 1 || padding < 0 || padding > kernel / 2)
      fail(op, "kernel " + std::to_string(kernel) + ", stride " + std::to_string(stride) +
                   ", padding " + std::to_string(padding) +
                   " do not go together (padding is at most half the kernel)");
    const int64_t room = x[axis + 1] + 2 * padding - kernel;
    if (room < 0)
      fail(op, "kernel " + std::to_string(kernel) + " does not fit axis " +
                   std::to_string(axis + 1) + " of " + x.to_string());
    y.set(axis + 1, room / stride + 1);
  }
  return y;
}

// One addition for every voxel of every window.
Cost pool_cost(const AvgPoolAttrs& a, const Meta& small) {
  int64_t window = 1;
  for (int axis = 0; axis < small.shape.rank() - 2; ++axis) window *= pick(a.kernel, axis);
  return {.flops = small.numel() * window};
}

void expect_floating(std::string_view op, const Meta& x) {
  if (!is_floating(x.dtype)) fail(op, "expected a floating dtype, got " + x.to_string());
}

}  // namespace

std::vector<PoolWindow> pool_windows(const AvgPoolAttrs& a, const Shape& x, const Shape& y,
                                     int axis) {
  const int64_t kernel = pick(a.kernel, axis), stride = pick(a.stride, axis),
                padding = pick(a.padding, axis);
  std::vector<PoolWindow> windows;
  for (int64_t i = 0; i < y[axis + 1]; ++i) {
    const int64_t first = i * stride - padding;
    PoolWindow w{.begin = std::max<int64_t>(0, first),
                 .end = std::min(x[axis + 1], first + kernel)};
    w.weight = 1 / static_cast<double>(a.count_padding ? kernel : w.end - w.begin);
    windows.push_back(w);
  }
  return windows;
}

Metas AvgPool::infer(const Attrs& a, MetaSpan in) {
  expect_floating(name, in[0]);
  return {{pooled(name, a, in[0].shape), in[0].dtype}};
}
Cost AvgPool::cost(const Attrs& a, MetaSpan, MetaSpan out) { return pool_cost(a, out[0]); }
Tensors AvgPool::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  const Shape& x = saved.in_meta(0).shape;
  return {call1<AvgPoolGrad>({a, {x.begin() + 1, x.end() - 1}}, {dout[0]})};
}

std::vector<Sample> AvgPool::samples() {
  const SampleInput x{.shape = {2, 4, 5, 6, 3}};
  return {sample<AvgPool>("halves, the odd rest dropped", {{}}, {x}),
          sample<AvgPool>("overlapping", {{{3}, {2}, {1}}}, {x}),
          sample<AvgPool>("overlapping, padding not counted", {{{3}, {2}, {1}, false}}, {x}),
          sample<AvgPool>("an axis kept", {{{1, 2, 3}, {1, 2, 1}, {0, 1, 0}}}, {x}),
          sample<AvgPool>("gaps between windows", {{{1}, {3}}}, {x}),
          sample<AvgPool>("whole grid", {{{4, 5, 6}, {1}}}, {x}),
          sample<AvgPool>("2-d", {{}}, {{.shape = {1, 6, 8, 17}}}),
          sample<AvgPool>("1-d", {{{3}, {1}, {1}}}, {{.shape = {2, 5, 4}}}),
          sample<AvgPool>("strided", {{}}, {{.shape = {1, 3, 4, 6}, .permuted = {0, 2, 3, 1}}}),
          refused<AvgPool>("kernel 5 does not fit axis 1", {{{5}}}, {x}),
          refused<AvgPool>("at most half the kernel", {{{2}, {2}, {2}}}, {x}),
          refused<AvgPool>("stride has 2 entries for 3 spatial axes", {{{2}, {2, 2}}}, {x}),
          refused<AvgPool>("one to three spatial axes", {{}}, {{.shape = {3, 4}}}),
          refused<AvgPool>("expected a floating dtype", {{}},
                           {{.shape = {1, 4, 4, 1}, .high = 5, .integer = true}})};
}

Metas AvgPoolGrad::infer(const Attrs& a, MetaSpan in) {
  expect_floating(name, in[0]);
  Meta dx = in[0];
  const int spatial = dx.shape.rank() - 2;
  if (static_cast<int>(a.input.size()) != spatial)
    fail(name, std::to_string(a.input.size()) + " input sizes for " + in[0].to_string());
  for (int axis = 0; axis < spatial; ++axis)
    dx.shape.set(axis + 1, a.input[static_cast<size_t>(axis)]);
  const Shape dy = pooled(name, a, dx.shape);
  if (!(dy == in[0].shape))
    fail(name, "pooling " + dx.shape.to_string() + " gives " + dy.to_string() + ", not " +
                   in[0].shape.to_string());
  return {dx};
}
Cost AvgPoolGrad::cost(const Attrs& a, MetaSpan in, MetaSpan) { return pool_cost(a, in[0]); }
Tensors AvgPoolGrad::backward(const Attrs& a, const Saved&, const Tensors& dout) {
  return {call1<AvgPool>({a}, {dout[0]})};
}

std::vector<Sample> AvgPoolGrad::samples() {
  return {
      sample<AvgPoolGrad>("halves, the odd rest dropped", {{}, {4, 5, 6}},
                          {{.shape = {2, 2, 2, 3, 3}}}),
      sample<AvgPoolGrad>("overlapping", {{{3}, {2}, {1}, false}, {4, 5, 6}},
                          {{.shape = {2, 2, 3, 3, 3}}}),
      sample<AvgPoolGrad>("gaps between windows", {{{1}, {3}}, {4, 5}}, {{.shape = {1, 2, 2, 17}}}),
      sample<AvgPoolGrad>("1-d", {{{3}, {1}, {1}}, {5}}, {{.shape = {2, 5, 4}}}),
      refused<AvgPoolGrad>("not (1, 3, 2, 1)", {{}, {4, 4}}, {{.shape = {1, 3, 2, 1}}}),
      refused<AvgPoolGrad>("1 input sizes", {{}, {4}}, {{.shape = {1, 2, 2, 1}}})};
}

Tensor avg_pool(const Tensor& x, AvgPoolAttrs attrs) {
  return call1<AvgPool>({std::move(attrs)}, {x});
}

}  // namespace voxlab
