// Elementwise loops: unary functions, their gradients, binary arithmetic, row copies and bf16
// conversion. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

// Numbered as UnaryKind and BinaryKind; the driver asserts that the two agree.
enum Function {
  fn_affine,
  fn_relu,
  fn_leaky_relu,
  fn_gelu,
  fn_hardswish,
  fn_sigmoid,
  fn_tanh,
  fn_exp,
  fn_log,
  fn_sqrt,
  fn_rsqrt,
  fn_square,
  fn_abs,
  fn_erf,
  fn_reciprocal,
  fn_step
};
enum Arithmetic { ar_add, ar_sub, ar_mul, ar_div, ar_equal };

VOXLAB_INLINE Vec one_where(decltype(Vec{} > Vec{}) mask) { return mask ? splat(1.0F) : zero(); }

template <int kind>
VOXLAB_INLINE Vec value_of(Vec x, Vec alpha, Vec beta) {
  if constexpr (kind == fn_affine) return mul_add(alpha, x, beta);
  if constexpr (kind == fn_relu) return max(x, zero());
  if constexpr (kind == fn_leaky_relu) return x > zero() ? x : alpha * x;
  if constexpr (kind == fn_gelu) return gelu_value(x);
  if constexpr (kind == fn_hardswish)
    return x * min(max(x + splat(3.0F), zero()), splat(6.0F)) * splat(1.0F / 6.0F);
  if constexpr (kind == fn_sigmoid) return logistic(x);
  if constexpr (kind == fn_tanh) return hyperbolic_tangent(x);
  if constexpr (kind == fn_exp) return exponential(x);
  if constexpr (kind == fn_log) return logarithm(x);
  if constexpr (kind == fn_sqrt) return square_root(x);
  if constexpr (kind == fn_rsqrt) return splat(1.0F) / square_root(x);
  if constexpr (kind == fn_square) return x * x;
  if constexpr (kind == fn_abs) return absolute(x);
  if constexpr (kind == fn_erf) return erf_approx(x);
  if constexpr (kind == fn_reciprocal) return splat(1.0F) / x;
  if constexpr (kind == fn_step) return one_where(x > zero());
}

template <int kind>
VOXLAB_INLINE Vec slope_of(Vec x, Vec alpha) {
  const Vec one = splat(1.0F);
  if constexpr (kind == fn_affine) return alpha;
  if constexpr (kind == fn_relu) return one_where(x > zero());
  if constexpr (kind == fn_leaky_relu) return x > zero() ? one : alpha;
  if constexpr (kind == fn_gelu) return gelu_slope(x);
  if constexpr (kind == fn_hardswish) {
    const Vec inside = mul_add(x, splat(1.0F / 3.0F), splat(0.5F));
    const Vec right = x >= splat(3.0F) ? one : inside;
    return x <= splat(-3.0F) ? zero() : right;
  }
  if constexpr (kind == fn_sigmoid) return logistic(x) * logistic(-x);  // no cancellation in 1 - s
  if constexpr (kind == fn_tanh) {
    const Vec t = hyperbolic_tangent(x);
    return one - t * t;
  }
  if constexpr (kind == fn_exp) return exponential(x);
  if constexpr (kind == fn_log) return one / x;
  if constexpr (kind == fn_sqrt) return splat(0.5F) / square_root(x);
  if constexpr (kind == fn_rsqrt) return splat(-0.5F) / (x * square_root(x));
  if constexpr (kind == fn_square) return x + x;
  if constexpr (kind == fn_abs) return one_where(x > zero()) - one_where(x < zero());
  if constexpr (kind == fn_erf) return splat(1.1283791670955126F) * exponential(-x * x);
  if constexpr (kind == fn_reciprocal) return splat(-1.0F) / (x * x);
  if constexpr (kind == fn_step) return zero();
}

template <int kind, class T>
void unary_loop(const UnaryArgs& args) {
  const T* x = static_cast<const T*>(args.x);
  T* y = static_cast<T*>(args.y);
  const Vec alpha = splat(args.alpha), beta = splat(args.beta);
  for_vectors(args.n, [&](int64_t i, auto count) {
    put(y + i, value_of<kind>(get(x + i, count), alpha, beta), count);
  });
}

template <int kind, class T>
void unary_grad_loop(const UnaryArgs& args) {
  const T* x = static_cast<const T*>(args.x);
  const T* dy = static_cast<const T*>(args.dy);
  T* y = static_cast<T*>(args.y);
  const Vec alpha = splat(args.alpha);
  for_vectors(args.n, [&](int64_t i, auto count) {
    put(y + i, slope_of<kind>(get(x + i, count), alpha) * get(dy + i, count), count);
  });
}

template <int kind>
VOXLAB_INLINE Vec combine(Vec a, Vec b) {
  if constexpr (kind == ar_add) return a + b;
  if constexpr (kind == ar_sub) return a - b;
  if constexpr (kind == ar_mul) return a * b;
  if constexpr (kind == ar_div) return a / b;
  if constexpr (kind == ar_equal) return one_where(a == b);
}

// still: 0 when both operands move along the row, 1 when b is one value a row, 2 when a is.
template <int kind, int still, class T>
void binary_loop(const BinaryArgs& args) {
  const T* a = static_cast<const T*>(args.a);
  const T* b = static_cast<const T*>(args.b);
  T* y = static_cast<T*>(args.y);
  for (int64_t r = 0; r < args.rows; ++r) {
    const Vec fixed = still == 0 ? zero() : splat(scalar(still == 1 ? b : a));
    for_vectors(args.n, [&](int64_t i, auto count) {
      const Vec left = still == 2 ? fixed : get(a + i, count);
      const Vec right = still == 1 ? fixed : get(b + i, count);
      put(y + i, combine<kind>(left, right), count);
    });
    a += args.a_pitch;
    b += args.b_pitch;
    y += args.y_pitch;
  }
}

// Whole words go through vector registers: for short rows a call of memcpy costs more than the
// copy.
void copy_rows_loop(const void* x, void* y, int64_t rows, int64_t row_bytes, int64_t x_pitch_bytes,
                    int64_t y_pitch_bytes) {
  const char* from = static_cast<const char*>(x);
  char* to = static_cast<char*>(y);
  const auto aligned = [](int64_t bytes) { return bytes % 4 == 0; };
  const bool words = row_bytes <= 4096 && aligned(row_bytes) && aligned(x_pitch_bytes) && aligned(y_pitch_bytes) &&
                     aligned(reinterpret_cast<intptr_t>(x)) && aligned(reinterpret_cast<intptr_t>(y));
  for (int64_t r = 0; r < rows; ++r) {
    if (words) {
      const float* source = reinterpret_cast<const float*>(from);
      float* target = reinterpret_cast<float*>(to);
      for_vectors(row_bytes / 4,
                  [&](int64_t i, auto count) { put(target + i, get(source + i, count), count); });
    } else {
      __builtin_memcpy(to, from, static_cast<size_t>(row_bytes));
    }
    from += x_pitch_bytes;
    to += y_pitch_bytes;
  }
}

template <class From, class To>
void convert_loop(const void* x, void* y, int64_t n) {
  const From* from = static_cast<const From*>(x);
  To* to = static_cast<To*>(y);
  for_vectors(n, [&](int64_t i, auto count) { put(to + i, get(from + i, count), count); });
}

template <int kind = 0>
constexpr void set_unary(Loops& table) {
  if constexpr (kind < unary_kinds) {
    table.unary[kind][0] = unary_loop<kind, float>;
    table.unary[kind][1] = unary_loop<kind, uint16_t>;
    table.unary_grad[kind][0] = unary_grad_loop<kind, float>;
    table.unary_grad[kind][1] = unary_grad_loop<kind, uint16_t>;
    set_unary<kind + 1>(table);
  }
}

template <int kind = 0>
constexpr void set_binary(Loops& table) {
  if constexpr (kind < binary_kinds) {
    table.binary[kind][0][0] = binary_loop<kind, 0, float>;
    table.binary[kind][0][1] = binary_loop<kind, 0, uint16_t>;
    table.binary[kind][1][0] = binary_loop<kind, 1, float>;
    table.binary[kind][1][1] = binary_loop<kind, 1, uint16_t>;
    table.binary[kind][2][0] = binary_loop<kind, 2, float>;
    table.binary[kind][2][1] = binary_loop<kind, 2, uint16_t>;
    set_binary<kind + 1>(table);
  }
}

constexpr void set_elementwise(Loops& table) {
  set_unary(table);
  set_binary(table);
  table.copy_rows = copy_rows_loop;
  table.widen = convert_loop<uint16_t, float>;
  table.narrow = convert_loop<float, uint16_t>;
}

}  // namespace
}  // namespace voxlab::cpu
