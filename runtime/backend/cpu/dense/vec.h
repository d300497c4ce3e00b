// One vector type per instruction set, for the files that are compiled once per set. Everything is
// static: two translation units must never share an inline function built with different flags.
#pragma once

#include <cstdint>

#if defined(__AVX512F__) || defined(VOXLAB_EMULATE_AVX512)
#define VOXLAB_AVX512
#endif
#if defined(__AVX512BF16__) || defined(VOXLAB_EMULATE_AVX512_BF16)
#define VOXLAB_AVX512_BF16
#endif

#if defined(VOXLAB_EMULATE_AVX512)
#include "runtime/backend/cpu/dense/avx512_emulated.h"
#elif defined(__AVX2__)
#include <immintrin.h>
#endif

#define VOXLAB_INLINE static inline __attribute__((always_inline))

namespace voxlab::cpu {

#if defined(VOXLAB_AVX512)

using Vec = __m512;
constexpr int vec_width = 16;
constexpr int vec_registers = 32;

VOXLAB_INLINE __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1U << n) - 1U); }
VOXLAB_INLINE Vec load(const float* p) { return _mm512_loadu_ps(p); }
VOXLAB_INLINE Vec load_first(const float* p, int n) {
  return _mm512_maskz_loadu_ps(first_lanes(n), p);
}
VOXLAB_INLINE void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
VOXLAB_INLINE void store_past_caches(float* aligned, Vec v) { _mm512_stream_ps(aligned, v); }
VOXLAB_INLINE void store_first(float* p, Vec v, int n) {
  _mm512_mask_storeu_ps(p, first_lanes(n), v);
}
VOXLAB_INLINE Vec splat(float x) { return _mm512_set1_ps(x); }
VOXLAB_INLINE Vec zero() { return _mm512_setzero_ps(); }
VOXLAB_INLINE Vec mul_add(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
// Operand order as in `x > y ? x : y`, which keeps a NaN in y: activations pass NaN on.
// All lanes by mask, for GCC 12 warns about its own unmasked forms (GCC bug 105593).
VOXLAB_INLINE Vec max(Vec x, Vec y) { return _mm512_maskz_max_ps(0xffff, x, y); }
VOXLAB_INLINE Vec min(Vec x, Vec y) { return _mm512_maskz_min_ps(0xffff, x, y); }
using Lanes = int32_t __attribute__((vector_size(64)));
VOXLAB_INLINE Vec permute(Vec v, Lanes index) {
  return _mm512_maskz_permutexvar_ps(0xffff, reinterpret_cast<__m512i>(index), v);
}
VOXLAB_INLINE Vec gather(const float* p, Lanes index) {
  return _mm512_mask_i32gather_ps(zero(), 0xffff, reinterpret_cast<__m512i>(index), p, 4);
}
VOXLAB_INLINE Vec keep_first(Vec v, int n) { return _mm512_maskz_mov_ps(first_lanes(n), v); }

#elif defined(__AVX2__)

using Vec = __m256;
constexpr int vec_width = 8;
constexpr int vec_registers = 16;

VOXLAB_INLINE __m256i first_lanes(int n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
VOXLAB_INLINE Vec load(const float* p) { return _mm256_loadu_ps(p); }
VOXLAB_INLINE Vec load_first(const float* p, int n) {
  return _mm256_maskload_ps(p, first_lanes(n));
}
VOXLAB_INLINE void store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
VOXLAB_INLINE void store_past_caches(float* aligned, Vec v) { _mm256_stream_ps(aligned, v); }
VOXLAB_INLINE void store_first(float* p, Vec v, int n) {
  _mm256_maskstore_ps(p, first_lanes(n), v);
}
VOXLAB_INLINE Vec splat(float x) { return _mm256_set1_ps(x); }
VOXLAB_INLINE Vec zero() { return _mm256_setzero_ps(); }
VOXLAB_INLINE Vec mul_add(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
VOXLAB_INLINE Vec max(Vec x, Vec y) { return _mm256_max_ps(x, y); }
VOXLAB_INLINE Vec min(Vec x, Vec y) { return _mm256_min_ps(x, y); }
using Lanes = int32_t __attribute__((vector_size(32)));
VOXLAB_INLINE Vec permute(Vec v, Lanes index) {
  return _mm256_permutevar8x32_ps(v, reinterpret_cast<__m256i>(index));
}
VOXLAB_INLINE Vec gather(const float* p, Lanes index) {
  return _mm256_i32gather_ps(p, reinterpret_cast<__m256i>(index), 4);
}
VOXLAB_INLINE Vec keep_first(Vec v, int n) {
  return _mm256_and_ps(v, _mm256_castsi256_ps(first_lanes(n)));
}

#else

using Vec = float __attribute__((vector_size(16)));
using UnalignedVec = float __attribute__((vector_size(16), aligned(4), may_alias));
constexpr int vec_width = 4;
constexpr int vec_registers = 16;

VOXLAB_INLINE Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
VOXLAB_INLINE Vec load_first(const float* p, int n) {
  Vec v = {0, 0, 0, 0};
  for (int i = 0; i < n; ++i) v[i] = p[i];
  return v;
}
VOXLAB_INLINE void store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }
VOXLAB_INLINE void store_past_caches(float* aligned, Vec v) { store(aligned, v); }
VOXLAB_INLINE void store_first(float* p, Vec v, int n) {
  for (int i = 0; i < n; ++i) p[i] = v[i];
}
VOXLAB_INLINE Vec splat(float x) { return Vec{x, x, x, x}; }
VOXLAB_INLINE Vec zero() { return Vec{0, 0, 0, 0}; }
VOXLAB_INLINE Vec mul_add(Vec a, Vec b, Vec c) { return a * b + c; }
VOXLAB_INLINE Vec max(Vec x, Vec y) { return x > y ? x : y; }
VOXLAB_INLINE Vec min(Vec x, Vec y) { return x < y ? x : y; }
using Lanes = int32_t __attribute__((vector_size(16)));
VOXLAB_INLINE Vec permute(Vec v, Lanes index) { return __builtin_shuffle(v, index); }
VOXLAB_INLINE Vec gather(const float* p, Lanes index) {
  return Vec{p[index[0]], p[index[1]], p[index[2]], p[index[3]]};
}
VOXLAB_INLINE Vec keep_first(Vec v, int n) {
  for (int i = n; i < vec_width; ++i) v[i] = 0;
  return v;
}

#endif

// All lanes, or the first ones.
VOXLAB_INLINE Vec load_some(const float* p, int lanes) {
  return lanes == vec_width ? load(p) : load_first(p, lanes);
}

VOXLAB_INLINE void store_some(float* p, Vec v, int lanes) {
  if (lanes == vec_width) {
    store(p, v);
  } else {
    store_first(p, v, lanes);
  }
}

#if defined(VOXLAB_AVX512_BF16)
// The same of values held as bf16, rounded to nearest even.
VOXLAB_INLINE Vec load_some(const uint16_t* p, int lanes) {
  const __m256i half = lanes == vec_width ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))
                                          : _mm256_maskz_loadu_epi16(first_lanes(lanes), p);
  return reinterpret_cast<Vec>(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, half), 16));
}

VOXLAB_INLINE void store_some(uint16_t* p, Vec v, int lanes) {
  const auto half = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v));
  if (lanes == vec_width) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), half);
  } else {
    _mm256_mask_storeu_epi16(p, first_lanes(lanes), half);
  }
}
#endif

// a / b for normal b: the processor's division of a vector takes as long as a dozen products.
VOXLAB_INLINE Vec quotient(Vec a, Vec b) {
#if defined(VOXLAB_AVX512)
  const Vec near = _mm512_maskz_rcp14_ps(0xffff, b);
  const Vec inverse = mul_add(near, mul_add(-b, near, splat(1.0F)), near);  // a step of Newton's
  const Vec first = a * inverse;
  return mul_add(inverse, mul_add(-b, first, a), first);  // and what is left over
#else
  return a / b;
#endif
}

// erf by the odd rational approximation used in Eigen (generic_fast_erf_float): a few ulp on [-4,
// 4], beyond which erf is +-1 in f32.
VOXLAB_INLINE Vec erf_approx(Vec value) {
  // The limit stands first so that a NaN in `value` comes through both comparisons.
  const Vec x = max(splat(-4.0F), min(splat(4.0F), value));
  const Vec x2 = x * x;
  Vec p = splat(-2.72614225801306e-10F);
  p = mul_add(p, x2, splat(2.77068142495902e-08F));
  p = mul_add(p, x2, splat(-2.10102402082508e-06F));
  p = mul_add(p, x2, splat(-5.69250639462346e-05F));
  p = mul_add(p, x2, splat(-7.34990630326855e-04F));
  p = mul_add(p, x2, splat(-2.95459980854025e-03F));
  p = mul_add(p, x2, splat(-1.60960333262415e-02F));
  Vec q = splat(-1.45660718464996e-05F);
  q = mul_add(q, x2, splat(-2.13374055278905e-04F));
  q = mul_add(q, x2, splat(-1.68282697438203e-03F));
  q = mul_add(q, x2, splat(-7.37332916720468e-03F));
  q = mul_add(q, x2, splat(-1.42647390514189e-02F));
  return quotient(x * p, q);
}

// `kind` is an Activation of dense.h: none, relu, leaky_relu, gelu (exact, by erf), hardswish.
VOXLAB_INLINE Vec activate(Vec x, int kind, Vec slope) {
  if (kind == 0) return x;
  if (kind == 1) return max(zero(), x);
  if (kind == 2) return mul_add(slope, min(zero(), x), max(zero(), x));
  if (kind == 4) return x * min(splat(6.0F), max(zero(), x + splat(3.0F))) * splat(1.0F / 6.0F);
  const Vec half = x * splat(0.5F);
  return mul_add(half, erf_approx(x * splat(0.70710678118654752F)), half);
}

// In place, after a tile is stored: its rows are still in L1, and one shared copy keeps tiles
// small. `residual` may be null.
[[maybe_unused]] static __attribute__((noinline)) void finish_row(float* p, const float* residual,
                                                                  int columns, int kind,
                                                                  float slope) {
  for (int i = 0; i < columns; i += vec_width) {
    const int left = columns - i;
    if (left >= vec_width) {
      Vec v = load(p + i);
      if (residual != nullptr) v += load(residual + i);
      store(p + i, activate(v, kind, splat(slope)));
    } else {
      Vec v = load_first(p + i, left);
      if (residual != nullptr) v += load_first(residual + i, left);
      store_first(p + i, activate(v, kind, splat(slope)), left);
    }
  }
}

// Asks for what a loop over memory reads or writes a little later: the processor's own fetching runs too short ahead for
// tensors beyond the caches.
template <class T>
VOXLAB_INLINE void fetch_ahead(const T* p) {
  constexpr int64_t bytes = 24 * 64;
  __builtin_prefetch(reinterpret_cast<const char*>(p) + bytes, 0, 3);
}

}  // namespace voxlab::cpu
