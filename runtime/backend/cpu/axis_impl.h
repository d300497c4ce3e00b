// Softmax, log-softmax, L2 normalisation and their gradients along an axis: along rows when it is
// the last one, else along the rows of a block of columns, in two steps (totals, then values) so
// that rows can be shared out among threads. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/norm_impl.h"

namespace voxlab::cpu {
namespace {

// A short row held in registers. Loops load the next row before they store this one: a store whose
// end shares an address pattern with the next load (rows that are no multiple of a cache line,
// arrays at equal offsets in their huge pages) holds that load up, which makes them four times
// slower.
template <int vectors>
struct HeldRow {
  static_assert(vectors > 0);
  static constexpr int last = vectors - 1;
  Vec v[vectors];
  int64_t tail;  // lanes of the last vector that count

  static inline __attribute__((always_inline)) HeldRow of(const float* x, int64_t n) {
    HeldRow row;
    row.tail = n - last * vec_width;
    for (int k = 0; k < last; ++k) row.v[k] = get(x + k * vec_width);
    row.v[last] = get_first(x + last * vec_width, row.tail);
    return row;
  }
  inline __attribute__((always_inline)) void add(const HeldRow& other) {
    for (int k = 0; k < vectors; ++k) v[k] += other.v[k];
  }
  inline __attribute__((always_inline)) float largest() const {
    Vec most = keep_or(v[last], -__builtin_inff(), First{tail});
    for (int k = 0; k < last; ++k) most = max(v[k], most);
    return max_of(most);
  }
  // Becomes exp(x - largest); the sum of that.
  inline __attribute__((always_inline)) float to_powers(float largest) {
    for (Vec& each : v) each = exponential(each - splat(largest));
    v[last] = keep(v[last], First{tail});
    Vec sum = v[0];
    for (int k = 1; k < vectors; ++k) sum += v[k];
    return sum_of(sum);
  }
  inline __attribute__((always_inline)) void write(float* y) const {
    for (int k = 0; k < last; ++k) put(y + k * vec_width, v[k]);
    put_first(y + last * vec_width, v[last], tail);
  }
};

template <int function, int vectors>
void softmax_held_rows(const AxisArgs& args) {
  const int64_t n = args.columns, rows = args.rows;
  if (rows == 0) return;
  auto next = HeldRow<vectors>::of(args.x, n);
  for (int64_t r = 0; r < rows; ++r) {
    auto row = next;
    if (r + 1 < rows) next = HeldRow<vectors>::of(args.x + (r + 1) * n, n);
    if (args.add != nullptr) row.add(HeldRow<vectors>::of(args.add + r * n, n));
    const float largest = row.largest();
    if constexpr (function == axis_softmax) {
      const Vec factor = splat(1.0F / row.to_powers(largest));
      for (Vec& v : row.v) v = v * factor;
    } else {
      auto powers = row;
      const Vec total = logarithm(splat(powers.to_powers(largest)));
      for (Vec& v : row.v) v = (v - splat(largest)) - total;
    }
    row.write(args.y + r * n);
  }
}

template <int function>
void softmax_long_rows(const AxisArgs& args) {
  const int64_t n = args.columns;
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * n;
    float* y = args.y + r * n;
    Vec most = splat(-__builtin_inff());
    if (args.add != nullptr) {
      for_vectors(n, [&](int64_t i, auto count) { put(y + i, get(x + i, count) + get(args.add + r * n + i, count), count); });
      x = y;
    }
    for_vectors(n, [&](int64_t i, auto count) {
      most = max(keep_or(get(x + i, count), -__builtin_inff(), count), most);
    });
    const Vec largest = splat(max_of(most));
    const auto power = [&](int64_t i, auto count) {
      return keep(exponential(get(x + i, count) - largest), count);
    };
    if constexpr (function == axis_softmax) {
      const double total = row_total(n, [&](int64_t i, auto count) {
        const Vec e = power(i, count);
        put(y + i, e, count);
        return e;
      });
      const Vec factor = splat(static_cast<float>(1.0 / total));
      for_vectors(n, [&](int64_t i, auto count) { put(y + i, get(y + i, count) * factor, count); });
    } else {
      const Vec total = logarithm(splat(static_cast<float>(row_total(n, power))));
      for_vectors(n, [&](int64_t i, auto count) {
        put(y + i, (get(x + i, count) - largest) - total, count);
      });
    }
  }
}

void l2_rows(const AxisArgs& args) {
  const int64_t n = args.columns;
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * n;
    float* y = args.y + r * n;
    const double squares = row_total(n, [&](int64_t i, auto count) {
      const Vec v = get(x + i, count);
      return v * v;
    });
    const double root = __builtin_sqrt(squares);
    const double norm = root > args.epsilon ? root : args.epsilon;
    args.norm[r] = static_cast<float>(norm);
    const Vec factor = splat(static_cast<float>(1.0 / norm));
    for_vectors(n, [&](int64_t i, auto count) { put(y + i, get(x + i, count) * factor, count); });
  }
}

template <int function>
void axis_rows_loop(const AxisArgs& args) {
  if constexpr (function == axis_l2) return l2_rows(args);
  if (args.columns <= vec_width) return softmax_held_rows<function, 1>(args);
  if (args.columns <= 2 * vec_width) return softmax_held_rows<function, 2>(args);
  if (args.columns <= 4 * vec_width && args.columns > 3 * vec_width)
    return softmax_held_rows<function, 4>(args);
  softmax_long_rows<function>(args);
}

// What a gradient sums along the axis.
template <int function>
VOXLAB_INLINE Vec grad_term(Vec y, Vec dy) {
  return function == axis_log_softmax ? dy : y * dy;
}

// The gradient from that sum; `factor` is 1 / norm, for L2 normalisation only.
template <int function>
VOXLAB_INLINE Vec grad_value(Vec y, Vec dy, Vec total, Vec factor) {
  if constexpr (function == axis_softmax) return y * (dy - total);
  if constexpr (function == axis_log_softmax) return dy - exponential(y) * total;
  return (dy - y * total) * factor;
}

// Rows of one vector.
template <int function>
void axis_held_rows_grad(const AxisArgs& args) {
  const int64_t n = args.columns, rows = args.rows;
  if (rows == 0) return;
  Vec next_y = get_first(args.x, n), next_dy = get_first(args.dy, n);
  for (int64_t r = 0; r < rows; ++r) {
    const Vec y = next_y, dy = next_dy;
    if (r + 1 < rows) {
      next_y = get_first(args.x + (r + 1) * n, n);
      next_dy = get_first(args.dy + (r + 1) * n, n);
    }
    Vec total = splat(sum_of(grad_term<function>(y, dy))), factor = splat(1.0F);
    if constexpr (function == axis_l2) {
      if (args.norm[r] <= args.clamp_limit) total = zero();  // a clamped norm does not move with x
      factor = splat(1.0F / args.norm[r]);
    }
    put_first(args.y + r * n, grad_value<function>(y, dy, total, factor), n);
  }
}

template <int function>
void axis_rows_grad_loop(const AxisArgs& args) {
  const int64_t n = args.columns;
  if (n <= vec_width) return axis_held_rows_grad<function>(args);
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* y = args.x + r * n;
    const float* dy = args.dy + r * n;
    float* dx = args.y + r * n;
    double sum = row_total(n, [&](int64_t i, auto count) {
      return grad_term<function>(get(y + i, count), get(dy + i, count));
    });
    Vec factor = splat(1.0F);
    if constexpr (function == axis_l2) {
      if (args.norm[r] <= args.clamp_limit) sum = 0;  // a clamped norm does not move with x
      factor = splat(1.0F / args.norm[r]);
    }
    const Vec total = splat(static_cast<float>(sum));
    for_vectors(n, [&](int64_t i, auto count) {
      put(dx + i, grad_value<function>(get(y + i, count), get(dy + i, count), total, factor),
          count);
    });
  }
}

// Adds to the running totals of columns. A softmax sums exponentials below its running maximum and
// scales the sum down when a new one comes (Milakov & Gimelshein 2018).
template <int function>
void axis_columns_total_loop(const AxisArgs& args) {
  if constexpr (function == axis_l2) {
    reduce_columns_loop<rd_sum_squares, float>(args.x, args.rows, args.columns, args.pitch,
                                               args.total);
    return;
  }
  constexpr int64_t stretch = 64;
  for (int64_t r0 = 0; r0 < args.rows; r0 += stretch) {
    const int64_t r1 = r0 + stretch < args.rows ? r0 + stretch : args.rows;
    for_strips(args.columns, [&](int64_t c, int64_t width) {
      const auto each_row = [&](auto f) {
        if (width == strip) {
          for (int64_t r = r0; r < r1; ++r) f(get_strip(args.x + r * args.pitch + c, strip));
        } else {
          for (int64_t r = r0; r < r1; ++r) f(get_strip(args.x + r * args.pitch + c, width));
        }
      };
      const Strip old = get_strip(args.largest + c, width);
      Strip most = old, sum = {};
      each_row([&](const Strip& row) {
        for (int k = 0; k < strip_vectors; ++k) most.v[k] = max(row.v[k], most.v[k]);
      });
      each_row([&](const Strip& row) {
        for (int k = 0; k < strip_vectors; ++k) sum.v[k] += exponential(row.v[k] - most.v[k]);
      });
      Strip rescale;
      for (int k = 0; k < strip_vectors; ++k) {
        const Vec moved = exponential(old.v[k] - most.v[k]);  // 0 for the first stretch: exp(-inf)
        rescale.v[k] = old.v[k] == most.v[k] ? splat(1.0F) : moved;
      }
      float sums[strip], rescales[strip], largest[strip];
      put_lanes(sum, sums);
      put_lanes(rescale, rescales);
      put_lanes(most, largest);
      for (int64_t i = 0; i < width; ++i) {
        args.largest[c + i] = largest[i];
        args.total[c + i] = args.total[c + i] * rescales[i] + sums[i];
      }
    });
  }
}

// softmax: exp(x - shift) * factor; log-softmax: (x - shift) - factor; L2: x * factor.
template <int function>
void axis_columns_apply_loop(const AxisArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.pitch;
    float* y = args.y + r * args.pitch;
    for_vectors(args.columns, [&](int64_t i, auto count) {
      const Vec v = get(x + i, count), factor = get(args.factor + i, count);
      if constexpr (function == axis_l2) {
        put(y + i, v * factor, count);
      } else {
        const Vec below = v - get(args.shift + i, count);
        put(y + i, function == axis_softmax ? exponential(below) * factor : below - factor, count);
      }
    });
  }
}

template <int function>
void axis_columns_grad_total_loop(const AxisArgs& args) {
  constexpr int64_t stretch = 128;
  for (int64_t r0 = 0; r0 < args.rows; r0 += stretch) {
    const int64_t r1 = r0 + stretch < args.rows ? r0 + stretch : args.rows;
    for_strips(args.columns, [&](int64_t c, int64_t width) {
      Strip sum = {};
      for (int64_t r = r0; r < r1; ++r) {
        const Strip y = get_strip(args.x + r * args.pitch + c, width);
        const Strip dy = get_strip(args.dy + r * args.pitch + c, width);
        for (int k = 0; k < strip_vectors; ++k) sum.v[k] += grad_term<function>(y.v[k], dy.v[k]);
      }
      float sums[strip];
      put_lanes(sum, sums);
      for (int64_t i = 0; i < width; ++i) args.total[c + i] += sums[i];
    });
  }
}

// `shift` holds the totals as f32.
template <int function>
void axis_columns_grad_apply_loop(const AxisArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* y = args.x + r * args.pitch;
    const float* dy = args.dy + r * args.pitch;
    float* dx = args.y + r * args.pitch;
    for_vectors(args.columns, [&](int64_t i, auto count) {
      const Vec factor = function == axis_l2 ? get(args.factor + i, count) : zero();
      put(dx + i,
          grad_value<function>(get(y + i, count), get(dy + i, count), get(args.shift + i, count),
                               factor),
          count);
    });
  }
}

template <int f = 0>
constexpr void set_axes(Loops& table) {
  if constexpr (f < axis_functions) {
    table.axis_rows[f] = axis_rows_loop<f>;
    table.axis_rows_grad[f] = axis_rows_grad_loop<f>;
    table.axis_columns_total[f] = axis_columns_total_loop<f>;
    table.axis_columns_grad_total[f] = axis_columns_grad_total_loop<f>;
    table.axis_columns_apply[f] = axis_columns_apply_loop<f>;
    table.axis_columns_grad_apply[f] = axis_columns_grad_apply_loop<f>;
    set_axes<f + 1>(table);
  }
}

}  // namespace
}  // namespace voxlab::cpu
