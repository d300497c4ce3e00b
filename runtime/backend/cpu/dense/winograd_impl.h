// Transforms of the minimal filtering F(2x2, 3x3) over H and W (Lavin and Gray 2016, section 4.1): four rows or
// columns become four points, of which two rows or columns of output are made. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/dense/kernels.h"
#include "runtime/backend/cpu/dense/vec.h"

namespace voxlab::cpu {
namespace {

// One side of B^T d B.
VOXLAB_INLINE void to_points(const Vec (&d)[4], Vec (&v)[4]) {
  v[0] = d[0] - d[2];
  v[1] = d[1] + d[2];
  v[2] = d[2] - d[1];
  v[3] = d[1] - d[3];
}

// One side of A^T m A.
VOXLAB_INLINE void to_outputs(const Vec (&m)[4], Vec (&y)[2]) {
  y[0] = m[0] + m[1] + m[2];
  y[1] = m[1] - m[2] - m[3];
}

// One side of A y A^T, the adjoint of to_outputs.
VOXLAB_INLINE void from_outputs(const Vec (&y)[2], Vec (&m)[4]) {
  m[0] = y[0];
  m[1] = y[0] + y[1];
  m[2] = y[0] - y[1];
  m[3] = zero() - y[1];
}

VOXLAB_INLINE Vec load_lanes(const float* p, int lanes) {
  return lanes == vec_width ? load(p) : load_first(p, lanes);
}

VOXLAB_INLINE void store_lanes(float* p, Vec v, int lanes) {
  if (lanes == vec_width) {
    store(p, v);
  } else {
    store_first(p, v, lanes);
  }
}

// The rows of one input column, transformed; zeros outside of the tensor.
VOXLAB_INLINE void column_points(const WinogradInputArgs& t, int64_t column, int64_t channel, int lanes, Vec (&v)[4]) {
  Vec d[4];
  const bool inside = column >= 0 && column < t.width;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const bool read = inside && t.rows[i] != nullptr;
    d[i] = read ? load_lanes(t.rows[i] + column * t.pitch + channel, lanes) : zero();
  }
  to_points(d, v);
}

void winograd_input(const WinogradInputArgs& t) {
  for (int64_t channel = 0; channel < t.channels; channel += vec_width) {
    const int64_t left = t.channels - channel;
    const int lanes = left < vec_width ? static_cast<int>(left) : vec_width;
    Vec c[4][4];  // [column][point along H]
    column_points(t, t.first, channel, lanes, c[2]);
    column_points(t, t.first + 1, channel, lanes, c[3]);
    float* out = t.v + channel;
    for (int64_t tile = 0; tile < t.tiles; ++tile, out += t.channels) {
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        c[0][i] = c[2][i];
        c[1][i] = c[3][i];
      }
      column_points(t, t.first + 2 * tile + 2, channel, lanes, c[2]);
      column_points(t, t.first + 2 * tile + 3, channel, lanes, c[3]);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const Vec row[4] = {c[0][i], c[1][i], c[2][i], c[3][i]};
        Vec v[4];
        to_points(row, v);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) store_lanes(out + (4 * i + j) * t.point_step, v[j], lanes);
      }
    }
  }
}

// One side of G w G^T.
VOXLAB_INLINE void weight_points(const Vec (&w)[3], Vec (&u)[4]) {
  const Vec half = splat(0.5F);
  const Vec ends = (w[0] + w[2]) * half;
  const Vec middle = w[1] * half;
  u[0] = w[0];
  u[1] = ends + middle;
  u[2] = ends - middle;
  u[3] = w[2];
}

void winograd_weights(const float* w, int64_t tap_step, int64_t n, float* u, int64_t point_step) {
  for (int64_t i = 0; i < n; i += vec_width) {
    Vec c[3][4];  // [kernel column][point along H]
#pragma GCC unroll 3
    for (int x = 0; x < 3; ++x) {
      const Vec column[3] = {load(w + x * tap_step + i), load(w + (3 + x) * tap_step + i),
                             load(w + (6 + x) * tap_step + i)};
      weight_points(column, c[x]);
    }
#pragma GCC unroll 4
    for (int p = 0; p < 4; ++p) {
      const Vec row[3] = {c[0][p], c[1][p], c[2][p]};
      Vec out[4];
      weight_points(row, out);
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) store(u + (4 * p + j) * point_step + i, out[j]);
    }
  }
}

VOXLAB_INLINE void finish_output(const WinogradOutputArgs& t, int row, int64_t at, Vec y, int lanes) {
  if (t.residual[row] != nullptr) y += load_lanes(t.residual[row] + at, lanes);
  store_lanes(t.out[row] + at, activate(y, t.activation, splat(t.slope)), lanes);
}

void winograd_output(const WinogradOutputArgs& t) {
  for (int n = 0; n < t.vectors; ++n) {
    const int lanes = n + 1 == t.vectors ? t.last_columns : vec_width;
    const Vec bias = t.bias == nullptr ? zero() : load_lanes(t.bias + n * vec_width, lanes);
    const float* m = t.m + n * vec_width;
    for (int64_t tile = 0; tile < t.tiles; ++tile, m += t.row_pitch) {
      Vec c[4][2];  // [point along W][output row]
#pragma GCC unroll 4
      for (int j = 0; j < 4; ++j) {
        const Vec column[4] = {load(m + j * t.point_step), load(m + (4 + j) * t.point_step),
                               load(m + (8 + j) * t.point_step), load(m + (12 + j) * t.point_step)};
        to_outputs(column, c[j]);
      }
      const int64_t at = 2 * tile * t.out_pitch + n * vec_width;
      const bool both = 2 * tile + 1 < t.columns;
#pragma GCC unroll 2
      for (int row = 0; row < 2; ++row) {
        if (t.out[row] == nullptr) continue;
        const Vec points[4] = {c[0][row], c[1][row], c[2][row], c[3][row]};
        Vec y[2];
        to_outputs(points, y);
        finish_output(t, row, at, y[0] + bias, lanes);
        if (both) finish_output(t, row, at + t.out_pitch, y[1] + bias, lanes);
      }
    }
  }
}

// dy at the points: each tile's two rows and columns, zeros outside of the tensor.
void winograd_gradient(const WinogradInputArgs& t) {
  for (int64_t channel = 0; channel < t.channels; channel += vec_width) {
    const int64_t left = t.channels - channel;
    const int lanes = left < vec_width ? static_cast<int>(left) : vec_width;
    float* out = t.v + channel;
    for (int64_t tile = 0; tile < t.tiles; ++tile, out += t.channels) {
      Vec c[2][4];  // [column][point along H]
#pragma GCC unroll 2
      for (int x = 0; x < 2; ++x) {
        const int64_t column = t.first + 2 * tile + x;
        Vec y[2];
#pragma GCC unroll 2
        for (int i = 0; i < 2; ++i) {
          const bool inside = column < t.width && t.rows[i] != nullptr;
          y[i] = inside ? load_lanes(t.rows[i] + column * t.pitch + channel, lanes) : zero();
        }
        from_outputs(y, c[x]);
      }
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        const Vec row[2] = {c[0][i], c[1][i]};
        Vec m[4];
        from_outputs(row, m);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) store_lanes(out + (4 * i + j) * t.point_step, m[j], lanes);
      }
    }
  }
}

// One side of G^T u G, the adjoint of weight_points.
VOXLAB_INLINE void from_points(const Vec (&u)[4], Vec (&w)[3]) {
  const Vec half = splat(0.5F);
  const Vec sum = (u[1] + u[2]) * half;
  w[0] = u[0] + sum;
  w[1] = (u[1] - u[2]) * half;
  w[2] = sum + u[3];
}

void winograd_weight_gradient(const float* u, int64_t point_step, int64_t n, float* w, int64_t tap_step) {
  for (int64_t i = 0; i < n; i += vec_width) {
    const int lanes = n - i < vec_width ? static_cast<int>(n - i) : vec_width;
    Vec c[4][3];  // [point along W][kernel row]
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      Vec column[4];
#pragma GCC unroll 4
      for (int p = 0; p < 4; ++p) column[p] = load_lanes(u + (4 * p + j) * point_step + i, lanes);
      from_points(column, c[j]);
    }
#pragma GCC unroll 3
    for (int y = 0; y < 3; ++y) {
      const Vec row[4] = {c[0][y], c[1][y], c[2][y], c[3][y]};
      Vec out[3];
      from_points(row, out);
#pragma GCC unroll 3
      for (int x = 0; x < 3; ++x) store_lanes(w + (3 * y + x) * tap_step + i, out[x], lanes);
    }
  }
}

constexpr void set_winograd(KernelTable& table) {
  table.winograd_input = winograd_input;
  table.winograd_weights = winograd_weights;
  table.winograd_output = winograd_output;
  table.winograd_gradient = winograd_gradient;
  table.winograd_weight_gradient = winograd_weight_gradient;
}

}  // namespace
}  // namespace voxlab::cpu
