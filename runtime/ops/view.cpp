#include "runtime/ops/view.h"

#include <optional>

#include "runtime/ops/call.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/reduce.h"

namespace voxlab {
namespace {

Tensor make_view(const Tensor& x, const Shape& shape, const Strides& strides, int64_t offset) {
  return Tensor::view(x.storage(), {shape, x.dtype(), x.device()}, strides, offset);
}

// Strides of `shape` over x's memory, when no element has to move. Walks groups of input axes that are
// contiguous among themselves and cuts each group by the new sizes.
std::optional<Strides> viewable(const Tensor& x, const Shape& shape) {
  if (x.numel() == 0) return contiguous_strides(shape);
  Strides out{};
  int to = shape.rank() - 1;
  int from = x.rank() - 1;
  while (from >= 0) {
    int64_t group = x.size(from);
    const int64_t inner = x.strides()[static_cast<size_t>(from)];
    int64_t step = inner * group;
    int first = from - 1;
    while (first >= 0 && (x.size(first) == 1 || x.strides()[static_cast<size_t>(first)] == step ||
                          group == 1)) {
      if (group == 1 && x.size(first) != 1) break;
      group *= x.size(first);
      step = inner * group;
      --first;
    }
    int64_t stride = inner, covered = 1;
    while (to >= 0 && covered < group) {
      if (group % (covered * shape[to]) != 0) return std::nullopt;
      out[static_cast<size_t>(to)] = stride;
      stride *= shape[to];
      covered *= shape[to];
      --to;
    }
    if (covered != group) return std::nullopt;
    from = first;
  }
  for (; to >= 0; --to) {
    if (shape[to] != 1) return std::nullopt;
    out[static_cast<size_t>(to)] = 1;
  }
  return out;
}

}  // namespace

// ---- reshape ----

Metas Reshape::infer(const Attrs& a, MetaSpan in) {
  if (a.shape.numel() != in[0].numel())
    fail(name, "from " + in[0].shape.to_string() + " to " + a.shape.to_string() + ": element counts differ");
  return {{a.shape, in[0].dtype, in[0].device}};
}

Tensors Reshape::view(const Attrs& a, const Tensor& x) {
  const auto strides = viewable(x, a.shape);
  VOXLAB_CHECK(strides.has_value());
  return {make_view(x, a.shape, *strides, x.offset())};
}

Tensors Reshape::backward(const Attrs&, const Saved& saved, const Tensors& dout) {
  return {reshape(dout[0], saved.in_meta(0).shape)};
}

std::vector<Sample> Reshape::samples() {
  return {sample<Reshape>("merge", {Shape{6, 4}}, {{.shape = {2, 3, 4}}}),
          sample<Reshape>("split", {Shape{2, 3, 2, 2}}, {{.shape = {6, 4}}}),
          refused<Reshape>("element counts differ", {Shape{5}}, {{.shape = {2, 3}}})};
}

Tensor reshape_to(const Tensor& x, const Shape& shape) {
  if (x.shape() == shape) return x;
  const bool fits = shape.numel() != x.numel() || viewable(x, shape).has_value();
  return call1<Reshape>({shape}, {fits ? x : contiguous(x)});
}

Tensor reshape(const Tensor& x, std::vector<int64_t> sizes) {
  int64_t known = 1;
  int64_t* open = nullptr;
  for (int64_t& size : sizes) {
    if (size == -1 && open == nullptr) {
      open = &size;
    } else {
      known *= size;
    }
  }
  if (open != nullptr) *open = known == 0 ? 0 : x.numel() / known;
  return reshape(x, Shape(std::span<const int64_t>(sizes)));
}

// ---- permute ----

Metas Permute::infer(const Attrs& a, MetaSpan in) {
  const Shape& shape = in[0].shape;
  std::array<bool, Shape::max_rank> seen{};
  Shape out;
  if (static_cast<int>(a.axes.size()) != shape.rank())
    fail(name, "expected " + std::to_string(shape.rank()) + " axes for " + shape.to_string());
  for (int axis : a.axes) {
    if (axis < 0 || axis >= shape.rank() || seen[static_cast<size_t>(axis)])
      fail(name, "axes are not a permutation of those of " + shape.to_string());
    seen[static_cast<size_t>(axis)] = true;
    out.push_back(shape[axis]);
  }
  return {{out, in[0].dtype, in[0].device}};
}

Tensors Permute::view(const Attrs& a, const Tensor& x) {
  Shape shape;
  Strides strides{};
  for (size_t i = 0; i < a.axes.size(); ++i) {
    shape.push_back(x.size(a.axes[i]));
    strides[i] = x.strides()[static_cast<size_t>(a.axes[i])];
  }
  return {make_view(x, shape, strides, x.offset())};
}

Tensors Permute::backward(const Attrs& a, const Saved&, const Tensors& dout) {
  std::vector<int> inverse(a.axes.size());
  for (size_t i = 0; i < a.axes.size(); ++i) inverse[static_cast<size_t>(a.axes[i])] = static_cast<int>(i);
  return {permute(dout[0], inverse)};
}

std::vector<Sample> Permute::samples() {
  return {sample<Permute>("rotate", {{2, 0, 1}}, {{.shape = {2, 3, 4}}}),
          refused<Permute>("not a permutation", {{0, 0, 1}}, {{.shape = {2, 3, 4}}}),
          refused<Permute>("expected 3 axes", {{0, 1}}, {{.shape = {2, 3, 4}}})};
}

Tensor permute(const Tensor& x, std::vector<int> axes) { return call1<Permute>({std::move(axes)}, {x}); }

std::vector<int> transposed_axes(int rank) {
  std::vector<int> axes(static_cast<size_t>(rank));
  for (int i = 0; i < rank; ++i) axes[static_cast<size_t>(i)] = i;
  std::swap(axes[axes.size() - 1], axes[axes.size() - 2]);
  return axes;
}

Tensor transpose(const Tensor& x) {
  if (x.rank() < 2) fail("transpose", "expected at least two axes, got " + x.shape().to_string());
  return permute(x, transposed_axes(x.rank()));
}

// ---- split ----

Metas Split::infer(const Attrs& a, MetaSpan in) {
  int64_t sum = 0;
  Metas out;
  for (int64_t size : a.sizes) {
    Shape shape = in[0].shape;
    shape.set(a.axis, size);
    out.push_back({shape, in[0].dtype, in[0].device});
    sum += size;
  }
  if (a.sizes.empty() || sum != in[0].shape[a.axis])
    fail(name, "pieces add up to " + std::to_string(sum) + ", axis " + std::to_string(a.axis) + " of " +
                   in[0].shape.to_string() + " does not");
  return out;
}

Tensors Split::view(const Attrs& a, const Tensor& x) {
  Tensors pieces;
  int64_t offset = x.offset();
  const int64_t stride = x.strides()[static_cast<size_t>(x.shape().index(a.axis))];
  for (int64_t size : a.sizes) {
    Shape shape = x.shape();
    shape.set(a.axis, size);
    pieces.push_back(make_view(x, shape, x.strides(), offset));
    offset += size * stride;
  }
  return pieces;
}

Tensors Split::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  Tensors pieces;
  for (size_t i = 0; i < dout.size(); ++i) {
    const Meta& m = saved.out_meta(i);
    pieces.push_back(dout[i] ? dout[i] : Tensor::zeros(m.shape, m.dtype, m.device));
  }
  return {concat(pieces, a.axis)};
}

std::vector<Sample> Split::samples() {
  return {sample<Split>("channels", {-1, {2, 1, 3}}, {{.shape = {2, 3, 6}}}),
          sample<Split>("batch", {0, {1, 1}}, {{.shape = {2, 3}}}),
          refused<Split>("pieces add up to 5", {-1, {2, 3}}, {{.shape = {2, 3, 6}}})};
}

Tensors split(const Tensor& x, int axis, std::vector<int64_t> sizes) {
  return call<Split>({axis, std::move(sizes)}, {x});
}

// ---- slice ----

Metas Slice::infer(const Attrs& a, MetaSpan in) {
  const int64_t size = in[0].shape[a.axis];
  if (a.step < 1 || a.length < 0 || a.start < 0 ||
      (a.length > 0 && (a.length - 1 > (size - 1 - a.start) / a.step || a.start >= size)))
    fail(name, std::to_string(a.length) + " elements from " + std::to_string(a.start) + " by " +
                   std::to_string(a.step) + " leave axis " + std::to_string(a.axis) + " of " +
                   in[0].shape.to_string());
  Shape shape = in[0].shape;
  shape.set(a.axis, a.length);
  return {{shape, in[0].dtype, in[0].device}};
}

Tensors Slice::view(const Attrs& a, const Tensor& x) {
  Shape shape = x.shape();
  shape.set(a.axis, a.length);
  Strides strides = x.strides();
  int64_t& stride = strides[static_cast<size_t>(x.shape().index(a.axis))];
  const int64_t offset = x.offset() + a.start * stride;
  stride *= a.step;
  return {make_view(x, shape, strides, offset)};
}

Tensors Slice::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  const Shape& shape = saved.in_meta(0).shape;
  Tensor d = dout[0];
  if (a.step > 1) {  // zeros between the elements: a new axis of `step`, all but its first entry zero
    const int axis = shape.index(a.axis);
    std::vector<int64_t> apart, merged;
    for (int i = 0; i < shape.rank(); ++i) {
      apart.push_back(d.size(i));
      merged.push_back(i == axis ? a.length * a.step : d.size(i));
      if (i == axis) apart.push_back(1);
    }
    d = reshape(d, apart);
    d = pad(d, axis + 1, 0, a.step - 1);
    d = slice(reshape(d, merged), axis, 0, (a.length - 1) * a.step + 1);
  }
  return {pad(d, a.axis, a.start, shape[a.axis] - a.start - d.size(a.axis))};
}

std::vector<Sample> Slice::samples() {
  return {sample<Slice>("middle", {1, 1, 2}, {{.shape = {2, 4, 3}}}),
          sample<Slice>("every second", {1, 1, 2, 2}, {{.shape = {2, 5, 3}}}),
          refused<Slice>("leave axis 1", {1, 3, 2}, {{.shape = {2, 4, 3}}}),
          refused<Slice>("leave axis 1", {1, -1, 2}, {{.shape = {2, 4, 3}}})};
}

Tensor slice(const Tensor& x, int axis, int64_t start, int64_t length, int64_t step) {
  return call1<Slice>({axis, start, length, step}, {x});
}

// ---- broadcast ----

Metas Broadcast::infer(const Attrs& a, MetaSpan in) {
  if (!(broadcast_shapes(name, in[0].shape, a.shape) == a.shape))
    fail(name, in[0].shape.to_string() + " does not broadcast to " + a.shape.to_string());
  return {{a.shape, in[0].dtype, in[0].device}};
}

Tensors Broadcast::view(const Attrs& a, const Tensor& x) {
  Strides strides{};
  const int shift = a.shape.rank() - x.rank();
  for (int i = 0; i < x.rank(); ++i)
    if (x.size(i) != 1 || a.shape[i + shift] == 1)
      strides[static_cast<size_t>(i + shift)] = x.strides()[static_cast<size_t>(i)];
  return {make_view(x, a.shape, strides, x.offset())};
}

Tensors Broadcast::backward(const Attrs&, const Saved& saved, const Tensors& dout) {
  return {sum_to(dout[0], saved.in_meta(0).shape)};
}

std::vector<Sample> Broadcast::samples() {
  return {sample<Broadcast>("new axis", {Shape{2, 3, 4}}, {{.shape = {3, 1}}}),
          refused<Broadcast>("do not broadcast", {Shape{2, 3}}, {{.shape = {2, 2}}})};
}

Tensor broadcast_to(const Tensor& x, const Shape& shape) {
  return x.shape() == shape ? x : call1<Broadcast>({shape}, {x});
}

}  // namespace voxlab
