// Dropout of single elements: Philox4x32-10 (core/rng.h) on a vector of counters at a time. Included once
// per instruction set.
#pragma once

#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

constexpr int drop_lanes = vec_width;  // blocks at a time
// WideWords of 32 bits, one a lane; while numbers are drawn, the low halves of words of 64 bits, their high halves anything:
// so a product is one instruction, and its halves are where they are needed.
using WideWords = uint64_t __attribute__((vector_size(4 * vec_width)));

VOXLAB_INLINE WideWords all_words(uint32_t x) { return reinterpret_cast<WideWords>(VecBits{} + x); }

#if defined(VOXLAB_AVX512)

VOXLAB_INLINE __m512i bits512(WideWords a) { return reinterpret_cast<__m512i>(a); }
VOXLAB_INLINE WideWords product_of_low(WideWords a, WideWords b) {
  return reinterpret_cast<WideWords>(_mm512_maskz_mul_epu32(0xff, bits512(a), bits512(b)));
}
VOXLAB_INLINE WideWords high_to_low(WideWords a) {
  return reinterpret_cast<WideWords>(_mm512_maskz_shuffle_epi32(0xffff, bits512(a), _MM_PERM_DDBB));
}
VOXLAB_INLINE WideWords exclusive_or(WideWords a, WideWords b, WideWords c) {
  return reinterpret_cast<WideWords>(_mm512_maskz_ternarylogic_epi32(0xffff, bits512(a), bits512(b), bits512(c), 0x96));
}
VOXLAB_INLINE WideWords pairs_low(WideWords a, WideWords b) {
  return reinterpret_cast<WideWords>(_mm512_maskz_unpacklo_epi32(0xffff, bits512(a), bits512(b)));
}
VOXLAB_INLINE WideWords pairs_high(WideWords a, WideWords b) {
  return reinterpret_cast<WideWords>(_mm512_maskz_unpackhi_epi32(0xffff, bits512(a), bits512(b)));
}
VOXLAB_INLINE WideWords quads_low(WideWords a, WideWords b) {
  return reinterpret_cast<WideWords>(_mm512_maskz_unpacklo_epi64(0xff, bits512(a), bits512(b)));
}
VOXLAB_INLINE WideWords quads_high(WideWords a, WideWords b) {
  return reinterpret_cast<WideWords>(_mm512_maskz_unpackhi_epi64(0xff, bits512(a), bits512(b)));
}
// Of the words' low halves, and `step` floats on of the high ones.
VOXLAB_INLINE void put_factors(float* to, int64_t step, WideWords bits, const DropRule& rule) {
  const __m512i limit = bits512(all_words(rule.limit)), factor = _mm512_castps_si512(_mm512_set1_ps(rule.factor));
  const __m512i low = _mm512_maskz_and_epi32(0xffff, bits512(bits), bits512(all_words(0xffffU)));
  const __m512i high = _mm512_maskz_srli_epi32(0xffff, bits512(bits), 16);
  _mm512_storeu_si512(to, _mm512_maskz_mov_epi32(_mm512_cmpge_epu32_mask(low, limit), factor));
  _mm512_storeu_si512(to + step, _mm512_maskz_mov_epi32(_mm512_cmpge_epu32_mask(high, limit), factor));
}
// Of all halves in the order of memory.
VOXLAB_INLINE void put_halves(float* to, WideWords bits, const DropRule& rule) {
  const Vec factor = splat(rule.factor);
  // A limit of 2^16 is no half.
  const __mmask32 kept = rule.limit > 0xffffU ? 0 : _mm512_cmpge_epu16_mask(bits512(bits), bits512(all_words(rule.limit * 0x10001U)));
  _mm512_storeu_ps(to, _mm512_maskz_mov_ps(static_cast<__mmask16>(kept), factor));
  _mm512_storeu_ps(to + vec_width, _mm512_maskz_mov_ps(static_cast<__mmask16>(kept >> vec_width), factor));
}

#else

#if defined(__AVX2__)
VOXLAB_INLINE WideWords product_of_low(WideWords a, WideWords b) {
  return reinterpret_cast<WideWords>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), reinterpret_cast<__m256i>(b)));
}
template <bool high>
VOXLAB_INLINE WideWords interleaved(VecBits a, VecBits b) {
  constexpr int h = high ? 2 : 0;
  return reinterpret_cast<WideWords>(__builtin_shuffle(a, b, VecBits{h, h + 8, h + 1, h + 9, h + 4, h + 12, h + 5, h + 13}));
}
template <bool high>
VOXLAB_INLINE WideWords interleaved(WideWords a, WideWords b) {
  constexpr int h = high ? 1 : 0;
  return __builtin_shuffle(a, b, WideWords{h, h + 4, h + 2, h + 6});
}
#else
VOXLAB_INLINE WideWords product_of_low(WideWords a, WideWords b) { return (a & 0xffffffffU) * (b & 0xffffffffU); }
template <bool high>
VOXLAB_INLINE WideWords interleaved(VecBits a, VecBits b) {
  constexpr int h = high ? 2 : 0;
  return reinterpret_cast<WideWords>(__builtin_shuffle(a, b, VecBits{h, h + 4, h + 1, h + 5}));
}
template <bool high>
VOXLAB_INLINE WideWords interleaved(WideWords a, WideWords b) {
  constexpr int h = high ? 1 : 0;
  return __builtin_shuffle(a, b, WideWords{h, h + 2});
}
#endif

VOXLAB_INLINE VecBits word_bits(WideWords a) { return reinterpret_cast<VecBits>(a); }
VOXLAB_INLINE WideWords high_to_low(WideWords a) { return a >> 32; }
VOXLAB_INLINE WideWords exclusive_or(WideWords a, WideWords b, WideWords c) { return a ^ b ^ c; }
VOXLAB_INLINE WideWords pairs_low(WideWords a, WideWords b) { return interleaved<false>(word_bits(a), word_bits(b)); }
VOXLAB_INLINE WideWords pairs_high(WideWords a, WideWords b) { return interleaved<true>(word_bits(a), word_bits(b)); }
VOXLAB_INLINE WideWords quads_low(WideWords a, WideWords b) { return interleaved<false>(a, b); }
VOXLAB_INLINE WideWords quads_high(WideWords a, WideWords b) { return interleaved<true>(a, b); }
VOXLAB_INLINE void put_factors(float* to, int64_t step, WideWords bits, const DropRule& rule) {
  store(to, (word_bits(bits) & 0xffffU) >= rule.limit ? splat(rule.factor) : zero());
  store(to + step, (word_bits(bits) >> 16) >= rule.limit ? splat(rule.factor) : zero());
}
VOXLAB_INLINE void put_halves(float* to, WideWords bits, const DropRule& rule) {
  uint16_t halves[2 * vec_width];
  __builtin_memcpy(halves, &bits, sizeof(halves));
  for (int i = 0; i < 2 * vec_width; ++i) to[i] = halves[i] >= rule.limit ? rule.factor : 0.0F;
}

#endif

// The counters of as many blocks as there are lanes.
struct Counters {
  WideWords even, odd;  // of lanes 0, 2, .., and of lanes 1, 3, ..
};

// Lane l has counter first + offset(l).
template <class F>
VOXLAB_INLINE Counters counters(uint64_t first, F offset) {
  uint64_t lanes[2][drop_lanes / 2];
  for (int lane = 0; lane < drop_lanes; ++lane) lanes[lane % 2][lane / 2] = first + offset(lane);
  Counters c;
  __builtin_memcpy(&c, lanes, sizeof(c));
  return c;
}

// The four words of every lane's block.
struct Blocks {
  WideWords word[4];
};

VOXLAB_INLINE Blocks half_blocks(const DropRule& rule, WideWords counter) {
  WideWords c0 = counter, c1 = high_to_low(counter), c2 = all_words(rule.stream), c3 = all_words(rule.step);
  uint32_t k0 = rule.key[0], k1 = rule.key[1];
#pragma GCC unroll 10
  for (int round = 0; round < 10; ++round) {
    const WideWords p0 = product_of_low(c0, all_words(0xD2511F53)), p1 = product_of_low(c2, all_words(0xCD9E8D57));
    c0 = exclusive_or(high_to_low(p1), c1, all_words(k0));
    c2 = exclusive_or(high_to_low(p0), c3, all_words(k1));
    c1 = p1;
    c3 = p0;
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

VOXLAB_INLINE Blocks blocks(const DropRule& rule, const Counters& c) {
  const Blocks even = half_blocks(rule, c.even), odd = half_blocks(rule, c.odd);
  Blocks b;
  for (int j = 0; j < 4; ++j) b.word[j] = (even.word[j] & 0xffffffffU) | (odd.word[j] << 32);
  return b;
}

// Factors of the drop_block * drop_lanes elements of the blocks at counters `first` and on: half h of word j of block l
// belongs to element 8 l + 2 j + h, and an element is kept where its half is at least the limit. The unpacking takes words
// by fours: lane 4 k + q works on block (drop_lanes / 4) q + k, so that what it gives is already in the order of the
// elements.
VOXLAB_INLINE void drop_factors(const DropRule& rule, uint64_t first, float* factor) {
  const auto block_of = [](int lane) { return static_cast<uint64_t>(drop_lanes / 4 * (lane % 4) + lane / 4); };
  const Blocks x = blocks(rule, counters(first, block_of));
  const WideWords a = pairs_low(x.word[0], x.word[1]), b = pairs_low(x.word[2], x.word[3]);
  const WideWords c = pairs_high(x.word[0], x.word[1]), d = pairs_high(x.word[2], x.word[3]);
  put_halves(factor, quads_low(a, b), rule);
  put_halves(factor + 2 * drop_lanes, quads_high(a, b), rule);
  put_halves(factor + 4 * drop_lanes, quads_low(c, d), rule);
  put_halves(factor + 6 * drop_lanes, quads_high(c, d), rule);
}

// Elements [8 begin, min(8 end, n)).
template <class T>
void drop_loop(const DropArgs& args) {
  const T* x = static_cast<const T*>(args.x);
  T* y = static_cast<T*>(args.y);
  constexpr int64_t most = drop_block * drop_lanes;
  float factor[most];
  for (int64_t block = args.begin; block < args.end; block += drop_lanes) {
    drop_factors(args.rule, static_cast<uint64_t>(block), factor);
    const int64_t at = drop_block * block, stop = drop_block * args.end < args.n ? drop_block * args.end : args.n;
    const int64_t count = stop - at < most ? stop - at : most;
    for_vectors(count, [&](int64_t i, auto lanes) {
      const Vec keep_factor = get(factor + i, lanes);
      // Selected, not multiplied: a dropped infinity is 0.
      put(y + at + i, keep_factor != zero() ? get(x + at + i, lanes) * keep_factor : zero(), lanes);
    });
  }
}

inline void keep_factors(const DropRule& rule, uint64_t first, int64_t blocks, float* factors) {
  for (int64_t block = 0; block < blocks; block += drop_lanes)
    drop_factors(rule, first + static_cast<uint64_t>(block), factors + drop_block * block);
}

constexpr void set_dropout(Loops& table) {
  table.keep_factors = keep_factors;
  table.drop[0] = drop_loop<float>;
  table.drop[1] = drop_loop<uint16_t>;
}

}  // namespace
}  // namespace voxlab::cpu
