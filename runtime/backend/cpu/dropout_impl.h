// Dropout of single elements: Philox4x32-10 (core/rng.h) on a vector of counters at a time. Included once
// per instruction set.
#pragma once

#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

// Factors of the 4 * drop_lanes elements of the blocks at counters `first` and on: word j of block l belongs to
// element 4 l + j, and an element is kept where its word is at least `limit`.
#if defined(__AVX512F__)

constexpr int drop_lanes = 16;
using Words = __m512i;

VOXLAB_INLINE Words all_words(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
VOXLAB_INLINE Words exclusive_or(Words a, Words b) { return _mm512_xor_si512(a, b); }
struct Products {
  Words low, high;
};
VOXLAB_INLINE Products multiply(Words a, Words m) {
  const Words even = _mm512_maskz_mul_epu32(0xff, a, m);
  const Words odd = _mm512_maskz_mul_epu32(0xff, _mm512_maskz_srli_epi64(0xff, a, 32), m);
  return {_mm512_mask_blend_epi32(0xaaaa, even, _mm512_maskz_slli_epi64(0xff, odd, 32)),
          _mm512_mask_blend_epi32(0xaaaa, _mm512_maskz_srli_epi64(0xff, even, 32), odd)};
}
VOXLAB_INLINE Words pairs_low(Words a, Words b) { return _mm512_maskz_unpacklo_epi32(0xffff, a, b); }
VOXLAB_INLINE Words pairs_high(Words a, Words b) { return _mm512_maskz_unpackhi_epi32(0xffff, a, b); }
VOXLAB_INLINE Words quads_low(Words a, Words b) { return _mm512_maskz_unpacklo_epi64(0xff, a, b); }
VOXLAB_INLINE Words quads_high(Words a, Words b) { return _mm512_maskz_unpackhi_epi64(0xff, a, b); }
VOXLAB_INLINE void put_factors(float* to, Words bits, uint64_t limit, float factor) {
  const __mmask16 kept =
      limit > 0xffffffffU ? 0 : _mm512_cmpge_epu32_mask(bits, all_words(static_cast<uint32_t>(limit)));
  _mm512_storeu_ps(to, _mm512_maskz_mov_ps(kept, _mm512_set1_ps(factor)));
}
VOXLAB_INLINE Words load_words(const uint32_t* p) { return _mm512_loadu_si512(p); }

#elif defined(__AVX2__)

constexpr int drop_lanes = 8;
using Words = __m256i;

VOXLAB_INLINE Words all_words(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
VOXLAB_INLINE Words exclusive_or(Words a, Words b) { return _mm256_xor_si256(a, b); }
struct Products {
  Words low, high;
};
VOXLAB_INLINE Products multiply(Words a, Words m) {
  const Words even = _mm256_mul_epu32(a, m), odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), m);
  return {_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa),
          _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa)};
}
VOXLAB_INLINE Words pairs_low(Words a, Words b) { return _mm256_unpacklo_epi32(a, b); }
VOXLAB_INLINE Words pairs_high(Words a, Words b) { return _mm256_unpackhi_epi32(a, b); }
VOXLAB_INLINE Words quads_low(Words a, Words b) { return _mm256_unpacklo_epi64(a, b); }
VOXLAB_INLINE Words quads_high(Words a, Words b) { return _mm256_unpackhi_epi64(a, b); }
VOXLAB_INLINE void put_factors(float* to, Words bits, uint64_t limit, float factor) {
  // Signed comparison of unsigned words: both sides with their top bit turned over.
  const Words top = all_words(0x80000000U);
  Words kept = all_words(limit == 0 ? 0xffffffffU : 0U);
  if (limit > 0 && limit <= 0xffffffffU)
    kept = _mm256_cmpgt_epi32(exclusive_or(bits, top), exclusive_or(all_words(static_cast<uint32_t>(limit - 1)), top));
  _mm256_storeu_ps(to, _mm256_and_ps(_mm256_castsi256_ps(kept), _mm256_set1_ps(factor)));
}
VOXLAB_INLINE Words load_words(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

#endif

#if defined(__AVX2__)

// The unpacking below takes words by fours: lane 4 k + q works on block (drop_lanes / 4) q + k, so that what it
// gives is already in the order of the elements.
VOXLAB_INLINE void drop_factors(const DropArgs& args, uint64_t first, float* factor) {
  uint32_t low[drop_lanes], high[drop_lanes];
  for (int p = 0; p < drop_lanes; ++p) {
    const uint64_t counter = first + static_cast<uint64_t>(drop_lanes / 4 * (p % 4) + p / 4);
    low[p] = static_cast<uint32_t>(counter);
    high[p] = static_cast<uint32_t>(counter >> 32);
  }
  Words c0 = load_words(low), c1 = load_words(high), c2 = all_words(args.stream), c3 = all_words(args.step);
  const Words m0 = all_words(0xD2511F53), m1 = all_words(0xCD9E8D57);
  uint32_t k0 = args.key[0], k1 = args.key[1];
  for (int round = 0; round < 10; ++round) {
    const Products p0 = multiply(c0, m0), p1 = multiply(c2, m1);
    c0 = exclusive_or(exclusive_or(p1.high, c1), all_words(k0));
    c1 = p1.low;
    c2 = exclusive_or(exclusive_or(p0.high, c3), all_words(k1));
    c3 = p0.low;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  const Words a = pairs_low(c0, c1), b = pairs_low(c2, c3), c = pairs_high(c0, c1), d = pairs_high(c2, c3);
  put_factors(factor, quads_low(a, b), args.limit, args.factor);
  put_factors(factor + drop_lanes, quads_high(a, b), args.limit, args.factor);
  put_factors(factor + 2 * drop_lanes, quads_low(c, d), args.limit, args.factor);
  put_factors(factor + 3 * drop_lanes, quads_high(c, d), args.limit, args.factor);
}

#else

constexpr int drop_lanes = 1;

inline void drop_factors(const DropArgs& args, uint64_t first, float* factor) {
  uint32_t c[4] = {static_cast<uint32_t>(first), static_cast<uint32_t>(first >> 32), args.stream, args.step};
  uint32_t k0 = args.key[0], k1 = args.key[1];
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c[0], p1 = uint64_t{0xCD9E8D57} * c[2];
    c[0] = static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0;
    c[1] = static_cast<uint32_t>(p1);
    c[2] = static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1;
    c[3] = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  for (int j = 0; j < 4; ++j) factor[j] = c[j] >= args.limit ? args.factor : 0.0F;
}

#endif

// Elements [4 begin, min(4 end, n)).
template <class T>
void drop_loop(const DropArgs& args) {
  const T* x = static_cast<const T*>(args.x);
  T* y = static_cast<T*>(args.y);
  float factor[4 * drop_lanes];
  for (int64_t block = args.begin; block < args.end; block += drop_lanes) {
    drop_factors(args, static_cast<uint64_t>(block), factor);
    const int64_t at = 4 * block, stop = 4 * args.end < args.n ? 4 * args.end : args.n;
    const int64_t count = stop - at < 4 * drop_lanes ? stop - at : 4 * drop_lanes;
    for_vectors(count, [&](int64_t i, auto lanes) {
      const Vec keep_factor = get(factor + i, lanes);
      // Selected, not multiplied: a dropped infinity is 0.
      put(y + at + i, keep_factor != zero() ? get(x + at + i, lanes) * keep_factor : zero(), lanes);
    });
  }
}

constexpr void set_dropout(Loops& table) {
  table.drop[0] = drop_loop<float>;
  table.drop[1] = drop_loop<uint16_t>;
}

}  // namespace
}  // namespace voxlab::cpu
