// The seam between the drivers, compiled for the baseline, and the kernels, compiled once per
// instruction set. Only plain structs cross it: no inline function that a linker could merge.
#pragma once

#include <cstdint>

namespace voxlab::cpu {

constexpr int max_panel_vectors = 3;  // vectors of columns in one tile
constexpr int max_pairs = 7;          // row pairs in one tile with free row offsets
constexpr int max_unit_pairs = 12;    // row pairs in one tile whose A rows are neighbours
constexpr int max_tile_rows = 2 * max_unit_pairs;

// A stretch of the sum: `TileArgs::k` steps from an A offset (bytes) and a B row.
struct Run {
  int64_t a_bytes;
  int64_t b_row;
};

// C[row] = or += sum over runs and k of A[row, k] * B[k]; rows come in pairs `pair_step` apart.
struct TileArgs {
  const char* a;
  const int64_t* pair_bytes;  // A offset of the first row of each pair; unused by unit tiles
  int64_t pair_step;          // bytes from the first to the second row of a pair
  int64_t k_step;             // bytes from one k to the next in A
  const Run* runs;
  int64_t run_count;
  int64_t k;
  const float* b;     // first column of the panel
  int64_t ldb;        // elements
  int64_t b_ahead;    // elements from each row of B to the one that is fetched meanwhile, or 0; unused by unit tiles
  float* const* c;    // one pointer a row, at the first column of the panel
  const float* bias;  // at the first column of the panel, or null
  const float* const* residual;  // one pointer a row like c (null: nothing to add), or null
  int activation;                // an Activation, applied last
  float slope;
  int last_columns;  // valid columns of the last vector
  bool accumulate;   // add to C; bias must then be null
  bool past_caches;  // C is too large to stay there: whole vectors, aligned, are written past them, and there is no activation
};

using TileFn = void (*)(const TileArgs&);

// `tiles` neighbouring tiles of whole vectors: rows of A are `row_bytes` apart, rows of B and of C follow each
// other. C = or += sum over runs and k of A[row, k] * B[k].
struct TileStackArgs {
  const char* a;
  int64_t row_bytes;
  const Run* runs;
  int64_t run_count;
  int64_t k;
  const float* b;
  float* c;
  int64_t tiles;
  bool accumulate;
};

using TileStackFn = void (*)(const TileStackArgs&);

constexpr int max_row_outputs = 14;  // neighbouring outputs of a row tile
constexpr int row_taps = 3;

constexpr int max_depthwise_outputs = 24;
constexpr int depthwise_widths = 3;  // kernel widths 3, 5 and 7 have their own tiles
constexpr int max_wgrad_taps = 8;

// y[t] = bias + sum over kernel rows and taps of x[t + row + tap] * w for one group of channel
// vectors. Input positions are one group apart (compact scratch), outputs `y_step` bytes apart.
struct DepthwiseArgs {
  const char* x;
  const Run* rows;  // input offset and first row of w of each kernel row
  int64_t row_count;
  const int64_t* tap_bytes;  // of the taps in a kernel row
  int64_t taps;
  const float* w;  // [rows and taps][group]
  char* y;
  int64_t y_step;
  const float* bias;  // [group] or null
  int activation;
  float slope;
  int last_columns;
};

using DepthwiseFn = void (*)(const DepthwiseArgs&);

// 3x3 for a few neighbouring outputs and all channels, straight from the tensor. `x` lists the channels of
// the positions read, [3][outputs + 2]. Forward: y[t] = bias + sum of x * w. Weight gradient: y[tap] +=
// sum of x * dy, y being [9][channels].
struct DepthwisePlaneArgs {
  const void* const* x;   // of f32; of bf16 for depthwise_plane[1]
  const float* const* w;  // [9]
  const float* bias;      // or null
  const float* dy;        // outputs `channels` apart
  float* y;               // the same
  int64_t channels;
};

using DepthwisePlaneFn = void (*)(const DepthwisePlaneArgs&);
constexpr int max_plane_outputs = 4;

// dw[tap] += sum over rows and positions of x[position + tap] * dy[position], one channel vector.
struct DepthwiseWgradArgs {
  const char* x;
  const int64_t* row_x_bytes;
  const int64_t* row_dy_bytes;
  int64_t rows;
  const int64_t* tap_bytes;
  const char* dy;
  int64_t width;  // positions a row
  float* dw;      // [taps][vector]
};

using DepthwiseWgradFn = void (*)(const DepthwiseWgradArgs&);

// Channel scaling on rows of `channels` narrow and ratio times as many wide values, wide channel c * ratio + j
// belonging to narrow channel c; w in the order of the wide channels.
struct ChannelScaleArgs {
  const float* narrow;  // null where it is the output
  const float* wide;
  const float* w;
  const float* bias;  // one value an output channel, or null
  float* out;
  int64_t rows;
  int64_t channels;
  int activation;
  float slope;
};

using ChannelScaleFn = void (*)(const ChannelScaleArgs&);
constexpr int channel_ratios = 4;  // 1, 2, 4, 8

// Points of a row of F(2x2, 3x3) tiles, for all channels: tile t reads input columns first + 2t to first + 2t + 3.
struct WinogradInputArgs {
  const void* rows[4];  // first channel of column 0 of each input row, f32 or bf16; null: zeros
  const void* next[4];  // the rows that are read after these
  int64_t pitch;        // values between columns
  int64_t width;        // columns of the tensor; those outside are zero
  int64_t first;
  int64_t channels;
  int64_t tiles;
  void* v;             // [point][...][tile][channel], f32 or, of PairTable, bf16
  int64_t point_step;  // values of it
  int64_t tile_step;   // the same from tile to tile: channels, and those of another part of the input
  // Or null: values are activated (x - mean) * scale + shift first, by channel. KernelTable::winograd_input and that of
  // PairTable alone; the activation is none, relu or leaky_relu.
  const float* mean;
  const float* scale;
  const float* shift;
  int activation;
  float slope;
};

// Two rows of output from the points of a row of tiles, for one panel of columns.
struct WinogradOutputArgs {
  const float* m;      // [point][...][tile][vectors]
  int64_t point_step;  // floats
  int64_t row_pitch;   // floats between tiles
  int64_t tiles;
  void* out[2];                  // first channel of the first position of each row; the second may be null
  const void* residual[2];       // lies like out, or null
  bool out_bf16, residual_bf16;  // of PairTable alone
  int64_t out_pitch;             // values between positions
  int64_t columns;               // positions a row: 2 * tiles, or one less
  const float* bias;             // of the panel, or null
  int activation;
  float slope;
  int vectors;
  int last_columns;
  bool past_caches;  // the output is too large to stay there: whole vectors, aligned, are written past them
  // Or null. By column: what is stored, less the pivot, and its square are added up.
  float* pivot;
  double* sum;
  double* square;
  bool set_pivot;  // to the first value stored
};

constexpr int64_t spin_multiply_adds = 12;  // of vectors, in one repeat of KernelTable::spin

struct KernelTable {
  int width;                          // floats a vector
  float (*spin)(int64_t repeats);     // independent multiply-adds in registers: the machine's peak
  int pairs[max_panel_vectors];       // most pairs a tile takes, by vectors - 1
  int unit_pairs[max_panel_vectors];  // the same for unit tiles
  TileFn tile[max_panel_vectors][max_pairs];
  TileFn unit_tile[max_panel_vectors][max_unit_pairs];
  TileStackFn tile_stack[max_panel_vectors][max_pairs];
  // One column vector, `row_taps` taps along the row, stride 1: each value read from A serves every
  // tap. Rows of C are neighbours, pair_step bytes apart in A; B rows of tap t start t * k rows
  // further on.
  int row_outputs;
  TileFn row_tile[max_row_outputs];
  int depthwise_outputs[2];  // most outputs a tile takes, by vectors - 1
  DepthwiseFn depthwise[2][max_depthwise_outputs];
  DepthwisePlaneFn depthwise_plane[2][max_plane_outputs];  // of f32, of bf16; by outputs - 1
  DepthwisePlaneFn depthwise_plane_wgrad[max_plane_outputs];
  // For neighbouring taps, a kernel row of weights in registers; null where they do not fit.
  DepthwiseFn depthwise_row[depthwise_widths][2][max_depthwise_outputs];
  DepthwiseWgradFn depthwise_wgrad[max_wgrad_taps];
  // By the logarithm of the ratio: wide = narrow * w; narrow = sum of its wide values * w; and the sum over the
  // rows of wide * narrow, one value a wide channel.
  ChannelScaleFn widen_channels[channel_ratios];
  ChannelScaleFn narrow_channels[channel_ratios];
  ChannelScaleFn scale_wgrad[channel_ratios];
  void (*winograd_input)(const WinogradInputArgs&);  // here of f32
  void (*winograd_output)(const WinogradOutputArgs&);
  // The output's gradient at the points; takes two rows, and reads columns first + 2t and first + 2t + 1.
  void (*winograd_gradient)(const WinogradInputArgs&);
  // n floats of each of nine taps, tap_step apart, to n floats of each of 16 points; n in whole vectors.
  void (*winograd_weights)(const float* w, int64_t tap_step, int64_t n, float* u, int64_t point_step);
  // The third side, of D: n floats of each of four planes, three taps or four points, elementwise; n in whole vectors,
  // but for the input. The output's two planes take the place of the first two points.
  void (*winograd_depth_input)(const float* planes, int64_t plane_step, int64_t n, void* v, int64_t point_step);
  void (*winograd_depth_weights)(const float* w, int64_t tap_step, int64_t n, float* u, int64_t point_step);
  void (*winograd_depth_output)(float* m, int64_t point_step, int64_t n);
  // The output's gradient: two planes to four points, n in whole vectors.
  void (*winograd_depth_gradient)(const float* planes, int64_t plane_step, int64_t n, float* v, int64_t point_step);
  // n floats of each of 16 points to n floats of each of nine taps; along D, of four points to three taps in their place.
  void (*winograd_weight_gradient)(const float* u, int64_t point_step, int64_t n, float* w, int64_t tap_step);
  void (*winograd_depth_weight_gradient)(float* u, int64_t point_step, int64_t n);
  // For each position, one vector of the floats `lanes` picks (offsets, ascending, from that
  // position); lanes from `lane_count` on become zero. Pitches in floats.
  void (*pick_lanes)(const float* in, int64_t in_pitch, int64_t positions, const int32_t* lanes,
                     int lane_count, float* out, int64_t out_pitch);
  // out[c * rows_pitch + r] = in[r * in_pitch + c]
  void (*transpose)(const float* in, int64_t rows, int64_t cols, int64_t in_pitch, float* out,
                    int64_t out_pitch);
  void (*widen)(const uint16_t* in, int64_t n, float* out);   // bf16 -> f32
  void (*narrow)(const float* in, int64_t n, uint16_t* out);  // f32 -> bf16, nearest even
  void (*add)(const float* in, int64_t n, float* inout);
  // inout = activation(inout + residual); residual may be null.
  void (*finish)(float* inout, const float* residual, int64_t n, int activation, float slope);
};

// Products of bf16 with f32 sums where the f32 kernels have theirs: A and B hold, in the place of each float, the
// values of two neighbouring k, so that TileArgs::k counts pairs. Rows of A are rows of bf16 as they are.
struct PairTable {
  TileFn tile[max_panel_vectors][max_pairs];  // as many pairs of rows as KernelTable::pairs
  TileFn unit_tile[max_panel_vectors][max_unit_pairs];
  TileStackFn tile_stack[max_panel_vectors][max_pairs];
  // Tiles of one vector of columns that take two pairs a step, which halves the loads of A: TileStackArgs::k and its runs count
  // those, B is what join_rows made.
  TileStackFn joined_stack[max_pairs];
  // Each two of `rows` rows of one vector to the order that joined tiles read.
  void (*join_rows)(float* b, int64_t rows);
  void (*round)(const float* in, int64_t n, uint16_t* out);
  // Rows 2r and 2r + 1 of n floats to row r of pairs; an odd last row is paired with zeros.
  void (*pack)(const float* in, int64_t rows, int64_t n, int64_t in_pitch, float* out, int64_t out_pitch);
  // The transforms of KernelTable to bf16 points, and those before the third side to f32, of f32 and of bf16; those of weights
  // take rows of `columns` floats, an even number.
  void (*winograd_input[2])(const WinogradInputArgs&);
  void (*winograd_planes[2])(const WinogradInputArgs&);
  void (*winograd_depth_input)(const float* planes, int64_t plane_step, int64_t n, void* v, int64_t point_step);
  void (*winograd_output)(const WinogradOutputArgs&);  // of either type
  // The same of two neighbouring tiles as pairs, in one float's place; an odd last tile is paired with zeros.
  void (*winograd_input_pairs[2])(const WinogradInputArgs&);
  void (*winograd_gradient_pairs[2])(const WinogradInputArgs&);
  void (*winograd_weights)(const float* w, int64_t tap_step, int64_t rows, int64_t columns, float* u, int64_t point_step);
  void (*winograd_depth_weights)(const float* w, int64_t tap_step, int64_t rows, int64_t columns, float* u,
                                 int64_t point_step);
};

extern const KernelTable kernels_plain;
#if defined(__x86_64__)
extern const KernelTable kernels_avx2;
extern const KernelTable kernels_avx512;
extern const PairTable pairs_avx512_bf16;
#endif

}  // namespace voxlab::cpu
