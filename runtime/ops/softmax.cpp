#include "runtime/ops/softmax.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/unary.h"

namespace voxlab {
namespace {

void check_input(std::string_view op, const Meta& x, int axis) {
  if (!is_floating(x.dtype)) fail(op, "expected a floating dtype, got " + x.to_string());
  if (x.shape[axis] == 0) fail(op, "axis " + std::to_string(axis) + " of " + x.to_string() + " is empty");
}

Metas grad_meta(std::string_view op, MetaSpan in, int axis) {
  check_input(op, in[0], axis);
  if (in.size() != 2 || !(in[1] == in[0]))
    fail(op, "gradient is " + in.back().to_string() + ", output " + in[0].to_string());
  return {in[0]};
}

Tensor dot(const Tensor& a, const Tensor& b, int axis) { return sum(mul(a, b), {axis}, true); }

// Samples that every op along an axis shares.
template <class Op>
std::vector<Sample> axis_samples() {
  const SampleInput x{.shape = {2, 5, 3}, .low = -3, .high = 3};
  return {sample<Op>("last", {{-1}}, {x}),
          sample<Op>("middle", {{1}}, {x}),
          sample<Op>("first", {{0}}, {x}),
          sample<Op>("one entry", {{-1}}, {{.shape = {4, 1}}}),
          sample<Op>("long", {{-1}}, {{.shape = {3, 261}, .low = -3, .high = 3}}),
          sample<Op>("long before wide", {{-2}}, {{.shape = {2, 67, 21}, .low = -3, .high = 3}}),
          sample<Op>("strided", {{-1}}, {{.shape = {2, 9, 4}, .permuted = {0, 2, 1}}}),
          refused<Op>("outside", {{3}}, {x}),
          refused<Op>("is empty", {{1}}, {{.shape = {2, 0, 3}}}),
          refused<Op>("floating dtype", {{1}}, {{.shape = {2, 3}, .high = 4, .integer = true}})};
}

}  // namespace

AxisSplit split_at(const Shape& shape, int axis) {
  AxisSplit s;
  const int at = shape.index(axis);
  for (int i = 0; i < shape.rank(); ++i) (i < at ? s.outer : i == at ? s.size : s.inner) *= shape[i];
  return s;
}

// ---- softmax ----

Metas Softmax::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], a.axis);
  return {in[0]};
}
// Maximum, difference, exponential, sum, quotient.
Cost Softmax::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 5 * in[0].numel()}; }
Tensors Softmax::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  return {call1<SoftmaxGrad>({a}, {saved.out(0), dout[0]})};
}
std::vector<Sample> Softmax::samples() {
  auto all = axis_samples<Softmax>();
  all.push_back(sample<Softmax>("large values", {{-1}}, {{.shape = {4, 6}, .low = 500, .high = 503}}));
  return all;
}

Metas SoftmaxGrad::infer(const Attrs& a, MetaSpan in) { return grad_meta(name, in, a.axis); }
Cost SoftmaxGrad::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 4 * in[0].numel()}; }
Tensors SoftmaxGrad::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  const Tensor &y = saved.in(0), &dy = saved.in(1), &g = dout[0];
  Tensors d(2);
  if (saved.needs(0)) d[0] = sub(mul(g, sub(dy, dot(y, dy, a.axis))), mul(dy, dot(g, y, a.axis)));
  if (saved.needs(1)) d[1] = call1<SoftmaxGrad>(a, {y, g});  // the Jacobian is symmetric
  return d;
}
std::vector<Sample> SoftmaxGrad::samples() {
  const SampleInput y{.shape = {2, 5, 3}, .low = 0.05, .high = 1}, dy{.shape = {2, 5, 3}};
  return {sample<SoftmaxGrad>("last", {{-1}}, {y, dy}), sample<SoftmaxGrad>("middle", {{1}}, {y, dy}),
          refused<SoftmaxGrad>("gradient is", {{-1}}, {y, {.shape = {2, 5, 2}}})};
}

// ---- log_softmax ----

Metas LogSoftmax::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], a.axis);
  return {in[0]};
}
Cost LogSoftmax::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 5 * in[0].numel()}; }
Tensors LogSoftmax::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  return {call1<LogSoftmaxGrad>({a}, {saved.out(0), dout[0]})};
}
std::vector<Sample> LogSoftmax::samples() {
  auto all = axis_samples<LogSoftmax>();
  all.push_back(sample<LogSoftmax>("large values", {{-1}}, {{.shape = {4, 6}, .low = -90, .high = 90}}));
  return all;
}

Metas LogSoftmaxGrad::infer(const Attrs& a, MetaSpan in) { return grad_meta(name, in, a.axis); }
Cost LogSoftmaxGrad::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 4 * in[0].numel()}; }
Tensors LogSoftmaxGrad::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  const Tensor p = unary(UnaryKind::exp, saved.in(0)), &dy = saved.in(1), &g = dout[0];
  Tensors d(2);
  if (saved.needs(0)) d[0] = scale(mul(mul(g, p), sum(dy, {a.axis}, true)), -1);
  if (saved.needs(1)) d[1] = sub(g, dot(g, p, a.axis));
  return d;
}
std::vector<Sample> LogSoftmaxGrad::samples() {
  const SampleInput y{.shape = {2, 5, 3}, .low = -3, .high = 0}, dy{.shape = {2, 5, 3}};
  return {sample<LogSoftmaxGrad>("last", {{-1}}, {y, dy}), sample<LogSoftmaxGrad>("middle", {{1}}, {y, dy}),
          refused<LogSoftmaxGrad>("gradient is", {{-1}}, {y, {.shape = {2, 5, 2}}})};
}

// ---- l2_normalise ----

Metas L2Normalise::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], a.axis);
  if (!(a.eps > 0)) fail(name, "eps must be positive, got " + std::to_string(a.eps));
  Meta norm = in[0];
  norm.shape.set(a.axis, 1);
  return {in[0], norm};
}
Cost L2Normalise::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 3 * in[0].numel()}; }
Tensors L2Normalise::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  const Tensor &y = saved.out(0), &norm = saved.out(1);
  Tensor d;
  if (dout[0]) d = call1<L2NormaliseGrad>({a}, {y, norm, dout[0]});
  if (dout[1]) {  // d ||x|| / dx = y, where it was not clamped
    const Tensor part = mul(y, mul(dout[1], unary(UnaryKind::step, affine(norm, 1, -clamp_limit(a)))));
    d = d ? add(d, part) : part;
  }
  return {d};
}
std::vector<Sample> L2Normalise::samples() {
  auto all = axis_samples<L2Normalise>();
  all.push_back(sample<L2Normalise>("clamped", {{-1, 4}}, {{.shape = {5, 3}}}));
  all.push_back(refused<L2Normalise>("eps must be positive", {{-1, 0}}, {{.shape = {5, 3}}}));
  return all;
}

Metas L2NormaliseGrad::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], a.axis);
  Meta norm = in[0];
  norm.shape.set(a.axis, 1);
  if (in.size() != 3 || !(in[1] == norm) || !(in[2] == in[0]))
    fail(name, "expected y " + in[0].to_string() + ", norm " + norm.to_string() + " and dy like y; dy is " +
                   in.back().to_string());
  return {in[0]};
}
Cost L2NormaliseGrad::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 5 * in[0].numel()}; }
Tensors L2NormaliseGrad::decompose(const Attrs& a, const Tensors& in) {
  const Tensor &y = in[0], &norm = in[1], &dy = in[2];
  const Tensor moves = unary(UnaryKind::step, affine(norm, 1, -L2Normalise::clamp_limit(a)));
  return {div(sub(dy, mul(y, mul(moves, dot(y, dy, a.axis)))), norm)};
}
std::vector<Sample> L2NormaliseGrad::samples() {
  const SampleInput y{.shape = {2, 5, 3}}, norm{.shape = {2, 5, 1}, .low = 0.5, .high = 2};
  return {sample<L2NormaliseGrad>("last", {{-1}}, {y, norm, y}),
          sample<L2NormaliseGrad>("middle", {{1}}, {y, {.shape = {2, 1, 3}, .low = 0.5, .high = 2}, y}),
          sample<L2NormaliseGrad>("clamped", {{-1, 3}}, {y, norm, y}),
          refused<L2NormaliseGrad>("dy is", {{-1}}, {y, norm, norm})};
}

Tensor softmax(const Tensor& x, int axis) { return call1<Softmax>({{axis}}, {x}); }
Tensor log_softmax(const Tensor& x, int axis) { return call1<LogSoftmax>({{axis}}, {x}); }
Tensor l2_normalise(const Tensor& x, int axis, double eps) { return call1<L2Normalise>({{axis, eps}}, {x}); }

}  // namespace voxlab
