// Transforms of the minimal filtering F(2x2, 3x3) over H and W (Lavin and Gray 2016, section 4.1): four rows or
// columns become four points, of which two rows or columns of output are made. Included once per instruction set.
#pragma once

#include <type_traits>

#include "runtime/backend/cpu/dense/kernels.h"
#include "runtime/backend/cpu/dense/vec.h"

namespace voxlab::cpu {
namespace {

// How points are stored: each tile's as T, float or the bits of bf16. `tiles`: how many tiles share one place. What
// transforms read and outputs are is `Stored`, one of the same two.
template <class T>
struct TilePoints {
  using Element = T;
  static constexpr int tiles = 1;
  static void put(T* p, const Vec (&v)[1], int lanes) { store_some(p, v[0], lanes); }
};

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

// Side applied to the columns of what load(row, column) gives, then to the rows; store(row, column, value).
template <int In, int Out, void (*Side)(const Vec (&)[In], Vec (&)[Out]), class Load, class Store>
VOXLAB_INLINE void both_sides(const Load& load, const Store& store) {
  Vec c[In][Out];  // [column][row]
#pragma GCC unroll 4
  for (int x = 0; x < In; ++x) {
    Vec column[In];
#pragma GCC unroll 4
    for (int y = 0; y < In; ++y) column[y] = load(y, x);
    Side(column, c[x]);
  }
#pragma GCC unroll 4
  for (int y = 0; y < Out; ++y) {
    Vec row[In];
#pragma GCC unroll 4
    for (int x = 0; x < In; ++x) row[x] = c[x][y];
    Vec out[Out];
    Side(row, out);
#pragma GCC unroll 4
    for (int x = 0; x < Out; ++x) store(y, x, out[x]);
  }
}

// How values of the input are normalised: not at all, or the Activation of dense.h that follows.
constexpr int as_they_are = -1;
struct NormLanes {
  Vec mean, scale, shift, slope;
};
template <int Norm>
VOXLAB_INLINE NormLanes norm_lanes(const WinogradInputArgs& t, int64_t channel, int lanes) {
  if constexpr (Norm == as_they_are) return {zero(), zero(), zero(), zero()};
  return {load_some(t.mean + channel, lanes), load_some(t.scale + channel, lanes), load_some(t.shift + channel, lanes), splat(t.slope)};
}

// The rows of one input column, transformed; zeros outside of the tensor.
template <int Norm, class Stored>
VOXLAB_INLINE void column_points(const WinogradInputArgs& t, int64_t column, int64_t channel, int lanes, const NormLanes& norm,
                                 Vec (&v)[4]) {
  Vec d[4];
  const bool inside = column >= 0 && column < t.width;
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    if (!inside || t.rows[i] == nullptr) {
      d[i] = zero();
      continue;
    }
    d[i] = load_some(static_cast<const Stored*>(t.rows[i]) + column * t.pitch + channel, lanes);
    __builtin_prefetch(static_cast<const Stored*>(t.next[i]) + column * t.pitch + channel);
    if constexpr (Norm != as_they_are) d[i] = activate(mul_add(d[i] - norm.mean, norm.scale, norm.shift), Norm, norm.slope);
  }
  to_points(d, v);
}

// Work on `n` values, a vector at a time, as work(first, lanes): whole vectors get a constant, so that their loads and
// stores ask nothing.
template <class Work>
VOXLAB_INLINE void each_vector(int64_t n, const Work& work) {
  int64_t i = 0;
  for (; i + vec_width <= n; i += vec_width) work(i, std::integral_constant<int, vec_width>());
  if (i < n) work(i, static_cast<int>(n - i));
}

template <class Points, int Norm, class Stored>
void input_points(const WinogradInputArgs& t) {
  each_vector(t.channels, [&](int64_t channel, auto lanes) {
    const NormLanes norm = norm_lanes<Norm>(t, channel, lanes);
    Vec c[4][4];  // [column][point along H]
    column_points<Norm, Stored>(t, t.first, channel, lanes, norm, c[2]);
    column_points<Norm, Stored>(t, t.first + 1, channel, lanes, norm, c[3]);
    auto* out = static_cast<typename Points::Element*>(t.v) + channel;
    for (int64_t tile = 0; tile < t.tiles; tile += Points::tiles, out += t.tile_step) {
      Vec v[16][Points::tiles];
#pragma GCC unroll 2
      for (int n = 0; n < Points::tiles; ++n) {
        if (tile + n >= t.tiles) {
#pragma GCC unroll 16
          for (int p = 0; p < 16; ++p) v[p][n] = zero();
          continue;
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          c[0][i] = c[2][i];
          c[1][i] = c[3][i];
        }
        column_points<Norm, Stored>(t, t.first + 2 * (tile + n) + 2, channel, lanes, norm, c[2]);
        column_points<Norm, Stored>(t, t.first + 2 * (tile + n) + 3, channel, lanes, norm, c[3]);
#pragma GCC unroll 4
        for (int i = 0; i < 4; ++i) {
          const Vec row[4] = {c[0][i], c[1][i], c[2][i], c[3][i]};
          Vec along[4];
          to_points(row, along);
#pragma GCC unroll 4
          for (int j = 0; j < 4; ++j) v[4 * i + j][n] = along[j];
        }
      }
#pragma GCC unroll 16
      for (int p = 0; p < 16; ++p) Points::put(out + p * t.point_step, v[p], lanes);
    }
  });
}

template <class Points, class Stored>
void winograd_input(const WinogradInputArgs& t) {
  if (t.scale == nullptr) return input_points<Points, as_they_are, Stored>(t);
  if (t.activation == 0) return input_points<Points, 0, Stored>(t);
  (t.activation == 1 ? input_points<Points, 1, Stored> : input_points<Points, 2, Stored>)(t);
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
    both_sides<3, 4, weight_points>([&](int y, int x) { return load(w + (3 * y + x) * tap_step + i); },
                                    [&](int y, int x, Vec v) { store(u + (4 * y + x) * point_step + i, v); });
  }
}

template <class Residual>
VOXLAB_INLINE Vec finished_output(const WinogradOutputArgs& t, int row, int64_t at, Vec y, int lanes) {
  if (t.residual[row] != nullptr) y += load_some(static_cast<const Residual*>(t.residual[row]) + at, lanes);
  return activate(y, t.activation, splat(t.slope));
}

template <class Stored>
VOXLAB_INLINE void store_output(const WinogradOutputArgs& t, Stored* to, Vec v, int lanes) {
  if constexpr (sizeof(Stored) == sizeof(float)) {
    if (t.past_caches) return store_past_caches(to, v);
  }
  store_some(to, v, lanes);
}

[[maybe_unused]] static void add_lanes(Vec v, int lanes, double* to) {
  float values[vec_width];
  store(values, v);
  for (int i = 0; i < lanes; ++i) to[i] += double{values[i]};
}

template <bool Moments, class Stored, class Residual>
void output_rows(const WinogradOutputArgs& t) {
  each_vector((t.vectors - 1) * vec_width + t.last_columns, [&](int64_t column, auto lanes) {
    const Vec bias = t.bias == nullptr ? zero() : load_some(t.bias + column, lanes);
    const float* m = t.m + column;
    if (Moments && t.set_pivot) {
      both_sides<4, 2, to_outputs>([&](int y, int x) { return load(m + (4 * y + x) * t.point_step); },
                                   [&](int y, int x, Vec v) {
                                     if (y > 0 || x > 0) return;
                                     store_some(t.pivot + column, finished_output<Residual>(t, 0, column, v + bias, lanes), lanes);
                                   });
    }
    const Vec pivot = Moments ? load_some(t.pivot + column, lanes) : zero();
    Vec sum[2] = {zero(), zero()}, square[2] = {zero(), zero()};
    for (int64_t tile = 0; tile < t.tiles; ++tile, m += t.row_pitch) {
      const int64_t at = 2 * tile * t.out_pitch + column;
      const bool both = 2 * tile + 1 < t.columns;
      both_sides<4, 2, to_outputs>([&](int y, int x) { return load(m + (4 * y + x) * t.point_step); },
                                   [&](int y, int x, Vec v) {
                                     if (t.out[y] == nullptr || (x == 1 && !both)) return;
                                     const int64_t here = at + x * t.out_pitch;
                                     const Vec value = finished_output<Residual>(t, y, here, v + bias, lanes);
                                     store_output(t, static_cast<Stored*>(t.out[y]) + here, value, lanes);
                                     if constexpr (Moments) {
                                       const Vec off = value - pivot;
                                       sum[x] += off;
                                       square[x] = mul_add(off, off, square[x]);
                                     }
                                   });
    }
    if constexpr (Moments) {
      add_lanes(sum[0] + sum[1], lanes, t.sum + column);
      add_lanes(square[0] + square[1], lanes, t.square + column);
    }
  });
}

template <class Stored, class Residual>
void winograd_output(const WinogradOutputArgs& t) {
  (t.sum == nullptr ? output_rows<false, Stored, Residual> : output_rows<true, Stored, Residual>)(t);
}

// dy at the points: each tile's two rows and columns, zeros outside of the tensor.
template <class Points, class Stored>
void winograd_gradient(const WinogradInputArgs& t) {
  each_vector(t.channels, [&](int64_t channel, auto lanes) {
    auto* out = static_cast<typename Points::Element*>(t.v) + channel;
    for (int64_t tile = 0; tile < t.tiles; tile += Points::tiles, out += t.tile_step) {
      Vec v[16][Points::tiles];
#pragma GCC unroll 2
      for (int n = 0; n < Points::tiles; ++n) {
        both_sides<2, 4, from_outputs>(
            [&](int y, int x) {
              const int64_t column = t.first + 2 * (tile + n) + x;
              const bool inside = column < t.width && tile + n < t.tiles && t.rows[y] != nullptr;
              if (!inside) return zero();
              __builtin_prefetch(static_cast<const Stored*>(t.next[y]) + column * t.pitch + channel);
              return load_some(static_cast<const Stored*>(t.rows[y]) + column * t.pitch + channel, lanes);
            },
            [&](int y, int x, Vec value) { v[4 * y + x][n] = value; });
      }
#pragma GCC unroll 16
      for (int p = 0; p < 16; ++p) Points::put(out + p * t.point_step, v[p], lanes);
    }
  });
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
  each_vector(n, [&](int64_t i, auto lanes) {
    both_sides<4, 3, from_points>([&](int y, int x) { return load_some(u + (4 * y + x) * point_step + i, lanes); },
                                  [&](int y, int x, Vec v) { store_some(w + (3 * y + x) * tap_step + i, v, lanes); });
  });
}

// The third side: n values of each of In planes, taps or points to Out of the others, elementwise; `to` may be `from`.
template <int In, int Out, void (*Side)(const Vec (&)[In], Vec (&)[Out]), class Points = TilePoints<float>>
VOXLAB_INLINE void along_depth(const float* from, int64_t from_step, int64_t n, void* to, int64_t to_step) {
  auto* first = static_cast<typename Points::Element*>(to);
  each_vector(n, [&](int64_t i, auto lanes) {
    Vec d[In], out[Out];
#pragma GCC unroll 4
    for (int k = 0; k < In; ++k) d[k] = load_some(from + k * from_step + i, lanes);
    Side(d, out);
#pragma GCC unroll 4
    for (int k = 0; k < Out; ++k) Points::put(first + k * to_step + i, {out[k]}, lanes);
  });
}

template <class Points>
void winograd_depth_input(const float* planes, int64_t plane_step, int64_t n, void* v, int64_t point_step) {
  along_depth<4, 4, to_points, Points>(planes, plane_step, n, v, point_step);
}

void winograd_depth_weights(const float* w, int64_t tap_step, int64_t n, float* u, int64_t point_step) {
  along_depth<3, 4, weight_points>(w, tap_step, n, u, point_step);
}

void winograd_depth_output(float* m, int64_t point_step, int64_t n) {
  along_depth<4, 2, to_outputs>(m, point_step, n, m, point_step);
}

void winograd_depth_gradient(const float* planes, int64_t plane_step, int64_t n, float* v, int64_t point_step) {
  along_depth<2, 4, from_outputs>(planes, plane_step, n, v, point_step);
}

void winograd_depth_weight_gradient(float* u, int64_t point_step, int64_t n) {
  along_depth<4, 3, from_points>(u, point_step, n, u, point_step);
}

constexpr void set_winograd(KernelTable& table) {
  table.winograd_input = winograd_input<TilePoints<float>, float>;
  table.winograd_weights = winograd_weights;
  table.winograd_output = winograd_output<float, float>;
  table.winograd_gradient = winograd_gradient<TilePoints<float>, float>;
  table.winograd_depth_input = winograd_depth_input<TilePoints<float>>;
  table.winograd_depth_weights = winograd_depth_weights;
  table.winograd_depth_output = winograd_depth_output;
  table.winograd_depth_gradient = winograd_depth_gradient;
  table.winograd_weight_gradient = winograd_weight_gradient;
  table.winograd_depth_weight_gradient = winograd_depth_weight_gradient;
}

}  // namespace
}  // namespace voxlab::cpu
