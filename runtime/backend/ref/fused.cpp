#include <cmath>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

void finish(const Finish& f, const Array* residual, Array& y) {
  if (residual != nullptr && residual->present)
    for (int64_t i = 0; i < y.numel(); ++i) y[i] += (*residual)[i];
  if (f.activation == Activation::none) return;
  const Unary::Attrs activation{{.kind = parse_enum<UnaryKind>(to_string(f.activation)), .alpha = f.slope}};
  const Array x = y;
  reference(activation, {&x, 1}, {&y, 1});
}

Array zeros(const Shape& s) { return {s, std::vector<double>(static_cast<size_t>(s.numel()))}; }

Array joined(const Array& first, const Array& second) {
  Shape shape = first.shape;
  shape.set(-1, shape[-1] + second.shape[-1]);
  const std::array<Array, 2> parts{first, second};
  Array y = zeros(shape);
  reference(Concat::Attrs{}, parts, {&y, 1});
  return y;
}

const Array* at(RefInputs in, size_t i) { return i < in.size() ? &in[i] : nullptr; }
const Array* given(RefInputs in, size_t i) { return i < in.size() && in[i].present ? &in[i] : nullptr; }

// Mean and variance of every channel of a sample; those of a group follow from them.
Array known_norm(const KnownNorm& a, const Array& x, const Array& moments, const Array* weight, const Array* bias) {
  const int64_t channels = x.shape[-1], batch = x.shape[0], positions = x.numel() / (batch * channels), width = channels / a.norm.groups;
  Array y = zeros(x.shape);
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t c = 0; c < channels; ++c) {
      double mean = 0, square = 0;
      for (int64_t k = c / width * width; k < (c / width + 1) * width; ++k) {
        const double m = moments[(n * channels + k) * 2], variance = moments[(n * channels + k) * 2 + 1];
        mean += m / static_cast<double>(width);
        square += (variance + m * m) / static_cast<double>(width);
      }
      const double rstd = 1 / std::sqrt(square - mean * mean + a.norm.eps);
      for (int64_t p = 0; p < positions; ++p) {
        const int64_t i = (n * positions + p) * channels + c;
        y[i] = (x[i] - mean) * rstd * (weight == nullptr ? 1 : (*weight)[c]) + (bias == nullptr ? 0 : (*bias)[c]);
      }
    }
  finish(a.finish, nullptr, y);
  return y;
}

void moments_of(const Array& y, Array& moments) {
  const int64_t channels = y.shape[-1], batch = y.shape[0], positions = y.numel() / (batch * channels);
  for (int64_t n = 0; n < batch; ++n)
    for (int64_t c = 0; c < channels; ++c) {
      double mean = 0, variance = 0;
      const auto value = [&](int64_t p) { return y[(n * positions + p) * channels + c]; };
      for (int64_t p = 0; p < positions; ++p) mean += value(p) / static_cast<double>(positions);
      for (int64_t p = 0; p < positions; ++p) variance += (value(p) - mean) * (value(p) - mean) / static_cast<double>(positions);
      moments[(n * channels + c) * 2] = mean;
      moments[(n * channels + c) * 2 + 1] = variance;
    }
}

}  // namespace

void reference(const FusedConv::Attrs& a, RefInputs in, RefOutputs out) {
  std::vector<Array> parts(in.begin(), in.begin() + static_cast<std::ptrdiff_t>(std::min<size_t>(3, in.size())));
  if (in.size() > 4 && in[4].present) parts[0] = joined(in[0], in[4]);
  if (a.norm_input) parts[0] = known_norm(a.input, in[0], in[5], given(in, 6), given(in, 7));
  reference(Conv::Attrs{a}, parts, out.first(1));
  finish(a, at(in, 3), out[0]);
  if (a.moments) moments_of(out[0], out[1]);
}

void reference(const FusedConvTranspose::Attrs& a, RefInputs in, RefOutputs out) {
  reference(ConvTranspose::Attrs{a}, in.first(2), out);
  finish({}, &in[2], out[0]);
}

void reference(const FusedConvDgrad::Attrs& a, RefInputs in, RefOutputs out) {
  reference(ConvDgrad::Attrs{a}, in.first(2), out);
  finish({}, &in[2], out[0]);
}

void reference(const FusedConvWgrad::Attrs& a, RefInputs in, RefOutputs out) {
  const std::array<Array, 2> whole{joined(in[0], in[2]), in[1]};
  reference(ConvWgrad::Attrs{a}, whole, out);
}

void reference(const FusedLinear::Attrs& a, RefInputs in, RefOutputs out) {
  reference(Linear::Attrs{}, in.subspan(0, std::min<size_t>(3, in.size())), out);
  finish(a, at(in, 3), out[0]);
}

void reference(const FusedGroupNorm::Attrs& a, RefInputs in, RefOutputs out) {
  const auto normal = [&](size_t x, const Array* moments) {
    if (moments != nullptr) return known_norm({a, {}}, in[x], *moments, given(in, x + 1), given(in, x + 2));
    const Shape statistics{in[x].shape[0], a.groups};
    std::vector<Array> outputs{zeros(in[x].shape), zeros(statistics), zeros(statistics)};
    reference(GroupNorm::Attrs{a}, in.subspan(x, std::min<size_t>(3, in.size() - x)), outputs);
    return outputs[0];
  };
  out[0] = normal(0, given(in, 6));
  if (!a.norm_residual) return finish(a, at(in, 3), out[0]);
  const Array residual = normal(3, given(in, 7));
  finish(a, &residual, out[0]);
}

void reference(const NormActivation::Attrs& a, RefInputs in, RefOutputs out) {
  const Array& x = in[0];
  const NormGeometry g = NormActivation::geometry(a, x.shape);
  const auto plain = in.first(std::min<size_t>(3, in.size()));
  if (const Array* moments = given(in, 4)) {
    const int64_t channels = x.shape[-1], samples = x.shape[0];
    const auto count = static_cast<double>(samples / g.batch * g.channels);
    const auto each = [&](auto f) {  // of a sample's channel: its group, its two moments
      for (int64_t n = 0; n < samples; ++n)
        for (int64_t c = 0; c < channels; ++c) {
          const double* m = &moments->v[static_cast<size_t>((n * channels + c) * 2)];
          f(n * g.batch / samples * g.groups + c / g.channels, m[0], m[1]);
        }
    };
    each([&](int64_t group, double mean, double) { out[1][group] += mean / count; });
    each([&](int64_t group, double mean, double variance) {
      const double d = mean - out[1][group];
      out[2][group] += (variance + d * d) / count;
    });
    for (int64_t i = 0; i < x.numel(); ++i) {
      const int64_t c = i % channels, group = i / (g.positions * channels) * g.groups + c / g.channels;
      out[0][i] = (x[i] - out[1][group]) / std::sqrt(out[2][group] + a.eps);
      if (const Array* weight = given(in, 1)) out[0][i] *= (*weight)[c];
      if (const Array* bias = given(in, 2)) out[0][i] += (*bias)[c];
    }
    if (!a.over_batch)
      for (double& v : out[2].v) v = 1 / std::sqrt(v + a.eps);
  } else if (a.over_batch) {
    reference(BatchNorm::Attrs{{a.eps}}, plain, out);
  } else {
    reference(GroupNorm::Attrs{a}, plain, out);
  }
  finish(a, at(in, 3), out[0]);
}

namespace {

// Element i of a norm whose x, weight, bias, mean and spread stand among a gradient's inputs from `x` on.
double norm_at(const NormActivationAttrs& a, const NormGeometry& g, RefInputs in, size_t x, int64_t i) {
  const int64_t channels = in[x].shape[-1], c = i % channels, group = i / (g.positions * channels) * g.groups + c / g.channels;
  const Array &mean = in[x + 3], &spread = in[x + 4];
  double y = (in[x][i] - mean[group]) * (a.over_batch ? 1 / std::sqrt(spread[group] + a.eps) : spread[group]);
  if (const Array* weight = given(in, x + 1)) y *= (*weight)[c];
  if (const Array* bias = given(in, x + 2)) y += (*bias)[c];
  return y;
}

// Its gradient without an activation.
void norm_grad(const NormActivationAttrs& a, const Array& dy, RefInputs in, size_t x, RefOutputs out) {
  const std::vector<Array> plain{dy, in[x], in[x + 1], in[x + 3], in[x + 4]};
  a.over_batch ? reference(BatchNormGrad::Attrs{{a.eps}}, plain, out) : reference(GroupNormGrad::Attrs{a}, plain, out);
}

}  // namespace

void reference(const NormActivationGrad::Attrs& a, RefInputs in, RefOutputs out) {
  const NormGeometry g = NormActivation::geometry(a, in[1].shape);
  Array dy = in[0];
  for (int64_t i = 0; i < dy.numel(); ++i)
    if (norm_at(a, g, in, 1, i) <= 0) dy[i] *= NormActivationGrad::slope(a);
  norm_grad(a, dy, in, 1, out);
}

void reference(const NormSum::Attrs& a, RefInputs in, RefOutputs out) {
  const Array none{.present = false};
  Array sum = zeros(out[0].shape);
  for (size_t norm = 0; norm < 2; ++norm) {
    NormActivation::Attrs alone{a};
    alone.activation = Activation::none;
    const std::vector<Array> of_one{in[3 * norm], in[3 * norm + 1], in[3 * norm + 2], none, in.size() > 6 + norm ? in[6 + norm] : none};
    std::vector<Array> outputs{zeros(out[0].shape), out[1 + 2 * norm], out[2 + 2 * norm]};
    reference(alone, of_one, outputs);
    for (int64_t i = 0; i < sum.numel(); ++i) sum[i] += outputs[0][i];
    out[1 + 2 * norm] = outputs[1];
    out[2 + 2 * norm] = outputs[2];
  }
  finish(a, nullptr, sum);
  out[0] = sum;
}

void reference(const NormSumGrad::Attrs& a, RefInputs in, RefOutputs out) {
  const NormGeometry g = NormActivation::geometry(a, in[1].shape);
  Array dy = in[0];
  for (int64_t i = 0; i < dy.numel(); ++i)
    if (norm_at(a, g, in, 1, i) + norm_at(a, g, in, 6, i) <= 0) dy[i] *= NormActivationGrad::slope(a);
  norm_grad(a, dy, in, 1, out.first(3));
  norm_grad(a, dy, in, 6, out.subspan(3));
}

void reference(const LayerNormGelu::Attrs& a, RefInputs in, RefOutputs out) {
  reference(LayerNorm::Attrs{a}, in, out);
  finish({.activation = Activation::gelu}, nullptr, out[0]);
}

void reference(const LayerNormGeluGrad::Attrs& a, RefInputs in, RefOutputs out) {
  const Array &x = in[1], &mean = in[4], &rstd = in[5];
  const int64_t channels = x.shape[-1];
  const Array *weight = given(in, 2), *bias = given(in, 3);
  std::vector<Array> norm{x, in[0]}, plain{in[0], x, in[2], mean, rstd};  // of GELU its input and dy
  for (int64_t i = 0; i < x.numel(); ++i) {
    const int64_t c = i % channels;
    norm[0][i] = (x[i] - mean[i / channels]) * rstd[i / channels] * (weight == nullptr ? 1 : (*weight)[c]) + (bias == nullptr ? 0 : (*bias)[c]);
  }
  reference(UnaryGrad::Attrs{{.kind = UnaryKind::gelu}}, norm, {&plain[0], 1});
  reference(LayerNormGrad::Attrs{a}, plain, out);
}

void reference(const ConvNormGelu::Attrs& a, RefInputs in, RefOutputs out) {
  Array y = zeros(out[0].shape);
  reference(Conv::Attrs{a}, in.first(std::min<size_t>(3, in.size())), {&y, 1});
  Shape rows = y.shape;
  rows.set(-1, 1);
  std::vector<Array> norm{y}, statistics{out[0], zeros(rows), zeros(rows)};
  for (size_t i = 3; i < in.size(); ++i) norm.push_back(in[i]);
  reference(LayerNormGelu::Attrs{a}, norm, statistics);
  out[0] = statistics[0];
}

void reference(const FusedAttention::Attrs&, RefInputs in, RefOutputs out) {
  Shape shape = out[0].shape;
  shape.set(-1, in[1].shape[-1]);
  std::vector<Array> scores{zeros(shape)}, weights{zeros(shape)};
  reference(Matmul::Attrs{}, in.subspan(0, 2), scores);
  if (const Array* bias = at(in, 3); bias != nullptr && bias->present) {
    const std::array<Array, 2> sum{scores[0], *bias};
    reference(Binary::Attrs{.kind = BinaryKind::add}, sum, scores);
  }
  reference(Softmax::Attrs{}, scores, weights);
  const std::array<Array, 2> product{weights[0], in[2]};
  reference(Matmul::Attrs{}, product, out);
}

}  // namespace voxlab::ref
