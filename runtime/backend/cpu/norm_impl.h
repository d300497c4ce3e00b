// Normalisation loops: scaling and gradients of columns (group, instance, batch norm) and layer
// norm of rows. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/reduce_impl.h"

namespace voxlab::cpu {
namespace {

template <int kind, class X, class R, class Y>
void finish_rows(const FinishColumnsArgs& args) {
  const Vec slope = splat(args.slope);
  const auto normal = [](const FinishColumnsArgs::Column& column, Vec v, int64_t i, auto count) {
    return mul_add(v - get(column.mean + i, count), get(column.scale + i, count), get(column.shift + i, count));
  };
  for (int64_t r = 0; r < args.rows; ++r) {
    const X* x = static_cast<const X*>(args.x) + r * args.columns;
    const R* residual = args.residual == nullptr ? nullptr : static_cast<const R*>(args.residual) + r * args.columns;
    Y* y = static_cast<Y*>(args.y) + r * args.columns;
    for_vectors(args.columns, [&](int64_t i, auto count) {
      fetch_ahead(x + i);
      fetch_ahead(y + i);
      Vec v = normal(args.value, get(x + i, count), i, count);
      if (residual != nullptr) {
        fetch_ahead(residual + i);
        const Vec other = get(residual + i, count);
        v += args.other.scale != nullptr ? normal(args.other, other, i, count) : other;
      }
      put(y + i, activate(v, kind, slope), count);
    });
  }
}

template <class X, class R, class Y>
void finish_by_kind(const FinishColumnsArgs& args) {
  constexpr void (*by_kind[])(const FinishColumnsArgs&) = {finish_rows<0, X, R, Y>, finish_rows<1, X, R, Y>, finish_rows<2, X, R, Y>,
                                                           finish_rows<3, X, R, Y>, finish_rows<4, X, R, Y>};
  by_kind[args.activation](args);
}

template <class X>
void finish_by_types(const FinishColumnsArgs& args) {
  if (args.y_storage == 0) {
    (args.residual_storage == 0 ? finish_by_kind<X, float, float> : finish_by_kind<X, uint16_t, float>)(args);
  } else {
    (args.residual_storage == 0 ? finish_by_kind<X, float, uint16_t> : finish_by_kind<X, uint16_t, uint16_t>)(args);
  }
}

void finish_columns_loop(const FinishColumnsArgs& args) {
  (args.x_storage == 0 ? finish_by_types<float> : finish_by_types<uint16_t>)(args);
}

// dy as the norm's own output gets it, behind an activation whose input is of this sign.
VOXLAB_INLINE Vec gated(Vec dy, Vec input, Vec slope) { return input > zero() ? dy : dy * slope; }

template <bool gate, class X, class D>
void grad_columns_of(const GradColumnsArgs& args) {
  const X* const x_rows = static_cast<const X*>(args.x);
  const D* const dy_rows = static_cast<const D*>(args.dy);
  const Vec slope = splat(args.slope);
  constexpr int64_t stretch = 128;
  for (int64_t r0 = 0; r0 < args.rows; r0 += stretch) {
    const int64_t r1 = r0 + stretch < args.rows ? r0 + stretch : args.rows;
    for_strips(args.columns, [&](int64_t c, int64_t width) {
      const Strip mean = get_strip(args.mean + c, width), scale = get_strip(args.scale + c, width);
      Strip sum = {}, dot = {}, gate_scale = {}, gate_shift = {};
      if constexpr (gate) {
        gate_scale = get_strip(args.gate_scale + c, width);
        gate_shift = get_strip(args.gate_shift + c, width);
      }
      const auto add_row = [&](int64_t r, int64_t w) {
        const X* const x_at = x_rows + r * args.columns + c;
        const D* const dy_at = dy_rows + r * args.columns + c;
        for (int64_t i = 0; i < w; i += vec_width) {
          fetch_ahead(x_at + i);
          fetch_ahead(dy_at + i);
        }
        const Strip x = get_strip(x_at, w), dy = get_strip(dy_at, w);
        for (int k = 0; k < strip_vectors; ++k) {
          const Vec centred = x.v[k] - mean.v[k];
          Vec d = dy.v[k];
          if constexpr (gate) d = gated(d, mul_add(centred, gate_scale.v[k], gate_shift.v[k]), slope);
          sum.v[k] += d;
          dot.v[k] = mul_add(d, centred, dot.v[k]);
        }
      };
      if (width == strip) {
        for (int64_t r = r0; r < r1; ++r) add_row(r, strip);
      } else {
        for (int64_t r = r0; r < r1; ++r) add_row(r, width);
      }
      for (int k = 0; k < strip_vectors; ++k) dot.v[k] = dot.v[k] * scale.v[k];
      float sums[strip], dots[strip];
      put_lanes(sum, sums);
      put_lanes(dot, dots);
      for (int64_t i = 0; i < width; ++i) {
        args.total_dy[c + i] += sums[i];
        args.total_dot[c + i] += dots[i];
      }
    });
  }
}

template <class X, class D>
void grad_columns_by_gate(const GradColumnsArgs& args) {
  (args.gate_scale == nullptr ? grad_columns_of<false, X, D> : grad_columns_of<true, X, D>)(args);
}

void grad_columns_loop(const GradColumnsArgs& args) {
  constexpr GradColumnsFn by_types[2][2] = {{grad_columns_by_gate<float, float>, grad_columns_by_gate<float, uint16_t>},
                                            {grad_columns_by_gate<uint16_t, float>, grad_columns_by_gate<uint16_t, uint16_t>}};
  by_types[args.x_storage][args.dy_storage](args);
}

template <bool gate, class X, class D, class Y>
void grad_apply_columns_of(const GradColumnsArgs& args) {
  const Vec slope = splat(args.slope);
  for (int64_t r = 0; r < args.rows; ++r) {
    const X* x = static_cast<const X*>(args.x) + r * args.columns;
    const D* dy = static_cast<const D*>(args.dy) + r * args.columns;
    Y* dx = static_cast<Y*>(args.dx) + r * args.columns;
    for_vectors(args.columns, [&](int64_t i, auto count) {
      fetch_ahead(x + i);
      fetch_ahead(dy + i);
      fetch_ahead(dx + i);
      const Vec centred = get(x + i, count) - get(args.mean + i, count);
      const Vec mean_part = mul_add(centred, get(args.b + i, count), get(args.a + i, count));
      Vec d = get(dy + i, count);
      if constexpr (gate) d = gated(d, mul_add(centred, get(args.gate_scale + i, count), get(args.gate_shift + i, count)), slope);
      put(dx + i, d * get(args.scale + i, count) - mean_part, count);
    });
  }
}

template <class X, class D, class Y>
void grad_apply_by_gate(const GradColumnsArgs& args) {
  (args.gate_scale == nullptr ? grad_apply_columns_of<false, X, D, Y> : grad_apply_columns_of<true, X, D, Y>)(args);
}

template <class X, class D>
void grad_apply_by_result(const GradColumnsArgs& args) {
  (args.dx_storage == 0 ? grad_apply_by_gate<X, D, float> : grad_apply_by_gate<X, D, uint16_t>)(args);
}

void grad_apply_columns_loop(const GradColumnsArgs& args) {
  constexpr GradColumnsFn by_types[2][2] = {{grad_apply_by_result<float, float>, grad_apply_by_result<float, uint16_t>},
                                            {grad_apply_by_result<uint16_t, float>, grad_apply_by_result<uint16_t, uint16_t>}};
  by_types[args.x_storage][args.dy_storage](args);
}

// Values of a type known by its number: for loops that memory bounds.
VOXLAB_INLINE Strip strip_at(const void* p, int storage, int64_t at, int64_t columns) {
  return storage == 0 ? get_strip(static_cast<const float*>(p) + at, columns) : get_strip(static_cast<const uint16_t*>(p) + at, columns);
}
VOXLAB_INLINE Vec vector_at(const void* p, int storage, int64_t at, auto count) {
  return storage == 0 ? get(static_cast<const float*>(p) + at, count) : get(static_cast<const uint16_t*>(p) + at, count);
}
VOXLAB_INLINE void put_at(void* p, int storage, int64_t at, Vec v, auto count) {
  storage == 0 ? put(static_cast<float*>(p) + at, v, count) : put(static_cast<uint16_t*>(p) + at, v, count);
}
VOXLAB_INLINE void fetch_at(const void* p, int storage, int64_t at) { fetch_ahead(static_cast<const char*>(p) + at * (storage == 0 ? 4 : 2)); }

void grad_sum_columns_loop(const GradSumArgs& args) {
  const auto& [first, second] = args.norm;
  const Vec slope = splat(args.slope);
  constexpr int64_t stretch = 128;
  for (int64_t r0 = 0; r0 < args.rows; r0 += stretch) {
    const int64_t r1 = r0 + stretch < args.rows ? r0 + stretch : args.rows;
    for_strips(args.columns, [&](int64_t c, int64_t width) {
      const Strip mean1 = get_strip(first.mean + c, width), mean2 = get_strip(second.mean + c, width);
      const Strip scale1 = get_strip(first.scale + c, width), scale2 = get_strip(second.scale + c, width);
      const Strip shift = get_strip(args.gate_shift + c, width);
      Strip sum = {}, dot1 = {}, dot2 = {};
      const auto add_row = [&](int64_t r, int64_t w) {
        const int64_t at = r * args.columns + c;
        for (int64_t i = 0; i < w; i += vec_width) {
          fetch_at(first.x, first.x_storage, at + i);
          fetch_at(second.x, second.x_storage, at + i);
          fetch_at(args.dy, args.dy_storage, at + i);
        }
        const Strip x1 = strip_at(first.x, first.x_storage, at, w), x2 = strip_at(second.x, second.x_storage, at, w);
        const Strip dy = strip_at(args.dy, args.dy_storage, at, w);
        for (int k = 0; k < strip_vectors; ++k) {
          const Vec centred1 = x1.v[k] - mean1.v[k], centred2 = x2.v[k] - mean2.v[k];
          const Vec input = mul_add(centred1, scale1.v[k], mul_add(centred2, scale2.v[k], shift.v[k]));
          const Vec d = gated(dy.v[k], input, slope);
          sum.v[k] += d;
          dot1.v[k] = mul_add(d, centred1, dot1.v[k]);
          dot2.v[k] = mul_add(d, centred2, dot2.v[k]);
        }
      };
      if (width == strip) {
        for (int64_t r = r0; r < r1; ++r) add_row(r, strip);
      } else {
        for (int64_t r = r0; r < r1; ++r) add_row(r, width);
      }
      float sums[strip], dots1[strip], dots2[strip];
      put_lanes(sum, sums);
      put_lanes(dot1, dots1);
      put_lanes(dot2, dots2);
      for (int64_t i = 0; i < width; ++i) {
        args.total_dy[c + i] += sums[i];
        first.total_dot[c + i] += dots1[i];
        second.total_dot[c + i] += dots2[i];
      }
    });
  }
}

void grad_sum_apply_columns_loop(const GradSumArgs& args) {
  const auto& [first, second] = args.norm;
  const Vec slope = splat(args.slope);
  for (int64_t r = 0; r < args.rows; ++r) {
    for_vectors(args.columns, [&](int64_t i, auto count) {
      const int64_t at = r * args.columns + i;
      for (const GradSumArgs::Norm& n : args.norm) {
        fetch_at(n.x, n.x_storage, at);
        fetch_at(n.dx, n.dx_storage, at);
      }
      fetch_at(args.dy, args.dy_storage, at);
      const Vec centred1 = vector_at(first.x, first.x_storage, at, count) - get(first.mean + i, count);
      const Vec centred2 = vector_at(second.x, second.x_storage, at, count) - get(second.mean + i, count);
      const Vec scale1 = get(first.scale + i, count), scale2 = get(second.scale + i, count);
      const Vec input = mul_add(centred1, scale1, mul_add(centred2, scale2, get(args.gate_shift + i, count)));
      const Vec d = gated(vector_at(args.dy, args.dy_storage, at, count), input, slope);
      const auto part = [&](const GradSumArgs::Norm& n, Vec centred, Vec scale) {
        put_at(n.dx, n.dx_storage, at, d * scale - mul_add(centred, get(n.b + i, count), get(n.a + i, count)), count);
      };
      part(first, centred1, scale1);
      part(second, centred2, scale2);
    });
  }
}

// Sums of the `terms` values that f(offset, count) gives, over a row: f32 lanes over short stretches, f64 across them. Lanes
// past the end must come out as zero. Four sums of each, for one would wait for itself.
template <int terms, class F>
VOXLAB_INLINE void row_totals(int64_t n, double (&total)[terms], F f) {
  constexpr int64_t stretch = 64 * vec_width, at_once = 4;
  for (double& t : total) t = 0;
  for (int64_t start = 0; start < n; start += stretch) {
    const int64_t end = n - start < stretch ? n : start + stretch;
    Vec part[terms][at_once];
    for (auto& parts : part)
      for (Vec& p : parts) p = zero();
    const auto add = [&](int64_t i, auto count, int64_t to) __attribute__((always_inline)) {
      Vec value[terms];
      f(i, count, value);
      for (int k = 0; k < terms; ++k) part[k][to] += value[k];
    };
    int64_t i = start;
    for (; i + at_once * vec_width <= end; i += at_once * vec_width)
#pragma GCC unroll 4
      for (int64_t j = 0; j < at_once; ++j) add(i + j * vec_width, All{}, j);
    for_vectors(end - i, [&](int64_t rest, auto count) { add(i + rest, count, 0); });
    for (int k = 0; k < terms; ++k) total[k] += sum_of((part[k][0] + part[k][1]) + (part[k][2] + part[k][3]));
  }
}

template <class F>
VOXLAB_INLINE double row_total(int64_t n, F f) {
  double total[1];
  row_totals<1>(n, total, [&](int64_t i, auto count, Vec (&value)[1]) __attribute__((always_inline)) { value[0] = f(i, count); });
  return total[0];
}

struct RowStatistics {
  float mean, slip, rstd;  // slip: what rounding took off the mean
};
VOXLAB_INLINE RowStatistics row_statistics(const float* x, int64_t columns, double epsilon) {
  const double inverse = 1.0 / static_cast<double>(columns);
  const double mean = row_total(columns, [&](int64_t i, auto count) { return get(x + i, count); }) * inverse;
  const Vec centre = splat(static_cast<float>(mean));
  const double squares = row_total(columns, [&](int64_t i, auto count) {
    const Vec d = keep(get(x + i, count) - centre, count);
    return d * d;
  });
  const double slip = mean - static_cast<double>(static_cast<float>(mean));
  const double variance = squares * inverse - slip * slip;
  const double rstd = 1.0 / __builtin_sqrt((variance > 0 ? variance : 0) + epsilon);
  return {static_cast<float>(mean), static_cast<float>(slip), static_cast<float>(rstd)};
}

// With `gelu` y is GELU of the norm. Y: float, or uint16_t holding a bf16.
template <bool gelu, class Y>
void layer_norm_loop(const LayerNormArgs& args) {
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.columns;
    Y* y = static_cast<Y*>(args.y) + r * args.columns;
    const RowStatistics s = row_statistics(x, args.columns, args.epsilon);
    args.mean[r] = s.mean;
    args.rstd[r] = s.rstd;
    const Vec centre = splat(s.mean), rest = splat(s.slip), scale = splat(s.rstd);
    for_vectors(args.columns, [&](int64_t i, auto count) {
      Vec v = ((get(x + i, count) - centre) - rest) * scale;
      if (args.gamma != nullptr) v = v * get(args.gamma + i, count);
      if (args.beta != nullptr) v += get(args.beta + i, count);
      put(y + i, gelu ? gelu_value(v) : v, count);
    });
  }
}

// Some rows together, so that dgamma and dbeta are read and written once for all of them.
template <bool gelu, int rows>
VOXLAB_INLINE void layer_norm_grad_rows(const LayerNormArgs& args, int64_t first) {
  const int64_t columns = args.columns;
  const double inverse = 1.0 / static_cast<double>(columns);
  const float* const x = args.x + first * columns;
  float* const dx = static_cast<float*>(args.y) + first * columns;
  const float* const dy = gelu ? dx : args.dy + first * columns;  // behind the norm; that of GELU waits where dx will be
  float* const dgamma = args.partial;
  float* const dbeta = args.partial + columns;
  const auto weighted = [&](Vec d, int64_t i, auto count) { return args.gamma == nullptr ? d : d * get(args.gamma + i, count); };
  Vec mean[rows], rstd[rows], a[rows], b[rows];
  for (int r = 0; r < rows; ++r) {
    const int64_t at = r * columns;
    mean[r] = splat(args.mean[first + r]);
    rstd[r] = splat(args.rstd[first + r]);
    double total[2];  // of w dy, and times the norm
    row_totals<2>(columns, total, [&](int64_t i, auto count, Vec (&value)[2]) __attribute__((always_inline)) {
      const Vec normal = (get(x + at + i, count) - mean[r]) * rstd[r];
      Vec d;
      if constexpr (gelu) {
        Vec z = weighted(normal, i, count);
        if (args.beta != nullptr) z += get(args.beta + i, count);
        d = get(args.dy + first * columns + at + i, count) * gelu_slope(z);
        put(dx + at + i, d, count);
      } else {
        d = get(dy + at + i, count);
      }
      value[0] = weighted(d, i, count);
      value[1] = value[0] * normal;
    });
    a[r] = splat(static_cast<float>(total[0] * inverse));
    b[r] = splat(static_cast<float>(total[1] * inverse));
  }
  for_vectors(columns, [&](int64_t i, auto count) {
    Vec sum = get(dbeta + i, count), dot = get(dgamma + i, count);
    for (int r = 0; r < rows; ++r) {
      const int64_t at = r * columns + i;
      const Vec normal = (get(x + at, count) - mean[r]) * rstd[r], d = get(dy + at, count);
      put(dx + at, (weighted(d, i, count) - a[r] - normal * b[r]) * rstd[r], count);
      dot = mul_add(d, normal, dot);
      sum += d;
    }
    put(dgamma + i, dot, count);
    put(dbeta + i, sum, count);
  });
}

template <bool gelu>
void layer_norm_grad_loop(const LayerNormArgs& args) {
  constexpr int64_t stretch = 64, together = 4;
  const int64_t columns = args.columns;
  for (int64_t r0 = 0; r0 < args.rows; r0 += stretch) {
    const int64_t r1 = r0 + stretch < args.rows ? r0 + stretch : args.rows;
    for (int64_t i = 0; i < 2 * columns; ++i) args.partial[i] = 0;
    int64_t r = r0;
    for (; r + together <= r1; r += together) layer_norm_grad_rows<gelu, together>(args, r);
    for (; r < r1; ++r) layer_norm_grad_rows<gelu, 1>(args, r);
    for (int64_t i = 0; i < columns; ++i) {
      args.dgamma[i] += args.partial[i];
      args.dbeta[i] += args.partial[columns + i];
    }
  }
}

constexpr void set_norms(Loops& table) {
  table.finish_columns = finish_columns_loop;
  table.grad_columns = grad_columns_loop;
  table.grad_apply_columns = grad_apply_columns_loop;
  table.grad_sum_columns = grad_sum_columns_loop;
  table.grad_sum_apply_columns = grad_sum_apply_columns_loop;
  table.layer_norm[0] = layer_norm_loop<false, float>;
  table.layer_norm[1] = layer_norm_loop<true, float>;
  table.layer_norm_gelu_bf16 = layer_norm_loop<true, uint16_t>;
  table.layer_norm_grad[0] = layer_norm_grad_loop<false>;
  table.layer_norm_grad[1] = layer_norm_grad_loop<true>;
}

}  // namespace
}  // namespace voxlab::cpu
