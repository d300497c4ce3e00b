// Layer norm and channel scaling (the block of 3D UX-Net) of rows, and their gradient. A lane is a channel. Included once per
// instruction set.
#pragma once

#include "runtime/backend/cpu/norm_impl.h"

namespace voxlab::cpu {
namespace {

void norm_scaling_loop(const NormScalingArgs& args) {
  const int64_t columns = args.columns;
  const ScalingRows p = args.parameters;
  for (int64_t r = 0; r < args.rows; ++r) {
    const float* x = args.x + r * columns;
    const float* residual = args.residual == nullptr ? nullptr : args.residual + r * columns;
    float* y = args.y + r * columns;
    const RowStatistics s = row_statistics(x, columns, args.epsilon);
    if (args.mean != nullptr) {
      args.mean[r] = s.mean;
      args.rstd[r] = s.rstd;
    }
    const Vec centre = splat(s.mean), rest = splat(s.slip), scale = splat(s.rstd);
    for_vectors(columns, [&](int64_t i, auto count) {
      const Vec normal = ((get(x + i, count) - centre) - rest) * scale;
      Vec sum = get(p.reduce_bias + i, count);
      for (int64_t at = i; at < p.ratio * columns; at += columns) {
        const Vec z = mul_add(get(p.expand + at, count), normal, get(p.expand_bias + at, count));
        sum = mul_add(get(p.reduce + at, count), gelu_value(z), sum);
      }
      if (residual != nullptr) sum += get(residual + i, count);  // last: it may be a million times as large
      put(y + i, sum, count);
    });
  }
}

// Some rows together: sums over rows stay in registers meanwhile.
template <int rows>
VOXLAB_INLINE void norm_scaling_grad_rows(const NormScalingArgs& args, int64_t first) {
  const int64_t columns = args.columns, wide = args.parameters.ratio * columns;
  const ScalingRows p = args.parameters;
  const float* const x = args.x + first * columns;
  const float* const dy = args.dy + first * columns;
  float* const dx = args.y + first * columns;
  float* const dreduce = args.partial;
  float* const dexpand_bias = dreduce + wide;
  float* const dexpand = dexpand_bias + wide;
  float* const dreduce_bias = dexpand + wide;
  Vec mean[rows], rstd[rows], total[rows], dot[rows];
  for (int r = 0; r < rows; ++r) {
    mean[r] = splat(args.mean[first + r]);
    rstd[r] = splat(args.rstd[first + r]);
    total[r] = dot[r] = zero();
  }
  for_vectors(columns, [&](int64_t i, auto count) {
    Vec normal[rows], d[rows], dnormal[rows];
    Vec sum = get(dreduce_bias + i, count);
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      normal[r] = (get(x + r * columns + i, count) - mean[r]) * rstd[r];
      d[r] = get(dy + r * columns + i, count);
      dnormal[r] = zero();
      sum += d[r];
    }
    put(dreduce_bias + i, sum, count);
    for (int64_t at = i; at < wide; at += columns) {
      const Vec expand = get(p.expand + at, count), bias = get(p.expand_bias + at, count), reduce = get(p.reduce + at, count);
      Vec a = get(dreduce + at, count), b = get(dexpand_bias + at, count), c = get(dexpand + at, count);
#pragma GCC unroll 8
      for (int r = 0; r < rows; ++r) {
        const Vec z = mul_add(expand, normal[r], bias);
        const ValueAndSlope g = gelu_both(z);
        const Vec dz = d[r] * reduce * g.slope;
        a = mul_add(d[r], g.value, a);
        b += dz;
        c = mul_add(dz, normal[r], c);
        dnormal[r] = mul_add(dz, expand, dnormal[r]);
      }
      put(dreduce + at, a, count);
      put(dexpand_bias + at, b, count);
      put(dexpand + at, c, count);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      put(dx + r * columns + i, dnormal[r], count);  // waits where dx will be
      total[r] += dnormal[r];
      dot[r] = mul_add(dnormal[r], normal[r], dot[r]);
    }
  });
  const float inverse = 1.0F / static_cast<float>(columns);
  for (int r = 0; r < rows; ++r) {
    const Vec a = splat(sum_of(total[r]) * inverse), b = splat(sum_of(dot[r]) * inverse);
    for_vectors(columns, [&](int64_t i, auto count) {
      const int64_t at = r * columns + i;
      const Vec normal = (get(x + at, count) - mean[r]) * rstd[r];
      put(dx + at, (get(dx + at, count) - a - normal * b) * rstd[r], count);
    });
  }
}

void norm_scaling_grad_loop(const NormScalingArgs& args) {
  constexpr int64_t stretch = 64, together = 4;
  const int64_t sums = (3 * args.parameters.ratio + 1) * args.columns;
  for (int64_t r0 = 0; r0 < args.rows; r0 += stretch) {
    const int64_t r1 = r0 + stretch < args.rows ? r0 + stretch : args.rows;
    for (int64_t i = 0; i < sums; ++i) args.partial[i] = 0;
    int64_t r = r0;
    for (; r + together <= r1; r += together) norm_scaling_grad_rows<together>(args, r);
    for (; r < r1; ++r) norm_scaling_grad_rows<1>(args, r);
    for (int64_t i = 0; i < sums; ++i) args.sums[i] += args.partial[i];
  }
}

constexpr void set_norm_scaling(Loops& table) {
  table.norm_scaling = norm_scaling_loop;
  table.norm_scaling_grad = norm_scaling_grad_loop;
}

}  // namespace
}  // namespace voxlab::cpu
