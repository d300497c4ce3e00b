#include <cmath>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

// Calls f(statistic, weight index, element) for every element.
template <class F>
void for_each(const NormGeometry& g, F f) {
  int64_t i = 0;
  for (int64_t b = 0; b < g.batch; ++b)
    for (int64_t p = 0; p < g.positions; ++p)
      for (int64_t k = 0; k < g.width(); ++k) f(b * g.groups + k / g.channels, k, i++);
}

bool given(RefInputs in, size_t i) { return i < in.size() && in[i].present; }

// Outputs y, mean and the biased variance; the variance becomes rstd unless it is asked for.
void forward(const NormGeometry& g, double eps, bool keep_variance, RefInputs in, RefOutputs out) {
  const Array& x = in[0];
  Array &y = out[0], &mean = out[1], &spread = out[2];
  const double n = static_cast<double>(g.count());
  for_each(g, [&](int64_t s, int64_t, int64_t i) { mean[s] += x[i] / n; });
  for_each(g, [&](int64_t s, int64_t, int64_t i) { spread[s] += (x[i] - mean[s]) * (x[i] - mean[s]) / n; });
  for_each(g, [&](int64_t s, int64_t k, int64_t i) {
    y[i] = (x[i] - mean[s]) / std::sqrt(spread[s] + eps);
    if (given(in, 1)) y[i] *= in[1][k];
    if (given(in, 2)) y[i] += in[2][k];
  });
  if (!keep_variance)
    for (double& v : spread.v) v = 1 / std::sqrt(v + eps);
}

// dx = rstd (h - mean(h) - n mean(h n)), n = (x - mean) rstd, h = dy weight.
void backward(const NormGeometry& g, const std::vector<double>& rstd, RefInputs in, RefOutputs out) {
  const Array &dy = in[0], &x = in[1], &mean = in[3];
  Array &dx = out[0], &dweight = out[1], &dbias = out[2];
  std::vector<double> sum_h(rstd.size()), sum_hn(rstd.size());
  const auto normal = [&](int64_t s, int64_t i) { return (x[i] - mean[s]) * rstd[static_cast<size_t>(s)]; };
  const auto weighted = [&](int64_t k, int64_t i) { return dy[i] * (in[2].present ? in[2][k] : 1); };
  for_each(g, [&](int64_t s, int64_t k, int64_t i) {
    sum_h[static_cast<size_t>(s)] += weighted(k, i);
    sum_hn[static_cast<size_t>(s)] += weighted(k, i) * normal(s, i);
    dweight[k] += dy[i] * normal(s, i);
    dbias[k] += dy[i];
  });
  const double n = static_cast<double>(g.count());
  for_each(g, [&](int64_t s, int64_t k, int64_t i) {
    const auto at = static_cast<size_t>(s);
    dx[i] = rstd[at] * (weighted(k, i) - sum_h[at] / n - normal(s, i) * sum_hn[at] / n);
  });
}

}  // namespace

void reference(const GroupNorm::Attrs& a, RefInputs in, RefOutputs out) {
  forward(GroupNorm::geometry(a, in[0].shape), a.eps, false, in, out);
}
void reference(const GroupNormGrad::Attrs& a, RefInputs in, RefOutputs out) {
  backward(GroupNorm::geometry(a, in[1].shape), in[4].v, in, out);
}
void reference(const LayerNorm::Attrs& a, RefInputs in, RefOutputs out) {
  forward(LayerNorm::geometry(a, in[0].shape), a.eps, false, in, out);
}
void reference(const LayerNormGrad::Attrs& a, RefInputs in, RefOutputs out) {
  backward(LayerNorm::geometry(a, in[1].shape), in[4].v, in, out);
}
void reference(const BatchNorm::Attrs& a, RefInputs in, RefOutputs out) {
  forward(BatchNorm::geometry(a, in[0].shape), a.eps, true, in, out);
}
void reference(const BatchNormGrad::Attrs& a, RefInputs in, RefOutputs out) {
  std::vector<double> rstd;
  for (double var : in[4].v) rstd.push_back(1 / std::sqrt(var + a.eps));
  backward(BatchNorm::geometry(a, in[1].shape), rstd, in, out);
}

void reference(const BatchNormInference::Attrs& a, RefInputs in, RefOutputs out) {
  const int64_t channels = in[0].shape[-1];
  for (int64_t i = 0; i < out[0].numel(); ++i) {
    const int64_t c = i % channels;
    const double n = (in[0][i] - in[3][c]) / std::sqrt(in[4][c] + a.eps);
    out[0][i] = n * (in[1].present ? in[1][c] : 1) + (in[2].present ? in[2][c] : 0);
  }
}

}  // namespace voxlab::ref
