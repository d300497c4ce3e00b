#include "runtime/ops/layer_norm_gelu.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/optional_inputs.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

constexpr UnaryAttrs gelu_attrs{.kind = UnaryKind::gelu};

}  // namespace

Metas LayerNormGelu::infer(const Attrs& a, MetaSpan in) { return LayerNorm::infer({a}, in); }
Cost LayerNormGelu::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  return {.flops = LayerNorm::cost({a}, in, out).flops + Unary::cost({gelu_attrs}, in.first(1), out.first(1)).flops};
}
Tensors LayerNormGelu::decompose(const Attrs& a, const Tensors& in) {
  Tensors out = call<LayerNorm>({a}, in);
  out[0] = gelu(out[0]);
  return out;
}
std::vector<Sample> LayerNormGelu::samples() {
  const SampleInput x{.shape = {2, 5, 7}}, c{.shape = {7}};
  return {sample<LayerNormGelu>("tokens", {}, {x, c, c}),
          sample<LayerNormGelu>("no weight", {{1e-6}}, {x}),
          sample<LayerNormGelu>("weight only", {}, {x, c}),
          sample<LayerNormGelu>("wide", {}, {{.shape = {3, 131}}, {.shape = {131}}, {.shape = {131}}}),
          refused<LayerNormGelu>("weight must be", {}, {x, {.shape = {5}}})};
}

Metas LayerNormGeluGrad::infer(const Attrs& a, MetaSpan in) {
  if (in.size() != 6) fail(name, "expected dy, x, weight, bias, mean and rstd, got " + std::to_string(in.size()) + " inputs");
  if (given(in, 3) && in[3].shape != Shape{in[1].shape[-1]}) fail(name, "bias must have one value a channel, got " + in[3].to_string());
  return LayerNormGrad::infer({a}, Metas{in[0], in[1], in[2], in[4], in[5]});
}
Cost LayerNormGeluGrad::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  const int64_t again = 4 * in[1].numel();  // the norm's output
  return {.flops = LayerNormGrad::cost({a}, Metas{in[0], in[1], in[2], in[4], in[5]}, out).flops + again +
                   UnaryGrad::cost({gelu_attrs}, in.first(1), out.first(1)).flops};
}
Tensors LayerNormGeluGrad::decompose(const Attrs& a, const Tensors& in) {
  const NormGeometry g = LayerNorm::geometry(a, in[1].shape());
  Tensor z = reshape(mul(sub(seen(in[1], g), statistic(in[4], g)), statistic(in[5], g)), in[1].shape());
  if (in[2]) z = mul(z, in[2]);
  if (in[3]) z = add(z, in[3]);
  return call<LayerNormGrad>({a}, {call1<UnaryGrad>({gelu_attrs}, {z, in[0]}), in[1], in[2], in[4], in[5]});
}
std::vector<Sample> LayerNormGeluGrad::samples() {
  const SampleInput x{.shape = {2, 3, 5}}, c{.shape = {5}}, none{.shape = {0}, .absent = true}, rows{.shape = {2, 3}};
  const auto spread = [](Shape shape) { return SampleInput{.shape = shape, .low = 0.5, .high = 2}; };
  const SampleInput wide{.shape = {9, 131}}, wide_c{.shape = {131}};
  return {sample<LayerNormGeluGrad>("tokens", {}, {x, x, c, c, rows, spread({2, 3})}),
          sample<LayerNormGeluGrad>("no weight", {}, {x, x, none, none, rows, spread({2, 3})}),
          sample<LayerNormGeluGrad>("wide", {}, {wide, wide, wide_c, wide_c, {.shape = {9}}, spread({9})}),
          refused<LayerNormGeluGrad>("one value a channel", {}, {x, x, c, {.shape = {3}}, rows, spread({2, 3})}),
          refused<LayerNormGeluGrad>("spread must be", {}, {x, x, c, c, rows, spread({2, 5})})};
}

namespace {

// What the norm reads: the convolution's output, its own weight and bias.
Metas norm_metas(const Meta& y, MetaSpan in) {
  Metas metas{y};
  for (size_t i = 3; i < in.size(); ++i) metas.push_back(in[i]);
  return metas;
}

}  // namespace

Metas ConvNormGelu::infer(const Attrs& a, MetaSpan in) {
  const Metas y = Conv::infer({a}, in.first(std::min<size_t>(3, in.size())));
  LayerNorm::infer({a}, norm_metas(y[0], in));
  return y;
}
Cost ConvNormGelu::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = Conv::cost({a}, in.first(std::min<size_t>(3, in.size())), out);
  cost.bytes = 0;  // as every op's
  cost.flops += LayerNormGelu::cost({a}, norm_metas(out[0], in), out).flops;
  return cost;
}
Tensors ConvNormGelu::decompose(const Attrs& a, const Tensors& in) {
  return {gelu(layer_norm(conv(in[0], in[1], input(in, 2), a), input(in, 3), input(in, 4), a.eps))};
}
std::vector<Sample> ConvNormGelu::samples() {
  const SampleInput x{.shape = {2, 5, 6, 70}}, w{.shape = {3, 3, 1, 70}}, c{.shape = {70}}, none{.shape = {0}, .absent = true};
  const ConvOptions same{.padding = {1}, .groups = 70};
  return {sample<ConvNormGelu>("depthwise", {same, {}}, {x, w, c, c, c}, 4),
          sample<ConvNormGelu>("no bias, no weight", {same, {1e-6}}, {x, w}, 4),
          sample<ConvNormGelu>("no padding", {{.groups = 70}, {}}, {x, w, none, c, c}, 4),
          refused<ConvNormGelu>("weight must be", {same, {}}, {x, w, c, {.shape = {5}}})};
}

}  // namespace voxlab
