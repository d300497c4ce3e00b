#include "runtime/ops/resize.h"

#include <algorithm>
#include <cmath>

#include "runtime/ops/call.h"

namespace voxlab {
namespace {

Metas resized(std::string_view op, const ResizeAttrs& a, const Meta& x) {
  const int spatial = x.shape.rank() - 2;
  if (!is_floating(x.dtype)) fail(op, "expected a floating dtype, got " + x.to_string());
  if (spatial < 1 || spatial > 3) fail(op, "expected one to three spatial axes, got " + x.to_string());
  if (static_cast<int>(a.size.size()) != spatial)
    fail(op, std::to_string(a.size.size()) + " sizes for the " + std::to_string(spatial) + " spatial axes of " + x.to_string());
  if (a.mode == ResizeMode::nearest && a.align_corners) fail(op, "nearest has no aligned corners");
  Meta y = x;
  for (int i = 0; i < spatial; ++i) {
    const int64_t size = a.size[static_cast<size_t>(i)];
    if (size < 1 || x.shape[i + 1] < 1)
      fail(op, "cannot resize " + std::to_string(x.shape[i + 1]) + " to " + std::to_string(size) + " on axis " +
                   std::to_string(i + 1));
    y.shape.set(i + 1, size);
  }
  return {y};
}

std::vector<int64_t> spatial_of(const Shape& shape) { return {shape.begin() + 1, shape.end() - 1}; }

// Two multiply-adds for each axis of each value of the larger grid that a linear rule interpolates.
Cost resize_cost(const ResizeAttrs& a, const Meta& fine) {
  return {.flops = a.mode == ResizeMode::nearest ? 0 : fine.numel() * 4 * (fine.shape.rank() - 2)};
}

template <class Op>
std::vector<Sample> resize_samples() {
  const SampleInput x{.shape = {2, 3, 4, 5, 2}};
  const auto linear = ResizeMode::linear, nearest = ResizeMode::nearest;
  return {sample<Op>("twice", {{{6, 8, 10}, linear, false}}, {x}),
          sample<Op>("twice, aligned", {{{6, 8, 10}, linear, true}}, {x}),
          sample<Op>("twice, nearest", {{{6, 8, 10}, nearest, false}}, {x}),
          sample<Op>("odd", {{{7, 3, 11}, linear, false}}, {x}),
          sample<Op>("odd, aligned", {{{7, 3, 11}, linear, true}}, {x}),
          sample<Op>("odd, nearest", {{{7, 3, 11}, nearest, false}}, {x}),
          sample<Op>("smaller", {{{2, 2, 1}, linear, false}}, {x}),
          sample<Op>("smaller, aligned", {{{2, 1, 2}, linear, true}}, {x}),
          sample<Op>("same", {{{3, 4, 5}, linear, false}}, {x}),
          sample<Op>("2-d", {{{7, 4}, linear, false}}, {{.shape = {1, 3, 3, 17}}}),
          sample<Op>("from one voxel", {{{4, 3}, linear, true}}, {{.shape = {1, 1, 1, 3}}}),
          sample<Op>("1-d", {{{9}, nearest, false}}, {{.shape = {2, 4, 3}}}),
          sample<Op>("strided", {{{4, 6}, linear, false}}, {{.shape = {1, 2, 2, 3}, .permuted = {0, 2, 3, 1}}}),
          refused<Op>("2 sizes for the 3 spatial axes", {{{4, 4}}}, {x}),
          refused<Op>("cannot resize 3 to 0", {{{0, 4, 4}}}, {x}),
          refused<Op>("nearest has no aligned corners", {{{3, 4, 5}, nearest, true}}, {x}),
          refused<Op>("one to three spatial axes", {{{}}}, {{.shape = {3, 4}}})};
}

}  // namespace

std::vector<ResizeTap> resize_taps(ResizeMode mode, bool align_corners, int64_t in, int64_t out) {
  std::vector<ResizeTap> taps(static_cast<size_t>(out));
  for (int64_t i = 0; i < out; ++i) {
    ResizeTap& tap = taps[static_cast<size_t>(i)];
    if (mode == ResizeMode::nearest) {  // in f32, as PyTorch rounds it
      const float step = static_cast<float>(in) / static_cast<float>(out);
      tap.low = in == out ? i : std::min(static_cast<int64_t>(std::floor(static_cast<float>(i) * step)), in - 1);
      tap.high = tap.low;
      continue;
    }
    const double at = static_cast<double>(i), size = static_cast<double>(in);
    const double place = align_corners ? (out > 1 ? at * (size - 1) / static_cast<double>(out - 1) : 0)
                                       : std::max((at + 0.5) * size / static_cast<double>(out) - 0.5, 0.0);
    tap.low = std::min(static_cast<int64_t>(place), in - 1);
    tap.high = std::min(tap.low + 1, in - 1);
    tap.fraction = tap.high == tap.low ? 0 : place - static_cast<double>(tap.low);
  }
  return taps;
}

Metas Resize::infer(const Attrs& a, MetaSpan in) { return resized(name, a, in[0]); }
Cost Resize::cost(const Attrs& a, MetaSpan, MetaSpan out) { return resize_cost(a, out[0]); }
Tensors Resize::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  return {call1<ResizeGrad>({{spatial_of(saved.in_meta(0).shape), a.mode, a.align_corners}}, {dout[0]})};
}
std::vector<Sample> Resize::samples() { return resize_samples<Resize>(); }

Metas ResizeGrad::infer(const Attrs& a, MetaSpan in) { return resized(name, a, in[0]); }
Cost ResizeGrad::cost(const Attrs& a, MetaSpan in, MetaSpan) { return resize_cost(a, in[0]); }
Tensors ResizeGrad::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  return {call1<Resize>({{spatial_of(saved.in_meta(0).shape), a.mode, a.align_corners}}, {dout[0]})};
}
std::vector<Sample> ResizeGrad::samples() { return resize_samples<ResizeGrad>(); }

Tensor resize(const Tensor& x, std::vector<int64_t> size, ResizeMode mode, bool align_corners) {
  return call1<Resize>({{std::move(size), mode, align_corners}}, {x});
}

}  // namespace voxlab
