#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

int64_t label_of(double value) { return static_cast<int64_t>(value); }

// Calls f(row, class, weight) for every row that counts; returns the sum of the weights.
template <class F>
double for_each_row(std::string_view op, int64_t ignore_index, int64_t classes, const Array& labels,
                    const Array* weight, F f) {
  double total = 0;
  for (int64_t row = 0; row < labels.numel(); ++row) {
    if (label_of(labels[row]) == ignore_index) continue;
    const int64_t label = checked_class(op, label_of(labels[row]), classes);
    const double w = weight && weight->present ? (*weight)[label] : 1;
    f(row, label, w);
    total += w;
  }
  return total;
}

double log_sum_exp(const Array& x, int64_t row, int64_t classes) {
  double top = -INFINITY, total = 0;
  for (int64_t k = 0; k < classes; ++k) top = std::max(top, x[row * classes + k]);
  for (int64_t k = 0; k < classes; ++k) total += std::exp(x[row * classes + k] - top);
  return top + std::log(total);
}

// Calls f(sample and class, element, t) for every probability that counts.
template <class F>
void for_each_probability(std::string_view op, int64_t ignore_index, const Array& p, const Array& labels, F f) {
  const int64_t classes = p.shape[-1], per_sample = p.numel() / p.shape[0];
  const bool channels = labels.shape == p.shape;
  for (int64_t i = 0; i < p.numel(); ++i) {
    const int64_t k = i % classes, label = label_of(labels[channels ? i : i / classes]);
    if (!channels && label == ignore_index) continue;
    const bool inside = channels ? label != 0 : checked_class(op, label, classes) == k;
    f(i / per_sample * classes + k, i, inside ? 1.0 : 0.0);
  }
}

}  // namespace

void reference(const Membership::Attrs& a, RefInputs in, RefOutputs out) {
  const auto regions = static_cast<int64_t>(a.regions.size());
  for (int64_t i = 0; i < in[0].numel(); ++i)
    for (int64_t r = 0; r < regions; ++r) {
      const auto& listed = a.regions[static_cast<size_t>(r)];
      out[0][i * regions + r] = std::find(listed.begin(), listed.end(), label_of(in[0][i])) != listed.end();
    }
}

void reference(const CrossEntropy::Attrs& a, RefInputs in, RefOutputs out) {
  const int64_t classes = in[0].shape[-1];
  double loss = 0;
  const double total = for_each_row(
      CrossEntropy::name, a.ignore_index, classes, in[1], in.size() > 2 ? &in[2] : nullptr,
      [&](int64_t row, int64_t label, double w) {
        loss += w * (log_sum_exp(in[0], row, classes) - in[0][row * classes + label]);
      });
  out[0][0] = loss / total;
}

void reference(const CrossEntropyGrad::Attrs& a, RefInputs in, RefOutputs out) {
  const Array& x = in[1];
  const int64_t classes = x.shape[-1];
  const double total = for_each_row(
      CrossEntropyGrad::name, a.ignore_index, classes, in[2], in.size() > 3 ? &in[3] : nullptr,
      [&](int64_t row, int64_t label, double w) {
        const double top = log_sum_exp(x, row, classes);
        for (int64_t k = 0; k < classes; ++k)
          out[0][row * classes + k] = w * (std::exp(x[row * classes + k] - top) - (k == label ? 1 : 0));
      });
  for (double& d : out[0].v) d *= in[0][0] / total;
}

void reference(const BinaryCrossEntropy::Attrs&, RefInputs in, RefOutputs out) {
  for (int64_t i = 0; i < in[0].numel(); ++i) {
    const double x = in[0][i];
    out[0][0] += std::max(x, 0.0) - x * in[1][i] + std::log1p(std::exp(-std::fabs(x)));
  }
  out[0][0] /= static_cast<double>(in[0].numel());
}

void reference(const BinaryCrossEntropyGrad::Attrs&, RefInputs in, RefOutputs out) {
  const double share = in[0][0] / static_cast<double>(in[1].numel());
  for (int64_t i = 0; i < in[1].numel(); ++i) out[0][i] = share * (1 / (1 + std::exp(-in[1][i])) - in[2][i]);
}

void reference(const ClassSums::Attrs& a, RefInputs in, RefOutputs out) {
  for_each_probability(ClassSums::name, a.ignore_index, in[0], in[1], [&](int64_t at, int64_t i, double t) {
    const double p = in[0][i];
    out[0][at] += p * t;
    out[1][at] += a.squared ? p * p : p;
    out[2][at] += t;
  });
}

void reference(const ClassSumsGrad::Attrs& a, RefInputs in, RefOutputs out) {
  for_each_probability(ClassSumsGrad::name, a.ignore_index, in[2], in[3], [&](int64_t at, int64_t i, double t) {
    out[0][i] = in[0][at] * t + in[1][at] * (a.squared ? 2 * in[2][i] : 1);
  });
}

void reference(const LossHead::Attrs& a, RefInputs in, RefOutputs out) {
  Array p{in[0].shape, std::vector<double>(in[0].v.size())};
  reference(Softmax::Attrs{}, in.first(1), {&p, 1});
  const std::array<Array, 2> given{p, in[1]};
  reference(CrossEntropy::Attrs{{a.ignore_index}}, in, out.first(1));
  reference(ClassSums::Attrs{a}, given, out.subspan(1));
}

void reference(const LossHeadGrad::Attrs& a, RefInputs in, RefOutputs out) {
  const Array &x = in[3], &labels = in[4];
  Array p{x.shape, std::vector<double>(x.v.size())}, dp = p, dx = p;
  reference(Softmax::Attrs{}, {&x, 1}, {&p, 1});
  const std::array<Array, 4> sums{in[1], in[2], p, labels};
  reference(ClassSumsGrad::Attrs{a}, sums, {&dp, 1});
  const std::array<Array, 2> through{p, dp};
  reference(SoftmaxGrad::Attrs{}, through, {&dx, 1});
  const std::array<Array, 3> entropy{in[0], x, labels};
  reference(CrossEntropyGrad::Attrs{{a.ignore_index}}, entropy, out);
  for (int64_t i = 0; i < dx.numel(); ++i) out[0][i] += dx[i];
}

}  // namespace voxlab::ref
