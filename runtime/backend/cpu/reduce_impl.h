// Reduction loops: sums, sums of squares and maxima of rows and columns, running moments of
// columns. f32 vectors add short stretches, f64 adds the stretches up. Included once per
// instruction set.
#pragma once

#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

// Numbered as ReduceKind; a mean is a sum that the driver divides.
enum Reduction { rd_sum, rd_mean, rd_max, rd_sum_squares };

constexpr int strip = 16;  // columns handled together: one cache line of f32
constexpr int strip_vectors = strip / vec_width;

template <int kind>
VOXLAB_INLINE Vec take(Vec total, Vec x) {
  if constexpr (kind == rd_max)
    return max(x, total);  // an x that is NaN is passed over, as by fmax
  if constexpr (kind == rd_sum_squares) return mul_add(x, x, total);
  return total + x;
}

template <int kind>
VOXLAB_INLINE Vec nothing() {
  return kind == rd_max ? splat(-__builtin_inff()) : zero();
}

template <int kind>
VOXLAB_INLINE double merged(double total, double part) {
  if constexpr (kind == rd_max) return part > total ? part : total;
  return total + part;
}

template <int kind, class T>
double reduce_row_loop(const void* data, int64_t n) {
  constexpr int64_t chains = 4, stretch = 64 * chains * vec_width;  // 64 additions a lane
  const T* x = static_cast<const T*>(data);
  double total = kind == rd_max ? -__builtin_inf() : 0.0;
  for (int64_t start = 0; start < n; start += stretch) {
    const int64_t end = start + stretch < n ? start + stretch : n;
    Vec part[chains];
    for (Vec& p : part) p = nothing<kind>();
    int64_t i = start;
    for (; i + chains * vec_width <= end; i += chains * vec_width)
      for (int c = 0; c < chains; ++c) part[c] = take<kind>(part[c], get(x + i + c * vec_width));
    for (; i + vec_width <= end; i += vec_width) part[0] = take<kind>(part[0], get(x + i));
    float rest = kind == rd_max ? -__builtin_inff() : 0.0F;
    for (; i < end; ++i) {
      const float v = scalar(x + i);
      if constexpr (kind == rd_max) {
        rest = v > rest ? v : rest;
      } else {
        rest += kind == rd_sum_squares ? v * v : v;
      }
    }
    if constexpr (kind == rd_max) {
      total = merged<kind>(total, max_of(max(max(part[0], part[1]), max(part[2], part[3]))));
    } else {
      total += sum_of((part[0] + part[1]) + (part[2] + part[3]));
    }
    total = merged<kind>(total, rest);
  }
  return total;
}

// Calls f(first column, columns) for strips of columns.
template <class F>
VOXLAB_INLINE void for_strips(int64_t columns, F f) {
  for (int64_t c = 0; c < columns; c += strip) f(c, columns - c < strip ? columns - c : strip);
}

// The vectors of one strip of a row; lanes past `columns` are zero.
struct Strip {
  Vec v[strip_vectors];
};
template <class T>
VOXLAB_INLINE Strip get_strip(const T* p, int64_t columns) {
  Strip s;
  for (int k = 0; k < strip_vectors; ++k) {
    const int64_t left = columns - k * vec_width;
    s.v[k] = left >= vec_width ? get(p + k * vec_width)
             : left > 0        ? get_first(p + k * vec_width, left)
                               : zero();
  }
  return s;
}
VOXLAB_INLINE void put_lanes(const Strip& s, float* lanes) {
  for (int k = 0; k < strip_vectors; ++k) store(lanes + k * vec_width, s.v[k]);
}

// Rows whose strips stay in L1 while all columns are walked.
VOXLAB_INLINE int64_t rows_in_cache(int64_t columns) {
  const int64_t rows = 8192 / (columns > 0 ? columns : 1);
  return rows < 16 ? 16 : rows > 256 ? 256 : rows;
}

template <int kind, class T>
void reduce_columns_loop(const void* data, int64_t rows, int64_t columns, int64_t pitch,
                         double* total) {
  constexpr int64_t stretch = 16;
  const T* x = static_cast<const T*>(data);
  for (int64_t r0 = 0; r0 < rows; r0 += stretch) {
    const int64_t r1 = r0 + stretch < rows ? r0 + stretch : rows;
    for_strips(columns, [&](int64_t c, int64_t width) {
      Strip even, odd;
      for (Vec& v : even.v) v = nothing<kind>();
      odd = even;
      const T* at = x + r0 * pitch + c;
      int64_t r = r0;
      const auto add_row = [&](Strip& part, int64_t w) {
        const Strip row = get_strip(at, w);
        for (int k = 0; k < strip_vectors; ++k) part.v[k] = take<kind>(part.v[k], row.v[k]);
        at += pitch;
      };
      if (width == strip) {
        for (; r + 2 <= r1; r += 2) add_row(even, strip), add_row(odd, strip);
      } else {
        for (; r + 2 <= r1; r += 2) add_row(even, width), add_row(odd, width);
      }
      if (r < r1) add_row(even, width);
      float lanes[strip];
      for (int k = 0; k < strip_vectors; ++k)
        even.v[k] = kind == rd_max ? max(odd.v[k], even.v[k]) : even.v[k] + odd.v[k];
      put_lanes(even, lanes);
      for (int64_t i = 0; i < width; ++i) total[c + i] = merged<kind>(total[c + i], lanes[i]);
    });
  }
}

// Mean and squared deviations of a block in two passes (the second from cache, corrected by the
// first's rounding), then joined to the running ones in f64 (Chan, Golub & LeVeque 1983, eq. 2.1).
template <class T>
void moments_loop(const void* data, int64_t rows, int64_t columns, int64_t count, double* mean,
                  double* m2) {
  const T* x = static_cast<const T*>(data);
  const int64_t stretch = rows_in_cache(columns);
  for (int64_t r0 = 0; r0 < rows; r0 += stretch) {
    const int64_t n = r0 + stretch < rows ? stretch : rows - r0;
    const double in_block = static_cast<double>(n), before = static_cast<double>(count + r0);
    const double share = in_block / (before + in_block);
    for_strips(columns, [&](int64_t c, int64_t width) {
      const auto pass = [&](auto each) {  // two chains, so that additions overlap
        const T* at = x + r0 * columns + c;
        int64_t r = 0;
        if (width == strip) {
          for (; r + 2 <= n; r += 2, at += 2 * columns)
            each(get_strip(at, strip), 0), each(get_strip(at + columns, strip), 1);
        }
        for (; r < n; ++r, at += columns) each(get_strip(at, width), 0);
      };
      Strip sum[2] = {}, squares[2] = {}, centre;
      pass([&](const Strip& row, int chain) {
        for (int k = 0; k < strip_vectors; ++k) sum[chain].v[k] += row.v[k];
      });
      for (int k = 0; k < strip_vectors; ++k) {
        centre.v[k] = (sum[0].v[k] + sum[1].v[k]) * splat(1.0F / static_cast<float>(n));
        sum[0].v[k] = sum[1].v[k] = zero();
      }
      pass([&](const Strip& row, int chain) {
        for (int k = 0; k < strip_vectors; ++k) {
          const Vec d = row.v[k] - centre.v[k];
          sum[chain].v[k] += d;
          squares[chain].v[k] = mul_add(d, d, squares[chain].v[k]);
        }
      });
      for (int k = 0; k < strip_vectors; ++k) {
        sum[0].v[k] += sum[1].v[k];
        squares[0].v[k] += squares[1].v[k];
      }
      float centres[strip], sums[strip], deviations[strip];
      put_lanes(centre, centres);
      put_lanes(sum[0], sums);
      put_lanes(squares[0], deviations);
      for (int64_t i = 0; i < width; ++i) {
        const double shift = sums[i] / in_block;
        const double delta = centres[i] + shift - mean[c + i];
        mean[c + i] += delta * share;
        m2[c + i] += deviations[i] - shift * sums[i] + delta * delta * before * share;
      }
    });
  }
}

template <int kind = 0>
constexpr void set_reductions(Loops& table) {
  if constexpr (kind < reduce_kinds) {
    table.reduce_row[kind][0] = reduce_row_loop<kind, float>;
    table.reduce_row[kind][1] = reduce_row_loop<kind, uint16_t>;
    table.reduce_columns[kind][0] = reduce_columns_loop<kind, float>;
    table.reduce_columns[kind][1] = reduce_columns_loop<kind, uint16_t>;
    set_reductions<kind + 1>(table);
  }
}

constexpr void set_reduce(Loops& table) {
  set_reductions(table);
  table.moments[0] = moments_loop<float>;
  table.moments[1] = moments_loop<uint16_t>;
}

}  // namespace
}  // namespace voxlab::cpu
