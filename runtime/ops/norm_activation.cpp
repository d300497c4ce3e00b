#include "runtime/ops/norm_activation.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/optional_inputs.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {


Tensor rstd_of(const Tensor& variance, double eps) { return unary(UnaryKind::rsqrt, affine(variance, 1, eps)); }

// (x - mean) rstd weight + bias; mean and rstd (batch, 1, groups, 1).
Tensor normalised(const NormGeometry& g, const Tensor& x, const Tensor& mean, const Tensor& rstd, const Tensor& weight,
                  const Tensor& bias) {
  Tensor y = reshape(mul(sub(seen(x, g), mean), rstd), x.shape());
  if (weight) y = mul(y, weight);
  return bias ? add(y, bias) : y;
}

// Mean and variance of each group, (batch, 1, groups, 1), from those of each sample's channels (N, C, 2).
std::pair<Tensor, Tensor> joined(const NormGeometry& g, const Tensor& moments) {
  const auto grouped = [&](int64_t which) {
    return reshape(contiguous(slice(moments, 2, which, 1)), {g.batch, moments.size(0) / g.batch, g.groups, g.channels});
  };
  const Tensor means = grouped(0), middle = mean(means, {1, 3}, true);
  return {middle, mean(add(grouped(1), square(sub(means, middle))), {1, 3}, true)};
}

// The norm whose x, weight, bias, mean and spread stand among a gradient's inputs from `x` on.
Tensor norm_of(const NormActivationAttrs& a, const Tensors& in, size_t x) {
  const NormGeometry g = NormActivation::geometry(a, in[x].shape());
  const Tensor spread = statistic(in[x + 4], g), rstd = a.over_batch ? rstd_of(spread, a.eps) : spread;
  return normalised(g, in[x], statistic(in[x + 3], g), rstd, in[x + 1], in[x + 2]);
}

// dy of the activation's input z.
Tensor through_activation(const NormActivationAttrs& a, const Tensor& dy, const Tensor& z) {
  const double slope = NormActivationGrad::slope(a);
  return mul(dy, affine(unary(UnaryKind::step, z), 1 - slope, slope));
}

Metas plain_infer(const NormActivationAttrs& a, MetaSpan in) {
  return a.over_batch ? BatchNorm::infer({{a.eps}}, in) : GroupNorm::infer({a}, in);
}

}  // namespace

NormGeometry NormActivation::geometry(const NormActivationAttrs& a, const Shape& x) {
  return a.over_batch ? BatchNorm::geometry({a.eps}, x) : GroupNorm::geometry(a, x);
}

Metas NormActivation::infer(const Attrs& a, MetaSpan in) {
  const Metas out = plain_infer(a, in.first(std::min<size_t>(3, in.size())));
  if (given(in, 3) && (in[3].shape != in[0].shape || in[3].dtype != in[0].dtype))
    fail(name, "the residual must be " + in[0].to_string() + ", got " + in[3].to_string());
  const Shape& x = in[0].shape;
  const Shape moments{x[0], x[-1], 2};
  if (given(in, 4) && in[4].shape != moments) fail(name, "moments must be " + moments.to_string() + ", got " + in[4].to_string());
  return out;
}
Cost NormActivation::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = GroupNorm::cost({a}, in.first(std::min<size_t>(3, in.size())), out);
  if (given(in, 4)) cost.flops -= 4 * in[0].numel();  // mean 1, variance 3
  if (given(in, 3)) cost.flops += out[0].numel();
  if (a.activation != Activation::none) cost.flops += out[0].numel();
  return cost;
}
Tensors NormActivation::decompose(const Attrs& a, const Tensors& in) {
  const Tensor weight = input(in, 1), bias = input(in, 2), residual = input(in, 3);
  if (!input(in, 4)) {
    const Tensors inputs{in[0], weight, bias};
    Tensors out = a.over_batch ? call<BatchNorm>({{a.eps}}, inputs) : call<GroupNorm>({a}, inputs);
    out[0] = finished(a, out[0], residual);
    return out;
  }
  const NormGeometry g = geometry(a, in[0].shape());
  const auto [middle, variance] = joined(g, in[4]);
  const Tensor rstd = rstd_of(variance, a.eps), y = normalised(g, in[0], middle, rstd, weight, bias);
  const Shape statistics = a.over_batch ? Shape{g.groups} : Shape{g.batch, g.groups};
  return {finished(a, y, residual), reshape(middle, statistics), reshape(a.over_batch ? variance : rstd, statistics)};
}

std::vector<Sample> NormActivation::samples() {
  const SampleInput x{.shape = {2, 3, 5, 4, 6}}, c{.shape = {6}}, none{.shape = {0}, .absent = true};
  const SampleInput moments{.shape = {2, 6, 2}, .low = 0.5, .high = 2};
  const Finish leaky{Activation::leaky_relu, 0.1};
  return {sample<NormActivation>("groups", {{{2}, leaky}}, {x, c, c}),
          sample<NormActivation>("instance with a residual", {{{6}, leaky}}, {x, none, none, x}),
          sample<NormActivation>("batch", {{{}, {Activation::relu}, true}}, {x, c, c}),
          sample<NormActivation>("batch with a residual", {{{}, leaky, true}}, {x, c, c, x}),
          sample<NormActivation>("known moments in groups", {{{2}, leaky}}, {x, c, c, none, moments}),
          sample<NormActivation>("known moments by channel", {{{6}, {}}}, {x, none, none, x, moments}),
          sample<NormActivation>("known moments of a batch", {{{}, leaky, true}}, {x, c, c, none, moments}),
          refused<NormActivation>("moments must be", {{{2}, leaky}}, {x, c, c, none, c}),
          refused<NormActivation>("the residual must be", {{{2}, leaky}}, {x, c, c, c})};
}

Metas NormActivationGrad::infer(const Attrs& a, MetaSpan in) {
  if (in.size() != 6) fail(name, "expected dy, x, weight, bias and two statistics, got " + std::to_string(in.size()) + " inputs");
  if (a.activation == Activation::gelu || a.activation == Activation::hardswish)
    fail(name, "the slope of " + std::string(to_string(a.activation)) + " does not follow from a sign");
  const Metas plain{in[0], in[1], in[2], in[4], in[5]};
  if (given(in, 3) && in[3].shape != Shape{in[1].shape[-1]}) fail(name, "bias must have one value a channel, got " + in[3].to_string());
  return a.over_batch ? BatchNormGrad::infer({{a.eps}}, plain) : GroupNormGrad::infer({a}, plain);
}
Cost NormActivationGrad::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  const Metas plain{in[0], in[1], in[2], in[4], in[5]};
  Cost cost = GroupNormGrad::cost({a}, plain, out);
  if (a.activation != Activation::none) cost.flops += 4 * in[1].numel();  // the activation's input again 3, its slope 1
  return cost;
}
Tensors NormActivationGrad::decompose(const Attrs& a, const Tensors& in) {
  const Tensor dy = a.activation == Activation::none ? in[0] : through_activation(a, in[0], norm_of(a, in, 1));
  const Tensors plain{dy, in[1], in[2], in[4], in[5]};
  return a.over_batch ? call<BatchNormGrad>({{a.eps}}, plain) : call<GroupNormGrad>({a}, plain);
}

std::vector<Sample> NormActivationGrad::samples() {
  const SampleInput x{.shape = {2, 3, 5, 4, 6}}, c{.shape = {6}}, none{.shape = {0}, .absent = true};
  const auto spread = [](Shape shape) { return SampleInput{.shape = shape, .low = 0.5, .high = 2}; };
  const Finish leaky{Activation::leaky_relu, 0.1};
  return {sample<NormActivationGrad>("groups", {{{2}, leaky}}, {x, x, c, c, {.shape = {2, 2}}, spread({2, 2})}),
          sample<NormActivationGrad>("instance", {{{6}, {Activation::relu}}}, {x, x, none, none, {.shape = {2, 6}}, spread({2, 6})}),
          sample<NormActivationGrad>("batch", {{{}, leaky, true}}, {x, x, c, c, c, spread({6})}),
          sample<NormActivationGrad>("no activation", {{{}, {}, true}}, {x, x, c, none, c, spread({6})}),
          refused<NormActivationGrad>("does not follow from a sign", {{{2}, {Activation::gelu}}}, {x, x, c, c, c, c}),
          refused<NormActivationGrad>("one value a channel", {{{}, leaky, true}}, {x, x, c, x, c, spread({6})})};
}

// ---- norm_sum ----

namespace {

constexpr size_t inputs_of_norm = 3, outputs_of_norm = 2, gradient_inputs = 5;

NormActivationAttrs without_activation(NormActivationAttrs a) {
  a.activation = Activation::none;
  return a;
}

// Input, weight, bias, mean and spread of one of the two norms of a gradient.
template <class Values>
Values of_norm(const Values& in, size_t norm) {
  const auto first = in.begin() + static_cast<std::ptrdiff_t>(1 + norm * gradient_inputs);
  return {first, first + gradient_inputs};
}

}  // namespace

Metas NormSum::infer(const Attrs& a, MetaSpan in) {
  if (in.size() < 2 * inputs_of_norm) fail(name, "expected x, weight and bias of two norms, got " + std::to_string(in.size()) + " inputs");
  if (in[0].shape != in[inputs_of_norm].shape || in[0].dtype != in[inputs_of_norm].dtype)
    fail(name, "both norms must be of " + in[0].to_string() + ", got " + in[inputs_of_norm].to_string());
  Metas out;
  for (size_t i = 0; i < 2; ++i) {
    Metas one(in.begin() + static_cast<std::ptrdiff_t>(i * inputs_of_norm), in.begin() + static_cast<std::ptrdiff_t>((i + 1) * inputs_of_norm));
    if (given(in, 2 * inputs_of_norm + i)) {
      one.push_back({Shape{0}, in[0].dtype, in[0].device});
      one.push_back(in[2 * inputs_of_norm + i]);
    }
    const Metas of_one = NormActivation::infer({a}, one);
    out.insert(out.end(), of_one.begin() + (i == 0 ? 0 : 1), of_one.end());
  }
  return out;
}
Cost NormSum::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = GroupNorm::cost({a}, in.first(inputs_of_norm), out.first(1 + outputs_of_norm));
  cost.flops += GroupNorm::cost({a}, in.subspan(inputs_of_norm, inputs_of_norm), out.first(1 + outputs_of_norm)).flops;
  for (const size_t moments : {2 * inputs_of_norm, 2 * inputs_of_norm + 1})
    if (given(in, moments)) cost.flops -= 4 * in[0].numel();
  cost.flops += out[0].numel() * (a.activation == Activation::none ? 1 : 2);
  return cost;
}
Tensors NormSum::decompose(const Attrs& a, const Tensors& in) {
  const Tensors second = call<NormActivation>({without_activation(a)}, {in[3], in[4], in[5], Tensor(), input(in, 7)});
  const Tensors first = call<NormActivation>({a}, {in[0], in[1], in[2], second[0], input(in, 6)});
  return {first[0], first[1], first[2], second[1], second[2]};
}
std::vector<Sample> NormSum::samples() {
  const SampleInput x{.shape = {2, 3, 5, 4, 6}}, c{.shape = {6}}, none{.shape = {0}, .absent = true};
  const SampleInput moments{.shape = {2, 6, 2}, .low = 0.5, .high = 2};
  const Finish leaky{Activation::leaky_relu, 0.1};
  return {sample<NormSum>("groups", {{{2}, leaky}}, {x, c, c, x, c, c}),
          sample<NormSum>("instance, known moments", {{{6}, leaky}}, {x, c, c, x, none, none, moments, moments}),
          sample<NormSum>("batch, moments of one", {{{}, {Activation::relu}, true}}, {x, c, c, x, c, c, none, moments}),
          refused<NormSum>("both norms must be of", {{{2}, leaky}}, {x, c, c, c, c, c})};
}

Metas NormSumGrad::infer(const Attrs& a, MetaSpan in) {
  if (in.size() != 1 + 2 * gradient_inputs) fail(name, "expected dy and five inputs of each norm, got " + std::to_string(in.size()) + " inputs");
  if (a.activation == Activation::none) fail(name, "expected an activation");
  Metas out;
  for (size_t i = 0; i < 2; ++i) {
    Metas one = of_norm(Metas(in.begin(), in.end()), i);
    one.insert(one.begin(), in[0]);
    const Metas of_one = NormActivationGrad::infer({a}, one);
    out.insert(out.end(), of_one.begin(), of_one.end());
  }
  return out;
}
Cost NormSumGrad::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost{};
  for (size_t i = 0; i < 2; ++i) {
    Metas one = of_norm(Metas(in.begin(), in.end()), i);
    one.insert(one.begin(), in[0]);
    cost.flops += NormActivationGrad::cost({a}, one, out.subspan(3 * i, 3)).flops;
  }
  cost.flops -= in[0].numel();  // the slope is applied once; the inputs of the activation are added up
  return cost;
}
Tensors NormSumGrad::decompose(const Attrs& a, const Tensors& in) {
  const Tensor dy = through_activation(a, in[0], add(norm_of(a, in, 1), norm_of(a, in, 1 + gradient_inputs)));
  Tensors out;
  for (size_t i = 0; i < 2; ++i) {
    Tensors one = of_norm(in, i);
    one.insert(one.begin(), dy);
    for (const Tensor& t : call<NormActivationGrad>({without_activation(a)}, one)) out.push_back(t);
  }
  return out;
}
std::vector<Sample> NormSumGrad::samples() {
  const SampleInput x{.shape = {2, 3, 5, 4, 6}}, c{.shape = {6}}, none{.shape = {0}, .absent = true};
  const auto spread = [](Shape shape) { return SampleInput{.shape = shape, .low = 0.5, .high = 2}; };
  const SampleInput m2{.shape = {2, 2}}, m6{.shape = {2, 6}};
  const Finish leaky{Activation::leaky_relu, 0.1};
  return {sample<NormSumGrad>("groups", {{{2}, leaky}}, {x, x, c, c, m2, spread({2, 2}), x, c, c, m2, spread({2, 2})}),
          sample<NormSumGrad>("instance", {{{6}, {Activation::relu}}}, {x, x, none, none, m6, spread({2, 6}), x, c, c, m6, spread({2, 6})}),
          sample<NormSumGrad>("batch", {{{}, leaky, true}}, {x, x, c, c, c, spread({6}), x, c, c, c, spread({6})}),
          refused<NormSumGrad>("expected an activation", {{{}, {}, true}}, {x, x, c, c, c, c, x, c, c, c, c})};
}

}  // namespace voxlab
