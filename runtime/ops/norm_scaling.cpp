#include "runtime/ops/norm_scaling.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/optional_inputs.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

using In = ScalingInput;

// Of the seven inputs from `first` on.
template <class Inputs>
auto part(const Inputs& in, size_t first, ScalingInput i) {
  const size_t at = first + static_cast<size_t>(i);
  return at < in.size() ? in[at] : typename Inputs::value_type{};
}

void check(std::string_view op, const Meta& x, MetaSpan in, size_t first) {
  if (in.size() < first + static_cast<size_t>(In::reduce) + 1)
    fail(op, "expected weights that expand and reduce, got " + std::to_string(in.size()) + " inputs");
  const int64_t channels = x.shape[-1];
  const Meta wide = part(in, first, In::expand), narrow = part(in, first, In::reduce);
  const int64_t all = wide.numel();
  if (all == 0 || all % channels != 0 || wide.shape[-1] != all)
    fail(op, "expand must give each of " + std::to_string(channels) + " channels as many, got " + wide.to_string());
  if (narrow.numel() != all || narrow.shape[-1] != channels)
    fail(op, "reduce must take " + std::to_string(all) + " channels to " + std::to_string(channels) + ", got " + narrow.to_string());
  const auto check_width = [&](ScalingInput i, std::string_view what, int64_t width) {
    if (given(in, first + static_cast<size_t>(i)) && part(in, first, i).shape != Shape{width})
      fail(op, std::string(what) + " must have " + std::to_string(width) + " values, got " + part(in, first, i).to_string());
  };
  check_width(In::norm_weight, "the norm's weight", channels);
  check_width(In::norm_bias, "the norm's bias", channels);
  check_width(In::expand_bias, "the expanding bias", all);
  check_width(In::reduce_bias, "the reducing bias", channels);
  check_width(In::gamma, "gamma", channels);
  for (size_t i = 0; i < in.size(); ++i)
    if (in[i].shape != Shape{0} && in[i].dtype != x.dtype)
      fail(op, "expected one dtype, got " + x.to_string() + " and " + in[i].to_string());
}

// Multiply-adds of both scalings; GELU and the rest an element.
Cost scaling_cost(const Meta& x, const Meta& wide) {
  const int64_t macs = 2 * x.numel() * (wide.numel() / x.shape[-1]);
  return {.macs = macs, .flops = 2 * macs + macs / 2 * 4 + 2 * x.numel()};
}

// (..., C) -> (..., C, R), before the GELU.
Tensor expanded(const Tensor& normal, const Tensors& in, size_t first) {
  const int64_t channels = normal.size(-1), ratio = part(in, first, In::expand).numel() / channels;
  Shape each = normal.shape();
  each.push_back(1);
  Tensor z = mul(reshape(normal, each), reshape(part(in, first, In::expand), {channels, ratio}));
  if (const Tensor bias = part(in, first, In::expand_bias)) z = add(z, reshape(bias, {channels, ratio}));
  return z;
}

// (C, R), whose rows lie as the expanded channels do.
Tensor reducing(const Tensors& in, size_t first, int64_t channels) {
  return transpose(reshape(part(in, first, In::reduce), {-1, channels}));
}

// (..., C, R), behind the GELU -> (..., C), before gamma.
Tensor reduced(const Tensor& wide, const Tensors& in, size_t first) {
  Tensor y = sum(mul(wide, reducing(in, first, wide.size(-2))), {-1});
  if (const Tensor bias = part(in, first, In::reduce_bias)) y = add(y, bias);
  return y;
}

Tensor scaled_norm(const Tensor& normal, const Tensors& in, size_t first) {
  const Tensor y = reduced(gelu(expanded(normal, in, first)), in, first), factor = part(in, first, In::gamma);
  return factor ? mul(y, factor) : y;
}

// The norm's output from its statistics.
Tensor again(const Tensor& x, const Tensors& in, size_t first, const Tensor& mean, const Tensor& rstd) {
  const NormGeometry g = LayerNorm::geometry({}, x.shape());
  Tensor y = reshape(mul(sub(seen(x, g), statistic(mean, g)), statistic(rstd, g)), x.shape());
  if (const Tensor weight = part(in, first, In::norm_weight)) y = mul(y, weight);
  if (const Tensor bias = part(in, first, In::norm_bias)) y = add(y, bias);
  return y;
}

std::vector<SampleInput> parameters(int64_t channels, int64_t ratio) {
  const SampleInput c{.shape = {channels}};
  return {c, c, {.shape = {1, 1, channels * ratio}}, {.shape = {channels * ratio}}, {.shape = {1, ratio, channels}}, c, c};
}
std::vector<SampleInput> weights_alone(int64_t channels, int64_t ratio) {
  const SampleInput none{.shape = {0}, .absent = true};
  std::vector<SampleInput> all = parameters(channels, ratio);
  for (const ScalingInput i : {In::norm_weight, In::norm_bias, In::expand_bias, In::reduce_bias, In::gamma}) all[static_cast<size_t>(i)] = none;
  return all;
}
std::vector<SampleInput> around(std::vector<SampleInput> before, const std::vector<SampleInput>& seven, std::vector<SampleInput> after = {}) {
  before.insert(before.end(), seven.begin(), seven.end());
  before.insert(before.end(), after.begin(), after.end());
  return before;
}

}  // namespace

// ---- forward ----

Metas NormScaling::infer(const Attrs& a, MetaSpan in) {
  const Metas out = LayerNorm::infer({a}, in.first(1));
  check(name, in[0], in, 1);
  const size_t residual = 1 + scaling_inputs;
  if (given(in, residual) && in[residual].shape != in[0].shape)
    fail(name, "the residual must be like x, got " + in[residual].to_string() + " and " + in[0].to_string());
  return out;
}
Cost NormScaling::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = scaling_cost(in[0], in[1 + static_cast<size_t>(In::expand)]);
  cost.flops += LayerNorm::cost({a}, in.first(1), out).flops;
  return cost;
}
Tensors NormScaling::decompose(const Attrs& a, const Tensors& in) {
  Tensors out = call<LayerNorm>({a}, {in[0], part(in, 1, In::norm_weight), part(in, 1, In::norm_bias)});
  out[0] = scaled_norm(out[0], in, 1);
  if (const Tensor residual = input(in, 1 + scaling_inputs)) out[0] = add(residual, out[0]);
  return out;
}
std::vector<Sample> NormScaling::samples() {
  const SampleInput x{.shape = {2, 3, 5}};
  return {sample<NormScaling>("tokens", {}, around({x}, parameters(5, 4), {x})),
          sample<NormScaling>("weights alone", {{1e-6}}, around({x}, weights_alone(5, 2))),
          sample<NormScaling>("wide", {}, around({{.shape = {3, 37}}}, parameters(37, 3))),
          refused<NormScaling>("expand must give", {}, around({x}, parameters(7, 4))),
          refused<NormScaling>("residual must be like x", {}, around({x}, parameters(5, 4), {{.shape = {6, 5}}}))};
}

// ---- gradient ----

Metas NormScalingGrad::infer(const Attrs& a, MetaSpan in) {
  constexpr size_t statistics = 2 + scaling_inputs;
  if (in.size() != statistics + 2)
    fail(name, "expected dy, x, seven parameters, mean and rstd, got " + std::to_string(in.size()) + " inputs");
  Metas out{LayerNormGrad::infer({a}, Metas{in[0], in[1], Meta{.shape = Shape{0}}, in[statistics], in[statistics + 1]})[0]};
  check(name, in[1], in, 2);
  const Meta &x = in[1], wide = in[2 + static_cast<size_t>(In::expand)], narrow = in[2 + static_cast<size_t>(In::reduce)];
  const auto of = [&](Shape shape) { out.push_back({std::move(shape), x.dtype, x.device}); };
  const Shape channels{x.shape[-1]};
  for (const Shape& shape : {channels, channels, wide.shape, Shape{wide.numel()}, narrow.shape, channels, channels}) of(shape);
  return out;
}
Cost NormScalingGrad::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  constexpr size_t statistics = 2 + scaling_inputs;
  Cost cost = scaling_cost(in[1], in[2 + static_cast<size_t>(In::expand)]);
  cost.macs *= 2;  // of data and of weights
  cost.flops = 3 * cost.flops + LayerNormGrad::cost({a}, Metas{in[0], in[1], Meta{.shape = Shape{0}}, in[statistics], in[statistics + 1]}, out.first(1)).flops;
  return cost;
}
Tensors NormScalingGrad::decompose(const Attrs& a, const Tensors& in) {
  constexpr size_t first = 2, statistics = first + scaling_inputs;
  const Tensor &dy = in[0], &x = in[1], &mean = in[statistics], &rstd = in[statistics + 1];
  const int64_t channels = x.size(-1);
  const Tensor factor = part(in, first, In::gamma), normal = again(x, in, first, mean, rstd);
  const Tensor z = expanded(normal, in, first), wide = gelu(z);
  const Tensor dreduced = factor ? mul(dy, factor) : dy;
  Shape each = x.shape();
  each.push_back(1);
  const Tensor spread = reshape(dreduced, each);  // (..., C, 1)
  const Tensor dz = call1<UnaryGrad>({UnaryAttrs{.kind = UnaryKind::gelu}}, {z, mul(spread, reducing(in, first, channels))});
  const Tensor dnormal = sum(mul(dz, reshape(part(in, first, In::expand), {channels, -1})), {-1});
  const Tensors norm = call<LayerNormGrad>({a}, {dnormal, x, part(in, first, In::norm_weight), mean, rstd});
  const auto shaped = [&](const Tensor& t, ScalingInput like) { return reshape(t, part(in, first, like).shape()); };
  const auto by_channel = [](const Tensor& t) { return sum_to(t, Shape{t.size(-1)}); };                          // (..., C) -> (C)
  const auto by_wide = [](const Tensor& t) { return sum_to(t, Shape{t.size(-2), t.size(-1)}); };                 // (..., C, R) -> (C, R)
  const Tensor dbias = by_wide(dz);
  return {norm[0],
          norm[1],
          norm[2],
          shaped(by_wide(mul(dz, reshape(normal, each))), In::expand),
          reshape(dbias, Shape{dbias.numel()}),
          shaped(transpose(by_wide(mul(wide, spread))), In::reduce),
          by_channel(dreduced),
          by_channel(mul(dy, reduced(wide, in, first)))};
}
std::vector<Sample> NormScalingGrad::samples() {
  const auto spread = [](Shape shape) { return SampleInput{.shape = std::move(shape), .low = 0.5, .high = 2}; };
  const SampleInput x{.shape = {2, 3, 5}}, rows{.shape = {2, 3}}, wide{.shape = {9, 37}};
  return {sample<NormScalingGrad>("tokens", {}, around({x, x}, parameters(5, 4), {rows, spread({2, 3})})),
          sample<NormScalingGrad>("weights alone", {}, around({x, x}, weights_alone(5, 2), {rows, spread({2, 3})})),
          sample<NormScalingGrad>("wide", {}, around({wide, wide}, parameters(37, 3), {{.shape = {9}}, spread({9})})),
          refused<NormScalingGrad>("reduce must take", {},
                                   around({x, x}, {{.shape = {5}}, {.shape = {5}}, {.shape = {20}}, {.shape = {20}}, {.shape = {3, 5}}, {.shape = {5}}, {.shape = {5}}},
                                          {rows, spread({2, 3})})),
          refused<NormScalingGrad>("spread must be", {}, around({x, x}, parameters(5, 4), {rows, spread({2, 5})}))};
}

// ---- with the convolution before it ----

Metas ConvNormScaling::infer(const Attrs& a, MetaSpan in) {
  const Metas y = Conv::infer({a}, in.first(std::min<size_t>(3, in.size())));
  if (y[0].shape != in[0].shape) fail(name, "the convolution must keep the shape of " + in[0].to_string() + ", makes " + y[0].to_string());
  LayerNorm::infer({a}, y);
  check(name, y[0], in, 3);
  return y;
}
Cost ConvNormScaling::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = Conv::cost({a}, in.first(3), out);
  const Cost rest = scaling_cost(out[0], in[3 + static_cast<size_t>(In::expand)]);
  const Meta rows = Meta{Shape{out[0].numel() / out[0].shape[-1]}, out[0].dtype, out[0].device};
  cost.bytes = 0;  // as every op's
  cost.macs += rest.macs;
  cost.flops += rest.flops + LayerNorm::cost({a}, out.first(1), Metas{out[0], rows, rows}).flops;
  return cost;
}
Tensors ConvNormScaling::decompose(const Attrs& a, const Tensors& in) {
  const Tensor y = conv(in[0], in[1], input(in, 2), a);
  return {add(in[0], scaled_norm(layer_norm(y, part(in, 3, In::norm_weight), part(in, 3, In::norm_bias), a.eps), in, 3))};
}
std::vector<Sample> ConvNormScaling::samples() {
  const SampleInput x{.shape = {2, 4, 5, 6, 19}}, w{.shape = {3, 3, 3, 1, 19}}, c{.shape = {19}}, none{.shape = {0}, .absent = true};
  const ConvOptions same{.padding = {1}, .groups = 19};
  return {sample<ConvNormScaling>("depthwise", {same, {}}, around({x, w, c}, parameters(19, 4)), 4),
          sample<ConvNormScaling>("many channels in a plane", {{.padding = {1}, .groups = 70}, {}},
                                  around({{.shape = {2, 3, 4, 70}}, {.shape = {3, 3, 1, 70}}, {.shape = {70}}}, parameters(70, 2)), 4),
          sample<ConvNormScaling>("weights alone", {same, {1e-6}}, around({x, w, none}, weights_alone(19, 2)), 4),
          refused<ConvNormScaling>("must keep the shape", {{.groups = 19}, {}}, around({x, w, c}, parameters(19, 4))),
          refused<ConvNormScaling>("gamma must have", {same, {}},
                                   around({x, w, c}, {c, c, {.shape = {76}}, {.shape = {76}}, {.shape = {4, 19}}, c, {.shape = {4}}}))};
}

}  // namespace voxlab
