#include <algorithm>
#include <cmath>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

// Calls f(size, line number, at) for every line along the axis; at(j) is the offset of its entry j.
template <class F>
void for_each_line(const Shape& shape, int axis, F f) {
  const AxisSplit s = split_at(shape, axis);
  for (int64_t outer = 0; outer < s.outer; ++outer)
    for (int64_t inner = 0; inner < s.inner; ++inner)
      f(s.size, outer * s.inner + inner,
        [=](int64_t j) { return (outer * s.size + j) * s.inner + inner; });
}

}  // namespace

void reference(const Softmax::Attrs& a, RefInputs in, RefOutputs out) {
  for_each_line(in[0].shape, a.axis, [&](int64_t size, int64_t, auto at) {
    double top = -INFINITY, total = 0;
    for (int64_t j = 0; j < size; ++j) top = std::max(top, in[0][at(j)]);
    for (int64_t j = 0; j < size; ++j) total += out[0][at(j)] = std::exp(in[0][at(j)] - top);
    for (int64_t j = 0; j < size; ++j) out[0][at(j)] /= total;
  });
}

void reference(const LogSoftmax::Attrs& a, RefInputs in, RefOutputs out) {
  for_each_line(in[0].shape, a.axis, [&](int64_t size, int64_t, auto at) {
    double top = -INFINITY, total = 0;
    for (int64_t j = 0; j < size; ++j) top = std::max(top, in[0][at(j)]);
    for (int64_t j = 0; j < size; ++j) total += std::exp(in[0][at(j)] - top);
    for (int64_t j = 0; j < size; ++j) out[0][at(j)] = in[0][at(j)] - top - std::log(total);
  });
}

void reference(const SoftmaxGrad::Attrs& a, RefInputs in, RefOutputs out) {
  for_each_line(in[0].shape, a.axis, [&](int64_t size, int64_t, auto at) {
    double dot = 0;
    for (int64_t j = 0; j < size; ++j) dot += in[0][at(j)] * in[1][at(j)];
    for (int64_t j = 0; j < size; ++j) out[0][at(j)] = in[0][at(j)] * (in[1][at(j)] - dot);
  });
}

void reference(const LogSoftmaxGrad::Attrs& a, RefInputs in, RefOutputs out) {
  for_each_line(in[0].shape, a.axis, [&](int64_t size, int64_t, auto at) {
    double total = 0;
    for (int64_t j = 0; j < size; ++j) total += in[1][at(j)];
    for (int64_t j = 0; j < size; ++j) out[0][at(j)] = in[1][at(j)] - std::exp(in[0][at(j)]) * total;
  });
}

void reference(const L2Normalise::Attrs& a, RefInputs in, RefOutputs out) {
  for_each_line(in[0].shape, a.axis, [&](int64_t size, int64_t line, auto at) {
    double squares = 0;
    for (int64_t j = 0; j < size; ++j) squares += in[0][at(j)] * in[0][at(j)];
    out[1][line] = std::max(std::sqrt(squares), a.eps);
    for (int64_t j = 0; j < size; ++j) out[0][at(j)] = in[0][at(j)] / out[1][line];
  });
}

void reference(const L2NormaliseGrad::Attrs& a, RefInputs in, RefOutputs out) {
  const Array &y = in[0], &norm = in[1], &dy = in[2];
  for_each_line(y.shape, a.axis, [&](int64_t size, int64_t line, auto at) {
    double dot = 0;
    for (int64_t j = 0; j < size; ++j) dot += y[at(j)] * dy[at(j)];
    if (norm[line] <= L2Normalise::clamp_limit(a)) dot = 0;
    for (int64_t j = 0; j < size; ++j) out[0][at(j)] = (dy[at(j)] - y[at(j)] * dot) / norm[line];
  });
}

}  // namespace voxlab::ref
