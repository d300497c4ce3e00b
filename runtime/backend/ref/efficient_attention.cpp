// Attention that compares no tokens, by its definitions.
#include <algorithm>
#include <cmath>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

// Element (n, head, c) of a sample's (tokens, heads width).
struct Tokens {
  const Array& x;
  int64_t sample, heads;
  int64_t count() const { return x.shape[1]; }
  int64_t width() const { return x.shape[2] / heads; }
  int64_t at(int64_t n, int64_t h, int64_t c) const { return (sample * count() + n) * x.shape[2] + h * width() + c; }
  double operator()(int64_t n, int64_t h, int64_t c) const { return x[at(n, h, c)]; }
};

std::vector<double> softmax(std::vector<double> x) {
  const double largest = *std::max_element(x.begin(), x.end());
  double total = 0;
  for (double& v : x) total += v = std::exp(v - largest);
  for (double& v : x) v /= total;
  return x;
}

// What f(0), ..., f(n - 1) are.
template <class F>
std::vector<double> listed(int64_t n, const F& f) {
  std::vector<double> values;
  for (int64_t i = 0; i < n; ++i) values.push_back(f(i));
  return values;
}

}  // namespace

void reference(const EfficientAttention::Attrs& a, RefInputs in, RefOutputs out) {
  for (int64_t b = 0; b < in[0].shape[0]; ++b)
    for (int64_t h = 0; h < a.heads; ++h) {
      const Tokens q{in[0], b, a.heads}, k{in[1], b, a.heads}, v{in[2], b, a.heads};
      std::vector<std::vector<double>> context;  // (dk, dv)
      for (int64_t c = 0; c < k.width(); ++c) {
        const auto weight = softmax(listed(k.count(), [&](int64_t n) { return k(n, h, c); }));
        context.push_back(listed(v.width(), [&](int64_t e) {
          double sum = 0;
          for (int64_t n = 0; n < v.count(); ++n) sum += weight[static_cast<size_t>(n)] * v(n, h, e);
          return sum;
        }));
      }
      for (int64_t n = 0; n < q.count(); ++n) {
        const auto weight = softmax(listed(q.width(), [&](int64_t c) { return q(n, h, c); }));
        for (int64_t e = 0; e < v.width(); ++e)
          for (size_t c = 0; c < weight.size(); ++c) out[0][v.at(n, h, e)] += weight[c] * context[c][static_cast<size_t>(e)];
      }
    }
}

void reference(const TransposeAttention::Attrs& a, RefInputs in, RefOutputs out) {
  for (int64_t b = 0; b < in[0].shape[0]; ++b)
    for (int64_t h = 0; h < a.heads; ++h) {
      const Tokens q{in[0], b, a.heads}, k{in[1], b, a.heads}, v{in[2], b, a.heads};
      const auto dot = [&](const Tokens& x, int64_t i, const Tokens& y, int64_t j) {
        double sum = 0;
        for (int64_t n = 0; n < x.count(); ++n) sum += x(n, h, i) * y(n, h, j);
        return sum;
      };
      const auto norm = [&](const Tokens& x, int64_t i) { return std::max(std::sqrt(dot(x, i, x, i)), a.eps); };
      for (int64_t i = 0; i < q.width(); ++i) {
        const auto weight = softmax(listed(k.width(), [&](int64_t j) { return in[3][h] * dot(q, i, k, j) / (norm(q, i) * norm(k, j)); }));
        for (int64_t n = 0; n < v.count(); ++n)
          for (int64_t j = 0; j < v.width(); ++j) out[0][v.at(n, h, i)] += weight[static_cast<size_t>(j)] * v(n, h, j);
      }
    }
}

}  // namespace voxlab::ref
