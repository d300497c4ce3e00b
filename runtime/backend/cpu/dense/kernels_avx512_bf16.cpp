// The blocks of the tile kernels in registers, for AVX512_BF16 without AMX: vdpbf16ps adds the products of two
// neighbouring bf16 to each f32 sum, twice the rate of f32 multiply-adds on Zen 4. Flags come from isa_flags.cmake.
#include "runtime/backend/cpu/dense/split_impl.h"

namespace voxlab::cpu {
namespace {

constexpr int most_rows = 12;  // 24 sums, 2 vectors of B and one of A fit the 32 registers
constexpr int64_t pairs_of_a_tile = amx_depth / 2;

// `Rows` rows from `a` on, times the columns of one or two tiles.
template <int Rows, int Vectors>
void block_rows(const AmxBlockArgs& t, const char* a, float* c) {
  __m512 sum[Rows][Vectors];
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v)
      sum[i][v] = t.accumulate ? _mm512_loadu_ps(c + i * amx_block_columns + v * vec_width) : _mm512_setzero_ps();
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* at = a + t.runs[r].a_bytes;
    const uint16_t* b = t.b.high + t.runs[r].b_row * Vectors * amx_tile;
    for (int64_t k = 0; k < t.depth_blocks; ++k, b += Vectors * amx_tile) {
      const int64_t pairs = k + 1 < t.depth_blocks ? pairs_of_a_tile : t.last_pairs;
      for (int64_t p = 0; p < pairs; ++p, at += sizeof(int32_t)) {
        __m512bh columns[Vectors];
#pragma GCC unroll 2
        for (int v = 0; v < Vectors; ++v)
          columns[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + v * amx_tile + p * amx_depth));
#pragma GCC unroll 16
        for (int i = 0; i < Rows; ++i) {
          int32_t pair;
          __builtin_memcpy(&pair, at + i * t.a_step, sizeof(pair));
          const auto row = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
#pragma GCC unroll 2
          for (int v = 0; v < Vectors; ++v) sum[i][v] = _mm512_dpbf16_ps(sum[i][v], row, columns[v]);
        }
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < Rows; ++i)
#pragma GCC unroll 2
    for (int v = 0; v < Vectors; ++v) _mm512_storeu_ps(c + i * amx_block_columns + v * vec_width, sum[i][v]);
}

using Rows = void (*)(const AmxBlockArgs&, const char*, float*);
template <int V>
constexpr Rows by_rows[most_rows] = {block_rows<1, V>, block_rows<2, V>,  block_rows<3, V>,  block_rows<4, V>,
                                     block_rows<5, V>, block_rows<6, V>,  block_rows<7, V>,  block_rows<8, V>,
                                     block_rows<9, V>, block_rows<10, V>, block_rows<11, V>, block_rows<12, V>};

// In even shares of the rows.
void block(const AmxBlockArgs& t) {
  if (t.fill != nullptr) fill_chunks(*t.fill, t.fill_chunks);
  const int64_t shares = (t.rows + most_rows - 1) / most_rows;
  for (int64_t i = 0; i < shares; ++i) {
    const int64_t from = t.rows * i / shares, count = t.rows * (i + 1) / shares - from;
    const auto run = t.column_tiles == 2 ? by_rows<2>[count - 1] : by_rows<1>[count - 1];
    run(t, reinterpret_cast<const char*>(t.a.high) + from * t.a_step, t.c + from * amx_block_columns);
  }
}

// One tile of C: a row of B serves its 16 rows, whose pairs of A are broadcast.
void add_tile(const uint16_t* a, const uint16_t* b, int64_t depth_blocks, bool accumulate, float* c) {
  __m512 sum[amx_rows];
#pragma GCC unroll 16
  for (int i = 0; i < amx_rows; ++i) sum[i] = accumulate ? _mm512_loadu_ps(c + i * amx_columns) : _mm512_setzero_ps();
  for (int64_t k = 0; k < depth_blocks; ++k, a += amx_tile, b += amx_tile) {
    for (int64_t p = 0; p < pairs_of_a_tile; ++p) {
      const auto row = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + p * amx_depth));
#pragma GCC unroll 16
      for (int i = 0; i < amx_rows; ++i) {
        int32_t pair;
        __builtin_memcpy(&pair, a + i * amx_depth + 2 * p, sizeof(pair));
        sum[i] = _mm512_dpbf16_ps(sum[i], reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair)), row);
      }
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < amx_rows; ++i) _mm512_storeu_ps(c + i * amx_columns, sum[i]);
}

void add_products(const AmxSumArgs& t) {
  for (int i = 0; i < t.rows; ++i)
    for (int j = 0; j < t.columns; ++j)
      for (int64_t s = 0; s < t.segments; ++s)
        add_tile(t.a.high + i * t.a_step + s * t.a_segment, t.b[s * t.columns + j], t.depth_blocks, t.accumulate || s > 0,
                 t.c + i * t.c_step + j * amx_rows * amx_columns);
}

void nothing() {}

}  // namespace

constexpr AmxTable kernels_avx512_bf16 = {2.0, nothing, nothing, block, add_products, turn_sums, store_sums, fill, pack, pack_turned, pack_strip, turn_strip};

}  // namespace voxlab::cpu
