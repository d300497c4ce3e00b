// Between f32 and the bf16 operands of the tile kernels: rounding, splitting, packing, storing. Included once per
// instruction set.
#pragma once

#include <array>
#include <type_traits>

#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/round_impl.h"

namespace voxlab::cpu {
namespace {

VOXLAB_INLINE Vec load_half(const uint16_t* p, __mmask16 lanes) {
  return widen(reinterpret_cast<Words>(_mm512_maskz_cvtepu16_epi32(0xffff, _mm256_maskz_loadu_epi16(lanes, p))));
}

VOXLAB_INLINE void store_halves(uint16_t* p, Words halves, int n) {
  const __m512i v = reinterpret_cast<__m512i>(halves);
  _mm512_mask_cvtepi32_storeu_epi16(p, first_lanes(n), v);
}

VOXLAB_INLINE bool finite_halves(Words halves) {
  const Words exponent = {0x7f80U, 0x7f80U, 0x7f80U, 0x7f80U, 0x7f80U, 0x7f80U, 0x7f80U, 0x7f80U,
                          0x7f80U, 0x7f80U, 0x7f80U, 0x7f80U, 0x7f80U, 0x7f80U, 0x7f80U, 0x7f80U};
  const __m512i masked = reinterpret_cast<__m512i>(halves & exponent);
  return _mm512_cmpeq_epi32_mask(masked, reinterpret_cast<__m512i>(exponent)) == 0;
}

#if defined(VOXLAB_AVX512_BF16)

VOXLAB_INLINE void store_rounded(uint16_t* p, Vec v, int n) {
  _mm256_mask_storeu_epi16(p, first_lanes(n), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)));
}

VOXLAB_INLINE void store_line(uint16_t* p, Vec first, Vec second, bool past_caches) {
  const __m512i line = round_two(first, second);
  past_caches ? _mm512_stream_si512(reinterpret_cast<__m512i*>(p), line) : _mm512_storeu_si512(p, line);
}

VOXLAB_INLINE Vec widen_half(__m256i halves) {
  return _mm512_castsi512_ps(_mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, halves), 16));
}

// Two vectors, of which `lanes` count, to their parts. False when one of those is not finite.
VOXLAB_INLINE bool split_vectors(Vec first, Vec second, __mmask32 lanes, uint16_t* high, uint16_t* low) {
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  const __m512i top = round_two(first, second);
  _mm512_mask_storeu_epi16(high, lanes, top);
  if (low != nullptr) {
    const Vec rest_first = first - widen_half(_mm512_maskz_extracti64x4_epi64(0xff, top, 0));
    const Vec rest_second = second - widen_half(_mm512_maskz_extracti64x4_epi64(0xff, top, 1));
    _mm512_mask_storeu_epi16(low, lanes, round_two(rest_first, rest_second));
  }
  return _mm512_mask_cmpeq_epi16_mask(lanes, _mm512_and_si512(top, exponent), exponent) == 0;
}

#else

VOXLAB_INLINE void store_rounded(uint16_t* p, Vec v, int n) { store_halves(p, round_bf16(v), n); }
VOXLAB_INLINE void store_line(uint16_t* p, Vec first, Vec second, bool /*past_caches*/) {
  store_rounded(p, first, vec_width);
  store_rounded(p + vec_width, second, vec_width);
}

VOXLAB_INLINE bool split_vectors(Vec first, Vec second, __mmask32 lanes, uint16_t* high, uint16_t* low) {
  bool finite = true;
  for (int half = 0; half < 2; ++half) {
    const int count = __builtin_popcount(half == 0 ? lanes & 0xffffU : lanes >> vec_width);
    const Vec v = keep_first(half == 0 ? first : second, count);
    const Words top = round_bf16(v);
    finite &= finite_halves(top);
    store_halves(high + half * vec_width, top, count);
    if (low != nullptr) store_halves(low + half * vec_width, round_bf16(v - widen(top)), count);
  }
  return finite;
}

#endif

VOXLAB_INLINE __mmask32 chunk_lanes(int64_t n) {
  return n >= amx_fill_values ? ~__mmask32{0} : static_cast<__mmask32>((uint32_t{1} << n) - 1U);
}

// One chunk of a row from `in` on, its place in the row for the norm's. `Norm`: -1 none, else the activation after it.
template <class In, int Norm, bool Low>
VOXLAB_INLINE bool fill_chunk(const AmxSplitArgs& t, const In* in, int64_t column, __mmask32 lanes, uint16_t* high, uint16_t* low) {
  constexpr bool f32 = std::is_same_v<In, float>;
  if constexpr (!f32 && Norm < 0) {
    const __m512i exponent = _mm512_set1_epi16(0x7f80);
    const __m512i v = _mm512_maskz_loadu_epi16(lanes, in);
    _mm512_mask_storeu_epi16(high, lanes, v);
    return _mm512_cmpeq_epi16_mask(_mm512_and_si512(v, exponent), exponent) == 0;
  } else {
    Vec v[2];
    for (int half = 0; half < 2; ++half) {
      const auto mask = static_cast<__mmask16>(lanes >> (half * vec_width));
      const int64_t at = column + half * vec_width;
      if constexpr (f32) {
        v[half] = _mm512_maskz_loadu_ps(mask, in + half * vec_width);
      } else {
        v[half] = load_half(in + half * vec_width, mask);
      }
      if constexpr (Norm >= 0) {
        v[half] = mul_add(v[half] - load(t.mean + at), load(t.scale + at), load(t.shift + at));
        v[half] = activate(v[half], Norm, splat(t.slope));
      }
    }
    return split_vectors(v[0], v[1], lanes, high, Low ? low : nullptr);
  }
}

// The next chunks of the first job, at most so many; how many that were. A function of its own for each kind of job, and not
// inlined: tiles leave few instructions to what goes on meanwhile.
template <class In, int Norm, bool Low, bool Fetch = false>
__attribute__((noinline)) int64_t fill_some(AmxFill& f, int64_t chunks) {
  const AmxSplitArgs& t = *f.job;
  const In* first;
  if constexpr (std::is_same_v<In, float>) {
    first = t.in;
  } else {
    first = t.in_bf16;
  }
  int64_t row = f.row, column = f.column, done = 0;
  const In* in = first + row * t.in_pitch + column;
  int64_t to = row * t.out_pitch + column / amx_fill_values * t.out_chunk;
  const int64_t n = t.n, step = t.out_chunk;
  bool finite = true;
  while (done < chunks) {
    uint16_t* const low = Low ? t.low + to : nullptr;
    if constexpr (Fetch) {
      fetch_ahead(in);
      if constexpr (std::is_same_v<In, float>) fetch_ahead(in + vec_width);
    }
    const int64_t left = n - column;
    finite &= left >= amx_fill_values ? fill_chunk<In, Norm, Low>(t, in, column, ~__mmask32{0}, t.high + to, low)
                                      : fill_chunk<In, Norm, Low>(t, in, column, chunk_lanes(left), t.high + to, low);
    ++done;
    if (left > amx_fill_values) {
      column += amx_fill_values;
      in += amx_fill_values;
      to += step;
      continue;
    }
    column = 0;
    if (++row == t.rows) {
      row = 0;
      ++f.job;
      break;
    }
    in = first + row * t.in_pitch;
    to = row * t.out_pitch;
  }
  f.row = row;
  f.column = column;
  f.finite &= finite;
  return done;
}

template <class In, bool Low, bool Fetch = false>
constexpr std::array<int64_t (*)(AmxFill&, int64_t), 6> fill_kinds = {
    fill_some<In, -1, Low, Fetch>, fill_some<In, 0, Low, Fetch>, fill_some<In, 1, Low, Fetch>,
    fill_some<In, 2, Low, Fetch>,  fill_some<In, 3, Low, Fetch>, fill_some<In, 4, Low, Fetch>};

// The same of a job that asks for what comes later.
__attribute__((noinline)) int64_t fill_fetching(AmxFill& f, int64_t chunks) {
  const AmxSplitArgs& t = *f.job;
  const auto norm = static_cast<size_t>(t.mean == nullptr ? 0 : 1 + t.activation);
  const auto& kinds = t.in != nullptr ? (t.low == nullptr ? fill_kinds<float, false, true> : fill_kinds<float, true, true>)
                                      : (t.low == nullptr ? fill_kinds<uint16_t, false, true> : fill_kinds<uint16_t, true, true>);
  return kinds[norm](f, chunks);
}

// The next chunks of the jobs, as far as there are any.
VOXLAB_INLINE void fill_chunks(AmxFill& f, int64_t chunks) {
  while (chunks > 0 && f.job != f.end) {
    const AmxSplitArgs& t = *f.job;
    const auto norm = static_cast<size_t>(t.mean == nullptr ? 0 : 1 + t.activation);
    if (t.fetch) {
      chunks -= fill_fetching(f, chunks);
    } else if (t.in != nullptr) {
      chunks -= (t.low == nullptr ? fill_kinds<float, false> : fill_kinds<float, true>)[norm](f, chunks);
    } else {
      chunks -= (t.low == nullptr ? fill_kinds<uint16_t, false> : fill_kinds<uint16_t, true>)[norm](f, chunks);
    }
  }
}

void fill(AmxFill& f) { fill_chunks(f, INT64_MAX); }

// Word j of row r holds K = 2r in its lower and K = 2r + 1 in its upper half.
bool pack(const float* in, int64_t rows, int64_t pitch, uint16_t* high, uint16_t* low) {
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  __m512i largest = _mm512_setzero_si512();
  for (int64_t r = 0; r < amx_depth / 2; ++r) {
    const Vec even = 2 * r < rows ? load(in + 2 * r * pitch) : zero();
    const Vec odd = 2 * r + 1 < rows ? load(in + (2 * r + 1) * pitch) : zero();
    const Words words = round_pairs(even, odd);
    largest = _mm512_maskz_max_epu16(~__mmask32{0}, largest, _mm512_and_si512(reinterpret_cast<__m512i>(words), magnitude));
    _mm512_storeu_si512(high + r * amx_depth, reinterpret_cast<__m512i>(words));
    if (low == nullptr) continue;
    const Words rest = rest_pairs(even, odd, words);
    _mm512_storeu_si512(low + r * amx_depth, reinterpret_cast<__m512i>(rest));
  }
  return _mm512_cmpge_epu16_mask(largest, _mm512_set1_epi16(0x7f80)) == 0;
}

// Pairs that begin with the odd positions, from those that begin with the even ones and the pairs after them.
VOXLAB_INLINE Words odd_pairs(Words now, Words next) { return (now >> 16) | (next << 16); }

VOXLAB_INLINE Words pair_halves(__m256i even, __m256i odd) {
  return reinterpret_cast<Words>(_mm512_maskz_cvtepu16_epi32(0xffff, even)) |
         (reinterpret_cast<Words>(_mm512_maskz_cvtepu16_epi32(0xffff, odd)) << 16);
}

template <class T, bool Split, bool Odd>
bool pack_strip_as(const AmxStripArgs& t) {
  const void* const* const at = t.at;
  const int64_t offset = t.offset, low_at = t.low;
  uint16_t *const even = t.even, *const odd = t.odd;
  const __mmask16 lanes = first_lanes(t.columns);
  const auto place = [&](int64_t position) { return static_cast<const T*>(at[position]) + offset; };
  const auto values = [&](int64_t position) {
    if constexpr (sizeof(T) == 4) {
      return _mm512_maskz_loadu_ps(lanes, place(position));
    } else {
      return _mm256_maskz_loadu_epi16(lanes, place(position));
    }
  };
  const auto put = [](uint16_t* to, Words words) { _mm512_storeu_si512(to, reinterpret_cast<__m512i>(words)); };
  const __m512i magnitude = _mm512_set1_epi16(0x7fff);
  __m512i largest = _mm512_setzero_si512();
  Words before = {}, before_low = {};
  // Odd pairs follow one row behind; the last of them takes one position more.
  constexpr int64_t rows = amx_depth / 2;
#pragma GCC unroll 17
  for (int64_t r = 0; r < rows + (Odd ? 1 : 0); ++r) {
    const auto first = values(2 * r), second = r < rows ? values(2 * r + 1) : decltype(first){};
    if (r < rows) {
      __builtin_prefetch(place(2 * r + amx_strip));
      __builtin_prefetch(place(2 * r + 1 + amx_strip));
    }
    Words words;
    if constexpr (sizeof(T) == 4) {
      words = round_pairs(first, second);
    } else {
      words = pair_halves(first, second);
    }
    const __m512i bits = _mm512_and_si512(reinterpret_cast<__m512i>(words), magnitude);
    largest = _mm512_maskz_max_epu16(~__mmask32{0}, largest, bits);
    if (r < rows) put(even + r * amx_depth, words);
    if (Odd && r > 0) put(odd + (r - 1) * amx_depth, odd_pairs(before, words));
    before = words;
    if constexpr (Split) {
      const Vec rest_first = first - reinterpret_cast<Vec>(words << 16), rest_second = second - reinterpret_cast<Vec>(words & 0xffff0000U);
      const Words low = round_pairs(rest_first, rest_second);
      if (r < rows) put(even + low_at + r * amx_depth, low);
      if (Odd && r > 0) put(odd + low_at + (r - 1) * amx_depth, odd_pairs(before_low, low));
      before_low = low;
    }
  }
  return _mm512_cmpge_epu16_mask(largest, _mm512_set1_epi16(0x7f80)) == 0;
}

bool pack_strip(const AmxStripArgs& t) {
  if (t.bf16) return t.odd == nullptr ? pack_strip_as<uint16_t, false, false>(t) : pack_strip_as<uint16_t, false, true>(t);
  if (t.low == 0) return t.odd == nullptr ? pack_strip_as<float, false, false>(t) : pack_strip_as<float, false, true>(t);
  return t.odd == nullptr ? pack_strip_as<float, true, false>(t) : pack_strip_as<float, true, true>(t);
}

// A tile of pairs of K by 16 columns, as pack leaves it, to 16 rows by K, or back: words change places, for a pair is one in both.
void turn(uint16_t* tile) {
  Vec turned[16];
  turn_words(reinterpret_cast<const float*>(tile), amx_columns, turned);
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) _mm512_storeu_si512(tile + i * amx_depth, reinterpret_cast<__m512i>(turned[i]));
}

// As pack, of columns whose values lie next to each other along K, `pitch` from column to column; missing ones are zero.
bool pack_turned(const float* in, int64_t rows, int64_t columns, int64_t pitch, uint16_t* high, uint16_t* low) {
  const __mmask32 lanes = chunk_lanes(rows);
  const auto first = static_cast<__mmask16>(lanes), second = static_cast<__mmask16>(lanes >> vec_width);
  bool finite = true;
  for (int64_t i = 0; i < amx_columns; ++i) {
    const float* at = in + (i < columns ? i : 0) * pitch;
    const __mmask16 wanted = i < columns ? 0xffff : 0;
    finite &= split_vectors(_mm512_maskz_loadu_ps(first & wanted, at), _mm512_maskz_loadu_ps(second & wanted, at + vec_width), ~__mmask32{0},
                            high + i * amx_depth, low == nullptr ? nullptr : low + i * amx_depth);
  }
  turn(high);
  if (low != nullptr) turn(low);
  return finite;
}

void turn_sums(const AmxTurnArgs& t) {
  alignas(64) Vec turned[16];
  turn_words(t.sums, amx_columns, turned);
  float* to = t.out;
  if (t.past_caches) {
    for (int i = 0; i < t.columns; ++i, to += t.out_step) store_past_caches(to, turned[i]);
  } else if (t.rows == amx_rows) {
    for (int i = 0; i < t.columns; ++i, to += t.out_step) store(to, turned[i]);
  } else {
    for (int i = 0; i < t.columns; ++i, to += t.out_step) store_first(to, turned[i], t.rows);
  }
}

bool turn_strip(const AmxStripArgs& t) {
  const bool finite = pack_strip(t);
  for (uint16_t* const tile : {t.even, t.odd}) {
    if (tile == nullptr) continue;
    turn(tile);
    if (t.low != 0) turn(tile + t.low);
  }
  return finite;
}

// Sums of what is stored to a vector of columns, less their pivots, and of its squares.
struct ColumnSums {
  Vec pivot, sum = zero(), square = zero();
  __attribute__((always_inline)) void add(Vec v) {
    const Vec d = v - pivot;
    sum += d;
    square = mul_add(d, d, square);
  }
};

VOXLAB_INLINE void add_doubles(double* to, Vec v, int count) {
  for (int half = 0; half < 2; ++half, to += 8) {
    const auto lanes = static_cast<__mmask8>(first_lanes(count) >> (8 * half));
    const __m256i bits = _mm512_maskz_extracti64x4_epi64(0xff, reinterpret_cast<__m512i>(v), half);
    const __m512d wide = _mm512_maskz_cvtps_pd(0xff, _mm256_castsi256_ps(bits));
    _mm512_mask_storeu_pd(to, lanes, _mm512_maskz_loadu_pd(lanes, to) + wide);
  }
}

// One vector of columns of every row, `count` of them wanted; or two whole ones, as bf16 one line.
template <int Activation, int Vectors, bool Moments>
void store_vectors(const AmxStoreArgs& t, int column, int count) {
  if constexpr (Vectors == 2) count = vec_width;
  const auto first_of = [&](const float* values, int vector) { return load_first(values + column + vector * vec_width, count); };
  const Vec bias0 = t.bias == nullptr ? zero() : first_of(t.bias, 0), bias1 = Vectors == 1 || t.bias == nullptr ? zero() : first_of(t.bias, 1);
  ColumnSums sums0{Moments ? first_of(t.pivot, 0) : zero()}, sums1{Moments && Vectors == 2 ? first_of(t.pivot, 1) : zero()};
  const Vec slope = splat(t.slope);
  // Stores to the output must not make the arguments load again.
  const float* sums = t.sums + column;
  const float* residual = t.residual == nullptr ? nullptr : t.residual + column;
  const uint16_t* residual_bf16 = t.residual_bf16 == nullptr ? nullptr : t.residual_bf16 + column;
  float* out = t.out == nullptr ? nullptr : t.out + column;
  uint16_t* out_bf16 = t.out_bf16 + column;
  const int64_t rows = t.rows, step = t.out_step;
  const bool past_caches = t.past_caches && count == vec_width;
  const auto value = [&](int64_t r, int vector, Vec bias, ColumnSums& to) {
    const int64_t at = r * step + vector * vec_width;
    Vec v = load(sums + r * amx_block_columns + vector * vec_width) + bias;
    if (residual != nullptr) v += load_first(residual + at, count);
    if (residual_bf16 != nullptr) v += load_half(residual_bf16 + at, first_lanes(count));
    if constexpr (Activation != 0) v = activate(v, Activation, slope);
    if constexpr (Moments) to.add(v);
    return v;
  };
  for (int64_t r = 0; r < rows; ++r) {
    const Vec v = value(r, 0, bias0, sums0);
    if constexpr (Vectors == 2) {
      store_line(out_bf16 + r * step, v, value(r, 1, bias1, sums1), past_caches);
    } else if (out != nullptr && past_caches) {
      store_past_caches(out + r * step, v);
    } else if (out != nullptr) {
      store_first(out + r * step, v, count);
    } else {
      store_rounded(out_bf16 + r * step, v, count);
    }
  }
  if constexpr (Moments) {
    add_doubles(t.sum + column, sums0.sum, count);
    add_doubles(t.square + column, sums0.square, count);
    if constexpr (Vectors == 2) {
      add_doubles(t.sum + column + vec_width, sums1.sum, count);
      add_doubles(t.square + column + vec_width, sums1.square, count);
    }
  }
}

template <int Activation, bool Moments>
void store_columns(const AmxStoreArgs& t) {
  int c = 0;
  for (; t.out == nullptr && t.columns - c >= 2 * vec_width; c += 2 * vec_width) store_vectors<Activation, 2, Moments>(t, c, vec_width);
  for (; c < t.columns; c += vec_width)
    store_vectors<Activation, 1, Moments>(t, c, t.columns - c < vec_width ? t.columns - c : vec_width);
}

void store_sums(const AmxStoreArgs& t) {
  constexpr std::array<std::array<void (*)(const AmxStoreArgs&), 2>, 5> kinds = {{{store_columns<0, false>, store_columns<0, true>},
                                                                                  {store_columns<1, false>, store_columns<1, true>},
                                                                                  {store_columns<2, false>, store_columns<2, true>},
                                                                                  {store_columns<3, false>, store_columns<3, true>},
                                                                                  {store_columns<4, false>, store_columns<4, true>}}};
  kinds[static_cast<size_t>(t.activation)][t.pivot != nullptr](t);
}

}  // namespace
}  // namespace voxlab::cpu
