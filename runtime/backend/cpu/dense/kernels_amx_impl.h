// The kernels on AMX tiles, real or emulated. Included once for each.
#pragma once

#include "runtime/backend/cpu/dense/amx_tile.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/split_impl.h"

namespace voxlab::cpu {
namespace {

// 0-3 sums, 4-5 A, 6-7 B.
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
      VOXLAB_TILE_LOAD(6, b, b_row_bytes);
      VOXLAB_TILE_LOAD(4, a0, step);
      VOXLAB_TILE_MULTIPLY(0, 4, 6);
      if (two_rows) {
        VOXLAB_TILE_LOAD(5, a1, step);
        VOXLAB_TILE_MULTIPLY(1, 5, 6);
      }
      if (two_columns) {
        VOXLAB_TILE_LOAD(7, b + amx_tile, b_row_bytes);
        VOXLAB_TILE_MULTIPLY(2, 4, 7);
        if (two_rows) VOXLAB_TILE_MULTIPLY(3, 5, 7);
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
      VOXLAB_TILE_LOAD(4, a0, step);
      VOXLAB_TILE_LOAD(5, a0 + low_a, step);
      VOXLAB_TILE_LOAD(6, b0, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(0, 4, 6);
      VOXLAB_TILE_MULTIPLY(0, 5, 6);
      VOXLAB_TILE_LOAD(7, b0 + low_b, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(0, 4, 7);
      if (two_columns) {
        VOXLAB_TILE_LOAD(6, b1, b_row_bytes);
        VOXLAB_TILE_MULTIPLY(2, 4, 6);
        VOXLAB_TILE_MULTIPLY(2, 5, 6);
        VOXLAB_TILE_LOAD(7, b1 + low_b, b_row_bytes);
        VOXLAB_TILE_MULTIPLY(2, 4, 7);
      }
      if (two_rows) {
        // Columns in reverse: the tiles of the last ones are still loaded.
        VOXLAB_TILE_LOAD(4, a1, step);
        VOXLAB_TILE_LOAD(5, a1 + low_a, step);
        if (two_columns) {
          VOXLAB_TILE_MULTIPLY(3, 4, 6);
          VOXLAB_TILE_MULTIPLY(3, 5, 6);
          VOXLAB_TILE_MULTIPLY(3, 4, 7);
          VOXLAB_TILE_LOAD(6, b0, b_row_bytes);
          VOXLAB_TILE_LOAD(7, b0 + low_b, b_row_bytes);
        }
        VOXLAB_TILE_MULTIPLY(1, 4, 6);
        VOXLAB_TILE_MULTIPLY(1, 5, 6);
        VOXLAB_TILE_MULTIPLY(1, 4, 7);
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
  VOXLAB_TILE_ZERO(0);
  VOXLAB_TILE_ZERO(1);
  VOXLAB_TILE_ZERO(2);
  VOXLAB_TILE_ZERO(3);
  if (t.a.low == nullptr) {
    block_bf16(t);
  } else {
    block_split(t);
  }
  VOXLAB_TILE_STORE(0, t.c, c_step);
  if (t.row_tiles == 2) VOXLAB_TILE_STORE(1, t.c + amx_rows * amx_block_columns, c_step);
  if (t.column_tiles == 2) {
    VOXLAB_TILE_STORE(2, t.c + amx_columns, c_step);
    if (t.row_tiles == 2) {
      VOXLAB_TILE_STORE(3, t.c + amx_rows * amx_block_columns + amx_columns, c_step);
    }
  }
  __asm__ volatile("" ::: "memory");
}

constexpr AmxTable make_amx_table() {
  // A tile product does 16 x 16 x 32 multiply-adds in the time of about 36 vector ones.
  return {14.0, tile_begin, tile_end, block, store_sums, split, copy, pack};
}

}  // namespace
}  // namespace voxlab::cpu
