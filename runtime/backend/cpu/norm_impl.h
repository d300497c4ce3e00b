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
      Vec v = normal(args.value, get(x + i, count), i, count);
      if (residual != nullptr) {
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
        const Strip x = get_strip(x_rows + r * args.columns + c, w);
        const Strip dy = get_strip(dy_rows + r * args.columns + c, w);
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

// Sum of f(offset, count) over a row: f32 lanes over short stretches, f64 across them. Lanes past
// the end must come out as zero.
template <class F>
VOXLAB_INLINE double row_total(int64_t n, F f) {
  constexpr int64_t stretch = 64 * vec_width;
  double total = 0;
  for (int64_t start = 0; start < n; start += stretch) {
    const int64_t length = n - start < stretch ? n - start : stretch;
    Vec part = zero();
    for_vectors(length, [&](int64_t i, auto count) { part += f(start + i, count); });
    total += sum_of(part);
  }
  return total;
}

// Clears the lanes that `count` leaves out, for values whose spare lanes are not zero by
// themselves.
VOXLAB_INLINE Vec keep(Vec v, All) { return v; }
VOXLAB_INLINE Vec keep_or(Vec v, float other, First count) {
  VecInts lane = {};
  for (int i = 0; i < vec_width; ++i) lane[i] = i;
  return lane < static_cast<int32_t>(count.n) ? v : splat(other);
}
VOXLAB_INLINE Vec keep_or(Vec v, float, All) { return v; }
VOXLAB_INLINE Vec keep(Vec v, First count) { return keep_or(v, 0.0F, count); }

void layer_norm_loop(const LayerNormArgs& args) {
  const double inverse = 1.0 / static_cast<double>(args.columns);
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * args.columns;
    float* y = args.y + r * args.columns;
    const double first =
        row_total(args.columns, [&](int64_t i, auto count) { return get(x + i, count); }) * inverse;
    const Vec centre = splat(static_cast<float>(first));
    const double squares = row_total(args.columns, [&](int64_t i, auto count) {
      const Vec d = keep(get(x + i, count) - centre, count);
      return d * d;
    });
    const double slip = first - static_cast<double>(static_cast<float>(first));
    const double variance = squares * inverse - slip * slip;
    const double rstd = 1.0 / __builtin_sqrt((variance > 0 ? variance : 0) + args.epsilon);
    args.mean[r] = static_cast<float>(first);
    args.rstd[r] = static_cast<float>(rstd);
    const Vec scale = splat(static_cast<float>(rstd)), rest = splat(static_cast<float>(slip));
    for_vectors(args.columns, [&](int64_t i, auto count) {
      Vec v = ((get(x + i, count) - centre) - rest) * scale;
      if (args.gamma != nullptr) v = v * get(args.gamma + i, count);
      if (args.beta != nullptr) v += get(args.beta + i, count);
      put(y + i, v, count);
    });
  }
}

VOXLAB_INLINE void layer_norm_grad_row(const LayerNormArgs& args, int64_t r) {
  const int64_t columns = args.columns;
  const double inverse = 1.0 / static_cast<double>(columns);
  const float* x = args.x + r * columns;
  const float* dy = args.dy + r * columns;
  float* dx = args.y + r * columns;
  float* dgamma = args.partial;
  float* dbeta = args.partial + columns;
  const Vec mean = splat(args.mean[r]), rstd = splat(args.rstd[r]);
  const auto weighted = [&](int64_t i, auto count) {
    const Vec d = get(dy + i, count);
    return args.gamma == nullptr ? d : d * get(args.gamma + i, count);
  };
  const double total = row_total(columns, weighted);
  const double dot = row_total(columns, [&](int64_t i, auto count) {
    return weighted(i, count) * ((get(x + i, count) - mean) * rstd);
  });
  const Vec a = splat(static_cast<float>(total * inverse));
  const Vec b = splat(static_cast<float>(dot * inverse));
  for_vectors(columns, [&](int64_t i, auto count) {
    const Vec normal = (get(x + i, count) - mean) * rstd;
    const Vec d = get(dy + i, count);
    put(dx + i, (weighted(i, count) - a - normal * b) * rstd, count);
    put(dgamma + i, mul_add(d, normal, get(dgamma + i, count)), count);
    put(dbeta + i, get(dbeta + i, count) + d, count);
  });
}

void layer_norm_grad_loop(const LayerNormArgs& args) {
  constexpr int64_t stretch = 64;
  const int64_t columns = args.columns;
  for (int64_t r0 = 0; r0 < args.rows; r0 += stretch) {
    const int64_t r1 = r0 + stretch < args.rows ? r0 + stretch : args.rows;
    for (int64_t i = 0; i < 2 * columns; ++i) args.partial[i] = 0;
    for (int64_t r = r0; r < r1; ++r) layer_norm_grad_row(args, r);
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
  table.layer_norm = layer_norm_loop;
  table.layer_norm_grad = layer_norm_grad_loop;
}

}  // namespace
}  // namespace voxlab::cpu
