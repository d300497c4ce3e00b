#include <algorithm>
#include <cmath>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {

void reference(const SgdStep::Attrs& a, RefInputs in, RefOutputs out) {
  for (int64_t i = 0; i < out[0].numel(); ++i) {
    const double p = in[0][i], g = in[1][i] * a.grad_scale + a.weight_decay * p;
    double step = g;
    if (a.momentum > 0) {
      const double buffer = a.first ? g : a.momentum * in[2][i] + (1 - a.dampening) * g;
      step = a.nesterov ? g + a.momentum * buffer : buffer;
      out[1][i] = buffer;
    }
    out[0][i] = p - a.lr * step;
  }
}

void reference(const AdamStep::Attrs& a, RefInputs in, RefOutputs out) {
  const double t = static_cast<double>(a.step);
  const double correction1 = 1 - std::pow(a.beta1, t), correction2 = std::sqrt(1 - std::pow(a.beta2, t));
  for (int64_t i = 0; i < out[0].numel(); ++i) {
    double p = in[0][i], g = in[1][i] * a.grad_scale;
    if (a.decoupled) {
      p -= a.lr * a.weight_decay * p;
    } else {
      g += a.weight_decay * p;
    }
    const double m = a.beta1 * in[2][i] + (1 - a.beta1) * g;
    double v = a.beta2 * in[3][i] + (1 - a.beta2) * g * g;
    out[1][i] = m;
    out[2][i] = v;
    if (a.amsgrad) out[3][i] = v = std::max(v, in[4][i]);
    out[0][i] = p - a.lr / correction1 * m / (std::sqrt(v) / correction2 + a.eps);
  }
}

void reference(const SquaredNorm::Attrs&, RefInputs in, RefOutputs out) {
  for (double x : in[0].v) out[0][0] += x * x;
}

}  // namespace voxlab::ref
