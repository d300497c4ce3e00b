// Elementary functions on vectors and element access for f32 and bf16 storage, on top of
// dense/vec.h. For the files that are compiled once per instruction set: everything is static, and
// bf16 values are plain uint16_t, because an inline function shared with other files could be
// merged by the linker.
#pragma once

#include <cstddef>

#include "runtime/backend/cpu/dense/vec.h"

namespace voxlab::cpu {

using VecBits = uint32_t __attribute__((vector_size(4 * vec_width)));
using VecInts = int32_t __attribute__((vector_size(4 * vec_width)));
using VecHalfBits = uint16_t __attribute__((vector_size(2 * vec_width)));
using UnalignedHalfBits =
    uint16_t __attribute__((vector_size(2 * vec_width), aligned(2), may_alias));

VOXLAB_INLINE VecBits bits_of(Vec x) { return reinterpret_cast<VecBits>(x); }
VOXLAB_INLINE Vec from_bits(VecBits x) { return reinterpret_cast<Vec>(x); }

// ---- elements: float, or uint16_t holding a bf16 ----

// GCC 12 makes four shuffles of __builtin_convertvector here.
VOXLAB_INLINE Vec widen(VecHalfBits half) {
#if defined(VOXLAB_AVX512)
  const auto wide = reinterpret_cast<VecBits>(_mm512_maskz_cvtepu16_epi32(0xffff, reinterpret_cast<__m256i>(half)));
#elif defined(__AVX2__)
  const auto wide = reinterpret_cast<VecBits>(_mm256_cvtepu16_epi32(reinterpret_cast<__m128i>(half)));
#else
  const VecBits wide = __builtin_convertvector(half, VecBits);
#endif
  return from_bits(wide << 16);
}
#if defined(VOXLAB_AVX512_BF16)
VOXLAB_INLINE VecHalfBits narrow(Vec x) { return reinterpret_cast<VecHalfBits>(_mm512_cvtneps_pbh(x)); }  // subnormal f32 to 0
#else
VOXLAB_INLINE VecHalfBits narrow(Vec x) {
  const VecBits u = bits_of(x);
  const VecBits rounded = (u + 0x7fffU + ((u >> 16) & 1U)) >> 16;  // to nearest even
  const VecBits quiet = (u >> 16) | 0x40U;
  return __builtin_convertvector(x != x ? quiet : rounded, VecHalfBits);
}
#endif

VOXLAB_INLINE Vec get(const float* p) { return load(p); }
VOXLAB_INLINE Vec get(const uint16_t* p) {
  return widen(*reinterpret_cast<const UnalignedHalfBits*>(p));
}
VOXLAB_INLINE Vec get_first(const float* p, int64_t n) {
  return load_first(p, static_cast<int>(n));
}
VOXLAB_INLINE Vec get_first(const uint16_t* p, int64_t n) {
  VecHalfBits half = {};
  for (int i = 0; i < vec_width; ++i) half[i] = i < n ? p[i] : uint16_t{0};  // a copy of n the compiler takes for one past the end
  return widen(half);
}
VOXLAB_INLINE void put(float* p, Vec v) { store(p, v); }
VOXLAB_INLINE void put(uint16_t* p, Vec v) { *reinterpret_cast<UnalignedHalfBits*>(p) = narrow(v); }
VOXLAB_INLINE void put_first(float* p, Vec v, int64_t n) { store_first(p, v, static_cast<int>(n)); }
VOXLAB_INLINE void put_first(uint16_t* p, Vec v, int64_t n) {
  const VecHalfBits half = narrow(v);
  __builtin_memcpy(p, &half, static_cast<size_t>(2 * n));
}
VOXLAB_INLINE float scalar(const float* p) { return *p; }
VOXLAB_INLINE float scalar(const uint16_t* p) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(*p) << 16);
}

// Runs f(offset, Count) over [0, n): Count is All for whole vectors and First{n} for the rest.
struct All {};
struct First {
  int64_t n;
};
template <class T>
VOXLAB_INLINE Vec get(const T* p, All) {
  return get(p);
}
template <class T>
VOXLAB_INLINE Vec get(const T* p, First count) {
  return get_first(p, count.n);
}
template <class T>
VOXLAB_INLINE void put(T* p, Vec v, All) {
  put(p, v);
}
template <class T>
VOXLAB_INLINE void put(T* p, Vec v, First count) {
  put_first(p, v, count.n);
}

template <class F>
VOXLAB_INLINE void for_vectors(int64_t n, F f) {
  int64_t i = 0;
  for (; i + vec_width <= n; i += vec_width) f(i, All{});
  if (i < n) f(i, First{n - i});
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

// ---- reductions of one vector, in a fixed tree ----

template <int step>
VOXLAB_INLINE VecInts swapped_lanes() {
  VecInts lanes = {};
  for (int i = 0; i < vec_width; ++i) lanes[i] = i ^ step;
  return lanes;
}
template <class F>
VOXLAB_INLINE float fold(Vec v, F f) {
  if constexpr (vec_width >= 16) v = f(v, __builtin_shuffle(v, swapped_lanes<8>()));
  if constexpr (vec_width >= 8) v = f(v, __builtin_shuffle(v, swapped_lanes<4>()));
  v = f(v, __builtin_shuffle(v, swapped_lanes<2>()));
  v = f(v, __builtin_shuffle(v, swapped_lanes<1>()));
  return v[0];
}
VOXLAB_INLINE float sum_of(Vec v) {
  return fold(v, [](Vec a, Vec b) { return a + b; });
}
VOXLAB_INLINE float max_of(Vec v) {
  return fold(v, [](Vec a, Vec b) { return max(a, b); });
}

// ---- elementary functions ----
// Relative error against the exact value below 3e-7 (2.5 ulp) wherever that is above 1e-38; erf of
// dense/vec.h below 6e-7, gelu below 3e-7 plus 1e-6 absolute. NaN stays NaN and infinities give the
// limits. Checked by tests/backend/vec_math_test.cpp.

VOXLAB_INLINE Vec absolute(Vec x) { return from_bits(bits_of(x) & 0x7fffffffU); }
VOXLAB_INLINE Vec copy_sign(Vec magnitude, Vec sign) {
  return from_bits((bits_of(magnitude) & 0x7fffffffU) | (bits_of(sign) & 0x80000000U));
}

VOXLAB_INLINE Vec square_root(Vec x) {
#if defined(VOXLAB_AVX512)
  return _mm512_maskz_sqrt_ps(0xffff, x);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#else
  for (int i = 0; i < vec_width; ++i) x[i] = __builtin_sqrtf(x[i]);
  return x;
#endif
}

// p 2^n for integral n, overflow and subnormal results right. In parts: 2^n in two factors.
VOXLAB_INLINE Vec scaled(Vec p, Vec n) {
#if defined(VOXLAB_AVX512)
  return _mm512_maskz_scalef_ps(0xffff, p, n);
#else
  const VecInts exponent = __builtin_convertvector(n, VecInts), half = exponent >> 1;
  const auto power_of_two = [](VecInts e) { return reinterpret_cast<Vec>((e + 127) << 23); };
  return p * power_of_two(half) * power_of_two(exponent - half);
#endif
}

// exp(x) = 2^n exp(r), r = x - n ln 2 in two parts (Cody & Waite), exp(r) by the polynomial of
// Cephes' expf.
VOXLAB_INLINE Vec exponential(Vec value) {
  const Vec x = max(splat(-105.0F), min(splat(89.0F), value));  // keeps a NaN
  const Vec shifter = splat(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec shifted = mul_add(x, splat(1.44269504088896341F), shifter);
  const Vec n = shifted - shifter;
  Vec r = mul_add(n, splat(-0.693359375F), x);
  r = mul_add(n, splat(2.12194440e-4F), r);
  Vec p = splat(1.9875691500e-4F);
  p = mul_add(p, r, splat(1.3981999507e-3F));
  p = mul_add(p, r, splat(8.3334519073e-3F));
  p = mul_add(p, r, splat(4.1665795894e-2F));
  p = mul_add(p, r, splat(1.6666665459e-1F));
  p = mul_add(p, r, splat(5.0000001201e-1F));
  p = mul_add(p, r * r, r) + splat(1.0F);
  return scaled(p, n);
}

// log(x) = n ln 2 + log(m), m in [sqrt(1/2), sqrt(2)), log(m) by the polynomial of Cephes' logf.
VOXLAB_INLINE Vec logarithm(Vec value) {
  const Vec least_normal = splat(1.17549435e-38F);
  const auto tiny = value < least_normal;
  const Vec x = tiny ? value * splat(8388608.0F) : value;  // 2^23
  const Vec tiny_shift = tiny ? splat(-23.0F) : zero();
  const VecInts raw = reinterpret_cast<VecInts>(x);
  Vec m = reinterpret_cast<Vec>((raw & 0x007fffff) | 0x3f000000);  // [1/2, 1)
  Vec n = __builtin_convertvector((raw >> 23) - 126, Vec) + tiny_shift;
  const auto low = m < splat(0.707106781186547524F);
  n = low ? n - splat(1.0F) : n;
  m = (low ? m + m : m) - splat(1.0F);
  const Vec z = m * m;
  Vec p = splat(7.0376836292e-2F);
  p = mul_add(p, m, splat(-1.1514610310e-1F));
  p = mul_add(p, m, splat(1.1676998740e-1F));
  p = mul_add(p, m, splat(-1.2420140846e-1F));
  p = mul_add(p, m, splat(1.4249322787e-1F));
  p = mul_add(p, m, splat(-1.6668057665e-1F));
  p = mul_add(p, m, splat(2.0000714765e-1F));
  p = mul_add(p, m, splat(-2.4999993993e-1F));
  p = mul_add(p, m, splat(3.3333331174e-1F));
  Vec y = m * z * p;
  y = mul_add(n, splat(-2.12194440e-4F), y);
  y = mul_add(z, splat(-0.5F), y);
  y = mul_add(n, splat(0.693359375F), m + y);
  const Vec infinity = splat(__builtin_inff());
  y = value == infinity ? infinity : y;
  y = value == zero() ? -infinity : y;
  return value >= zero() ? y : splat(__builtin_nanf(""));
}

VOXLAB_INLINE Vec logistic(Vec x) { return splat(1.0F) / (splat(1.0F) + exponential(-x)); }

// Cephes' tanhf: an odd polynomial near zero, 1 - 2 / (exp(2 |x|) + 1) beyond.
VOXLAB_INLINE Vec hyperbolic_tangent(Vec x) {
  const Vec a = absolute(x);
  const Vec z = x * x;
  Vec p = splat(-5.70498872745e-3F);
  p = mul_add(p, z, splat(2.06390887954e-2F));
  p = mul_add(p, z, splat(-5.37397155531e-2F));
  p = mul_add(p, z, splat(1.33314422036e-1F));
  p = mul_add(p, z, splat(-3.33332819422e-1F));
  const Vec near = mul_add(p * z, x, x);
  const Vec far = splat(1.0F) - splat(2.0F) / (exponential(a + a) + splat(1.0F));
  return a < splat(0.625F) ? near : copy_sign(far, x);
}

// x Phi(x) and its derivative Phi(x) + x phi(x).
VOXLAB_INLINE Vec gelu_value(Vec x) {
  const Vec half = x * splat(0.5F);
  return mul_add(half, erf_approx(x * splat(0.70710678118654752F)), half);
}
struct ValueAndSlope {
  Vec value, slope;
};
VOXLAB_INLINE ValueAndSlope gelu_both(Vec x) {
  const Vec cdf = mul_add(splat(0.5F), erf_approx(x * splat(0.70710678118654752F)), splat(0.5F));
  return {x * cdf, mul_add(x * splat(0.39894228040143268F), exponential(x * x * splat(-0.5F)), cdf)};
}
VOXLAB_INLINE Vec gelu_slope(Vec x) { return gelu_both(x).slope; }

}  // namespace voxlab::cpu
