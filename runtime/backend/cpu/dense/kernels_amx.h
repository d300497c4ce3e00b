// The seam to the kernels on bf16 with f32 sums, a block of 32 rows by 32 or 48 columns or of 64 by 16 at a time: on AMX
// tiles, real or emulated, and, for plain bf16 and up to 32 columns, in vector registers.
#pragma once

#include <cstdint>

#include "runtime/backend/cpu/dense/kernels.h"

namespace voxlab::cpu {

constexpr int64_t amx_rows = 16;                       // of one tile
constexpr int64_t amx_columns = 16;                    // of one tile
constexpr int64_t amx_depth = 32;                      // bf16 values of K in one tile
constexpr int64_t amx_tile = amx_columns * amx_depth;  // bf16 values of one B tile
constexpr int64_t amx_block_columns = 3 * amx_columns;

// Rows of a block: four tiles of sums or six, so that each tile of A or B serves as many products as it can.
// Plain bf16 may have three rows of two tiles.
constexpr int64_t amx_block_rows(int column_tiles, bool tall) {
  return amx_rows * (column_tiles == 1 ? 4 : column_tiles == 2 && tall ? 3 : 2);
}
constexpr int64_t most_amx_block_rows = 4 * amx_rows;

// A bf16 number, or with `low` the sum of two that together hold 16 bits of an f32's significand.
struct AmxParts {
  const uint16_t* high;
  const uint16_t* low;  // null for plain bf16
};

constexpr int64_t amx_fill_values = 32;  // of a row, done at a time: one chunk

// Rows of n values to their parts; pitches in elements.
struct AmxSplitArgs {
  const float* in;          // one of these; bf16 is copied
  const uint16_t* in_bf16;
  int64_t rows, n;
  int64_t in_pitch, out_pitch;
  int64_t out_chunk;  // from a chunk of a row to the next
  uint16_t* high;
  uint16_t* low;  // or null
  bool fetch;     // rows follow each other in memory, and later ones are asked for
  // Or null: values are activated (x - mean) * scale + shift first, by their place in the row. Readable to a whole chunk.
  const float* mean;
  const float* scale;
  const float* shift;
  int activation;
  float slope;
};

// A list of such jobs and how far they are done.
struct AmxFill {
  const AmxSplitArgs* job;
  const AmxSplitArgs* end;
  int64_t row = 0, column = 0;  // of the first job
  // False when a value is not: such sums are left to the f32 kernels, because tiles also multiply values beyond a run
  // (by zero weights), and an infinity has no two-part form.
  bool finite;
};

// One block. Row m of A lies m * a_step bytes on; Run::b_row counts B depth
// blocks. B holds, for each depth block, one tile for each 16 columns, pairs of K interleaved.
struct AmxBlockArgs {
  AmxParts a;
  int64_t a_step;
  const Run* runs;
  int64_t run_count;
  int64_t depth_blocks;  // in each run
  int64_t last_pairs;    // pairs of K in the last of them; tiles take all, the rest being zero in B
  AmxParts b;
  int64_t rows;  // wanted; tiles compute all of theirs
  int column_tiles;
  float* c;  // whole tiles of rows, amx_block_columns floats apart
  bool accumulate;  // to what C holds
  // Where the sums go afterwards, or null: memory that tiles leave idle brings these lines meanwhile.
  const char* out;
  int64_t out_step;  // bytes between rows
  int out_lines;     // of 64 bytes, in a row
  const char* next;  // what later blocks read, brought to the second-level cache
  int64_t next_bytes;
  int64_t next_low;  // as much again so far on, or 0
  AmxFill* fill;  // work for the units that tiles leave idle, or null
  int64_t fill_chunks;
};

struct AmxStoreArgs {
  const float* sums;  // rows amx_block_columns apart
  int64_t rows;
  int columns;
  const float* bias;      // or null
  const float* residual;  // lies like out, or null
  const uint16_t* residual_bf16;  // in its place
  int activation;
  float slope;
  int64_t out_step;  // elements between rows
  float* out;        // one of these
  uint16_t* out_bf16;
  bool past_caches;  // rows begin with a line; whole lines are written past the caches
  // Or null. By column: what is stored, less the pivot, and its square are added up.
  const float* pivot;
  double* sum;
  double* square;
};

// Adds to tiles of C the products of tiles of A, 16 rows by K each, and of B, K by 16, summed along K. K falls into
// segments; in each, tiles lie one after the other.
struct AmxSumArgs {
  AmxParts a;
  int64_t a_step;              // halves between rows of tiles
  int64_t a_segment;           // halves between segments
  const uint16_t* const* b;    // where each column of tiles starts: [segment][column]
  int64_t b_low;               // halves from a tile to its low part
  int rows, columns;           // of tiles, at most 2 and four tiles of C in all
  int64_t segments;
  int64_t depth_blocks;        // in each
  float* c;        // 16 x 16 floats a tile, columns one after the other
  int64_t c_step;  // floats between rows of tiles
  bool accumulate;  // to what C holds
  const char* next;  // what later tiles are made of, brought to the second-level cache meanwhile
  int64_t next_bytes;
};

// A tile of such sums, 16 x 16 floats, to rows of the output, one a column.
struct AmxTurnArgs {
  const float* sums;
  int rows, columns;  // wanted
  float* out;
  int64_t out_step;   // floats between rows
  bool past_caches;   // all 16 rows are wanted, and each row of the output is a line
};

// Positions along K whose values lie anywhere, 16 columns of them, to tiles of B (or of A: 16 rows by K): one that begins
// with the first position and, where asked for, one that begins with the second.
constexpr int64_t amx_strip = amx_depth + 1;
struct AmxStripArgs {
  const void* const* at;  // where each position's values lie; then amx_depth more that are soon asked for
  bool bf16;              // these, or f32
  int64_t offset;         // of these columns, in values
  int columns;            // at most 16; the rest become zero
  uint16_t* even;
  uint16_t* odd;  // or null
  int64_t low;    // of f32: halves from a tile to its low part; 0: none
};

struct AmxTable {
  double speed;     // in f32 multiply-adds
  void (*begin)();  // configures this thread's tiles
  void (*end)();
  void (*block)(const AmxBlockArgs&);
  void (*add_products)(const AmxSumArgs&);
  void (*turn_sums)(const AmxTurnArgs&);
  void (*store)(const AmxStoreArgs&);
  void (*fill)(AmxFill&);  // all of it
  // `rows` x 16 floats `pitch` apart to one B tile; missing rows are zero. False when a value is not finite.
  bool (*pack)(const float* in, int64_t rows, int64_t pitch, uint16_t* high, uint16_t* low);
  // The same from `columns` rows, each of one column's values along K.
  bool (*pack_turned)(const float* in, int64_t rows, int64_t columns, int64_t pitch, uint16_t* high, uint16_t* low);
  bool (*pack_strip)(const AmxStripArgs&);  // to tiles of B; false as above
  bool (*turn_strip)(const AmxStripArgs&);  // to tiles of A
};

#if defined(__x86_64__)
extern const AmxTable kernels_amx;
extern const AmxTable kernels_amx_emulated;  // the same on any AVX-512 machine, for tests
extern const AmxTable kernels_avx512_bf16;

// Of the active level, which multiplies_bf16.
const AmxTable& active_amx();
#endif

}  // namespace voxlab::cpu
