// AMX kernels, built for amx-bf16 and avx512; flags come from isa_flags.cmake.
#include "runtime/backend/cpu/dense/kernels_amx.h"

#include "runtime/backend/cpu/dense/vec.h"

namespace voxlab::cpu {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t bytes_per_row[16];
  uint8_t rows[16];
};

// All eight tiles 16 x 64 bytes: 0-3 sums, 4-5 A, 6-7 B.
void begin() {
  TileConfig config = {};
  config.palette = 1;
  for (int i = 0; i < 8; ++i) {
    config.bytes_per_row[i] = 64;
    config.rows[i] = 16;
  }
  // GCC 12 declares only the first word as read.
  __asm__ volatile("" : : "r"(&config) : "memory");
  _tile_loadconfig(&config);
}

void end() { _tile_release(); }

constexpr int64_t b_row_bytes = 64;

// Tile numbers must be literals. The compiler does not know that tile loads read memory, hence the
// barriers around a block's sums (GCC 12 gives the loads no memory clobber).
void block_bf16(const AmxBlockArgs& t) {
  const bool two_rows = t.row_tiles == 2;
  const bool two_columns = t.column_tiles == 2;
  const int64_t step = t.a_step;
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* a0 = reinterpret_cast<const char*>(t.a.high) + t.runs[r].a_bytes;
    const char* a1 = a0 + amx_rows * step;
    const uint16_t* b = t.b.high + t.runs[r].b_row * t.column_tiles * amx_tile;
    for (int64_t k = 0; k < t.depth_blocks; ++k) {
      _tile_loadd(6, b, b_row_bytes);
      _tile_loadd(4, a0, step);
      _tile_dpbf16ps(0, 4, 6);
      if (two_rows) {
        _tile_loadd(5, a1, step);
        _tile_dpbf16ps(1, 5, 6);
      }
      if (two_columns) {
        _tile_loadd(7, b + amx_tile, b_row_bytes);
        _tile_dpbf16ps(2, 4, 7);
        if (two_rows) _tile_dpbf16ps(3, 5, 7);
      }
      a0 += 2 * amx_depth;
      a1 += 2 * amx_depth;
      b += t.column_tiles * amx_tile;
    }
  }
}

// high * high + high * low + low * high; low * low is below f32 rounding.
void block_split(const AmxBlockArgs& t) {
  const bool two_rows = t.row_tiles == 2;
  const bool two_columns = t.column_tiles == 2;
  const int64_t step = t.a_step;
  const int64_t low_a =
      reinterpret_cast<const char*>(t.a.low) - reinterpret_cast<const char*>(t.a.high);
  const int64_t low_b = t.b.low - t.b.high;
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* a0 = reinterpret_cast<const char*>(t.a.high) + t.runs[r].a_bytes;
    const char* a1 = a0 + amx_rows * step;
    const uint16_t* b0 = t.b.high + t.runs[r].b_row * t.column_tiles * amx_tile;
    for (int64_t k = 0; k < t.depth_blocks; ++k) {
      const uint16_t* b1 = b0 + amx_tile;
      _tile_loadd(4, a0, step);
      _tile_loadd(5, a0 + low_a, step);
      _tile_loadd(6, b0, b_row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(0, 5, 6);
      _tile_loadd(7, b0 + low_b, b_row_bytes);
      _tile_dpbf16ps(0, 4, 7);
      if (two_columns) {
        _tile_loadd(6, b1, b_row_bytes);
        _tile_dpbf16ps(2, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
        _tile_loadd(7, b1 + low_b, b_row_bytes);
        _tile_dpbf16ps(2, 4, 7);
      }
      if (two_rows) {
        // Columns in reverse: the tiles of the last ones are still loaded.
        _tile_loadd(4, a1, step);
        _tile_loadd(5, a1 + low_a, step);
        if (two_columns) {
          _tile_dpbf16ps(3, 4, 6);
          _tile_dpbf16ps(3, 5, 6);
          _tile_dpbf16ps(3, 4, 7);
          _tile_loadd(6, b0, b_row_bytes);
          _tile_loadd(7, b0 + low_b, b_row_bytes);
        }
        _tile_dpbf16ps(1, 4, 6);
        _tile_dpbf16ps(1, 5, 6);
        _tile_dpbf16ps(1, 4, 7);
      }
      a0 += 2 * amx_depth;
      a1 += 2 * amx_depth;
      b0 += t.column_tiles * amx_tile;
    }
  }
}

void block(const AmxBlockArgs& t) {
  constexpr int64_t c_step = amx_block_columns * static_cast<int64_t>(sizeof(float));
  __asm__ volatile("" ::: "memory");
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  if (t.a.low == nullptr) {
    block_bf16(t);
  } else {
    block_split(t);
  }
  _tile_stored(0, t.c, c_step);
  if (t.row_tiles == 2) _tile_stored(1, t.c + amx_rows * amx_block_columns, c_step);
  if (t.column_tiles == 2) {
    _tile_stored(2, t.c + amx_columns, c_step);
    if (t.row_tiles == 2) {
      _tile_stored(3, t.c + amx_rows * amx_block_columns + amx_columns, c_step);
    }
  }
  __asm__ volatile("" ::: "memory");
}

using Words = uint32_t __attribute__((vector_size(64)));

// Upper half of each lane rounded to nearest even, in the lower half of the lane.
VOXLAB_INLINE Words round_bf16(Vec v) {
  const Words bits = reinterpret_cast<Words>(v);
  return (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
}

VOXLAB_INLINE Vec widen(Words halves) { return reinterpret_cast<Vec>(halves << 16); }

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

bool split(const float* in, int64_t n, uint16_t* high, uint16_t* low) {
  bool finite = true;
  for (int64_t i = 0; i < n; i += vec_width) {
    const int count = n - i < vec_width ? static_cast<int>(n - i) : vec_width;
    const Vec v = load_first(in + i, count);
    const Words top = round_bf16(v);
    finite &= finite_halves(top);
    store_halves(high + i, top, count);
    if (low != nullptr) store_halves(low + i, round_bf16(v - widen(top)), count);
  }
  return finite;
}

bool copy(const uint16_t* in, int64_t n, uint16_t* high) {
  constexpr int64_t step = 32;
  __mmask32 bad = 0;
  const __m512i exponent = _mm512_set1_epi16(0x7f80);
  for (int64_t i = 0; i < n; i += step) {
    const int64_t left = n - i;
    const __mmask32 lanes =
        left >= step ? ~__mmask32{0} : static_cast<__mmask32>((uint32_t{1} << left) - 1U);
    const __m512i v = _mm512_maskz_loadu_epi16(lanes, in + i);
    bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(v, exponent), exponent);
    _mm512_mask_storeu_epi16(high + i, lanes, v);
  }
  return bad == 0;
}

// Word j of row r holds K = 2r in its lower and K = 2r + 1 in its upper half.
bool pack(const float* in, int64_t rows, int64_t pitch, uint16_t* high, uint16_t* low) {
  bool finite = true;
  for (int64_t r = 0; r < amx_depth / 2; ++r) {
    const Vec even = 2 * r < rows ? load(in + 2 * r * pitch) : zero();
    const Vec odd = 2 * r + 1 < rows ? load(in + (2 * r + 1) * pitch) : zero();
    const Words even_top = round_bf16(even);
    const Words odd_top = round_bf16(odd);
    finite &= finite_halves(even_top) && finite_halves(odd_top);
    _mm512_storeu_si512(high + r * amx_depth,
                        reinterpret_cast<__m512i>(even_top | (odd_top << 16)));
    if (low == nullptr) continue;
    const Words even_rest = round_bf16(even - widen(even_top));
    const Words odd_rest = round_bf16(odd - widen(odd_top));
    _mm512_storeu_si512(low + r * amx_depth,
                        reinterpret_cast<__m512i>(even_rest | (odd_rest << 16)));
  }
  return finite;
}

void store_sums(const AmxStoreArgs& t) {
  for (int c = 0; c < t.columns; c += vec_width) {
    const int count = t.columns - c < vec_width ? t.columns - c : vec_width;
    Vec v = load(t.sums + c);
    if (t.bias != nullptr) v += load_first(t.bias + c, count);
    if (t.activation != 0) v = activate(v, t.activation, splat(t.slope));
    if (t.out != nullptr) {
      store_first(t.out + c, v, count);
    } else {
      store_halves(t.out_bf16 + c, round_bf16(v), count);
    }
  }
}

}  // namespace

constexpr AmxTable kernels_amx = {begin, end, block, store_sums, split, copy, pack};

}  // namespace voxlab::cpu
