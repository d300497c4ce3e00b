#include "runtime/ops/unary.h"

#include <cmath>
#include <numbers>

#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"

namespace voxlab {
namespace {

using Kind = UnaryKind;

// f''(x) from other ops; undefined where it is zero.
Tensor second_derivative(const UnaryAttrs& a, const Tensor& x) {
  const auto gaussian = [&](double exponent) { return unary(Kind::exp, scale(square(x), exponent)); };
  switch (a.kind) {
    case Kind::affine: case Kind::relu: case Kind::leaky_relu: case Kind::abs: case Kind::step: return {};
    case Kind::gelu:  // phi(x) (2 - x^2)
      return scale(mul(gaussian(-0.5), affine(square(x), -1, 2)), 1 / std::sqrt(2 * std::numbers::pi));
    case Kind::hardswish:  // 1/3 on (-3, 3)
      return scale(mul(unary(Kind::step, affine(x, 1, 3)), unary(Kind::step, affine(x, -1, 3))), 1.0 / 3);
    case Kind::sigmoid: {
      const Tensor s = sigmoid(x);
      return mul(mul(s, affine(s, -1, 1)), affine(s, -2, 1));
    }
    case Kind::tanh: {
      const Tensor t = unary(Kind::tanh, x);
      return scale(mul(t, affine(square(t), -1, 1)), -2);
    }
    case Kind::exp: return unary(Kind::exp, x);
    case Kind::log: return scale(unary(Kind::reciprocal, square(x)), -1);
    case Kind::sqrt: return scale(div(unary(Kind::rsqrt, x), x), -0.25);
    case Kind::rsqrt: return scale(div(unary(Kind::rsqrt, x), square(x)), 0.75);
    case Kind::square: return affine(x, 0, 2);
    case Kind::erf: return scale(mul(x, gaussian(-1)), -4 / std::sqrt(std::numbers::pi));
    case Kind::reciprocal: return scale(unary(Kind::reciprocal, mul(x, square(x))), 2);
  }
  return {};
}

// Rising functions with their kink at zero keep the sign: the derivative can be read off the output, which the next
// layer saves anyway, so that the input can go.
bool differentiates_from_output(const UnaryAttrs& a) {
  return a.kind == Kind::relu || (a.kind == Kind::leaky_relu && a.alpha >= 0);
}

int64_t flops_per_element(Kind kind) {
  switch (kind) {
    case Kind::affine: return 2;
    case Kind::hardswish: return 4;
    case Kind::gelu: case Kind::sigmoid: case Kind::tanh: return 4;
    default: return 1;
  }
}

}  // namespace

Metas Unary::infer(const Attrs& a, MetaSpan in) {
  if (!is_floating(in[0].dtype)) fail(to_string(a.kind), "expected a floating dtype, got " + in[0].to_string());
  return {in[0]};
}
Cost Unary::cost(const Attrs& a, MetaSpan in, MetaSpan) {
  return {.flops = in[0].numel() * flops_per_element(a.kind)};
}
Saves Unary::saves(const Attrs& a) {
  if (a.kind == Kind::affine || a.kind == Kind::step) return {};
  if (differentiates_from_output(a)) return {.outputs = 1};
  return {.inputs = 1};
}

Tensors Unary::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  if (a.kind == Kind::affine) return {scale(dout[0], a.alpha)};
  if (a.kind == Kind::step) return {Tensor()};
  return {call1<UnaryGrad>({{a.kind, a.alpha, a.beta}}, {differentiates_from_output(a) ? saved.out(0) : saved.in(0), dout[0]})};
}

std::vector<Sample> Unary::samples() {
  std::vector<Sample> all;
  for (const auto& [text, kind] : enum_names(Kind{})) {
    SampleInput x{.shape = {3, 37}, .low = -4, .high = 4, .gap_at_zero = 0.05};
    if (kind == Kind::log || kind == Kind::sqrt || kind == Kind::rsqrt || kind == Kind::reciprocal) x.low = 0.3;
    if (kind == Kind::hardswish) x.low = -2.9, x.high = 2.9;
    all.push_back(sample<Unary>(std::string(text), {{kind, 0.7, 0.2}}, {x}));
  }
  all.push_back(sample<Unary>("hardswish outside", {{Kind::hardswish}}, {{.shape = {40}, .low = 3.1, .high = 5}}));
  all.push_back(refused<Unary>("expected a floating dtype", {{Kind::relu}}, {{.shape = {3}, .high = 5, .integer = true}}));
  return all;
}

Metas UnaryGrad::infer(const Attrs& a, MetaSpan in) {
  if (!(in[0] == in[1])) fail(to_string(a.kind), "gradient is " + in[1].to_string() + ", input " + in[0].to_string());
  return {in[0]};
}
Cost UnaryGrad::cost(const Attrs& a, MetaSpan in, MetaSpan) {
  return {.flops = in[0].numel() * (1 + flops_per_element(a.kind))};
}
Saves UnaryGrad::saves(const Attrs&) { return {.inputs = 3}; }

Tensors UnaryGrad::backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
  const Tensor ddy = saved.needs(1) ? call1<UnaryGrad>(a, {saved.in(0), dout[0]}) : Tensor();
  Tensor dx;
  if (saved.needs(0)) {
    dx = second_derivative(a, saved.in(0));
    if (dx) dx = mul(mul(dx, saved.in(1)), dout[0]);
  }
  return {dx, ddy};
}

std::vector<Sample> UnaryGrad::samples() {
  std::vector<Sample> all;
  for (const auto& [text, kind] : enum_names(Kind{})) {
    if (kind == Kind::affine || kind == Kind::step) continue;
    SampleInput x{.shape = {3, 11}, .low = -2.9, .high = 2.9, .gap_at_zero = 0.05};
    if (kind == Kind::log || kind == Kind::sqrt || kind == Kind::rsqrt || kind == Kind::reciprocal) x.low = 0.3;
    all.push_back(sample<UnaryGrad>(std::string(text), {{kind, 0.7, 0.2}}, {x, {.shape = {3, 11}}}));
  }
  return all;
}

Tensor unary(UnaryKind kind, const Tensor& x, double alpha, double beta) {
  return call1<Unary>({{kind, alpha, beta}}, {x});
}
Tensor scale(const Tensor& x, double factor) { return unary(Kind::affine, x, factor); }
Tensor affine(const Tensor& x, double factor, double offset) { return unary(Kind::affine, x, factor, offset); }
Tensor square(const Tensor& x) { return unary(Kind::square, x); }
Tensor relu(const Tensor& x) { return unary(Kind::relu, x); }
Tensor leaky_relu(const Tensor& x, double slope) { return unary(Kind::leaky_relu, x, slope); }
Tensor gelu(const Tensor& x) { return unary(Kind::gelu, x); }
Tensor hardswish(const Tensor& x) { return unary(Kind::hardswish, x); }
Tensor sigmoid(const Tensor& x) { return unary(Kind::sigmoid, x); }

}  // namespace voxlab
