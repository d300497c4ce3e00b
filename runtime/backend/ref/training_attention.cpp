#include <cmath>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

struct Sizes {
  Sizes(const Shape& q, const Shape& v) : queries(q[-2]), depth(q[-1]), keys(v[-2]), width(v[-1]) {
    for (int axis = 0; axis < q.rank() - 2; ++axis) batches *= q[axis];
  }
  int64_t batches = 1, queries, depth, keys, width;
};

// q k of row (batch and query) i and key p.
double score(const Sizes& s, const Array& q, const Array& k, int64_t i, int64_t p) {
  double sum = 0;
  for (int64_t d = 0; d < s.depth; ++d) sum += q[i * s.depth + d] * k[(i / s.queries * s.depth + d) * s.keys + p];
  return sum;
}

// What dropout makes of the weight of row i and key p.
class Factors {
 public:
  Factors(const TrainingAttentionAttrs& a, RefInputs in, size_t step, int64_t keys)
      : attrs_(a.dropout()), random_(a.seed, a.stream, a.p > 0 ? static_cast<uint32_t>(in[step][0]) : 0), keys_(keys) {}
  double operator()(int64_t i, int64_t p) const {
    return attrs_.p == 0 ? 1 : Dropout::factor(attrs_, random_, static_cast<uint64_t>(i * keys_ + p));
  }

 private:
  Dropout::Attrs attrs_;
  Philox random_;
  int64_t keys_;
};

}  // namespace

void reference(const TrainingAttention::Attrs& a, RefInputs in, RefOutputs out) {
  const Sizes s(in[0].shape, in[2].shape);
  const Factors factor(a, in, 3, s.keys);
  for (int64_t i = 0; i < s.batches * s.queries; ++i) {
    double largest = -INFINITY, sum = 0;
    for (int64_t p = 0; p < s.keys; ++p) largest = std::fmax(largest, score(s, in[0], in[1], i, p));
    for (int64_t p = 0; p < s.keys; ++p) sum += std::exp(score(s, in[0], in[1], i, p) - largest);
    out[1][i] = largest + std::log(sum);
    for (int64_t p = 0; p < s.keys; ++p) {
      const double weight = std::exp(score(s, in[0], in[1], i, p) - out[1][i]) * factor(i, p);
      for (int64_t e = 0; e < s.width; ++e) out[0][i * s.width + e] += weight * in[2][(i / s.queries * s.keys + p) * s.width + e];
    }
  }
}

void reference(const TrainingAttentionGrad::Attrs& a, RefInputs in, RefOutputs out) {
  const Array &dy = in[0], &q = in[1], &k = in[2], &v = in[3], &y = in[4];
  const Sizes s(q.shape, v.shape);
  const Factors factor(a, in, 6, s.keys);
  for (int64_t i = 0; i < s.batches * s.queries; ++i) {
    const int64_t batch = i / s.queries;
    double delta = 0;
    for (int64_t e = 0; e < s.width; ++e) delta += dy[i * s.width + e] * y[i * s.width + e];
    for (int64_t p = 0; p < s.keys; ++p) {
      const double weight = std::exp(score(s, q, k, i, p) - in[5][i]);
      double dweight = 0;
      for (int64_t e = 0; e < s.width; ++e) {
        const int64_t at = (batch * s.keys + p) * s.width + e;
        dweight += dy[i * s.width + e] * v[at];
        out[2][at] += weight * factor(i, p) * dy[i * s.width + e];
      }
      const double dscore = weight * (factor(i, p) * dweight - delta);
      for (int64_t d = 0; d < s.depth; ++d) {
        const int64_t at = (batch * s.depth + d) * s.keys + p;
        out[0][i * s.depth + d] += dscore * k[at];
        out[1][at] += dscore * q[i * s.depth + d];
      }
    }
  }
}

}  // namespace voxlab::ref
