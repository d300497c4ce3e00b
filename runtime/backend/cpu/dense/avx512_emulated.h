// The AVX-512 and AVX512_BF16 intrinsics that the kernels use, computed by GCC's vector arithmetic
// on any machine with AVX2: for tests (VOXLAB_EMULATE_AVX512, the preset `emulated`). Inside the
// namespace they hide the real ones of the same name. Each does what Intel's guide says of its
// name; masked-off memory is not touched.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define VOXLAB_EMULATED [[maybe_unused]] static inline __attribute__((always_inline))
// Calls: inlined, they took the compiler minutes a file.
#define VOXLAB_EMULATED_CALL [[maybe_unused]] static __attribute__((noinline))

// Without optimisation, and in clang, those that take literals are macros.
#undef _mm512_maskz_extractf32x8_ps
#undef _mm512_maskz_extracti64x4_epi64
#undef _mm512_mask_i32gather_ps
#undef _mm512_maskz_shuffle_epi32
#undef _mm512_maskz_shuffle_ps
#undef _mm512_maskz_slli_epi32
#undef _mm512_maskz_srli_epi32
#undef _mm512_maskz_ternarylogic_epi32
#undef _mm512_maskz_scalef_ps
#undef _mm512_cmpeq_epi16_mask
#undef _mm512_cmpeq_epi32_mask
#undef _mm512_cmpge_epu16_mask
#undef _mm512_cmpge_epu32_mask
#undef _mm512_mask_cmpeq_epi16_mask
#undef _mm512_mask_cmpge_epu32_mask

namespace voxlab::cpu {
namespace {

namespace emulated {

using Doubles = double __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));
using Uints = uint32_t __attribute__((vector_size(64)));
using Shorts = uint16_t __attribute__((vector_size(64)));
using Longs = uint64_t __attribute__((vector_size(64)));

template <class V>
VOXLAB_EMULATED V as(__m512i v) {
  return reinterpret_cast<V>(v);
}
template <class V>
VOXLAB_EMULATED __m512i word(V v) {
  return reinterpret_cast<__m512i>(v);
}

// All ones where the mask has a bit.
VOXLAB_EMULATED Ints kept(__mmask16 k) {
  const Uints bit = {1,     2,     4,     8,     0x10,   0x20,   0x40,   0x80,
                     0x100, 0x200, 0x400, 0x800, 0x1000, 0x2000, 0x4000, 0x8000};
  return (bit & uint32_t{k}) != 0U;
}

VOXLAB_EMULATED __m512 keep(__mmask16 k, __m512 v) {
  return reinterpret_cast<__m512>(kept(k) & reinterpret_cast<Ints>(v));
}
VOXLAB_EMULATED __m512i keep(__mmask16 k, __m512i v) { return word(kept(k) & as<Ints>(v)); }
VOXLAB_EMULATED __m512i keep_longs(__mmask8 k, Longs v) {
  for (int i = 0; i < 8; ++i) v[i] = ((k >> i) & 1) != 0 ? v[i] : 0;
  return word(v);
}

// One bit a lane of a comparison's result.
template <class V>
VOXLAB_EMULATED uint64_t bits(V compared) {
  constexpr size_t lanes = sizeof(V) / sizeof(compared[0]);
  uint64_t mask = 0;
  for (size_t i = 0; i < lanes; ++i) mask |= uint64_t{compared[i] != 0} << i;
  return mask;
}

// Elements of two vectors at `index`: from 16 or 32 on, of the second's.
template <class V>
VOXLAB_EMULATED V chosen(const V& a, const V& b, const V& index) {
  constexpr unsigned lanes = sizeof(V) / sizeof(a[0]);
  V result = {};
  for (unsigned i = 0; i < lanes; ++i) {
    const unsigned at = static_cast<unsigned>(index[i]) % (2 * lanes);
    result[i] = at < lanes ? a[at] : b[at - lanes];
  }
  return result;
}

// Within 128 bits: the lower or the upper elements of both, in turn.
template <class V, bool upper>
VOXLAB_EMULATED V interleaved(const V& a, const V& b) {
  constexpr size_t lanes = sizeof(V) / sizeof(a[0]);
  if constexpr (lanes == 8 && !upper) {
    return __builtin_shufflevector(a, b, 0, 8, 2, 10, 4, 12, 6, 14);
  } else if constexpr (lanes == 8) {
    return __builtin_shufflevector(a, b, 1, 9, 3, 11, 5, 13, 7, 15);
  } else if constexpr (lanes == 16 && !upper) {
    return __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
  } else if constexpr (lanes == 16) {
    return __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15,
                                   31);
  } else if constexpr (!upper) {
    return __builtin_shufflevector(a, b, 0, 32, 1, 33, 2, 34, 3, 35, 8, 40, 9, 41, 10, 42, 11, 43,
                                   16, 48, 17, 49, 18, 50, 19, 51, 24, 56, 25, 57, 26, 58, 27, 59);
  } else {
    return __builtin_shufflevector(a, b, 4, 36, 5, 37, 6, 38, 7, 39, 12, 44, 13, 45, 14, 46, 15, 47,
                                   20, 52, 21, 53, 22, 54, 23, 55, 28, 60, 29, 61, 30, 62, 31, 63);
  }
}

template <class T>
VOXLAB_EMULATED void store_kept(T* p, uint64_t k, const T* from, int lanes) {
  for (int i = 0; i < lanes; ++i) {
    if (((k >> i) & 1U) != 0) p[i] = from[i];
  }
}

template <class T>
VOXLAB_EMULATED void load_kept(T* to, uint64_t k, const T* p, int lanes) {
  for (int i = 0; i < lanes; ++i) to[i] = ((k >> i) & 1U) != 0 ? p[i] : T{};
}

// To nearest even in the lower half of each lane; subnormals to zero, a NaN made quiet.
VOXLAB_EMULATED Uints round_halves(__m512 v) {
  const Uints u = reinterpret_cast<Uints>(v);
  const Uints exponent = u & 0x7f800000U, rounded = (u + 0x7fffU + ((u >> 16) & 1U)) >> 16;
  const Uints number = exponent == 0U ? (u >> 16) & 0x8000U : rounded;
  return v != v ? (u >> 16) | 0x40U : number;
}

VOXLAB_EMULATED __m512 flushed(__m512 v) {
  const Uints u = reinterpret_cast<Uints>(v);
  return reinterpret_cast<__m512>((u & 0x7f800000U) == 0U ? u & 0x80000000U : u);
}

}  // namespace emulated

VOXLAB_EMULATED __m512 _mm512_loadu_ps(const void* p) {
  __m512 v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
VOXLAB_EMULATED __m512i _mm512_loadu_si512(const void* p) {
  __m512i v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}
VOXLAB_EMULATED __m512i _mm512_load_si512(const void* p) { return *static_cast<const __m512i*>(p); }
VOXLAB_EMULATED void _mm512_storeu_ps(void* p, __m512 v) { std::memcpy(p, &v, sizeof(v)); }
VOXLAB_EMULATED void _mm512_storeu_si512(void* p, __m512i v) { std::memcpy(p, &v, sizeof(v)); }
VOXLAB_EMULATED void _mm512_store_si512(void* p, __m512i v) { *static_cast<__m512i*>(p) = v; }
VOXLAB_EMULATED void _mm512_stream_ps(float* p, __m512 v) { *reinterpret_cast<__m512*>(p) = v; }
VOXLAB_EMULATED void _mm512_stream_si512(__m512i* p, __m512i v) { *p = v; }

VOXLAB_EMULATED_CALL __m512 _mm512_maskz_loadu_ps(__mmask16 k, const void* p) {
  const auto mask = emulated::kept(k);
  __m256i half[2];
  std::memcpy(half, &mask, sizeof(mask));
  const float* from = static_cast<const float*>(p);
  const __m256 parts[2] = {_mm256_maskload_ps(from, half[0]),
                           _mm256_maskload_ps(from + 8, half[1])};
  return _mm512_loadu_ps(parts);
}
VOXLAB_EMULATED_CALL void _mm512_mask_storeu_ps(void* p, __mmask16 k, __m512 v) {
  const auto mask = emulated::kept(k);
  __m256i half[2];
  __m256 parts[2];
  std::memcpy(half, &mask, sizeof(mask));
  std::memcpy(parts, &v, sizeof(v));
  float* to = static_cast<float*>(p);
  _mm256_maskstore_ps(to, half[0], parts[0]);
  _mm256_maskstore_ps(to + 8, half[1], parts[1]);
}
VOXLAB_EMULATED_CALL __m512d _mm512_maskz_loadu_pd(__mmask8 k, const void* p) {
  double v[8];
  emulated::load_kept(v, k, static_cast<const double*>(p), 8);
  __m512d result;
  std::memcpy(&result, v, sizeof(v));
  return result;
}
VOXLAB_EMULATED_CALL void _mm512_mask_storeu_pd(void* p, __mmask8 k, __m512d v) {
  double from[8];
  std::memcpy(from, &v, sizeof(v));
  emulated::store_kept(static_cast<double*>(p), k, from, 8);
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_loadu_epi16(__mmask32 k, const void* p) {
  uint16_t v[32];
  emulated::load_kept(v, k, static_cast<const uint16_t*>(p), 32);
  return _mm512_loadu_si512(v);
}
VOXLAB_EMULATED_CALL void _mm512_mask_storeu_epi16(void* p, __mmask32 k, __m512i v) {
  uint16_t from[32];
  std::memcpy(from, &v, sizeof(v));
  emulated::store_kept(static_cast<uint16_t*>(p), k, from, 32);
}
VOXLAB_EMULATED_CALL __m256i _mm256_maskz_loadu_epi16(__mmask16 k, const void* p) {
  uint16_t v[16];
  emulated::load_kept(v, k, static_cast<const uint16_t*>(p), 16);
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(v));
}
VOXLAB_EMULATED_CALL void _mm256_mask_storeu_epi16(void* p, __mmask16 k, __m256i v) {
  uint16_t from[16];
  std::memcpy(from, &v, sizeof(v));
  emulated::store_kept(static_cast<uint16_t*>(p), k, from, 16);
}
VOXLAB_EMULATED_CALL void _mm512_mask_cvtepi32_storeu_epi16(void* p, __mmask16 k, __m512i v) {
  uint32_t from[16];
  std::memcpy(from, &v, sizeof(v));
  for (int i = 0; i < 16; ++i) {
    if (((k >> i) & 1) != 0) static_cast<uint16_t*>(p)[i] = static_cast<uint16_t>(from[i]);
  }
}
VOXLAB_EMULATED_CALL __m512 _mm512_mask_i32gather_ps(__m512 source, __mmask16 k, __m512i index,
                                                     const void* p, int scale) {
  __m512 result = source;
  for (int i = 0; i < 16; ++i) {
    if (((k >> i) & 1) != 0) {
      float value = 0;
      std::memcpy(
          &value,
          static_cast<const char*>(p) + int64_t{emulated::as<emulated::Ints>(index)[i]} * scale,
          sizeof(value));
      result[i] = value;
    }
  }
  return result;
}

VOXLAB_EMULATED __m512 _mm512_setzero_ps() { return __m512{}; }
VOXLAB_EMULATED __m512i _mm512_setzero_si512() { return __m512i{}; }
VOXLAB_EMULATED __m512 _mm512_set1_ps(float x) { return __m512{} + x; }
VOXLAB_EMULATED __m512i _mm512_set1_epi16(short x) {
  return emulated::word(emulated::Shorts{} + static_cast<uint16_t>(x));
}
VOXLAB_EMULATED __m512i _mm512_set1_epi32(int x) { return emulated::word(emulated::Ints{} + x); }
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_set1_epi64(__mmask8 k, long long x) {
  return emulated::keep_longs(k, emulated::Longs{} + static_cast<uint64_t>(x));
}
VOXLAB_EMULATED __m512 _mm512_castsi512_ps(__m512i v) { return reinterpret_cast<__m512>(v); }
VOXLAB_EMULATED __m512i _mm512_castps_si512(__m512 v) { return reinterpret_cast<__m512i>(v); }

VOXLAB_EMULATED_CALL __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  __m256 x[2], y[2], z[2];
  std::memcpy(x, &a, sizeof(a));
  std::memcpy(y, &b, sizeof(b));
  std::memcpy(z, &c, sizeof(c));
  const __m256 parts[2] = {_mm256_fmadd_ps(x[0], y[0], z[0]), _mm256_fmadd_ps(x[1], y[1], z[1])};
  return _mm512_loadu_ps(parts);
}
VOXLAB_EMULATED_CALL __m512 _mm512_maskz_max_ps(__mmask16 k, __m512 a, __m512 b) {
  return emulated::keep(k, a > b ? a : b);
}
VOXLAB_EMULATED_CALL __m512 _mm512_maskz_min_ps(__mmask16 k, __m512 a, __m512 b) {
  return emulated::keep(k, a < b ? a : b);
}
VOXLAB_EMULATED_CALL __m512 _mm512_mask_sub_ps(__m512 source, __mmask16 k, __m512 a, __m512 b) {
  return emulated::kept(k) ? a - b : source;
}
VOXLAB_EMULATED_CALL __m512 _mm512_maskz_mov_ps(__mmask16 k, __m512 v) {
  return emulated::keep(k, v);
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_mov_epi32(__mmask16 k, __m512i v) {
  return emulated::keep(k, v);
}
VOXLAB_EMULATED_CALL __m512 _mm512_maskz_sqrt_ps(__mmask16 k, __m512 v) {
  for (int i = 0; i < 16; ++i) v[i] = __builtin_sqrtf(v[i]);
  return emulated::keep(k, v);
}
// Not of 14 bits but exact: what follows takes a step of Newton's.
VOXLAB_EMULATED_CALL __m512 _mm512_maskz_rcp14_ps(__mmask16 k, __m512 v) {
  return emulated::keep(k, 1.0F / v);
}
VOXLAB_EMULATED_CALL __m512 _mm512_maskz_scalef_ps(__mmask16 k, __m512 v, __m512 power) {
  for (int i = 0; i < 16; ++i) {
    v[i] = power[i] != power[i]
               ? power[i]
               : __builtin_scalbnf(v[i], static_cast<int>(__builtin_floorf(power[i])));
  }
  return emulated::keep(k, v);
}
VOXLAB_EMULATED_CALL __m512d _mm512_maskz_cvtps_pd(__mmask8 k, __m256 v) {
  emulated::Doubles wide = {};
  for (int i = 0; i < 8; ++i) wide[i] = ((k >> i) & 1) != 0 ? double{v[i]} : 0.0;
  return reinterpret_cast<__m512d>(wide);
}

VOXLAB_EMULATED __m512i _mm512_and_si512(__m512i a, __m512i b) { return a & b; }
VOXLAB_EMULATED __m512i _mm512_or_si512(__m512i a, __m512i b) { return a | b; }
VOXLAB_EMULATED __m512i _mm512_maskz_and_epi32(__mmask16 k, __m512i a, __m512i b) {
  return emulated::keep(k, a & b);
}
VOXLAB_EMULATED __m512i _mm512_maskz_slli_epi32(__mmask16 k, __m512i v, unsigned n) {
  return emulated::keep(k, emulated::word(emulated::as<emulated::Uints>(v) << n));
}
VOXLAB_EMULATED __m512i _mm512_maskz_srli_epi32(__mmask16 k, __m512i v, unsigned n) {
  return emulated::keep(k, emulated::word(emulated::as<emulated::Uints>(v) >> n));
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_mul_epu32(__mmask8 k, __m512i a, __m512i b) {
  using emulated::Longs;
  return emulated::keep_longs(
      k, (emulated::as<Longs>(a) & 0xffffffffU) * (emulated::as<Longs>(b) & 0xffffffffU));
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_ternarylogic_epi32(__mmask16 k, __m512i a, __m512i b,
                                                             __m512i c, int table) {
  __m512i result = {};
  for (int at = 0; at < 8; ++at) {
    if (((table >> at) & 1) != 0)
      result |= ((at & 4) != 0 ? a : ~a) & ((at & 2) != 0 ? b : ~b) & ((at & 1) != 0 ? c : ~c);
  }
  return emulated::keep(k, result);
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_max_epu16(__mmask32 k, __m512i a, __m512i b) {
  const auto x = emulated::as<emulated::Shorts>(a), y = emulated::as<emulated::Shorts>(b);
  const emulated::Shorts larger = x > y ? x : y;
  return _mm512_maskz_loadu_epi16(k, &larger);
}
VOXLAB_EMULATED_CALL __mmask16 _mm512_cmpeq_epi32_mask(__m512i a, __m512i b) {
  return static_cast<__mmask16>(
      emulated::bits(emulated::as<emulated::Ints>(a) == emulated::as<emulated::Ints>(b)));
}
VOXLAB_EMULATED_CALL __mmask16 _mm512_cmpge_epu32_mask(__m512i a, __m512i b) {
  return static_cast<__mmask16>(
      emulated::bits(emulated::as<emulated::Uints>(a) >= emulated::as<emulated::Uints>(b)));
}
VOXLAB_EMULATED __mmask16 _mm512_mask_cmpge_epu32_mask(__mmask16 k, __m512i a, __m512i b) {
  return k & _mm512_cmpge_epu32_mask(a, b);
}
VOXLAB_EMULATED_CALL __mmask32 _mm512_cmpge_epu16_mask(__m512i a, __m512i b) {
  return static_cast<__mmask32>(
      emulated::bits(emulated::as<emulated::Shorts>(a) >= emulated::as<emulated::Shorts>(b)));
}
VOXLAB_EMULATED_CALL __mmask32 _mm512_cmpeq_epi16_mask(__m512i a, __m512i b) {
  return static_cast<__mmask32>(
      emulated::bits(emulated::as<emulated::Shorts>(a) == emulated::as<emulated::Shorts>(b)));
}
VOXLAB_EMULATED __mmask32 _mm512_mask_cmpeq_epi16_mask(__mmask32 k, __m512i a, __m512i b) {
  return k & _mm512_cmpeq_epi16_mask(a, b);
}

VOXLAB_EMULATED_CALL __m512 _mm512_maskz_permutexvar_ps(__mmask16 k, __m512i index, __m512 v) {
  const auto bits = emulated::as<emulated::Ints>(_mm512_castps_si512(v));
  return emulated::keep(k, reinterpret_cast<__m512>(
                               emulated::chosen(bits, bits, emulated::as<emulated::Ints>(index))));
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_permutex2var_epi16(__mmask32 k, __m512i a, __m512i index,
                                                             __m512i b) {
  using emulated::Shorts;
  const Shorts v = emulated::chosen(emulated::as<Shorts>(a), emulated::as<Shorts>(b),
                                    emulated::as<Shorts>(index));
  return _mm512_maskz_loadu_epi16(k, &v);
}
VOXLAB_EMULATED __m512i _mm512_maskz_permutexvar_epi16(__mmask32 k, __m512i index, __m512i v) {
  return _mm512_maskz_permutex2var_epi16(k, v, index, v);
}
VOXLAB_EMULATED_CALL __m512 _mm512_maskz_shuffle_ps(__mmask16 k, __m512 a, __m512 b, int order) {
  __m512 result = {};
  for (int i = 0; i < 16; ++i) {
    const int at = i / 4 * 4 + ((order >> (2 * (i % 4))) & 3);
    result[i] = i % 4 < 2 ? a[at] : b[at];
  }
  return emulated::keep(k, result);
}
// Its order has a type from outside, where a call would find the real one as well.
VOXLAB_EMULATED __m512i shuffle_words(__mmask16 k, __m512i v, int order) {
  const __m512 bits = _mm512_castsi512_ps(v);
  return _mm512_castps_si512(_mm512_maskz_shuffle_ps(k, bits, bits, order));
}
#define _mm512_maskz_shuffle_epi32(k, v, order) shuffle_words(k, v, static_cast<int>(order))
VOXLAB_EMULATED_CALL __m512 _mm512_maskz_unpacklo_ps(__mmask16 k, __m512 a, __m512 b) {
  return emulated::keep(k, emulated::interleaved<__m512, false>(a, b));
}
VOXLAB_EMULATED_CALL __m512 _mm512_maskz_unpackhi_ps(__mmask16 k, __m512 a, __m512 b) {
  return emulated::keep(k, emulated::interleaved<__m512, true>(a, b));
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_unpacklo_epi32(__mmask16 k, __m512i a, __m512i b) {
  using emulated::Ints;
  return emulated::keep(k, emulated::word(emulated::interleaved<Ints, false>(
                               emulated::as<Ints>(a), emulated::as<Ints>(b))));
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_unpackhi_epi32(__mmask16 k, __m512i a, __m512i b) {
  using emulated::Ints;
  return emulated::keep(k, emulated::word(emulated::interleaved<Ints, true>(
                               emulated::as<Ints>(a), emulated::as<Ints>(b))));
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_unpacklo_epi16(__mmask32 k, __m512i a, __m512i b) {
  using emulated::Shorts;
  const Shorts v =
      emulated::interleaved<Shorts, false>(emulated::as<Shorts>(a), emulated::as<Shorts>(b));
  return _mm512_maskz_loadu_epi16(k, &v);
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_unpackhi_epi16(__mmask32 k, __m512i a, __m512i b) {
  using emulated::Shorts;
  const Shorts v =
      emulated::interleaved<Shorts, true>(emulated::as<Shorts>(a), emulated::as<Shorts>(b));
  return _mm512_maskz_loadu_epi16(k, &v);
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_unpacklo_epi64(__mmask8 k, __m512i a, __m512i b) {
  using emulated::Longs;
  return emulated::keep_longs(
      k, emulated::interleaved<Longs, false>(emulated::as<Longs>(a), emulated::as<Longs>(b)));
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_unpackhi_epi64(__mmask8 k, __m512i a, __m512i b) {
  using emulated::Longs;
  return emulated::keep_longs(
      k, emulated::interleaved<Longs, true>(emulated::as<Longs>(a), emulated::as<Longs>(b)));
}
VOXLAB_EMULATED __m512 _mm512_maskz_broadcast_f32x4(__mmask16 k, __m128 v) {
  const __m128 parts[4] = {v, v, v, v};
  return emulated::keep(k, _mm512_loadu_ps(parts));
}
VOXLAB_EMULATED_CALL __m512 _mm512_mask_broadcast_f32x4(__m512 source, __mmask16 k, __m128 v) {
  return emulated::kept(k) ? _mm512_maskz_broadcast_f32x4(0xffff, v) : source;
}
VOXLAB_EMULATED_CALL __m256 _mm512_maskz_extractf32x8_ps(__mmask8 k, __m512 v, int half) {
  __m256 part = {};
  for (int i = 0; i < 8; ++i) part[i] = ((k >> i) & 1) != 0 ? v[8 * half + i] : 0.0F;
  return part;
}
VOXLAB_EMULATED_CALL __m256i _mm512_maskz_extracti64x4_epi64(__mmask8 k, __m512i v, int half) {
  __m256i part = {};
  for (int i = 0; i < 4; ++i) part[i] = ((k >> i) & 1) != 0 ? v[4 * half + i] : 0;
  return part;
}
VOXLAB_EMULATED_CALL __m512i _mm512_maskz_cvtepu16_epi32(__mmask16 k, __m256i v) {
  __m128i half[2];
  std::memcpy(half, &v, sizeof(v));
  const __m256i parts[2] = {_mm256_cvtepu16_epi32(half[0]), _mm256_cvtepu16_epi32(half[1])};
  return emulated::keep(k, _mm512_loadu_si512(parts));
}

// ---- AVX512_BF16 ----

VOXLAB_EMULATED_CALL __m256bh _mm512_cvtneps_pbh(__m512 v) {
  const emulated::Uints halves = emulated::round_halves(v);
  uint16_t result[16];
  for (int i = 0; i < 16; ++i) result[i] = static_cast<uint16_t>(halves[i]);
  __m256bh packed;
  std::memcpy(&packed, result, sizeof(result));
  return packed;
}
// The second operand's halves come first.
VOXLAB_EMULATED_CALL __m512bh _mm512_cvtne2ps_pbh(__m512 upper, __m512 lower) {
  const __m256bh parts[2] = {_mm512_cvtneps_pbh(lower), _mm512_cvtneps_pbh(upper)};
  return reinterpret_cast<__m512bh>(_mm512_loadu_si512(parts));
}
VOXLAB_EMULATED_CALL __m512bh _mm512_maskz_cvtne2ps_pbh(__mmask32 k, __m512 upper, __m512 lower) {
  const __m512bh all = _mm512_cvtne2ps_pbh(upper, lower);
  return reinterpret_cast<__m512bh>(_mm512_maskz_loadu_epi16(k, &all));
}
// The odd product is added first, then the even one; subnormals in and out are zero.
VOXLAB_EMULATED_CALL __m512 _mm512_dpbf16_ps(__m512 sum, __m512bh a, __m512bh b) {
  using emulated::Uints;
  const auto odd = [](__m512bh v) {
    return reinterpret_cast<__m512>(reinterpret_cast<Uints>(v) & 0xffff0000U);
  };
  const auto even = [](__m512bh v) {
    return reinterpret_cast<__m512>(reinterpret_cast<Uints>(v) << 16);
  };
  const auto add = [](__m512 x, __m512 y, __m512 to) {
    return emulated::flushed(_mm512_fmadd_ps(emulated::flushed(x), emulated::flushed(y), to));
  };
  return add(even(a), even(b), add(odd(a), odd(b), emulated::flushed(sum)));
}

}  // namespace
}  // namespace voxlab::cpu
