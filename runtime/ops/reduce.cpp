#include "runtime/ops/reduce.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

// The reduced result with its axes put back as size 1, ready to broadcast against the input.
Tensor with_axes(const Tensor& y, const Reduce::Attrs& a, const Shape& input) {
  const auto reduced = reduced_axes(a, input);
  Shape shape = input;
  for (int i = 0; i < input.rank(); ++i)
    if (reduced[static_cast<size_t>(i)]) shape.set(i, 1);
  return reshape(y, shape);
}

}  // namespace

std::array<bool, Shape::max_rank> reduced_axes(const Reduce::Attrs& a, const Shape& shape) {
  std::array<bool, Shape::max_rank> reduced{};
  if (a.axes.empty()) reduced.fill(true);
  for (int axis : a.axes) {
    const auto at = static_cast<size_t>(shape.index(axis));
    if (reduced[at]) fail(Reduce::name, "axis " + std::to_string(axis) + " named twice");
    reduced[at] = true;
  }
  return reduced;
}

Metas Reduce::infer(const Attrs& a, MetaSpan in) {
  const auto reduced = reduced_axes(a, in[0].shape);
  Shape shape;
  for (int i = 0; i < in[0].shape.rank(); ++i) {
    if (!reduced[static_cast<size_t>(i)]) {
      shape.push_back(in[0].shape[i]);
    } else if (a.keep) {
      shape.push_back(1);
    }
  }
  if (a.kind == ReduceKind::max && in[0].numel() == 0) fail(name, "maximum of nothing");
  return {{shape, in[0].dtype, in[0].device}};
}

Cost Reduce::cost(const Attrs& a, MetaSpan in, MetaSpan) {
  return {.flops = in[0].numel() * (a.kind == ReduceKind::sum_squares ? 2 : 1)};
}

Saves Reduce::saves(const Attrs& a) {
  if (a.kind == ReduceKind::max) return {.inputs = 1, .outputs = 1};
  return {.inputs = a.kind == ReduceKind::sum_squares ? 1u : 0u};
}

Tensors Reduce::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  const Shape& shape = saved.in_meta(0).shape;
  const Tensor d = with_axes(dout[0], a, shape);
  switch (a.kind) {
    case ReduceKind::sum: return {broadcast_to(d, shape)};
    case ReduceKind::mean: {
      const int64_t count = shape.numel() / std::max<int64_t>(1, saved.out_meta(0).numel());
      return {broadcast_to(scale(d, 1.0 / static_cast<double>(count)), shape)};
    }
    case ReduceKind::sum_squares: return {mul(scale(saved.in(0), 2), d)};
    case ReduceKind::max: {  // equal maxima share the gradient
      const Tensor hit = equal(saved.in(0), with_axes(saved.out(0), a, shape));
      const Tensor count = with_axes(reduce(hit, ReduceKind::sum, a.axes, a.keep), a, shape);
      return {mul(hit, div(d, count))};
    }
  }
  return {};
}

std::vector<Sample> Reduce::samples() {
  const SampleInput x{.shape = {3, 4, 5}};
  return {sample<Reduce>("sum all", {ReduceKind::sum, {}}, {x}),
          sample<Reduce>("sum middle", {ReduceKind::sum, {1}, true}, {x}),
          sample<Reduce>("sum outer", {ReduceKind::sum, {0, 2}}, {x}),
          sample<Reduce>("sum leading", {ReduceKind::sum, {0, 1}}, {{.shape = {7, 33, 17}}}),
          sample<Reduce>("mean last", {ReduceKind::mean, {-1}}, {x}),
          sample<Reduce>("max", {ReduceKind::max, {1}}, {x}),
          sample<Reduce>("sum of squares", {ReduceKind::sum_squares, {}}, {x}),
          refused<Reduce>("named twice", {ReduceKind::sum, {0, -3}}, {x}),
          refused<Reduce>("outside", {ReduceKind::sum, {3}}, {x})};
}

Metas Argmax::infer(const Attrs&, MetaSpan in) {
  if (in[0].shape.rank() == 0 || in[0].shape[-1] == 0) fail(name, "nothing to choose from");
  Shape shape;
  for (int i = 0; i + 1 < in[0].shape.rank(); ++i) shape.push_back(in[0].shape[i]);
  return {{shape, DType::i32, in[0].device}};
}

std::vector<Sample> Argmax::samples() {
  return {sample<Argmax>("classes", {}, {{.shape = {4, 5, 7}, .grad = false}})};
}

Tensor reduce(const Tensor& x, ReduceKind kind, std::vector<int> axes, bool keep) {
  return call1<Reduce>({kind, std::move(axes), keep}, {x});
}
Tensor sum(const Tensor& x, std::vector<int> axes, bool keep) {
  return reduce(x, ReduceKind::sum, std::move(axes), keep);
}
Tensor mean(const Tensor& x, std::vector<int> axes, bool keep) {
  return reduce(x, ReduceKind::mean, std::move(axes), keep);
}

Tensor sum_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  std::vector<int> axes;
  const int shift = x.rank() - shape.rank();
  for (int i = 0; i < x.rank(); ++i)
    if (x.size(i) != 1 && (i < shift || shape[i - shift] == 1)) axes.push_back(i);
  return reshape(axes.empty() ? x : sum(x, axes, true), shape);
}

Tensor argmax(const Tensor& x) { return call1<Argmax>({}, {x}); }

}  // namespace voxlab
