// The eight AMX tiles, 16 rows of 64 bytes each: the instructions themselves, or with VOXLAB_EMULATE_TILES plain
// code that computes what they do, so that every AVX-512 machine can test the kernels built on them. Tile numbers
// are literals. Included once per instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#include <immintrin.h>

namespace voxlab::cpu {
namespace {

#if !defined(VOXLAB_EMULATE_TILES)

struct alignas(64) TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t bytes_per_row[16];
  uint8_t rows[16];
};

void tile_begin() {
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

void tile_end() { _tile_release(); }

#define VOXLAB_TILE_ZERO(tile) _tile_zero(tile)
#define VOXLAB_TILE_LOAD(tile, from, step) _tile_loadd(tile, from, step)
#define VOXLAB_TILE_STORE(tile, to, step) _tile_stored(tile, to, step)
#define VOXLAB_TILE_MULTIPLY(sum, a, b) _tile_dpbf16ps(sum, a, b)

#else

struct alignas(64) Tile {
  uint32_t word[16][16];
};

thread_local Tile tiles[8];
thread_local bool configured = false;

void tile_begin() {
  configured = true;
  std::memset(tiles, 0, sizeof(tiles));
}

void tile_end() { configured = false; }

// An instruction without a configuration faults.
Tile& tile_at(int number) {
  if (!configured) __builtin_trap();
  return tiles[number];
}

void tile_zero(int tile) { std::memset(&tile_at(tile), 0, sizeof(Tile)); }

void tile_load(int tile, const void* from, int64_t step) {
  Tile& t = tile_at(tile);
  for (int64_t row = 0; row < 16; ++row) std::memcpy(t.word[row], static_cast<const char*>(from) + row * step, 64);
}

void tile_store(int tile, void* to, int64_t step) {
  const Tile& t = tile_at(tile);
  for (int64_t row = 0; row < 16; ++row) std::memcpy(static_cast<char*>(to) + row * step, t.word[row], 64);
}

// TDPBF16PS: the even and the odd values of K have fused sums of their own, added to the tile at the end.
__attribute__((noinline)) void multiply(Tile& sum, const Tile& a, const Tile& b) {
  constexpr int lanes = 8, block = 4;  // columns and rows whose sums fit the registers of AVX2
  alignas(64) float a_even[16][16], a_odd[16][16];
  for (int m = 0; m < 16; ++m) {
    for (int k = 0; k < 16; ++k) {
      a_even[m][k] = __builtin_bit_cast(float, a.word[m][k] << 16);
      a_odd[m][k] = __builtin_bit_cast(float, a.word[m][k] & 0xffff0000U);
    }
  }
  const __m256i high = _mm256_set1_epi32(static_cast<int>(0xffff0000U));
  for (int n = 0; n < 16; n += lanes) {
    for (int m = 0; m < 16; m += block) {
      __m256 even[block] = {}, odd[block] = {};
      for (int k = 0; k < 16; ++k) {
        const __m256i pairs = _mm256_load_si256(reinterpret_cast<const __m256i*>(&b.word[k][n]));
        const __m256 b_even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
        const __m256 b_odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, high));
#pragma GCC unroll 4
        for (int i = 0; i < block; ++i) {
          even[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(&a_even[m + i][k]), b_even, even[i]);
          odd[i] = _mm256_fmadd_ps(_mm256_broadcast_ss(&a_odd[m + i][k]), b_odd, odd[i]);
        }
      }
      for (int i = 0; i < block; ++i) {
        float* const to = reinterpret_cast<float*>(&sum.word[m + i][n]);
        _mm256_store_ps(to, _mm256_add_ps(_mm256_load_ps(to), _mm256_add_ps(even[i], odd[i])));
      }
    }
  }
}

// Rounded to nearest even, denormals taken and given as zero, whatever the thread's mode is.
void tile_multiply(int sum, int a, int b) {
  constexpr unsigned nearest_and_flushed = 0x1f80U | 0x8040U;  // all exceptions masked, FTZ and DAZ
  const unsigned mode = _mm_getcsr();
  _mm_setcsr(nearest_and_flushed);
  multiply(tile_at(sum), tile_at(a), tile_at(b));
  _mm_setcsr(mode);
}

#define VOXLAB_TILE_ZERO(tile) tile_zero(tile)
#define VOXLAB_TILE_LOAD(tile, from, step) tile_load(tile, from, step)
#define VOXLAB_TILE_STORE(tile, to, step) tile_store(tile, to, step)
#define VOXLAB_TILE_MULTIPLY(sum, a, b) tile_multiply(sum, a, b)

#endif

}  // namespace
}  // namespace voxlab::cpu
