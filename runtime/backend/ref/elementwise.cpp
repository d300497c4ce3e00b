#include <cmath>
#include <numbers>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

using Kind = UnaryKind;

double value(const UnaryAttrs& a, double x) {
  switch (a.kind) {
    case Kind::affine: return a.alpha * x + a.beta;
    case Kind::relu: return x > 0 ? x : 0;
    case Kind::leaky_relu: return x > 0 ? x : a.alpha * x;
    case Kind::gelu: return 0.5 * x * (1 + std::erf(x / std::numbers::sqrt2));
    case Kind::hardswish: return x * std::fmin(std::fmax(x + 3, 0), 6) / 6;
    case Kind::sigmoid: return 1 / (1 + std::exp(-x));
    case Kind::tanh: return std::tanh(x);
    case Kind::exp: return std::exp(x);
    case Kind::log: return std::log(x);
    case Kind::sqrt: return std::sqrt(x);
    case Kind::rsqrt: return 1 / std::sqrt(x);
    case Kind::square: return x * x;
    case Kind::abs: return std::fabs(x);
    case Kind::erf: return std::erf(x);
    case Kind::reciprocal: return 1 / x;
    case Kind::step: return x > 0 ? 1 : 0;
  }
  return 0;
}

double slope(const UnaryAttrs& a, double x) {
  switch (a.kind) {
    case Kind::affine: return a.alpha;
    case Kind::relu: return x > 0 ? 1 : 0;
    case Kind::leaky_relu: return x > 0 ? 1 : a.alpha;
    case Kind::gelu:
      return 0.5 * (1 + std::erf(x / std::numbers::sqrt2)) +
             x * std::exp(-0.5 * x * x) / std::sqrt(2 * std::numbers::pi);
    case Kind::hardswish: return x <= -3 ? 0 : x >= 3 ? 1 : (2 * x + 3) / 6;
    case Kind::sigmoid: {
      const double s = 1 / (1 + std::exp(-x));
      return s * (1 - s);
    }
    case Kind::tanh: return 1 - std::tanh(x) * std::tanh(x);
    case Kind::exp: return std::exp(x);
    case Kind::log: return 1 / x;
    case Kind::sqrt: return 0.5 / std::sqrt(x);
    case Kind::rsqrt: return -0.5 / (x * std::sqrt(x));
    case Kind::square: return 2 * x;
    case Kind::abs: return x > 0 ? 1 : x < 0 ? -1 : 0;
    case Kind::erf: return 2 / std::sqrt(std::numbers::pi) * std::exp(-x * x);
    case Kind::reciprocal: return -1 / (x * x);
    case Kind::step: return 0;
  }
  return 0;
}

double combine(BinaryKind kind, double a, double b) {
  switch (kind) {
    case BinaryKind::add: return a + b;
    case BinaryKind::sub: return a - b;
    case BinaryKind::mul: return a * b;
    case BinaryKind::div: return a / b;
    case BinaryKind::equal: return a == b ? 1 : 0;
  }
  return 0;
}

// Offset in `operand` of element i of the broadcast `shape`.
int64_t broadcast_offset(const Shape& operand, const Shape& shape, int64_t i) {
  int64_t offset = 0, step = 1;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    const int at = axis - (shape.rank() - operand.rank());
    if (at >= 0) {
      if (operand[at] != 1) offset += i % shape[axis] * step;
      step *= operand[at];
    }
    i /= shape[axis];
  }
  return offset;
}

}  // namespace

void reference(const Unary::Attrs& a, RefInputs in, RefOutputs out) {
  for (int64_t i = 0; i < out[0].numel(); ++i) out[0][i] = value(a, in[0][i]);
}

void reference(const UnaryGrad::Attrs& a, RefInputs in, RefOutputs out) {
  for (int64_t i = 0; i < out[0].numel(); ++i) out[0][i] = slope(a, in[0][i]) * in[1][i];
}

void reference(const Binary::Attrs& a, RefInputs in, RefOutputs out) {
  const Shape& shape = out[0].shape;
  for (int64_t i = 0; i < out[0].numel(); ++i)
    out[0][i] = combine(a.kind, in[0][broadcast_offset(in[0].shape, shape, i)],
                        in[1][broadcast_offset(in[1].shape, shape, i)]);
}

void reference(const Contiguous::Attrs&, RefInputs in, RefOutputs out) { out[0].v = in[0].v; }

void reference(const Cast::Attrs&, RefInputs in, RefOutputs out) { out[0].v = in[0].v; }

void reference(const Concat::Attrs& a, RefInputs in, RefOutputs out) {
  const Shape& shape = out[0].shape;
  const int axis = shape.index(a.axis);
  int64_t inner = 1;
  for (int i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  int64_t before = 0;
  for (const Array& piece : in) {
    const int64_t run = piece.shape[axis] * inner;
    for (int64_t i = 0; i < piece.numel(); ++i)
      out[0][i / run * shape[axis] * inner + before + i % run] = piece[i];
    before += run;
  }
}

void reference(const Pad::Attrs& a, RefInputs in, RefOutputs out) {
  const Shape& shape = out[0].shape;
  const int axis = shape.index(a.axis);
  int64_t inner = 1;
  for (int i = axis + 1; i < shape.rank(); ++i) inner *= shape[i];
  for (int64_t i = 0; i < out[0].numel(); ++i) out[0][i] = a.value;
  const int64_t run = in[0].shape[axis] * inner;
  for (int64_t i = 0; i < in[0].numel(); ++i)
    out[0][i / run * shape[axis] * inner + a.before * inner + i % run] = in[0][i];
}

void reference(const Reduce::Attrs& a, RefInputs in, RefOutputs out) {
  const Shape& shape = in[0].shape;
  const auto reduced = reduced_axes(a, shape);
  Array& y = out[0];
  if (a.kind == ReduceKind::max) std::fill(y.v.begin(), y.v.end(), -INFINITY);
  for (int64_t i = 0; i < in[0].numel(); ++i) {
    int64_t rest = i, to = 0, step = 1;
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      if (!reduced[static_cast<size_t>(axis)]) {
        to += rest % shape[axis] * step;
        step *= shape[axis];
      }
      rest /= shape[axis];
    }
    const double x = in[0][i];
    switch (a.kind) {
      case ReduceKind::sum: case ReduceKind::mean: y[to] += x; break;
      case ReduceKind::max: y[to] = std::fmax(y[to], x); break;
      case ReduceKind::sum_squares: y[to] += x * x; break;
    }
  }
  if (a.kind == ReduceKind::mean)
    for (double& x : y.v) x *= static_cast<double>(y.numel()) / static_cast<double>(in[0].numel());
}

void reference(const Argmax::Attrs&, RefInputs in, RefOutputs out) {
  const int64_t classes = in[0].shape[-1];
  for (int64_t i = 0; i < out[0].numel(); ++i) {
    int64_t best = 0;
    for (int64_t k = 1; k < classes; ++k)
      if (in[0][i * classes + k] > in[0][i * classes + best]) best = k;
    out[0][i] = static_cast<double>(best);
  }
}

}  // namespace voxlab::ref
