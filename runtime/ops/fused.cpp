#include "runtime/ops/fused.h"

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/copy.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/optional_inputs.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

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

// ---- norms of known moments ----

namespace {

Shape moments_shape(const Shape& x) { return Shape{x[0], x[-1], 2}; }

void check_moments(std::string_view op, const Meta& moments, const Shape& x) {
  if (moments.shape != moments_shape(x)) fail(op, "moments must be " + moments_shape(x).to_string() + ", got " + moments.to_string());
}

// (N, C) -> (N, 1, .., 1, C)
Tensor by_sample(const Tensor& t, int rank) {
  std::vector<int64_t> sizes(static_cast<size_t>(rank), 1);
  sizes.front() = t.size(0);
  sizes.back() = t.size(-1);
  return reshape(t, sizes);
}

Tensor moments_of(const Tensor& x) {
  std::vector<int> positions;
  for (int i = 1; i < x.rank() - 1; ++i) positions.push_back(i);
  const Tensor middle = mean(x, positions, true), variance = mean(square(sub(x, middle)), positions, true);
  const auto column = [&](const Tensor& t) { return reshape(t, {x.size(0), x.size(-1), 1}); };
  return concat({column(middle), column(variance)}, -1);
}

}  // namespace

Tensor known_norm(const KnownNorm& a, const Tensor& x, const Tensor& moments, const Tensor& weight, const Tensor& bias) {
  const int64_t n = x.size(0), channels = x.size(-1), groups = a.norm.groups;
  const auto grouped = [&](int64_t which) {
    return reshape(contiguous(slice(moments, 2, which, 1)), {n, groups, channels / groups});
  };
  const Tensor middles = grouped(0);
  const Tensor middle = mean(middles, {2}, true), spread = mean(add(grouped(1), square(sub(middles, middle))), {2}, true);
  const Tensor rstd = unary(UnaryKind::rsqrt, affine(spread, 1, a.norm.eps));
  const auto by_channel = [&](const Tensor& group) {
    return by_sample(reshape(contiguous(broadcast_to(group, Shape{n, groups, channels / groups})), {n, channels}), x.rank());
  };
  Tensor y = mul(sub(x, by_channel(middle)), by_channel(rstd));
  if (weight) y = mul(y, weight);
  if (bias) y = add(y, bias);
  return finished(a.finish, y, {});
}

// ---- fused_conv ----

namespace {

// As Conv takes them, the input's parts joined. In a plan each may have a type of its own (plan/narrow.cpp).
Metas conv_inputs(MetaSpan in) {
  Metas joined(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(3, in.size())));
  if (given(in, 4)) joined[0].shape.set(-1, in[0].shape[-1] + in[4].shape[-1]);
  return joined;
}

}  // namespace

Metas FusedConv::infer(const Attrs& a, MetaSpan in) {
  if (given(in, 4)) Concat::infer({}, Metas{in[0], in[4]});  // refuses what cannot be joined
  Metas out = Conv::infer({a}, conv_inputs(in));
  check_residual(name, in, out[0]);
  if (a.norm_input) {
    if (given(in, 4)) fail(name, "norm_input of an input in two parts");
    if (!given(in, 5)) fail(name, "norm_input without moments");
    check_moments(name, in[5], in[0].shape);
    Metas norm{in[0]};
    norm.insert(norm.end(), in.begin() + 6, in.end());
    GroupNorm::infer({a.input.norm}, norm);
  }
  const DType moments = out[0].dtype == DType::f64 ? DType::f64 : DType::f32;
  if (a.moments) out.push_back({moments_shape(out[0].shape), moments, out[0].device});
  return out;
}
Cost FusedConv::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = Conv::cost({a}, conv_inputs(in), out.first(1));
  cost.flops += finish_flops(a, given(in, 3), out[0]);
  if (a.norm_input) cost.flops += 2 * in[0].numel() + finish_flops(a.input.finish, false, in[0]);
  if (a.moments) cost.flops += 3 * out[0].numel();
  return cost;
}
Tensors FusedConv::decompose(const Attrs& a, const Tensors& in) {
  Tensor x = input(in, 4) ? concat({in[0], in[4]}, -1) : in[0];
  if (a.norm_input) x = known_norm(a.input, x, in[5], input(in, 6), input(in, 7));
  const Tensor y = finished(a, conv(x, in[1], input(in, 2), a), input(in, 3));
  return a.moments ? Tensors{y, moments_of(y)} : Tensors{y};
}

std::vector<Sample> FusedConv::samples() {
  const SampleInput x{.shape = {2, 3, 5, 6, 4}}, w{.shape = {3, 3, 3, 4, 17}}, b{.shape = {17}};
  const SampleInput none{.absent = true}, y{.shape = {2, 3, 5, 6, 17}};
  const SampleInput moments{.shape = {2, 4, 2}, .low = 0.5, .high = 2};
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
          sample<FusedConv>("moments", {same, {Activation::relu}, true}, {x, w, b}),
          sample<FusedConv>("moments of two inputs with a residual", {{}, {}, true},
                            {x, {.shape = {1, 1, 1, 36, 17}}, none, y, {.shape = {2, 3, 5, 6, 32}}}),
          sample<FusedConv>("normalised input", {same, {}, false, true, {{4}, {Activation::leaky_relu, 0.2}}},
                            {x, w, b, none, none, moments, {.shape = {4}}, {.shape = {4}}}),
          sample<FusedConv>("normalised input in groups, moments", {same, {}, true, true, {{2}, {Activation::gelu}}},
                            {x, w, none, none, none, moments}),
          sample<FusedConv>("normalised wide input", {{}, {}, false, true, {{70}, {Activation::relu}}},
                            {{.shape = {1, 1, 5, 7, 70}}, {.shape = {1, 1, 1, 70, 16}}, none, none, none,
                             {.shape = {1, 70, 2}, .low = 0.5, .high = 2}}),
          refused<FusedConv>("norm_input without moments", {same, {}, false, true, {{4}}}, {x, w}),
          refused<FusedConv>("moments must be", {same, {}, false, true, {{4}}}, {x, w, b, none, none, {.shape = {2, 5, 2}}}),
          refused<FusedConv>("norm_input of an input in two parts", {same, {}, false, true, {{4}}},
                             {x, {.shape = {3, 3, 3, 13, 17}}, b, none, {.shape = {2, 3, 5, 6, 9}}, moments}),
          refused<FusedConv>("channels", {same, {}}, {x, w, none, none, {.shape = {2, 3, 5, 6, 9}}}),
          refused<FusedConv>("the residual must be", {same, {}}, {x, w, none, {.shape = {2, 3, 5, 6, 4}}})};
}

// ---- fused_conv_transpose ----

Metas FusedConvTranspose::infer(const Attrs& a, MetaSpan in) {
  const Metas out = ConvTranspose::infer(a, in.first(2));
  if (in[2].shape != out[0].shape || in[2].dtype != out[0].dtype)
    fail(name, "the residual must be " + out[0].to_string() + ", got " + in[2].to_string());
  return out;
}

Cost FusedConvTranspose::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = ConvTranspose::cost(a, in.first(2), out);
  cost.flops += out[0].numel();
  return cost;
}

Tensors FusedConvTranspose::decompose(const Attrs& a, const Tensors& in) { return {add(call<ConvTranspose>(a, {in[0], in[1]})[0], in[2])}; }

std::vector<Sample> FusedConvTranspose::samples() {
  const auto c = [](std::vector<int64_t> s, std::vector<int64_t> p = {0}, std::vector<int64_t> extra = {0}) {
    return Attrs{{{std::move(s), std::move(p), {1}, 1}, std::move(extra)}};
  };
  return {
      sample<FusedConvTranspose>("k = s", c({1, 2, 4}), {{.shape = {2, 2, 3, 2, 5}}, {.shape = {1, 2, 4, 3, 5}}, {.shape = {2, 2, 6, 8, 3}}}),
      sample<FusedConvTranspose>("k = s, 16", c({2}), {{.shape = {1, 2, 3, 3, 32}}, {.shape = {2, 2, 2, 16, 32}}, {.shape = {1, 4, 6, 6, 16}}}),
      sample<FusedConvTranspose>("overlapping, 2-d", c({2}, {1}, {1}), {{.shape = {1, 3, 3, 4}}, {.shape = {3, 3, 2, 4}}, {.shape = {1, 6, 6, 2}}}),
      refused<FusedConvTranspose>("residual", c({2}), {{.shape = {1, 2, 2, 4}}, {.shape = {2, 2, 3, 4}}, {.shape = {1, 4, 4, 4}}})};
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
    const Metas other(in.begin() + 3, in.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(6, in.size())));
    GroupNorm::infer({a}, other);
  }
  if (given(in, 6)) check_moments(name, in[6], in[0].shape);
  if (given(in, 7)) check_moments(name, in[7], in[0].shape);
  return {out[0]};
}
Cost FusedGroupNorm::cost(const Attrs& a, MetaSpan in, MetaSpan out) {
  Cost cost = GroupNorm::cost({a}, first(in, 3), out);
  if (a.norm_residual) cost.flops += GroupNorm::cost({a}, first(in.subspan(3), 3), out).flops;
  cost.flops += finish_flops(a, given(in, 3), out[0]);
  return cost;
}
Tensors FusedGroupNorm::decompose(const Attrs& a, const Tensors& in) {
  const auto normal = [&](size_t x, size_t weight, size_t moments) {
    const Tensor w = input(in, weight), b = input(in, weight + 1);
    return input(in, moments) ? known_norm({a, {}}, in[x], in[moments], w, b) : group_norm(in[x], a.groups, w, b, a.eps);
  };
  return {finished(a, normal(0, 1, 6), a.norm_residual ? normal(3, 4, 7) : input(in, 3))};
}

std::vector<Sample> FusedGroupNorm::samples() {
  const SampleInput x{.shape = {2, 3, 5, 4, 6}}, c{.shape = {6}}, none{.absent = true};
  const SampleInput moments{.shape = {2, 6, 2}, .low = 0.5, .high = 2};
  const GroupNormAttrs two{2}, instance{6};
  const Finish leaky{Activation::leaky_relu, 0.1};
  return {sample<FusedGroupNorm>("leaky ReLU", {two, leaky}, {x, c, c}),
          sample<FusedGroupNorm>("residual", {instance, leaky}, {x, none, none, x}),
          sample<FusedGroupNorm>("residual with a norm of its own", {instance, leaky, true}, {x, none, none, x}),
          sample<FusedGroupNorm>("both affine", {two, {Activation::relu}, true}, {x, c, c, x, c, c}),
          sample<FusedGroupNorm>("known moments", {two, leaky}, {x, c, c, none, none, none, moments}),
          sample<FusedGroupNorm>("known moments of both", {instance, leaky, true}, {x, c, c, x, c, c, moments, moments}),
          sample<FusedGroupNorm>("known moments of the residual", {two, leaky, true}, {x, c, c, x, none, none, none, moments}),
          refused<FusedGroupNorm>("moments must be", {two, leaky}, {x, c, c, none, none, none, c}),
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
