#include "runtime/ops/fused.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/softmax.h"

namespace voxlab {
namespace {

bool given(MetaSpan in, size_t i) { return i < in.size() && in[i].shape != Shape{0}; }
Tensor input(const Tensors& in, size_t i) { return i < in.size() ? in[i] : Tensor(); }
MetaSpan first(MetaSpan in, size_t n) { return in.subspan(0, std::min(n, in.size())); }

void check_residual(std::string_view op, MetaSpan in, const Meta& out) {
  if (given(in, 3) && (in[3].shape != out.shape || in[3].dtype != out.dtype))
    fail(op, "the residual must be " + out.to_string() + ", got " + in[3].to_string());
}

// Added to a cost: one for the residual, and what the activation costs alone.
int64_t finish_flops(const Finish& f, bool residual, const Meta& out) {
  int64_t flops = residual ? out.numel() : 0;
  if (f.activation == Activation::gelu || f.activation == Activation::hardswish) flops += 4 * out.numel();
  if (f.activation == Activation::relu || f.activation == Activation::leaky_relu) flops += out.numel();
  return flops;
}

}  // namespace

std::optional<Finish> finish_of(const UnaryAttrs& a) {
  switch (a.kind) {
    case UnaryKind::relu: return Finish{Activation::relu};
    case UnaryKind::leaky_relu: return Finish{Activation::leaky_relu, a.alpha};
    case UnaryKind::gelu: return Finish{Activation::gelu};
    case UnaryKind::hardswish: return Finish{Activation::hardswish};
    default: return std::nullopt;
  }
}

Tensor finished(const Finish& f, const Tensor& value, const Tensor& residual) {
  const Tensor y = residual ? add(value, residual) : value;
  switch (f.activation) {
    case Activation::none: return y;
    case Activation::relu: return relu(y);
    case Activation::leaky_relu: return leaky_relu(y, f.slope);
    case Activation::gelu: return gelu(y);
    case Activation::hardswish: return hardswish(y);
  }
  return y;
}

// ---- fused_conv ----

namespace {

// As Conv takes them, the input's parts joined.
Metas conv_inputs(MetaSpan in) {
  Metas joined(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(3, in.size())));
  if (given(in, 4)) joined[0] = Concat::infer({}, Metas{in[0], in[4]})[0];
  return joined;
}

}  // namespace

Metas FusedConv::infer(const Attrs& a, MetaSpan in) {
  const Metas out = Conv::infer({a}, conv_inputs(in));
  check_residual(name, in, out[0]);
  return out;
}
Cost FusedConv::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = Conv::cost({a}, conv_inputs(in), out);
  cost.flops += finish_flops(a, given(in, 3), out[0]);
  return cost;
}
Tensors FusedConv::decompose(const Attrs& a, const Tensors& in) {
  const Tensor x = input(in, 4) ? concat({in[0], in[4]}, -1) : in[0];
  return {finished(a, conv(x, in[1], input(in, 2), a), input(in, 3))};
}

std::vector<Sample> FusedConv::samples() {
  const SampleInput x{.shape = {2, 3, 5, 6, 4}}, w{.shape = {3, 3, 3, 4, 17}}, b{.shape = {17}};
  const SampleInput none{.absent = true}, y{.shape = {2, 3, 5, 6, 17}};
  const ConvOptions same{.padding = {1}};
  return {sample<FusedConv>("residual and leaky ReLU", {same, {Activation::leaky_relu, 0.2}}, {x, w, b, y}),
          sample<FusedConv>("GELU", {same, {Activation::gelu}}, {x, w, b}),
          sample<FusedConv>("residual alone", {same, {}}, {x, w, none, y}),
          sample<FusedConv>("narrow rows", {same, {Activation::relu}},
                            {{.shape = {1, 1, 4, 19, 3}}, {.shape = {3, 3, 3, 3, 5}}, none, {.shape = {1, 1, 4, 19, 5}}}),
          sample<FusedConv>("depthwise", {{.padding = {1}, .groups = 16}, {Activation::hardswish}},
                            {{.shape = {1, 2, 4, 5, 16}}, {.shape = {3, 3, 3, 1, 16}}, none, {.shape = {1, 2, 4, 5, 16}}}),
          sample<FusedConv>("pointwise 2-d", {{}, {Activation::leaky_relu}},
                            {{.shape = {2, 7, 9, 8}}, {.shape = {1, 1, 8, 16}}, {.shape = {16}}, {.shape = {2, 7, 9, 16}}}),
          sample<FusedConv>("two inputs", {same, {Activation::relu}},
                            {x, {.shape = {3, 3, 3, 13, 17}}, b, none, {.shape = {2, 3, 5, 6, 9}}}),
          sample<FusedConv>("two inputs, pointwise, a residual", {{}, {}},
                            {x, {.shape = {1, 1, 1, 36, 17}}, none, y, {.shape = {2, 3, 5, 6, 32}}}),
          refused<FusedConv>("channels", {same, {}}, {x, w, none, none, {.shape = {2, 3, 5, 6, 9}}}),
          refused<FusedConv>("the residual must be", {same, {}}, {x, w, none, {.shape = {2, 3, 5, 6, 4}}})};
}

// ---- fused_linear ----

Metas FusedLinear::infer(const Attrs&, MetaSpan in) {
  const Metas out = Linear::infer({}, first(in, 3));
  check_residual(name, in, out[0]);
  return out;
}
Cost FusedLinear::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = Linear::cost({}, first(in, 3), out);
  cost.flops += finish_flops(a, given(in, 3), out[0]);
  return cost;
}
Tensors FusedLinear::decompose(const Attrs& a, const Tensors& in) {
  return {finished(a, linear(in[0], in[1], input(in, 2)), input(in, 3))};
}

std::vector<Sample> FusedLinear::samples() {
  const SampleInput x{.shape = {2, 5, 7}}, w{.shape = {7, 20}}, b{.shape = {20}}, y{.shape = {2, 5, 20}};
  const SampleInput none{.absent = true};
  return {sample<FusedLinear>("GELU", {{Activation::gelu}}, {x, w, b}),
          sample<FusedLinear>("residual", {{}}, {x, w, b, y}),
          sample<FusedLinear>("hardswish of a sum", {{Activation::hardswish}}, {x, w, none, y}),
          sample<FusedLinear>("long sum", {{Activation::leaky_relu}},
                              {{.shape = {3, 4100}}, {.shape = {4100, 5}}, {.shape = {5}}, {.shape = {3, 5}}}, 4),
          refused<FusedLinear>("the residual must be", {{}}, {x, w, b, {.shape = {2, 5, 7}}})};
}

// ---- fused_group_norm ----

Metas FusedGroupNorm::infer(const Attrs& a, MetaSpan in) {
  const Metas out = GroupNorm::infer({a}, first(in, 3));
  check_residual(name, in, out[0]);
  if (a.norm_residual && !given(in, 3)) fail(name, "norm_residual without a residual");
  if (a.norm_residual && in.size() > 4) {
    Metas other(in.begin() + 3, in.end());
    GroupNorm::infer({a}, other);
  }
  return {out[0]};
}
Cost FusedGroupNorm::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = GroupNorm::cost({a}, first(in, 3), out);
  if (a.norm_residual) cost.flops += GroupNorm::cost({a}, in.subspan(3), out).flops;
  cost.flops += finish_flops(a, given(in, 3), out[0]);
  return cost;
}
Tensors FusedGroupNorm::decompose(const Attrs& a, const Tensors& in) {
  const Tensor y = group_norm(in[0], a.groups, input(in, 1), input(in, 2), a.eps);
  const Tensor residual = a.norm_residual ? group_norm(in[3], a.groups, input(in, 4), input(in, 5), a.eps) : input(in, 3);
  return {finished(a, y, residual)};
}

std::vector<Sample> FusedGroupNorm::samples() {
  const SampleInput x{.shape = {2, 3, 5, 4, 6}}, c{.shape = {6}}, none{.absent = true};
  const GroupNormAttrs two{2}, instance{6};
  const Finish leaky{Activation::leaky_relu, 0.1};
  return {sample<FusedGroupNorm>("leaky ReLU", {two, leaky}, {x, c, c}),
          sample<FusedGroupNorm>("residual", {instance, leaky}, {x, none, none, x}),
          sample<FusedGroupNorm>("residual with a norm of its own", {instance, leaky, true}, {x, none, none, x}),
          sample<FusedGroupNorm>("both affine", {two, {Activation::relu}, true}, {x, c, c, x, c, c}),
          sample<FusedGroupNorm>("17 channels", {{17}, {Activation::gelu}}, {{.shape = {1, 50, 17}}}),
          refused<FusedGroupNorm>("norm_residual without a residual", {two, leaky, true}, {x}),
          refused<FusedGroupNorm>("the residual must be", {two, leaky}, {x, c, c, {.shape = {2, 3, 5, 4, 2}}})};
}

// ---- fused_attention ----

namespace {

Meta scores_of(MetaSpan in) {
  const Metas scores = Matmul::infer({}, first(in, 2));
  if (given(in, 3) && broadcast_shapes(FusedAttention::name, scores[0].shape, in[3].shape) != scores[0].shape)
    fail(FusedAttention::name, "bias " + in[3].to_string() + " does not broadcast to " + scores[0].to_string());
  return scores[0];
}

}  // namespace

Metas FusedAttention::infer(const Attrs&, MetaSpan in) {
  const Metas second{scores_of(in), in[2]};
  return Matmul::infer({}, second);
}
Cost FusedAttention::cost(const Attrs&, MetaSpan in, MetaSpan out) {
  const Metas scores{scores_of(in)}, second{scores[0], in[2]};
  Cost cost = Matmul::cost({}, first(in, 2), scores);
  const Cost product = Matmul::cost({}, second, out);
  cost.macs += product.macs;
  cost.flops += product.flops + Softmax::cost({}, scores, scores).flops + (given(in, 3) ? scores[0].numel() : 0);
  return cost;
}
Tensors FusedAttention::decompose(const Attrs&, const Tensors& in) {
  const Tensor scores = matmul(in[0], in[1]);
  return {matmul(softmax(input(in, 3) ? add(scores, in[3]) : scores), in[2])};
}

std::vector<Sample> FusedAttention::samples() {
  const SampleInput q{.shape = {2, 3, 5, 4}}, k{.shape = {2, 3, 4, 7}}, v{.shape = {2, 3, 7, 6}};
  return {sample<FusedAttention>("plain", {}, {q, k, v}),
          sample<FusedAttention>("bias of every head", {}, {q, k, v, {.shape = {3, 5, 7}}}),
          sample<FusedAttention>("bias of every key", {}, {q, k, v, {.shape = {1, 7}}}),
          sample<FusedAttention>("heads 8 deep", {}, {{.shape = {2, 41, 8}}, {.shape = {2, 8, 7}}, {.shape = {2, 7, 8}}}),
          sample<FusedAttention>("heads 16 deep", {}, {{.shape = {1, 2, 35, 16}}, {.shape = {1, 2, 16, 9}}, {.shape = {1, 2, 9, 16}}}),
          sample<FusedAttention>("transposed views", {},
                                 {{.shape = {2, 4, 70}, .permuted = {0, 2, 1}},
                                  {.shape = {2, 33, 4}, .permuted = {0, 2, 1}},
                                  {.shape = {2, 9, 33}, .permuted = {0, 2, 1}}}),
          sample<FusedAttention>("one key for all", {}, {q, {.shape = {4, 100}}, {.shape = {3, 100, 2}}}),
          refused<FusedAttention>("inner sizes 4 and 5 differ", {}, {q, {.shape = {5, 7}}, v}),
          refused<FusedAttention>("does not broadcast to", {}, {q, k, v, {.shape = {2, 2, 3, 5, 7}}}),
          refused<FusedAttention>("inner sizes 7 and 6 differ", {}, {q, k, {.shape = {6, 2}}})};
}

}  // namespace voxlab
