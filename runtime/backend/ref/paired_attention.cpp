#include <algorithm>
#include <cmath>

#include "runtime/backend/ref/ref.h"

namespace voxlab::ref {
namespace {

using Op = PairedAttention;

// Of one sample: rows of tokens or of channels.
struct Matrix {
  int64_t rows, columns;
  std::vector<double> v = std::vector<double>(static_cast<size_t>(rows * columns));
  double& at(int64_t r, int64_t c) { return v[static_cast<size_t>(r * columns + c)]; }
};

void softmax_rows(Matrix& m) {
  for (int64_t r = 0; r < m.rows; ++r) {
    double top = -INFINITY, total = 0;
    for (int64_t c = 0; c < m.columns; ++c) top = std::max(top, m.at(r, c));
    for (int64_t c = 0; c < m.columns; ++c) total += m.at(r, c) = std::exp(m.at(r, c) - top);
    for (int64_t c = 0; c < m.columns; ++c) m.at(r, c) /= total;
  }
}

Matrix normalised(Matrix m, double eps) {
  for (int64_t c = 0; c < m.columns; ++c) {
    double squares = 0;
    for (int64_t r = 0; r < m.rows; ++r) squares += m.at(r, c) * m.at(r, c);
    for (int64_t r = 0; r < m.rows; ++r) m.at(r, c) /= std::max(std::sqrt(squares), eps);
  }
  return m;
}

const Array* given(RefInputs in, size_t i) { return i < in.size() && in[i].present ? &in[i] : nullptr; }
double bias_at(const Array* bias, int64_t i) { return bias == nullptr ? 0 : (*bias)[i]; }

// x (N, d) to (P, d): weight (N, P), bias (P).
Matrix projected(Matrix x, const Array& weight, const Array* bias) {
  Matrix y{weight.shape[1], x.columns};
  for (int64_t p = 0; p < y.rows; ++p)
    for (int64_t c = 0; c < y.columns; ++c) {
      y.at(p, c) = bias_at(bias, p);
      for (int64_t n = 0; n < x.rows; ++n) y.at(p, c) += x.at(n, c) * weight[n * y.rows + p];
    }
  return y;
}

// One head of one sample: tokens (N, C) to its columns of channel value, query, key or spatial value.
Matrix part_of(RefInputs in, int64_t sample, int64_t part, int64_t head, int64_t depth) {
  const Array &x = in[Op::tokens], &weight = in[Op::weight];
  const int64_t tokens = x.shape[1], width = x.shape[2];
  Matrix y{tokens, depth};
  for (int64_t n = 0; n < tokens; ++n)
    for (int64_t i = 0; i < depth; ++i)
      for (int64_t c = 0; c < width; ++c)
        y.at(n, i) += x[(sample * tokens + n) * width + c] * weight[c * 4 * width + part * width + head * depth + i];
  return y;
}

// mixing[i, j] weighs channel j of v in channel i of the result.
Matrix channel_attention(Matrix q, Matrix k, Matrix v, double temperature) {
  Matrix mixing{q.columns, q.columns}, y{q.rows, q.columns};
  for (int64_t i = 0; i < q.columns; ++i)
    for (int64_t j = 0; j < q.columns; ++j)
      for (int64_t n = 0; n < q.rows; ++n) mixing.at(i, j) += temperature * q.at(n, i) * k.at(n, j);
  softmax_rows(mixing);
  for (int64_t n = 0; n < q.rows; ++n)
    for (int64_t i = 0; i < q.columns; ++i)
      for (int64_t j = 0; j < q.columns; ++j) y.at(n, i) += mixing.at(i, j) * v.at(n, j);
  return y;
}

Matrix spatial_attention(Matrix q, Matrix k, Matrix v, double temperature) {
  Matrix scores{q.rows, k.rows}, y{q.rows, q.columns};
  for (int64_t n = 0; n < q.rows; ++n)
    for (int64_t p = 0; p < k.rows; ++p)
      for (int64_t i = 0; i < q.columns; ++i) scores.at(n, p) += temperature * q.at(n, i) * k.at(p, i);
  softmax_rows(scores);
  for (int64_t n = 0; n < q.rows; ++n)
    for (int64_t p = 0; p < k.rows; ++p)
      for (int64_t i = 0; i < q.columns; ++i) y.at(n, i) += scores.at(n, p) * v.at(p, i);
  return y;
}

struct Branches {
  Matrix spatial, channel;  // (N, C)
};

Branches attend(const Op::Attrs& a, RefInputs in, int64_t sample) {
  const int64_t tokens = in[Op::tokens].shape[1], width = in[Op::tokens].shape[2], heads = in[Op::channel_temperature].shape[0];
  const int64_t depth = width / heads;
  Branches both{{tokens, width}, {tokens, width}};
  for (int64_t head = 0; head < heads; ++head) {
    const auto part = [&](int64_t which) { return part_of(in, sample, which, head, depth); };
    const Matrix query = normalised(part(1), a.eps);
    Matrix channel = channel_attention(query, normalised(part(2), a.eps), part(0), in[Op::channel_temperature][head]);
    const Matrix keys = projected(part(2), in[Op::key_projection], given(in, Op::key_bias));
    const size_t own = given(in, Op::value_projection) != nullptr ? Op::value_projection : Op::key_projection;
    const Matrix values = projected(part(3), in[own], given(in, own + 1));
    Matrix spatial = spatial_attention(query, keys, values, in[Op::spatial_temperature][head]);
    for (int64_t n = 0; n < tokens; ++n)
      for (int64_t i = 0; i < depth; ++i) {
        const int64_t ordered = n * width + head * depth + i, released = (i * heads + head) * tokens + n;
        both.channel.at(n, head * depth + i) = channel.at(n, i);
        both.spatial.v[static_cast<size_t>(a.tokens_last ? released : ordered)] = spatial.at(n, i);
      }
  }
  return both;
}

Matrix through_layer(Matrix x, const Array& weight, const Array* bias) {
  Matrix y{x.rows, weight.shape[1]};
  for (int64_t n = 0; n < y.rows; ++n)
    for (int64_t s = 0; s < y.columns; ++s) {
      y.at(n, s) = bias_at(bias, s);
      for (int64_t c = 0; c < x.columns; ++c) y.at(n, s) += x.at(n, c) * weight[c * y.columns + s];
    }
  return y;
}

}  // namespace

void reference(const PairedAttention::Attrs& a, RefInputs in, RefOutputs out) {
  const int64_t batch = out[0].shape[0], tokens = out[0].shape[1], columns = out[0].shape[2];
  for (int64_t sample = 0; sample < batch; ++sample) {
    Branches both = attend(a, in, sample);
    const bool layers = given(in, Op::spatial_out) != nullptr;
    if (layers) {
      both.spatial = through_layer(both.spatial, in[Op::spatial_out], given(in, Op::spatial_out_bias));
      both.channel = through_layer(both.channel, in[Op::channel_out], given(in, Op::channel_out_bias));
    }
    for (int64_t n = 0; n < tokens; ++n)
      for (int64_t c = 0; c < columns; ++c) {
        const int64_t first = both.spatial.columns;
        const int64_t i = (sample * tokens + n) * columns + c;
        out[0][i] = !layers     ? both.spatial.at(n, c) + both.channel.at(n, c)
                    : c < first ? both.spatial.at(n, c)
                                : both.channel.at(n, c - first);
        if (const Array* residual = given(in, Op::residual)) out[0][i] = (*residual)[i] + in[Op::gamma][c] * out[0][i];
      }
  }
}

}  // namespace voxlab::ref
