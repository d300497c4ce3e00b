// softmax(q k) v and its gradient for heads a few values deep, on AMX tiles. A lane is a query, as in attention_impl.h: scores
// are (keys x values) times (values x queries). All four products of bf16 parts lie side by side along K, which values so few
// would not fill: scores are nearly f32's, in bf16 too. Included once for each kind of tile.
#pragma once

#include "runtime/backend/cpu/attention_tiles.h"
#include "runtime/backend/cpu/dense/amx_tile.h"
#include "runtime/backend/cpu/dense/round_impl.h"
#include "runtime/backend/cpu/queries_impl.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t tile_rows = 16, row_halves = 32, tile_halves = tile_rows * row_halves, tile_bytes = 64;  // bytes of a row
constexpr int64_t most_score_tiles = 2;  // of 16 queries
constexpr float log2_of_e = 1.44269504088896341F, ln_2 = 0.693147180559945309F;

// The compiler does not know that tile loads read memory.
VOXLAB_INLINE void settle_memory() { __asm__ volatile("" ::: "memory"); }

template <int Depth>
struct TileForm {
  static constexpr int64_t score_tiles = 4 * Depth / row_halves;  // of 16 keys or queries
  static constexpr int64_t value_tiles = 2 * Depth / tile_rows;   // of 32 keys
  static constexpr int64_t key_halves(int64_t keys) { return keys / tile_rows * score_tiles * tile_halves; }
  static constexpr int64_t row_tile_halves(int64_t keys) { return keys / tile_keys * value_tiles * tile_halves; }
};

// Keys and values as tiles of A. `scores`: a row a key, its high part twice, its low part twice, times log2 e, for powers of two
// are cheaper; `weights`: the values so, without the factor, whose products with dy are gradients of weights. `values`, `keys`: a
// row a value of all keys, high parts and then low ones.
template <int Depth, class Half = const uint16_t>
struct PackedTiles {
  PackedTiles(Half* at, int64_t count)
      : scores(at),
        values(scores + TileForm<Depth>::key_halves(count)),
        weights(values + TileForm<Depth>::row_tile_halves(count)),
        keys(weights + TileForm<Depth>::key_halves(count)) {}
  Half *scores, *values, *weights, *keys;
};

VOXLAB_INLINE uint16_t half_of(float x) { return narrow(splat(x))[0]; }
VOXLAB_INLINE float rest_of(float x, uint16_t high) { return x - scalar(&high); }

template <int Depth>
void pack_score_rows(const float* x, int64_t count, float scale, uint16_t* to) {
  constexpr int64_t tiles = TileForm<Depth>::score_tiles;
  for (int64_t key = 0; key < count; ++key)
    for (int64_t d = 0; d < Depth; ++d) {
      const float value = x[key * Depth + d] * scale;
      const uint16_t high = half_of(value), low = half_of(rest_of(value, high)), parts[4] = {high, high, low, low};
      for (int64_t part = 0; part < 4; ++part) {
        const int64_t at = part * Depth + d;
        to[(key / tile_rows * tiles + at / row_halves) * tile_halves + key % tile_rows * row_halves + at % row_halves] = parts[part];
      }
    }
}

template <int Depth>
void pack_value_rows(const float* x, int64_t count, uint16_t* to) {
  for (int64_t key = 0; key < count; ++key)
    for (int64_t d = 0; d < Depth; ++d) {
      const float value = x[key * Depth + d];
      const uint16_t high = half_of(value), parts[2] = {high, half_of(rest_of(value, high))};
      for (int64_t part = 0; part < 2; ++part) {
        const int64_t row = part * Depth + d, tile = key / tile_keys * TileForm<Depth>::value_tiles + row / tile_rows;
        to[tile * tile_halves + row % tile_rows * row_halves + key % tile_keys] = parts[part];
      }
    }
}

template <int Depth>
void pack_tiles(const float* k, const float* v, int64_t keys, uint16_t* tiles) {
  const PackedTiles<Depth, uint16_t> to(tiles, keys);
  pack_score_rows<Depth>(k, keys, log2_of_e, to.scores);
  pack_value_rows<Depth>(v, keys, to.values);
  pack_score_rows<Depth>(v, keys, 1, to.weights);
  pack_value_rows<Depth>(k, keys, to.keys);
}

VOXLAB_INLINE void put_words(uint16_t* to, Words words) { _mm512_storeu_si512(to, reinterpret_cast<__m512i>(words)); }

// 2^x for finite x below 128: 2^n 2^r, r = x - n, 2^r by the polynomial that is least wrong relatively, 8e-8 or, where the result
// is rounded to bf16, 8e-5.
template <bool exact>
VOXLAB_INLINE Vec power_of_two(Vec x) {
  const Vec shifter = splat(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec n = (x + shifter) - shifter, r = x - n;
  if constexpr (!exact) {
    Vec p = mul_add(splat(5.517166907e-2F), r, splat(2.426111222e-1F));
    p = mul_add(p, r, splat(6.932609855e-1F));
    return scaled(mul_add(p, r, splat(9.999280735e-1F)), n);
  }
  Vec p = mul_add(splat(1.327647198e-3F), r, splat(9.675541334e-3F));
  p = mul_add(p, r, splat(5.550713274e-2F));
  p = mul_add(p, r, splat(2.402211972e-1F));
  p = mul_add(p, r, splat(6.931469671e-1F));
  return scaled(mul_add(p, r, splat(1.0F)), n);
}

// Queries meet keys 32 at a time, two vectors: so many bf16 values fill a row of a tile.
constexpr int64_t query_block = 2 * vec_width;

// Values of 32 queries from `row` on, (Depth, 32); those beyond the last of `rows` repeat it.
template <int Depth>
VOXLAB_INLINE void turn_block(const QueryRows& q, int64_t row, int64_t rows, float* turned) {
  if (q.col != 1 || rows - row < query_block) return turn_queries<Depth, query_block>(q, row, rows, turned);
  for (int64_t v = 0; v < 2; ++v) {
    Vec values[Depth];
    turn_words(q.at + (row + v * vec_width) * q.row, q.row, values);
#pragma GCC unroll 16
    for (int d = 0; d < Depth; ++d) store(turned + d * query_block + v * vec_width, values[d]);
  }
}

// Back to rows, `row` and `col` floats between queries and values of one.
template <int Depth>
VOXLAB_INLINE void put_block(const float* turned, int64_t count, float* rows, int64_t row, int64_t col) {
  if (col != 1 || count < query_block) return put_queries<Depth, query_block>(turned, count, rows, row, col);
  // 16 rows of 16 queries: all values of both vectors, or of one.
  for (int64_t first = 0; first < 2; first += 16 / Depth) {
    Vec queries[16];
    alignas(64) float square[tile_rows * vec_width];
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i)
      store(square + i * vec_width, load(turned + i % Depth * query_block + (first + i / Depth) * vec_width));
    turn_words(square, vec_width, queries);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) {
      float* const to = rows + (first * vec_width + i) * row;
      store_first(to, queries[i], Depth);
      if (Depth == 8) _mm256_storeu_ps(to + vec_width * row, _mm512_maskz_extractf32x8_ps(0xff, queries[i], 1));
    }
  }
}

// Of such values tiles of B for products with score rows, those of the second vector most_score_tiles on.
template <int Depth>
VOXLAB_INLINE void put_query_tiles(const float* turned, uint16_t* to, float scale = 1) {
  constexpr int64_t part = Depth / 2 * row_halves;
  for (int64_t v = 0; v < 2; ++v)
#pragma GCC unroll 8
    for (int64_t d = 0; d < Depth; d += 2) {
      const Vec even = load(turned + d * query_block + v * vec_width) * splat(scale);
      const Vec odd = load(turned + (d + 1) * query_block + v * vec_width) * splat(scale);
      const Words high = round_pairs(even, odd), low = rest_pairs(even, odd, high);
      uint16_t* const row = to + v * most_score_tiles * tile_halves + d / 2 * row_halves;
      put_words(row, high);
      put_words(row + part, low);
      put_words(row + 2 * part, high);
      put_words(row + 3 * part, low);
    }
}

// products (keys, 32 queries) = rows of keys times tiles of queries.
template <int Depth>
VOXLAB_INLINE void multiply_keys(const uint16_t* rows, const uint16_t* queries, int64_t keys, float* products) {
  constexpr int64_t tiles = TileForm<Depth>::score_tiles, step = query_block * static_cast<int64_t>(sizeof(float));
  const uint16_t* const second = queries + most_score_tiles * tile_halves;
  settle_memory();
  VOXLAB_TILE_LOAD(4, queries, tile_bytes);
  VOXLAB_TILE_LOAD(5, second, tile_bytes);
#define VOXLAB_SCORES(first_sum, second_sum)                \
  VOXLAB_TILE_ZERO(first_sum);                              \
  VOXLAB_TILE_ZERO(second_sum);                             \
  VOXLAB_TILE_LOAD(6, rows, tile_bytes);                    \
  VOXLAB_TILE_MULTIPLY(first_sum, 6, 4);                    \
  VOXLAB_TILE_MULTIPLY(second_sum, 6, 5);                   \
  if (tiles > 1) {                                          \
    VOXLAB_TILE_LOAD(6, rows + tile_halves, tile_bytes);    \
    VOXLAB_TILE_LOAD(7, queries + tile_halves, tile_bytes); \
    VOXLAB_TILE_MULTIPLY(first_sum, 6, 7);                  \
    VOXLAB_TILE_LOAD(7, second + tile_halves, tile_bytes);  \
    VOXLAB_TILE_MULTIPLY(second_sum, 6, 7);                 \
  }                                                         \
  rows += tiles * tile_halves;
#define VOXLAB_PUT_SCORES(first_sum, second_sum)              \
  VOXLAB_TILE_STORE(first_sum, products, step);               \
  VOXLAB_TILE_STORE(second_sum, products + vec_width, step);  \
  products += tile_rows * query_block;
  for (int64_t key = 0; key < keys; key += tile_keys) {
    VOXLAB_SCORES(0, 1)
    VOXLAB_SCORES(2, 3)
    VOXLAB_PUT_SCORES(0, 1)
    VOXLAB_PUT_SCORES(2, 3)
  }
#undef VOXLAB_SCORES
#undef VOXLAB_PUT_SCORES
  settle_memory();
}

// A row of 32 bf16 values and, with `split`, the row of what rounding left of them. What lies in the middle is
// then rounded up, which is cheaper, and a NaN in any case stays one in the rest.
struct Row {
  __m512i high, low;
};
constexpr __mmask32 all_kept = ~__mmask32{0};
template <bool split>
VOXLAB_INLINE Row row_of(Vec first, Vec second, __mmask32 kept = all_kept) {
  if constexpr (!split) return {round_row(first, second, kept), __m512i{}};
  const auto rounded = [](Vec x) { return from_bits((bits_of(x) + 0x8000U) & 0xffff0000U); };
  const Vec high[2] = {rounded(first), rounded(second)};
  return {round_row(high[0], high[1], kept), round_row(first - high[0], second - high[1], kept)};
}

// Rows of two neighbouring keys to those of two tiles of B: queries 8 i + j, j < 4, are the first's columns, the others the second's.
VOXLAB_INLINE void put_pair(__m512i even, __m512i odd, uint16_t* to) {
  _mm512_storeu_si512(to, _mm512_maskz_unpacklo_epi16(~__mmask32{0}, even, odd));
  _mm512_storeu_si512(to + tile_halves, _mm512_maskz_unpackhi_epi16(~__mmask32{0}, even, odd));
}

// What those columns' sums are, in the order of queries.
VOXLAB_INLINE void put_in_order(Vec first, Vec second, float* to) {
  const VecInts low = {0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23}, high = low + 8;
  store(to, __builtin_shuffle(first, second, low));
  store(to + vec_width, __builtin_shuffle(first, second, high));
}

// sums (Depth, 32 queries) = values (Depth x keys) times weights, two tiles of B for 32 keys, those of their low parts `low` on.
template <int Depth, bool split>
VOXLAB_INLINE void add_values(const uint16_t* values, const uint16_t* weights, int64_t low, int64_t keys, float* sums) {
  constexpr int64_t tiles = TileForm<Depth>::value_tiles;
  constexpr bool more = split || tiles > 1;  // products that tiles of their own add up
  alignas(64) float made[4][tile_rows * vec_width];
  settle_memory();
  VOXLAB_TILE_ZERO(0);
  VOXLAB_TILE_ZERO(1);
  VOXLAB_TILE_ZERO(2);
  VOXLAB_TILE_ZERO(3);
  for (int64_t at = 0; at < keys / tile_keys; ++at, values += tiles * tile_halves, weights += 2 * tile_halves) {
    VOXLAB_TILE_LOAD(4, weights, tile_bytes);
    VOXLAB_TILE_LOAD(5, weights + tile_halves, tile_bytes);
    VOXLAB_TILE_LOAD(6, values, tile_bytes);
    VOXLAB_TILE_MULTIPLY(0, 6, 4);
    VOXLAB_TILE_MULTIPLY(1, 6, 5);
    if (tiles > 1) {
      VOXLAB_TILE_LOAD(7, values + tile_halves, tile_bytes);
      VOXLAB_TILE_MULTIPLY(2, 7, 4);
      VOXLAB_TILE_MULTIPLY(3, 7, 5);
    }
    if (split) {
      VOXLAB_TILE_LOAD(4, weights + low, tile_bytes);
      VOXLAB_TILE_LOAD(5, weights + low + tile_halves, tile_bytes);
      VOXLAB_TILE_MULTIPLY(2, 6, 4);
      VOXLAB_TILE_MULTIPLY(3, 6, 5);
    }
  }
  VOXLAB_TILE_STORE(0, made[0], tile_bytes);
  VOXLAB_TILE_STORE(1, made[1], tile_bytes);
  if (more) {
    VOXLAB_TILE_STORE(2, made[2], tile_bytes);
    VOXLAB_TILE_STORE(3, made[3], tile_bytes);
  }
  settle_memory();
  const auto value_of = [](const float* part, int64_t d) {
    const Vec first = load(part + d * vec_width);
    return tiles > 1 ? first : first + load(part + (d + Depth) * vec_width);
  };
#pragma GCC unroll 16
  for (int64_t d = 0; d < Depth; ++d) {
    Vec y[2];
    for (int64_t v = 0; v < 2; ++v) {
      y[v] = value_of(made[v], d);
      if constexpr (more) y[v] += value_of(made[v + 2], d);
    }
    put_in_order(y[0], y[1], sums + d * query_block);
  }
}

// Blocks of queries whose random numbers are drawn at once: what takes longer than 0.6 us between two uses of tiles costs the
// next one 0.3 us (0017).
constexpr int64_t drawn_blocks = 16;

// Which of 32 queries keep their weight of each key, in the order of query_factors. `first_block`: of the first query's numbers.
__attribute__((noinline)) void put_kept(const DropRule& rule, uint64_t first_block, int64_t keys, __mmask32* kept) {
  const auto of_a_query = static_cast<uint64_t>(keys / drop_block);
  const auto at = [&](int first) { return counters(first_block, [&](int lane) { return static_cast<uint64_t>(first + lane) * of_a_query; }); };
  Counters c[2] = {at(0), at(vec_width)};
  const __m512i limit = _mm512_set1_epi32(static_cast<int>(rule.limit << 16));
  const __mmask16 any = rule.limit > 0xffffU ? 0 : 0xffff;
  for (int64_t key = 0; key < keys; key += drop_block) {
    const Blocks numbers[2] = {blocks(rule, c[0]), blocks(rule, c[1])};
    for (int j = 0; j < 4; ++j) {
      const __m512i first = bits512(numbers[0].word[j]), second = bits512(numbers[1].word[j]);
      const auto at_least = [&](__m512i half) { return static_cast<__mmask32>(_mm512_mask_cmpge_epu32_mask(any, half, limit)); };
      const auto low = [](__m512i word) { return _mm512_maskz_slli_epi32(0xffff, word, 16); };
      kept[key + 2 * j] = at_least(low(first)) | at_least(low(second)) << vec_width;
      kept[key + 2 * j + 1] = at_least(first) | at_least(second) << vec_width;
    }
    for (Counters& each : c) {
      each.even += 1;
      each.odd += 1;
    }
  }
}

// Where the parts of the forward's scratch lie.
struct TileScratch {
  TileScratch(float* at, int64_t keys)
      : queries(reinterpret_cast<uint16_t*>(at)),
        weights(queries + 2 * most_score_tiles * tile_halves),
        low(keys * query_block),
        scores(reinterpret_cast<float*>(weights + 2 * low)),
        kept(reinterpret_cast<__mmask32*>(scores + keys * query_block)) {}
  uint16_t *queries, *weights;
  int64_t low;
  float* scores;  // (keys, 32 queries)
  __mmask32* kept;
};

// That of drawn_blocks from query `row` on, as far as there are so many: (blocks, keys).
VOXLAB_INLINE void put_all_kept(const DropRule& rule, uint64_t first_block, int64_t row, int64_t rows, int64_t keys, __mmask32* kept) {
  const int64_t end = std::min(rows, row + drawn_blocks * query_block);
  for (; row < end; row += query_block, kept += keys) put_kept(rule, first_block + static_cast<uint64_t>(row * (keys / drop_block)), keys, kept);
}

template <int Depth, bool split, bool drop>
void attend_tile_rows(const NarrowAttentionArgs& t) {
  const int64_t keys = t.keys;
  const PackedTiles<Depth> packed(t.tiles, keys);
  const TileScratch s(t.scratch, keys);
  tile_begin();
  for (int64_t row = 0; row < t.rows; row += query_block) {
    const int64_t count = std::min(query_block, t.rows - row), drawn = row / query_block % drawn_blocks;
    if (drop && drawn == 0) put_all_kept(*t.drop, t.first_block, row, t.rows, keys, s.kept);
    alignas(64) float turned[Depth * query_block];
    turn_block<Depth>(t.q, row, t.rows, turned);
    put_query_tiles<Depth>(turned, s.queries);
    multiply_keys<Depth>(packed.scores, s.queries, keys, s.scores);
    Vec most[2][2] = {{splat(-__builtin_inff()), splat(-__builtin_inff())}, {splat(-__builtin_inff()), splat(-__builtin_inff())}};
    for (int64_t key = 0; key < keys; key += 2)
      for (int64_t j = 0; j < 2; ++j)
        for (int64_t v = 0; v < 2; ++v) most[j][v] = max(load(s.scores + (key + j) * query_block + v * vec_width), most[j][v]);
    const Vec largest[2] = {max(most[0][0], most[1][0]), max(most[0][1], most[1][1])};
    Vec sum[2] = {zero(), zero()};
    for (int64_t key = 0; key < keys; key += 2) {
      Row rows[2];
      for (int64_t j = 0; j < 2; ++j) {
        Vec weight[2];
        for (int64_t v = 0; v < 2; ++v) {
          const int64_t at = (key + j) * query_block + v * vec_width;
          weight[v] = power_of_two<split>(load(s.scores + at) - largest[v]);
          sum[v] += weight[v];
        }
        rows[j] = row_of<split>(weight[0], weight[1], drop ? s.kept[drawn * keys + key + j] : all_kept);
      }
      uint16_t* const to = s.weights + (key / tile_keys * 2 * tile_rows + key % tile_keys / 2) * row_halves;
      put_pair(rows[0].high, rows[1].high, to);
      if constexpr (split) put_pair(rows[0].low, rows[1].low, to + s.low);
    }
    add_values<Depth, split>(packed.values, s.weights, s.low, keys, turned);
    for (int64_t v = 0; v < 2; ++v) {
      const Vec scale = splat(drop ? t.drop->factor : 1.0F) / sum[v];
      for (int64_t d = 0; d < Depth; ++d) {
        float* const y = turned + d * query_block + v * vec_width;
        store(y, load(y) * scale);
      }
      const int64_t some = count - v * vec_width;
      if (t.sums == nullptr || some <= 0) continue;
      put_first(t.sums + row + v * vec_width, mul_add(largest[v], splat(ln_2), logarithm(sum[v])), std::min<int64_t>(some, vec_width));
    }
    float* const y = t.y + row * t.y_row;
    if (t.y_row != 1 || count < query_block) {
      put_block<Depth>(turned, count, y, t.y_row, t.y_col);
      continue;
    }
    for (int64_t d = 0; d < Depth; ++d)
      for (int64_t i = 0; i < query_block; i += vec_width) store(y + d * t.y_col + i, load(turned + d * query_block + i));
  }
  tile_end();
}

template <int Depth, bool split>
void attend_tiles(const NarrowAttentionArgs& t) {
  if (t.drop != nullptr) return attend_tile_rows<Depth, split, true>(t);
  attend_tile_rows<Depth, split, false>(t);
}

// ---- gradients ----

constexpr int64_t most_blocks = 4;  // of queries between two visits to sums over queries

// Where the parts of the scratch lie.
template <int Depth, bool split>
struct TileGradScratch {
  static constexpr int64_t parts = split ? 2 : 1;
  TileGradScratch(float* at, int64_t keys)
      : q_tiles(reinterpret_cast<uint16_t*>(at)),
        dy_tiles(q_tiles + 2 * most_score_tiles * tile_halves),
        q_rows(dy_tiles + 2 * most_score_tiles * tile_halves),
        dy_rows(q_rows + most_blocks * 2 * tile_halves),
        low(most_blocks * keys * query_block),
        pair_low(keys * query_block),
        weights(dy_rows + most_blocks * 2 * tile_halves),
        dscores(weights + parts * low),
        dscore_pairs(dscores + parts * low),
        scores(reinterpret_cast<float*>(dscore_pairs + parts * pair_low)),
        dweights(scores + keys * query_block),
        kept(reinterpret_cast<__mmask32*>(dweights + keys * query_block)),
        dk(dweights + keys * (query_block + drawn_blocks)),
        dv(dk + keys * vec_width) {}
  uint16_t *q_tiles, *dy_tiles;  // for scores
  uint16_t *q_rows, *dy_rows;    // tiles of B: pairs of queries, the high and low parts of their values
  int64_t low, pair_low;         // halves from high parts to low ones
  uint16_t *weights, *dscores;   // (blocks, keys, 32 queries): dropped weights, gradients of scores
  uint16_t* dscore_pairs;        // tiles of B for 32 keys
  float *scores, *dweights;      // (keys, 32 queries)
  __mmask32* kept;               // (blocks, keys)
  float *dk, *dv;                // (keys, 16): sums; columns as in q_rows
};

// Values of 32 queries, (Depth, 32), to tiles of B whose rows are pairs of queries.
template <int Depth>
VOXLAB_INLINE void put_query_rows(const float* turned, uint16_t* to) {
  alignas(64) uint16_t rows[2 * Depth * row_halves];
#pragma GCC unroll 16
  for (int64_t d = 0; d < Depth; ++d) {
    const Row row = row_of<true>(load(turned + d * query_block), load(turned + d * query_block + vec_width));
    _mm512_store_si512(rows + d * row_halves, row.high);
    _mm512_store_si512(rows + (d + Depth) * row_halves, row.low);
  }
  for (int64_t tile = 0; tile < TileForm<Depth>::value_tiles; ++tile) {
    Vec words[16];
    turn_words(reinterpret_cast<const float*>(rows + tile * tile_halves), vec_width, words);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) store(reinterpret_cast<float*>(to + tile * tile_halves + i * row_halves), words[i]);
  }
}

// sums (keys, 16) += weights (keys x queries) times rows of queries, over all blocks.
template <int Depth, bool split>
VOXLAB_INLINE void add_queries(const uint16_t* weights, int64_t low, const uint16_t* rows, int64_t blocks, int64_t keys, float* sums) {
  settle_memory();
  for (int64_t key = 0; key < keys; key += tile_keys) {
    float* const second = sums + tile_rows * vec_width;
    VOXLAB_TILE_LOAD(0, sums, tile_bytes);
    VOXLAB_TILE_LOAD(1, second, tile_bytes);
    for (int64_t block = 0; block < blocks; ++block) {
      const uint16_t* const at = weights + (block * keys + key) * query_block;
      const uint16_t* const of = rows + block * 2 * tile_halves;
      VOXLAB_TILE_LOAD(4, of, tile_bytes);
      if (Depth == 16) VOXLAB_TILE_LOAD(5, of + tile_halves, tile_bytes);
#define VOXLAB_ADD_QUERIES(sum, from)               \
  VOXLAB_TILE_LOAD(6, from, tile_bytes);            \
  VOXLAB_TILE_MULTIPLY(sum, 6, 4);                  \
  if (Depth == 16) VOXLAB_TILE_MULTIPLY(sum, 6, 5); \
  if (split) {                                      \
    VOXLAB_TILE_LOAD(7, from + low, tile_bytes);    \
    VOXLAB_TILE_MULTIPLY(sum, 7, 4);                \
  }
      VOXLAB_ADD_QUERIES(0, at)
      VOXLAB_ADD_QUERIES(1, at + tile_rows * query_block)
#undef VOXLAB_ADD_QUERIES
    }
    VOXLAB_TILE_STORE(0, sums, tile_bytes);
    VOXLAB_TILE_STORE(1, second, tile_bytes);
    sums += 2 * tile_rows * vec_width;
  }
  settle_memory();
}

// Queries [row, row + 32), block `block` of those between two visits: dq, and what dk and dv need.
template <int Depth, bool split, bool drop>
void tile_query_gradients(const NarrowAttentionGradArgs& t, const PackedTiles<Depth>& packed, const TileGradScratch<Depth, split>& s,
                          int64_t row, int64_t block) {
  const int64_t count = std::min(query_block, t.rows - row), keys = t.keys;
  alignas(64) float q[Depth * query_block], dy[Depth * query_block], turned[Depth * query_block];
  turn_block<Depth>(t.q, row, t.rows, q);
  turn_block<Depth>(t.dy, row, t.rows, dy);
  turn_block<Depth>(t.y, row, t.rows, turned);
  // Queries beyond the last add nothing to any sum: no weights, no dy.
  Vec sum[2], delta[2] = {zero(), zero()};
  for (int64_t v = 0; v < 2; ++v) {
    const int64_t some = std::clamp<int64_t>(count - v * vec_width, 0, vec_width);
    constexpr float no_weight = 1e30F;
    sum[v] = keep_or(get_first(t.sums + row + v * vec_width, some), no_weight, First{some}) * splat(log2_of_e);
    for (int64_t d = 0; d < Depth; ++d) {
      const int64_t at = d * query_block + v * vec_width;
      const Vec of = load_some(dy + at, static_cast<int>(some));
      store(dy + at, of);
      delta[v] = mul_add(of, load(turned + at), delta[v]);
    }
  }
  put_query_tiles<Depth>(q, s.q_tiles);
  put_query_tiles<Depth>(dy, s.dy_tiles, drop ? t.drop->factor : 1.0F);
  multiply_keys<Depth>(packed.scores, s.q_tiles, keys, s.scores);
  multiply_keys<Depth>(packed.weights, s.dy_tiles, keys, s.dweights);
  uint16_t* const weight_rows = s.weights + block * keys * query_block;
  const __mmask32* const kept = s.kept + row / query_block % drawn_blocks * keys;
  uint16_t* const dscore_rows = s.dscores + block * keys * query_block;
  for (int64_t key = 0; key < keys; key += 2) {
    Row dscores[2];
    for (int64_t j = 0; j < 2; ++j) {
      const int64_t at = (key + j) * query_block;
      Vec weight[2], dscore[2];
      const __mmask32 lanes = drop ? kept[key + j] : all_kept;
      for (int64_t v = 0; v < 2; ++v) {
        const int64_t lane = at + v * vec_width;
        weight[v] = power_of_two<split>(load(s.scores + lane) - sum[v]);
        const Vec d = load(s.dweights + lane);
        dscore[v] = weight[v] * _mm512_mask_sub_ps(-delta[v], static_cast<__mmask16>(lanes >> (v * vec_width)), d, delta[v]);
      }
      const Row weights = row_of<split>(weight[0], weight[1], lanes);
      dscores[j] = row_of<split>(dscore[0], dscore[1]);
      _mm512_storeu_si512(weight_rows + at, weights.high);
      _mm512_storeu_si512(dscore_rows + at, dscores[j].high);
      if constexpr (split) {
        _mm512_storeu_si512(weight_rows + s.low + at, weights.low);
        _mm512_storeu_si512(dscore_rows + s.low + at, dscores[j].low);
      }
    }
    uint16_t* const to = s.dscore_pairs + (key / tile_keys * 2 * tile_rows + key % tile_keys / 2) * row_halves;
    put_pair(dscores[0].high, dscores[1].high, to);
    if constexpr (split) put_pair(dscores[0].low, dscores[1].low, to + s.pair_low);
  }
  add_values<Depth, split>(packed.keys, s.dscore_pairs, s.pair_low, keys, turned);
  put_block<Depth>(turned, count, t.dq + row * Depth, Depth, 1);
  put_query_rows<Depth>(q, s.q_rows + block * 2 * tile_halves);
  put_query_rows<Depth>(dy, s.dy_rows + block * 2 * tile_halves);
}

template <int Depth, bool split, bool drop>
void tile_gradient_rows(const NarrowAttentionGradArgs& t) {
  const int64_t keys = t.keys;
  const PackedTiles<Depth> packed(t.tiles, keys);
  const TileGradScratch<Depth, split> s(t.scratch, keys);
  for (int64_t i = 0; i < 2 * keys; ++i) store(s.dk + i * vec_width, zero());  // and dv
  tile_begin();
  for (int64_t first = 0; first < t.rows; first += most_blocks * query_block) {
    int64_t blocks = 0;
    if (drop && first / query_block % drawn_blocks == 0) put_all_kept(*t.drop, t.first_block, first, t.rows, keys, s.kept);
    for (int64_t row = first; row < std::min(t.rows, first + most_blocks * query_block); row += query_block)
      tile_query_gradients<Depth, split, drop>(t, packed, s, row, blocks++);
    add_queries<Depth, split>(s.dscores, s.low, s.q_rows, blocks, keys, s.dk);
    add_queries<Depth, split>(s.weights, s.low, s.dy_rows, blocks, keys, s.dv);
  }
  tile_end();
  const auto sum_at = [](const float* sums, int64_t key, int64_t d) {
    const float* const at = sums + key * vec_width + d;
    return Depth == 8 ? at[0] + at[Depth] : at[0];
  };
  for (int64_t key = 0; key < keys; ++key)
    for (int64_t d = 0; d < Depth; ++d) {
      t.dk[d * keys + key] = sum_at(s.dk, key, d);
      t.dv[key * Depth + d] = sum_at(s.dv, key, d) * (drop ? t.drop->factor : 1.0F);
    }
}

template <int Depth, bool split>
void tile_gradients(const NarrowAttentionGradArgs& t) {
  if (t.drop != nullptr) return tile_gradient_rows<Depth, split, true>(t);
  tile_gradient_rows<Depth, split, false>(t);
}

template <int Depth>
constexpr TileAttention tile_attention() {
  return {pack_tiles<Depth>, {attend_tiles<Depth, false>, attend_tiles<Depth, true>}, {tile_gradients<Depth, false>, tile_gradients<Depth, true>}};
}

}  // namespace
}  // namespace voxlab::cpu
