// The kernels on AMX tiles, real or emulated. Included once for each.
#pragma once

#include <algorithm>

#include "runtime/backend/cpu/dense/amx_tile.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/split_impl.h"

namespace voxlab::cpu {
namespace {

// 0-3 sums, 4-5 A, 6-7 B; of blocks of six tiles 0-5 sums, 6 A, 7 B. Tile numbers must be literals. The compiler does not know that tile loads read memory, hence
// the barriers around a block's sums (GCC 12 gives the loads no memory clobber).
constexpr int64_t b_row_bytes = 64;
constexpr int64_t c_row_bytes = amx_block_columns * static_cast<int64_t>(sizeof(float));

// A core whose tiles are not stored for 0.6 us takes 0.3 us for the next such store (0017), so one is made, of no use, every
// so many steps along K.
constexpr int64_t steps_awake = 4;

// Memory brought to the second-level cache, a share with each step along K; with `low` as much again so far on.
class Fetch {
 public:
  Fetch(const char* at, int64_t bytes, int64_t low, int64_t steps)
      : at_(at), end_(at + bytes), low_(low), share_((bytes / 64 + steps) / steps * 64) {}
  __attribute__((always_inline)) void some() {
    const char* const to = at_ + share_ < end_ ? at_ + share_ : end_;
    for (; at_ < to; at_ += 64) {
      __builtin_prefetch(at_, 0, 2);
      if (low_ != 0) __builtin_prefetch(at_ + low_, 0, 2);
    }
  }

 private:
  const char* at_;
  const char* end_;
  int64_t low_, share_;
};

// What goes on while tiles multiply: with each step along K a share of lines of the block's output and of a later one's
// input is brought, every so many steps some input converted.
class Meanwhile {
  static constexpr int64_t burst = 8;  // chunks converted at a time, for to begin and end takes as long as two or three

 public:
  explicit Meanwhile(const AmxBlockArgs& t)
      : at_(t.out), step_(t.out_step), lines_(t.out_lines), next_(t.next, t.next_bytes, t.next_low, steps_of(t)), fill_(t.fill) {
    const int64_t steps = steps_of(t);
    if (at_ != nullptr) {
      end_ = at_ + t.rows * step_;
      share_ = (t.rows + steps - 1) / steps;
    }
    if (fill_ == nullptr) return;
    state_ = *fill_;
    chunks_ = t.fill_chunks;
    every_ = std::max<int64_t>(1, burst * steps / std::max<int64_t>(1, chunks_));
    until_ = every_;
    fill_share_ = (every_ * chunks_ + steps - 1) / steps;
  }
  ~Meanwhile() {
    if (fill_ == nullptr) return;
    fill_chunks(state_, chunks_);
    *fill_ = state_;
  }
  Meanwhile(const Meanwhile&) = delete;
  Meanwhile& operator=(const Meanwhile&) = delete;

  __attribute__((always_inline)) void some() {
    if (++steps_ % steps_awake == 0) VOXLAB_TILE_STORE(7, unread_, 0);
    next_.some();
    for (int64_t i = 0; i < share_ && at_ < end_; ++i, at_ += step_) {
      for (int line = 0; line < lines_; ++line) __builtin_prefetch(at_ + 64 * line, 1, 2);
    }
    if (--until_ > 0) return;
    until_ = every_;
    const int64_t now = fill_share_ < chunks_ ? fill_share_ : chunks_;
    fill_chunks(state_, now);
    chunks_ -= now;
  }

 private:
  static int64_t steps_of(const AmxBlockArgs& t) { return std::max<int64_t>(1, t.run_count * t.depth_blocks); }

  const char* at_;
  const char* end_ = nullptr;
  int64_t step_, share_ = 0;
  int lines_;
  Fetch next_;
  AmxFill* fill_;
  AmxFill state_ = {};
  int64_t chunks_ = 0, fill_share_ = 0, every_ = INT64_MAX, until_ = INT64_MAX, steps_ = 0;
  alignas(64) char unread_[64];
};

// Up to 3 x 2 tiles: 0 to 2 the sums of the first column, 3 to 5 of the second. Rows in reverse there: the last tile of A is
// still loaded.
void wide_bf16(const AmxBlockArgs& t, int64_t row_tiles) {
  const int64_t step = t.a_step;
  Meanwhile meanwhile(t);
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* a = reinterpret_cast<const char*>(t.a.high) + t.runs[r].a_bytes;
    const uint16_t* b = t.b.high + t.runs[r].b_row * 2 * amx_tile;
    for (int64_t k = 0; k < t.depth_blocks; ++k) {
      meanwhile.some();
      VOXLAB_TILE_LOAD(7, b, b_row_bytes);
      VOXLAB_TILE_LOAD(6, a, step);
      VOXLAB_TILE_MULTIPLY(0, 6, 7);
      if (row_tiles > 1) {
        VOXLAB_TILE_LOAD(6, a + amx_rows * step, step);
        VOXLAB_TILE_MULTIPLY(1, 6, 7);
      }
      if (row_tiles > 2) {
        VOXLAB_TILE_LOAD(6, a + 2 * amx_rows * step, step);
        VOXLAB_TILE_MULTIPLY(2, 6, 7);
      }
      VOXLAB_TILE_LOAD(7, b + amx_tile, b_row_bytes);
      if (row_tiles > 2) {
        VOXLAB_TILE_MULTIPLY(5, 6, 7);
        VOXLAB_TILE_LOAD(6, a + amx_rows * step, step);
      }
      if (row_tiles > 1) {
        VOXLAB_TILE_MULTIPLY(4, 6, 7);
        VOXLAB_TILE_LOAD(6, a, step);
      }
      VOXLAB_TILE_MULTIPLY(3, 6, 7);
      a += 2 * amx_depth;
      b += 2 * amx_tile;
    }
  }
}

// high * high + high * low + low * high; low * low is below f32 rounding.
void wide_split(const AmxBlockArgs& t, int64_t row_tiles) {
  const bool two_rows = row_tiles == 2;
  const int64_t step = t.a_step;
  Meanwhile meanwhile(t);
  const int64_t low_a = reinterpret_cast<const char*>(t.a.low) - reinterpret_cast<const char*>(t.a.high);
  const int64_t low_b = t.b.low - t.b.high;
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* a0 = reinterpret_cast<const char*>(t.a.high) + t.runs[r].a_bytes;
    const char* a1 = a0 + amx_rows * step;
    const uint16_t* b0 = t.b.high + t.runs[r].b_row * 2 * amx_tile;
    for (int64_t k = 0; k < t.depth_blocks; ++k) {
      meanwhile.some();
      const uint16_t* b1 = b0 + amx_tile;
      VOXLAB_TILE_LOAD(4, a0, step);
      VOXLAB_TILE_LOAD(5, a0 + low_a, step);
      VOXLAB_TILE_LOAD(6, b0, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(0, 4, 6);
      VOXLAB_TILE_MULTIPLY(0, 5, 6);
      VOXLAB_TILE_LOAD(7, b0 + low_b, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(0, 4, 7);
      VOXLAB_TILE_LOAD(6, b1, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(1, 4, 6);
      VOXLAB_TILE_MULTIPLY(1, 5, 6);
      VOXLAB_TILE_LOAD(7, b1 + low_b, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(1, 4, 7);
      if (two_rows) {
        // Columns in reverse: the tiles of the last ones are still loaded.
        VOXLAB_TILE_LOAD(4, a1, step);
        VOXLAB_TILE_LOAD(5, a1 + low_a, step);
        VOXLAB_TILE_MULTIPLY(3, 4, 6);
        VOXLAB_TILE_MULTIPLY(3, 5, 6);
        VOXLAB_TILE_MULTIPLY(3, 4, 7);
        VOXLAB_TILE_LOAD(6, b0, b_row_bytes);
        VOXLAB_TILE_LOAD(7, b0 + low_b, b_row_bytes);
        VOXLAB_TILE_MULTIPLY(2, 4, 6);
        VOXLAB_TILE_MULTIPLY(2, 5, 6);
        VOXLAB_TILE_MULTIPLY(2, 4, 7);
      }
      a0 += 2 * amx_depth;
      a1 += 2 * amx_depth;
      b0 += 2 * amx_tile;
    }
  }
}

// Up to 4 x 1 tiles.
void narrow_bf16(const AmxBlockArgs& t, int64_t row_tiles) {
  const int64_t step = t.a_step;
  Meanwhile meanwhile(t);
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* a = reinterpret_cast<const char*>(t.a.high) + t.runs[r].a_bytes;
    const uint16_t* b = t.b.high + t.runs[r].b_row * amx_tile;
    for (int64_t k = 0; k < t.depth_blocks; ++k) {
      meanwhile.some();
      VOXLAB_TILE_LOAD(6, b, b_row_bytes);
      VOXLAB_TILE_LOAD(4, a, step);
      VOXLAB_TILE_MULTIPLY(0, 4, 6);
      if (row_tiles > 1) {
        VOXLAB_TILE_LOAD(5, a + amx_rows * step, step);
        VOXLAB_TILE_MULTIPLY(1, 5, 6);
      }
      if (row_tiles > 2) {
        VOXLAB_TILE_LOAD(4, a + 2 * amx_rows * step, step);
        VOXLAB_TILE_MULTIPLY(2, 4, 6);
      }
      if (row_tiles > 3) {
        VOXLAB_TILE_LOAD(5, a + 3 * amx_rows * step, step);
        VOXLAB_TILE_MULTIPLY(3, 5, 6);
      }
      a += 2 * amx_depth;
      b += amx_tile;
    }
  }
}

void narrow_split(const AmxBlockArgs& t, int64_t row_tiles) {
  const int64_t step = t.a_step;
  Meanwhile meanwhile(t);
  const int64_t low_a = reinterpret_cast<const char*>(t.a.low) - reinterpret_cast<const char*>(t.a.high);
  const int64_t low_b = t.b.low - t.b.high;
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* a = reinterpret_cast<const char*>(t.a.high) + t.runs[r].a_bytes;
    const uint16_t* b = t.b.high + t.runs[r].b_row * amx_tile;
    for (int64_t k = 0; k < t.depth_blocks; ++k) {
      meanwhile.some();
      VOXLAB_TILE_LOAD(6, b, b_row_bytes);
      VOXLAB_TILE_LOAD(7, b + low_b, b_row_bytes);
#define VOXLAB_NARROW_ROW(row)                                      \
  if (row_tiles > row) {                                            \
    VOXLAB_TILE_LOAD(4, a + row * amx_rows * step, step);           \
    VOXLAB_TILE_MULTIPLY(row, 4, 6);                                \
    VOXLAB_TILE_LOAD(5, a + row * amx_rows * step + low_a, step);   \
    VOXLAB_TILE_MULTIPLY(row, 4, 7);                                \
    VOXLAB_TILE_MULTIPLY(row, 5, 6);                                \
  }
      VOXLAB_NARROW_ROW(0)
      VOXLAB_NARROW_ROW(1)
      VOXLAB_NARROW_ROW(2)
      VOXLAB_NARROW_ROW(3)
#undef VOXLAB_NARROW_ROW
      a += 2 * amx_depth;
      b += amx_tile;
    }
  }
}

// Up to 2 x 3 tiles. Only the first use of a tile of B waits for the second-level cache.
void triple_bf16(const AmxBlockArgs& t, int64_t row_tiles) {
  const bool two_rows = row_tiles == 2;
  const int64_t step = t.a_step;
  Meanwhile meanwhile(t);
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* a = reinterpret_cast<const char*>(t.a.high) + t.runs[r].a_bytes;
    const uint16_t* b = t.b.high + t.runs[r].b_row * 3 * amx_tile;
    for (int64_t k = 0; k < t.depth_blocks; ++k) {
      meanwhile.some();
      VOXLAB_TILE_LOAD(6, a, step);
      VOXLAB_TILE_LOAD(7, b, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(0, 6, 7);
      VOXLAB_TILE_LOAD(7, b + amx_tile, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(1, 6, 7);
      VOXLAB_TILE_LOAD(7, b + 2 * amx_tile, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(2, 6, 7);
      if (two_rows) {
        VOXLAB_TILE_LOAD(6, a + amx_rows * step, step);
        VOXLAB_TILE_MULTIPLY(5, 6, 7);
        VOXLAB_TILE_LOAD(7, b + amx_tile, b_row_bytes);
        VOXLAB_TILE_MULTIPLY(4, 6, 7);
        VOXLAB_TILE_LOAD(7, b, b_row_bytes);
        VOXLAB_TILE_MULTIPLY(3, 6, 7);
      }
      a += 2 * amx_depth;
      b += 3 * amx_tile;
    }
  }
}

void triple_split(const AmxBlockArgs& t, int64_t row_tiles) {
  const bool two_rows = row_tiles == 2;
  const int64_t step = t.a_step;
  Meanwhile meanwhile(t);
  const int64_t low_a = reinterpret_cast<const char*>(t.a.low) - reinterpret_cast<const char*>(t.a.high);
  const int64_t low_b = t.b.low - t.b.high;
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* a = reinterpret_cast<const char*>(t.a.high) + t.runs[r].a_bytes;
    const uint16_t* b = t.b.high + t.runs[r].b_row * 3 * amx_tile;
    for (int64_t k = 0; k < t.depth_blocks; ++k) {
      meanwhile.some();
      // Three sums of one row of tiles: high by high and low, then low by high, columns in reverse.
#define VOXLAB_TRIPLE_ROW(at, s0, s1, s2)                     \
  VOXLAB_TILE_LOAD(6, at, step);                              \
  VOXLAB_TILE_LOAD(7, b + low_b, b_row_bytes);                \
  VOXLAB_TILE_MULTIPLY(s0, 6, 7);                             \
  VOXLAB_TILE_LOAD(7, b + low_b + amx_tile, b_row_bytes);     \
  VOXLAB_TILE_MULTIPLY(s1, 6, 7);                             \
  VOXLAB_TILE_LOAD(7, b + low_b + 2 * amx_tile, b_row_bytes); \
  VOXLAB_TILE_MULTIPLY(s2, 6, 7);                             \
  VOXLAB_TILE_LOAD(7, b, b_row_bytes);                        \
  VOXLAB_TILE_MULTIPLY(s0, 6, 7);                             \
  VOXLAB_TILE_LOAD(7, b + amx_tile, b_row_bytes);             \
  VOXLAB_TILE_MULTIPLY(s1, 6, 7);                             \
  VOXLAB_TILE_LOAD(7, b + 2 * amx_tile, b_row_bytes);         \
  VOXLAB_TILE_MULTIPLY(s2, 6, 7);                             \
  VOXLAB_TILE_LOAD(6, (at) + low_a, step);                    \
  VOXLAB_TILE_MULTIPLY(s2, 6, 7);                             \
  VOXLAB_TILE_LOAD(7, b + amx_tile, b_row_bytes);             \
  VOXLAB_TILE_MULTIPLY(s1, 6, 7);                             \
  VOXLAB_TILE_LOAD(7, b, b_row_bytes);                        \
  VOXLAB_TILE_MULTIPLY(s0, 6, 7);
      VOXLAB_TRIPLE_ROW(a, 0, 1, 2)
      if (two_rows) {
        VOXLAB_TRIPLE_ROW(a + amx_rows * step, 3, 4, 5)
      }
#undef VOXLAB_TRIPLE_ROW
      a += 2 * amx_depth;
      b += 3 * amx_tile;
    }
  }
}

void block(const AmxBlockArgs& t) {
  const int64_t row_tiles = (t.rows + amx_rows - 1) / amx_rows;
  const bool split = t.a.low != nullptr, tall = t.column_tiles == 2 && !split;
  // Where the sums of each tile lie, or null: row after row of tiles, in tall blocks column after column.
  float* sums[6] = {};
  for (int64_t row = 0; row < row_tiles; ++row)
    for (int column = 0; column < t.column_tiles; ++column)
      sums[tall ? 3 * column + row : row * t.column_tiles + column] =
          t.c + row * amx_rows * amx_block_columns + column * amx_columns;
#define VOXLAB_EACH_SUM(action) \
  action(0) action(1) action(2) action(3) action(4) action(5)
#define VOXLAB_LOAD_SUM(tile) \
  if (sums[tile] != nullptr) VOXLAB_TILE_LOAD(tile, sums[tile], c_row_bytes);
#define VOXLAB_ZERO_SUM(tile) VOXLAB_TILE_ZERO(tile);
#define VOXLAB_STORE_SUM(tile) \
  if (sums[tile] != nullptr) VOXLAB_TILE_STORE(tile, sums[tile], c_row_bytes);
  __asm__ volatile("" ::: "memory");
  if (t.accumulate) {
    VOXLAB_EACH_SUM(VOXLAB_LOAD_SUM)
  } else {
    VOXLAB_EACH_SUM(VOXLAB_ZERO_SUM)
  }
  switch (t.column_tiles) {
    case 1: (split ? narrow_split : narrow_bf16)(t, row_tiles); break;
    case 2: (split ? wide_split : wide_bf16)(t, row_tiles); break;
    default: (split ? triple_split : triple_bf16)(t, row_tiles); break;
  }
  VOXLAB_EACH_SUM(VOXLAB_STORE_SUM)
  __asm__ volatile("" ::: "memory");
#undef VOXLAB_EACH_SUM
#undef VOXLAB_LOAD_SUM
#undef VOXLAB_ZERO_SUM
#undef VOXLAB_STORE_SUM
}

// One row of tiles, up to four columns.
void add_row(const AmxSumArgs& t, const AmxParts& a, const uint16_t* const* b, Fetch& fetch) {
  const bool split = t.a.low != nullptr;
  for (int64_t k = 0; k < t.depth_blocks; ++k) {
    fetch.some();
    if ((k + 1) % steps_awake == 0) VOXLAB_TILE_STORE(7, t.c, 0);  // whose sums are in tiles
    const int64_t at = k * amx_tile;
    VOXLAB_TILE_LOAD(4, a.high + at, b_row_bytes);
    if (split) VOXLAB_TILE_LOAD(5, a.low + at, b_row_bytes);
#define VOXLAB_ADD_COLUMN(column)                                      \
  if (t.columns > column) {                                            \
    VOXLAB_TILE_LOAD(6, b[column] + at, b_row_bytes);                  \
    VOXLAB_TILE_MULTIPLY(column, 4, 6);                                \
    if (split) {                                                       \
      VOXLAB_TILE_MULTIPLY(column, 5, 6);                              \
      VOXLAB_TILE_LOAD(7, b[column] + at + t.b_low, b_row_bytes);      \
      VOXLAB_TILE_MULTIPLY(column, 4, 7);                              \
    }                                                                  \
  }
    VOXLAB_ADD_COLUMN(0)
    VOXLAB_ADD_COLUMN(1)
    VOXLAB_ADD_COLUMN(2)
    VOXLAB_ADD_COLUMN(3)
#undef VOXLAB_ADD_COLUMN
  }
}

// Two rows of tiles, up to two columns: sums 0 and 1 of the first row, 2 and 3 of the second.
void add_two_rows(const AmxSumArgs& t, const AmxParts& a, const uint16_t* const* b, Fetch& fetch) {
  const bool split = t.a.low != nullptr;
  const bool two_columns = t.columns == 2;
  for (int64_t k = 0; k < t.depth_blocks; ++k) {
    fetch.some();
    if ((k + 1) % steps_awake == 0) VOXLAB_TILE_STORE(7, t.c, 0);  // whose sums are in tiles
    const uint16_t* a0 = a.high + k * amx_tile;
    const uint16_t* b0 = b[0] + k * amx_tile;
    const uint16_t* b1 = two_columns ? b[1] + k * amx_tile : b0;
    if (!split) {
      VOXLAB_TILE_LOAD(4, a0, b_row_bytes);
      VOXLAB_TILE_LOAD(6, b0, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(0, 4, 6);
      VOXLAB_TILE_LOAD(5, a0 + t.a_step, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(2, 5, 6);
      if (two_columns) {
        VOXLAB_TILE_LOAD(7, b1, b_row_bytes);
        VOXLAB_TILE_MULTIPLY(1, 4, 7);
        VOXLAB_TILE_MULTIPLY(3, 5, 7);
      }
      continue;
    }
    const uint16_t* low = a.low + k * amx_tile;
    VOXLAB_TILE_LOAD(4, a0, b_row_bytes);
    VOXLAB_TILE_LOAD(5, low, b_row_bytes);
    if (two_columns) {
      VOXLAB_TILE_LOAD(6, b1, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(1, 4, 6);
      VOXLAB_TILE_MULTIPLY(1, 5, 6);
      VOXLAB_TILE_LOAD(7, b1 + t.b_low, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(1, 4, 7);
    }
    VOXLAB_TILE_LOAD(6, b0, b_row_bytes);
    VOXLAB_TILE_MULTIPLY(0, 4, 6);
    VOXLAB_TILE_MULTIPLY(0, 5, 6);
    VOXLAB_TILE_LOAD(7, b0 + t.b_low, b_row_bytes);
    VOXLAB_TILE_MULTIPLY(0, 4, 7);
    VOXLAB_TILE_LOAD(4, a0 + t.a_step, b_row_bytes);
    VOXLAB_TILE_LOAD(5, low + t.a_step, b_row_bytes);
    VOXLAB_TILE_MULTIPLY(2, 4, 6);
    VOXLAB_TILE_MULTIPLY(2, 5, 6);
    VOXLAB_TILE_MULTIPLY(2, 4, 7);
    if (two_columns) {
      VOXLAB_TILE_LOAD(6, b1, b_row_bytes);
      VOXLAB_TILE_LOAD(7, b1 + t.b_low, b_row_bytes);
      VOXLAB_TILE_MULTIPLY(3, 4, 6);
      VOXLAB_TILE_MULTIPLY(3, 5, 6);
      VOXLAB_TILE_MULTIPLY(3, 4, 7);
    }
  }
}

void add_products(const AmxSumArgs& t) {
  constexpr int64_t tile_floats = amx_rows * amx_columns;
  const bool one_row = t.rows == 1;
  float* const c2 = one_row ? t.c + 2 * tile_floats : t.c + t.c_step;
  const bool second = t.columns > 1, third = !one_row || t.columns > 2, fourth = one_row ? t.columns > 3 : second;
  __asm__ volatile("" ::: "memory");
  if (t.accumulate) {
    VOXLAB_TILE_LOAD(0, t.c, b_row_bytes);
    if (second) VOXLAB_TILE_LOAD(1, t.c + tile_floats, b_row_bytes);
    if (third) VOXLAB_TILE_LOAD(2, c2, b_row_bytes);
    if (fourth) VOXLAB_TILE_LOAD(3, c2 + tile_floats, b_row_bytes);
  } else {
    VOXLAB_TILE_ZERO(0);
    VOXLAB_TILE_ZERO(1);
    VOXLAB_TILE_ZERO(2);
    VOXLAB_TILE_ZERO(3);
  }
  Fetch fetch(t.next, t.next_bytes, 0, t.segments * t.depth_blocks);
  for (int64_t s = 0; s < t.segments; ++s) {
    const AmxParts a = {t.a.high + s * t.a_segment, t.a.low == nullptr ? nullptr : t.a.low + s * t.a_segment};
    (one_row ? add_row : add_two_rows)(t, a, t.b + s * t.columns, fetch);
  }
  VOXLAB_TILE_STORE(0, t.c, b_row_bytes);
  if (second) VOXLAB_TILE_STORE(1, t.c + tile_floats, b_row_bytes);
  if (third) VOXLAB_TILE_STORE(2, c2, b_row_bytes);
  if (fourth) VOXLAB_TILE_STORE(3, c2 + tile_floats, b_row_bytes);
  __asm__ volatile("" ::: "memory");
}

constexpr AmxTable make_amx_table() {
  // A tile product does 16 x 16 x 32 multiply-adds in the time of about 36 vector ones.
  return {14.0, tile_begin, tile_end, block, add_products, turn_sums, store_sums, fill, pack, pack_turned, pack_strip, turn_strip};
}

}  // namespace
}  // namespace voxlab::cpu
