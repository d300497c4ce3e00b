// The block of 3D UX-Net, row by row.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

double normal_cdf(double z) { return 0.5 * (1 + std::erf(z / std::numbers::sqrt2)); }
double gelu(double z) { return z * normal_cdf(z); }
double gelu_slope(double z) { return normal_cdf(z) + z * std::exp(-0.5 * z * z) / std::sqrt(2 * std::numbers::pi); }

// The seven inputs from `first` on, of `channels` channels spread to `ratio` each.
struct Scaling {
  RefInputs in;
  size_t first;
  int64_t channels = of(ScalingInput::reduce).shape[-1];
  int64_t ratio = of(ScalingInput::reduce).numel() / channels;

  const Array& of(ScalingInput i) const { return in[first + static_cast<size_t>(i)]; }
  double value(ScalingInput i, int64_t at, double otherwise) const {
    const bool given = first + static_cast<size_t>(i) < in.size() && of(i).present;
    return given ? of(i)[at] : otherwise;
  }
  double norm(double centred, int64_t c) const {
    return centred * value(ScalingInput::norm_weight, c, 1) + value(ScalingInput::norm_bias, c, 0);
  }
  double expanded(double n, int64_t c, int64_t r) const {
    const int64_t at = c * ratio + r;
    return n * of(ScalingInput::expand)[at] + value(ScalingInput::expand_bias, at, 0);
  }
  double weight(int64_t c, int64_t r) const { return of(ScalingInput::reduce)[r * channels + c]; }
  double reduced(double n, int64_t c) const {
    double sum = value(ScalingInput::reduce_bias, c, 0);
    for (int64_t r = 0; r < ratio; ++r) sum += weight(c, r) * gelu(expanded(n, c, r));
    return sum;
  }
  double gamma(int64_t c) const { return value(ScalingInput::gamma, c, 1); }
};

}  // namespace

void reference(const NormScaling::Attrs& a, RefInputs in, RefOutputs out) {
  const Scaling s{in, 1};
  const std::vector<Array> x{in[0]};
  reference(LayerNorm::Attrs{a}, x, out);
  constexpr size_t residual = 1 + scaling_inputs;
  for (int64_t i = 0; i < out[0].numel(); ++i) {
    const int64_t c = i % s.channels;
    out[0][i] = s.gamma(c) * s.reduced(s.norm(out[0][i], c), c);
    if (residual < in.size() && in[residual].present) out[0][i] += in[residual][i];
  }
}

void reference(const NormScalingGrad::Attrs&, RefInputs in, RefOutputs out) {
  const Array &dy = in[0], &x = in[1], &mean = in[2 + scaling_inputs], &rstd = in[3 + scaling_inputs];
  const Scaling s{in, 2};
  const auto d = [&](ScalingInput i) -> Array& { return out[1 + static_cast<size_t>(i)]; };
  const int64_t channels = s.channels;
  std::vector<double> h(static_cast<size_t>(channels));
  for (int64_t row = 0; row < x.numel() / channels; ++row) {
    double total = 0, dot = 0;
    const auto centred = [&](int64_t c) { return (x[row * channels + c] - mean[row]) * rstd[row]; };
    for (int64_t c = 0; c < channels; ++c) {
      const double n = s.norm(centred(c), c), g = dy[row * channels + c], dreduced = g * s.gamma(c);
      double dn = 0;
      for (int64_t r = 0; r < s.ratio; ++r) {
        const double z = s.expanded(n, c, r), dz = dreduced * s.weight(c, r) * gelu_slope(z);
        d(ScalingInput::reduce)[r * channels + c] += dreduced * gelu(z);
        d(ScalingInput::expand)[c * s.ratio + r] += dz * n;
        d(ScalingInput::expand_bias)[c * s.ratio + r] += dz;
        dn += dz * s.of(ScalingInput::expand)[c * s.ratio + r];
      }
      d(ScalingInput::reduce_bias)[c] += dreduced;
      d(ScalingInput::gamma)[c] += g * s.reduced(n, c);
      d(ScalingInput::norm_weight)[c] += dn * centred(c);
      d(ScalingInput::norm_bias)[c] += dn;
      h[static_cast<size_t>(c)] = dn * s.value(ScalingInput::norm_weight, c, 1);
      total += h[static_cast<size_t>(c)];
      dot += h[static_cast<size_t>(c)] * centred(c);
    }
    const auto count = static_cast<double>(channels);
    for (int64_t c = 0; c < channels; ++c)
      out[0][row * channels + c] = rstd[row] * (h[static_cast<size_t>(c)] - total / count - centred(c) * dot / count);
  }
}

void reference(const ConvNormScaling::Attrs& a, RefInputs in, RefOutputs out) {
  const Shape shape = out[0].shape;
  Shape rows = shape;
  rows.set(-1, 1);
  const auto zeros = [](const Shape& s) { return Array{s, std::vector<double>(static_cast<size_t>(s.numel()))}; };
  std::vector<Array> norm{zeros(shape)}, result{zeros(shape), zeros(rows), zeros(rows)};
  reference(Conv::Attrs{a}, in.first(3), {&norm[0], 1});
  for (size_t i = 0; i < scaling_inputs; ++i)
    norm.push_back(3 + i < in.size() ? in[3 + i] : Array{Shape{0}, {}, false});
  norm.push_back(in[0]);
  reference(NormScaling::Attrs{a}, norm, result);
  out[0] = result[0];
}

}  // namespace voxlab::ref
