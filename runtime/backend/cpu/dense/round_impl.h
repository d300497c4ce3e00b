// Rounding to bf16 and turning words, for kernels on tiles. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/dense/vec.h"

namespace voxlab::cpu {
namespace {

using Words = uint32_t __attribute__((vector_size(64)));

// Upper half of each lane rounded to nearest even, in the lower half of the lane.
VOXLAB_INLINE Words round_bf16(Vec v) {
  const Words bits = reinterpret_cast<Words>(v);
  return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
}

VOXLAB_INLINE Vec widen(Words halves) { return reinterpret_cast<Vec>(halves << 16); }

#if defined(VOXLAB_AVX512_BF16)
// 32 values to 32 halves, as round_bf16 does, but for denormals, which it takes and gives as zero, as tiles do.
VOXLAB_INLINE __m512i round_two(Vec first, Vec second) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(second, first));
}
#endif

// The same, with or without that instruction; zero where `kept` has no bit.
VOXLAB_INLINE __m512i round_row(Vec first, Vec second, __mmask32 kept) {
#if defined(VOXLAB_AVX512_BF16)
  return reinterpret_cast<__m512i>(_mm512_maskz_cvtne2ps_pbh(kept, second, first));
#else
  alignas(64) static constexpr uint16_t low_halves[32] = {0,  2,  4,  6,  8,  10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30,
                                                          32, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52, 54, 56, 58, 60, 62};
  return _mm512_maskz_permutex2var_epi16(kept, reinterpret_cast<__m512i>(round_bf16(first)), _mm512_load_si512(low_halves),
                                         reinterpret_cast<__m512i>(round_bf16(second)));
#endif
}

// Turns the first words, 8 or 16, of 16 rows that lie `pitch` words apart. Loads put rows i, i + 4, i + 8 and i + 12 into
// the lanes of one vector, whose 4x4 blocks are then turned within lanes.
template <size_t words>
VOXLAB_INLINE void turn_words(const float* from, int64_t pitch, Vec (&turned)[words]) {
#pragma GCC unroll 4
  for (size_t c = 0; c < words / 4; ++c) {
    Vec rows[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* at = from + i * pitch + 4 * static_cast<int64_t>(c);
      rows[i] = _mm512_maskz_broadcast_f32x4(0xffff, _mm_loadu_ps(at));
      rows[i] = _mm512_mask_broadcast_f32x4(rows[i], 0x00f0, _mm_loadu_ps(at + 4 * pitch));
      rows[i] = _mm512_mask_broadcast_f32x4(rows[i], 0x0f00, _mm_loadu_ps(at + 8 * pitch));
      rows[i] = _mm512_mask_broadcast_f32x4(rows[i], 0xf000, _mm_loadu_ps(at + 12 * pitch));
    }
    const Vec low01 = _mm512_maskz_unpacklo_ps(0xffff, rows[0], rows[1]), high01 = _mm512_maskz_unpackhi_ps(0xffff, rows[0], rows[1]);
    const Vec low23 = _mm512_maskz_unpacklo_ps(0xffff, rows[2], rows[3]), high23 = _mm512_maskz_unpackhi_ps(0xffff, rows[2], rows[3]);
    turned[4 * c] = _mm512_maskz_shuffle_ps(0xffff, low01, low23, 0x44);
    turned[4 * c + 1] = _mm512_maskz_shuffle_ps(0xffff, low01, low23, 0xee);
    turned[4 * c + 2] = _mm512_maskz_shuffle_ps(0xffff, high01, high23, 0x44);
    turned[4 * c + 3] = _mm512_maskz_shuffle_ps(0xffff, high01, high23, 0xee);
  }
}

// Two rows of values to words: the first's halves in the lower, the second's in the upper.
VOXLAB_INLINE Words round_pairs(Vec even, Vec odd) {
#if defined(VOXLAB_AVX512_BF16)
  alignas(64) static constexpr uint16_t order[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return reinterpret_cast<Words>(_mm512_maskz_permutexvar_epi16(~__mmask32{0}, _mm512_load_si512(order), round_two(even, odd)));
#else
  return round_bf16(even) | (round_bf16(odd) << 16);
#endif
}

// What rounding to `high` left of such rows.
VOXLAB_INLINE Words rest_pairs(Vec even, Vec odd, Words high) {
  return round_pairs(even - widen(high), odd - reinterpret_cast<Vec>(high & 0xffff0000U));
}

}  // namespace
}  // namespace voxlab::cpu
