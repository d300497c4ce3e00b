#include "runtime/ops/norm.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/optional_inputs.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab {

Tensor seen(const Tensor& x, const NormGeometry& g) {
  return reshape(x, Shape{g.batch, g.positions, g.groups, g.channels});
}
Tensor statistic(const Tensor& s, const NormGeometry& g) { return reshape(s, Shape{g.batch, 1, g.groups, 1}); }

namespace {


void check_input(std::string_view op, const Meta& x, int least_rank, double eps) {
  if (!is_floating(x.dtype)) fail(op, "expected a floating dtype, got " + x.to_string());
  if (x.shape.rank() < least_rank)
    fail(op, "expected at least " + std::to_string(least_rank) + " axes, got " + x.to_string());
  if (x.numel() == 0) fail(op, "no values in " + x.to_string());
  if (!(eps >= 0)) fail(op, "eps must not be negative, got " + std::to_string(eps));
}

void check_shape(std::string_view op, std::string_view what, const Meta& got, const Shape& expected, DType dtype) {
  if (got.shape != expected || got.dtype != dtype)
    fail(op, std::string(what) + " must be " + Meta{expected, dtype}.to_string() + ", got " + got.to_string());
}

void check_affine(std::string_view op, MetaSpan in, const NormGeometry& g) {
  for (size_t i : {size_t{1}, size_t{2}})
    if (given(in, i)) check_shape(op, i == 1 ? "weight" : "bias", in[i], Shape{g.width()}, in[0].dtype);
}

Metas norm_metas(std::string_view op, MetaSpan in, const NormGeometry& g, const Shape& statistics) {
  check_affine(op, in, g);
  const Meta s{statistics, in[0].dtype, in[0].device};
  return {in[0], s, s};
}

Metas grad_metas(std::string_view op, MetaSpan in, const NormGeometry& g, const Shape& statistics) {
  if (in.size() != 5) fail(op, "expected dy, x, weight and two statistics, got " + std::to_string(in.size()) + " inputs");
  const Meta& x = in[1];
  check_shape(op, "dy", in[0], x.shape, x.dtype);
  if (given(in, 2)) check_shape(op, "weight", in[2], Shape{g.width()}, x.dtype);
  check_shape(op, "mean", in[3], statistics, x.dtype);
  check_shape(op, "spread", in[4], statistics, x.dtype);
  const Meta w{Shape{g.width()}, x.dtype, x.device};
  return {x, w, w};
}

// Mean 1, variance 3, normalising 2, and 1 each for weight and bias.
Cost norm_cost(MetaSpan in) {
  return {.flops = in[0].numel() * (6 + (given(in, 1) ? 1 : 0) + (given(in, 2) ? 1 : 0))};
}
// Normalised input 2, its two sums 3, dx 4, dweight 2, dbias 1, and dy times weight 1.
Cost grad_cost(MetaSpan in) { return {.flops = in[1].numel() * (given(in, 2) ? 13 : 12)}; }

// What the gradient of a mean and of the spread (variance or rstd) adds to dx. They are outputs that a
// second derivative reaches through the saved statistics.
Tensor through_statistics(const NormGeometry& g, const Saved& saved, const Tensors& dout, bool variance) {
  const double share = 1 / static_cast<double>(g.count());
  Tensor dx;
  if (dout[1]) dx = broadcast_to(scale(statistic(dout[1], g), share), seen(saved.in(0), g).shape());
  if (dout[2]) {
    const Tensor centred = sub(seen(saved.in(0), g), statistic(saved.out(1), g));
    Tensor slope = statistic(dout[2], g);  // times d spread / d (x - mean) / (x - mean)
    if (!variance) {
      const Tensor rstd = statistic(saved.out(2), g);
      slope = mul(slope, mul(rstd, square(rstd)));
    }
    const Tensor part = mul(centred, scale(slope, variance ? 2 * share : -share));
    dx = dx ? add(dx, part) : part;
  }
  return dx ? reshape(dx, saved.in_meta(0).shape) : dx;
}

template <class Grad>
Tensors norm_backward(typename Grad::Attrs a, const NormGeometry& g, const Saved& saved, const Tensors& dout,
                      bool variance) {
  Tensors d(saved.inputs());
  if (dout[0]) {
    const Tensor weight = saved.has(1) ? saved.in(1) : Tensor();
    const Tensors grads = call<Grad>(a, {dout[0], saved.in(0), weight, saved.out(1), saved.out(2)});
    for (size_t i = 0; i < d.size(); ++i)
      if (saved.needs(i)) d[i] = grads[i];
  }
  if (saved.needs(0)) {
    const Tensor part = through_statistics(g, saved, dout, variance);
    if (part) d[0] = d[0] ? add(d[0], part) : part;
  }
  return d;
}

// dx = rstd (h - mean(h) - n mean(h n)), n = (x - mean) rstd, h = dy weight.
Tensors grad_from_simpler(const NormGeometry& g, const Tensors& in, const Tensor& rstd) {
  const Tensor dy = seen(in[0], g);
  const Tensor n = mul(sub(seen(in[1], g), statistic(in[3], g)), rstd);
  const Tensor h = in[2] ? mul(dy, reshape(in[2], Shape{1, 1, g.groups, g.channels})) : dy;
  const auto average = [](const Tensor& t) { return mean(t, {1, 3}, true); };
  const Tensor dx = mul(rstd, sub(sub(h, average(h)), mul(n, average(mul(h, n)))));
  const Shape width{g.width()};
  return {reshape(dx, in[1].shape()), reshape(sum(mul(dy, n), {0, 1}), width), reshape(sum(dy, {0, 1}), width)};
}

Shape without_last(const Shape& shape) {
  return Shape(std::span<const int64_t>(shape.begin(), static_cast<size_t>(shape.rank() - 1)));
}

SampleInput spread(Shape shape) { return {.shape = std::move(shape), .low = 0.5, .high = 2}; }

}  // namespace

// ---- group_norm ----

NormGeometry GroupNorm::geometry(const GroupNormAttrs& a, const Shape& x) {
  const int64_t channels = x[-1];
  if (a.groups < 1 || channels % a.groups != 0)
    fail(name, std::to_string(a.groups) + " groups do not divide " + std::to_string(channels) + " channels");
  return {x[0], x.numel() / (x[0] * channels), a.groups, channels / a.groups};
}

Metas GroupNorm::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], 2, a.eps);
  const NormGeometry g = geometry(a, in[0].shape);
  return norm_metas(name, in, g, Shape{g.batch, g.groups});
}
Cost GroupNorm::cost(const Attrs&, MetaSpan in, MetaSpan) { return norm_cost(in); }
Tensors GroupNorm::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  return norm_backward<GroupNormGrad>({a}, geometry(a, saved.in_meta(0).shape), saved, dout, false);
}

std::vector<Sample> GroupNorm::samples() {
  const SampleInput x{.shape = {2, 3, 5, 4, 6}}, c{.shape = {6}};
  return {sample<GroupNorm>("two groups", {{2}}, {x, c, c}),
          sample<GroupNorm>("one group", {{1}}, {x, c, c}),
          sample<GroupNorm>("instance", {{6}}, {x, c, c}),
          sample<GroupNorm>("no weight", {{6}}, {x}),
          sample<GroupNorm>("bias only", {{3, 1e-2}}, {x, {.shape = {0}, .absent = true}, c}),
          sample<GroupNorm>("one channel", {{1}}, {{.shape = {2, 7, 5, 1}}, {.shape = {1}}, {.shape = {1}}}),
          sample<GroupNorm>("no space", {{2}}, {{.shape = {3, 8}}, {.shape = {8}}, {.shape = {8}}}),
          sample<GroupNorm>("wide", {{17}}, {{.shape = {1, 3, 3, 3, 34}}, {.shape = {34}}, {.shape = {34}}}),
          sample<GroupNorm>("strided", {{4}},
                            {{.shape = {2, 4, 3, 3}, .permuted = {0, 2, 3, 1}}, {.shape = {4}}, {.shape = {4}}}),
          refused<GroupNorm>("4 groups do not divide 6 channels", {{4}}, {x, c, c}),
          refused<GroupNorm>("0 groups do not divide 6 channels", {{0}}, {x, c, c}),
          refused<GroupNorm>("weight must be", {{2}}, {x, {.shape = {5}}, c}),
          refused<GroupNorm>("bias must be", {{2}}, {x, c, {.shape = {1, 6}}}),
          refused<GroupNorm>("eps must not be negative", {{2, -1}}, {x}),
          refused<GroupNorm>("at least 2 axes", {{1}}, {c})};
}

Metas GroupNormGrad::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], 2, a.eps);
  const NormGeometry g = GroupNorm::geometry(a, in[0].shape);
  return grad_metas(name, in, g, Shape{g.batch, g.groups});
}
Cost GroupNormGrad::cost(const Attrs&, MetaSpan in, MetaSpan) { return grad_cost(in); }
Tensors GroupNormGrad::decompose(const Attrs& a, const Tensors& in) {
  const NormGeometry g = GroupNorm::geometry(a, in[1].shape());
  return grad_from_simpler(g, in, statistic(in[4], g));
}
std::vector<Sample> GroupNormGrad::samples() {
  const SampleInput x{.shape = {2, 3, 2, 6}}, c{.shape = {6}}, absent{.shape = {0}, .absent = true};
  return {sample<GroupNormGrad>("two groups", {{2}}, {x, x, c, {.shape = {2, 2}}, spread({2, 2})}),
          sample<GroupNormGrad>("instance", {{6}}, {x, x, absent, {.shape = {2, 6}}, spread({2, 6})}),
          refused<GroupNormGrad>("mean must be", {{2}}, {x, x, c, {.shape = {2, 3}}, spread({2, 2})}),
          refused<GroupNormGrad>("dy must be", {{2}}, {x, {.shape = {2, 3, 3, 6}}, c, {.shape = {2, 2}}, spread({2, 2})})};
}

// ---- layer_norm ----

NormGeometry LayerNorm::geometry(const EpsAttrs&, const Shape& x) {
  return {x.numel() / x[-1], 1, 1, x[-1]};
}
Metas LayerNorm::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], 1, a.eps);
  return norm_metas(name, in, geometry(a, in[0].shape), without_last(in[0].shape));
}
Cost LayerNorm::cost(const Attrs&, MetaSpan in, MetaSpan) { return norm_cost(in); }
Tensors LayerNorm::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  return norm_backward<LayerNormGrad>({a}, geometry(a, saved.in_meta(0).shape), saved, dout, false);
}

std::vector<Sample> LayerNorm::samples() {
  const SampleInput x{.shape = {2, 5, 7}}, c{.shape = {7}};
  return {sample<LayerNorm>("tokens", {}, {x, c, c}),
          sample<LayerNorm>("no weight", {{1e-6}}, {x}),
          sample<LayerNorm>("weight only", {}, {x, c}),
          sample<LayerNorm>("one row", {}, {c, c, c}),
          sample<LayerNorm>("one channel", {}, {{.shape = {4, 1}}, {.shape = {1}}, {.shape = {1}}}),
          sample<LayerNorm>("wide", {}, {{.shape = {3, 131}}, {.shape = {131}}, {.shape = {131}}}),
          sample<LayerNorm>("strided", {}, {{.shape = {2, 7, 5}, .permuted = {0, 2, 1}}, c, c}),
          refused<LayerNorm>("weight must be", {}, {x, {.shape = {5}}}),
          refused<LayerNorm>("floating dtype", {}, {{.shape = {2, 3}, .high = 4, .integer = true}}),
          refused<LayerNorm>("no values", {}, {{.shape = {0, 7}}})};
}

Metas LayerNormGrad::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], 1, a.eps);
  return grad_metas(name, in, LayerNorm::geometry(a, in[0].shape), without_last(in[0].shape));
}
Cost LayerNormGrad::cost(const Attrs&, MetaSpan in, MetaSpan) { return grad_cost(in); }
Tensors LayerNormGrad::decompose(const Attrs& a, const Tensors& in) {
  const NormGeometry g = LayerNorm::geometry(a, in[1].shape());
  return grad_from_simpler(g, in, statistic(in[4], g));
}
std::vector<Sample> LayerNormGrad::samples() {
  const SampleInput x{.shape = {2, 3, 5}}, c{.shape = {5}}, rows{.shape = {2, 3}};
  return {sample<LayerNormGrad>("tokens", {}, {x, x, c, rows, spread({2, 3})}),
          sample<LayerNormGrad>("no weight", {}, {x, x, {.shape = {0}, .absent = true}, rows, spread({2, 3})}),
          refused<LayerNormGrad>("spread must be", {}, {x, x, c, rows, spread({2, 5})})};
}

// ---- batch_norm ----

NormGeometry BatchNorm::geometry(const EpsAttrs&, const Shape& x) {
  return {1, x.numel() / x[-1], x[-1], 1};
}
Metas BatchNorm::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], 2, a.eps);
  const NormGeometry g = geometry(a, in[0].shape);
  if (g.count() == 1) fail(name, "one value per channel has no variance to train with; input " + in[0].to_string());
  return norm_metas(name, in, g, Shape{g.groups});
}
Cost BatchNorm::cost(const Attrs&, MetaSpan in, MetaSpan) { return norm_cost(in); }
Tensors BatchNorm::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  return norm_backward<BatchNormGrad>({a}, geometry(a, saved.in_meta(0).shape), saved, dout, true);
}

std::vector<Sample> BatchNorm::samples() {
  const SampleInput x{.shape = {2, 3, 5, 6}}, c{.shape = {6}};
  return {sample<BatchNorm>("2-d", {}, {x, c, c}),
          sample<BatchNorm>("no weight", {{1e-3}}, {x}),
          sample<BatchNorm>("3-d", {}, {{.shape = {1, 3, 2, 5, 3}}, {.shape = {3}}, {.shape = {3}}}),
          sample<BatchNorm>("rows", {}, {{.shape = {9, 19}}, {.shape = {19}}, {.shape = {19}}}),
          sample<BatchNorm>("one channel", {}, {{.shape = {2, 4, 4, 1}}, {.shape = {1}}, {.shape = {1}}}),
          refused<BatchNorm>("one value per channel", {}, {{.shape = {1, 1, 1, 6}}, c, c}),
          refused<BatchNorm>("bias must be", {}, {x, c, {.shape = {3}}})};
}

Metas BatchNormGrad::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], 2, a.eps);
  return grad_metas(name, in, BatchNorm::geometry(a, in[0].shape), Shape{in[0].shape[-1]});
}
Cost BatchNormGrad::cost(const Attrs&, MetaSpan in, MetaSpan) { return grad_cost(in); }
Tensors BatchNormGrad::decompose(const Attrs& a, const Tensors& in) {
  const NormGeometry g = BatchNorm::geometry(a, in[1].shape());
  return grad_from_simpler(g, in, unary(UnaryKind::rsqrt, affine(statistic(in[4], g), 1, a.eps)));
}
std::vector<Sample> BatchNormGrad::samples() {
  const SampleInput x{.shape = {2, 3, 2, 4}}, c{.shape = {4}};
  return {sample<BatchNormGrad>("2-d", {}, {x, x, c, c, spread({4})}),
          sample<BatchNormGrad>("no weight", {}, {x, x, {.shape = {0}, .absent = true}, c, spread({4})}),
          refused<BatchNormGrad>("mean must be", {}, {x, x, c, {.shape = {3}}, spread({4})})};
}

// ---- batch_norm_inference ----

Metas BatchNormInference::infer(const Attrs& a, MetaSpan in) {
  check_input(name, in[0], 2, a.eps);
  if (in.size() != 5) fail(name, "expected x, weight, bias, mean and var, got " + std::to_string(in.size()) + " inputs");
  const NormGeometry g = BatchNorm::geometry(a, in[0].shape);
  check_affine(name, in, g);
  check_shape(name, "mean", in[3], Shape{g.width()}, in[0].dtype);
  check_shape(name, "var", in[4], Shape{g.width()}, in[0].dtype);
  return {in[0]};
}
// One multiply and one add with the folded scale and shift.
Cost BatchNormInference::cost(const Attrs&, MetaSpan in, MetaSpan) { return {.flops = 2 * in[0].numel()}; }

Tensors BatchNormInference::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  Tensors d(5);
  const Shape width{saved.in_meta(3).shape};
  const Tensor& dy = dout[0];
  const Tensor rstd = unary(UnaryKind::rsqrt, affine(saved.in(4), 1, a.eps));
  const Tensor factor = saved.has(1) ? mul(rstd, saved.in(1)) : rstd;
  if (saved.needs(0)) d[0] = mul(dy, factor);
  if (saved.needs(2) || saved.needs(3)) {
    const Tensor total = sum_to(dy, width);
    if (saved.needs(2)) d[2] = total;
    if (saved.needs(3)) d[3] = scale(mul(total, factor), -1);
  }
  if (saved.needs(1) || saved.needs(4)) {
    const Tensor along = sum_to(mul(dy, sub(saved.in(0), saved.in(3))), width);  // sum of dy (x - mean)
    if (saved.needs(1)) d[1] = mul(along, rstd);
    if (saved.needs(4)) d[4] = scale(mul(mul(along, factor), square(rstd)), -0.5);
  }
  return d;
}

std::vector<Sample> BatchNormInference::samples() {
  const SampleInput x{.shape = {2, 3, 5, 6}}, c{.shape = {6}}, absent{.shape = {0}, .absent = true};
  return {sample<BatchNormInference>("weight and bias", {}, {x, c, c, c, spread({6})}),
          sample<BatchNormInference>("plain", {{1e-3}}, {x, absent, absent, c, spread({6})}),
          sample<BatchNormInference>("wide", {}, {{.shape = {2, 37}}, {.shape = {37}}, {.shape = {37}},
                                                  {.shape = {37}}, spread({37})}),
          refused<BatchNormInference>("var must be", {}, {x, c, c, c, spread({5})}),
          refused<BatchNormInference>("expected x, weight, bias, mean and var", {}, {x, c, c})};
}

Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& weight, const Tensor& bias, double eps) {
  return call1<GroupNorm>({{groups, eps}}, {x, weight, bias});
}
Tensor layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) {
  return call1<LayerNorm>({{eps}}, {x, weight, bias});
}
Tensor batch_norm_inference(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& mean,
                            const Tensor& var, double eps) {
  return call1<BatchNormInference>({{eps}}, {x, weight, bias, mean, var});
}

}  // namespace voxlab
