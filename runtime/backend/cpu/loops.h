// The seam between the drivers of this folder, compiled for the baseline, and the loops, compiled
// once per instruction set. Plain structs and pointers only: no inline function that a linker could
// merge. Element pointers are float* or, in a table's second entry, bf16 values as uint16_t*.
#pragma once

#include <cstdint>

namespace voxlab::cpu {

constexpr int unary_kinds = 16;  // UnaryKind
constexpr int binary_kinds = 5;  // BinaryKind
constexpr int reduce_kinds = 4;  // ReduceKind

struct UnaryArgs {
  const void* x;
  const void* dy;  // of the gradient
  void* y;
  int64_t n;
  float alpha, beta;
};
using UnaryFn = void (*)(const UnaryArgs&);

// y[r, i] = f(a[r, i], b[r, i]); pitches in elements. The function fixes whether a and b move with
// i.
struct BinaryArgs {
  const void* a;
  const void* b;
  void* y;
  int64_t rows, n;
  int64_t a_pitch, b_pitch, y_pitch;
};
using BinaryFn = void (*)(const BinaryArgs&);

// Adds (or takes the larger of) what the elements of a row or of each column come to.
using ReduceRowFn = double (*)(const void* x, int64_t n);
using ReduceColumnsFn = void (*)(const void* x, int64_t rows, int64_t columns, int64_t pitch,
                                 double* total);

// Running mean and sum of squared deviations of every column; `count` rows are in them already.
using MomentsFn = void (*)(const void* x, int64_t rows, int64_t columns, int64_t count,
                           double* mean, double* m2);

// Gradients of norms by column, with pitch == columns; null members are not used. Each tensor has a type of its own.
struct GradColumnsArgs {
  const void* x;
  const void* dy;
  void* dx;
  int x_storage, dy_storage, dx_storage;
  int64_t rows, columns;
  const float *mean, *scale, *a, *b;
  double *total_dy, *total_dot;
  // Through an activation: dy counts `slope` times where (x - mean) * gate_scale + gate_shift is not positive.
  const float *gate_scale, *gate_shift;  // null: dy is as it stands
  float slope;
};
using GradColumnsFn = void (*)(const GradColumnsArgs&);

// The same of two norms that meet in a sum behind an activation: dy counts `slope` times where (x1 - mean1) * scale1 +
// (x2 - mean2) * scale2 + gate_shift is not positive.
struct GradSumArgs {
  struct Norm {
    const void* x;
    void* dx;
    int x_storage, dx_storage;
    const float *mean, *scale, *a, *b;
    double* total_dot;
  } norm[2];
  const void* dy;
  int dy_storage;
  int64_t rows, columns;
  const float* gate_shift;
  float slope;
  double* total_dy;
};

// y = activation((x - mean) * scale + shift + residual) by column, with pitch == columns. Each tensor has a type of its own.
struct FinishColumnsArgs {
  struct Column {
    const float *mean, *scale, *shift;
  };
  const void* x;
  const void* residual;  // or null
  void* y;
  int x_storage, residual_storage, y_storage;
  int64_t rows, columns;
  Column value;
  Column other;    // with other.scale the residual is normalised too
  int activation;  // an Activation of dense.h
  float slope;
};

// Layer norm of rows: forward writes y, mean, rstd; backward reads them and adds to dgamma and
// dbeta.
struct LayerNormArgs {
  const float* x;
  const float* dy;
  void* y;  // or dx, f32
  int64_t rows, columns;
  const float *gamma, *beta;  // may be null
  float *mean, *rstd;
  double *dgamma, *dbeta;
  float* partial;  // 2 * columns of scratch for the backward
  double epsilon;
};
using LayerNormFn = void (*)(const LayerNormArgs&);

// Channel scaling with what surrounds it folded in: rows [ratio][columns], the last one a row; y = residual + reduce_bias +
// sum reduce gelu(expand n + expand_bias), n the normalised x.
struct ScalingRows {
  const float *expand, *expand_bias, *reduce, *reduce_bias;
  int64_t ratio;
};

// Layer norm and channel scaling of rows: forward writes y and, unless they are null, mean and rstd; backward reads them and
// adds to `sums`, rows like the parameters': of dy gelu, of the gradient of the GELU's input, of that times n, of dy.
struct NormScalingArgs {
  const float* x;
  const float* residual;  // or null
  const float* dy;
  float* y;  // or dx
  int64_t rows, columns;
  ScalingRows parameters;
  float *mean, *rstd;
  double* sums;
  float* partial;  // scratch for the backward, as long as `sums`
  double epsilon;
};

// Softmax, log-softmax and L2 normalisation along rows, or along the rows of a block of columns.
enum AxisFunction { axis_softmax, axis_log_softmax, axis_l2 };
constexpr int axis_functions = 3;

struct AxisArgs {
  const float* x;   // y for a gradient
  const float* dy;  // of a gradient
  float* y;         // or dx
  int64_t rows, columns, pitch;
  float* largest;      // per column: running maximum of a softmax
  double* total;       // per column: running sum of exponentials, squares, y dy or dy
  const float* shift;  // per column, see the apply loops
  const float* factor;
  float* norm;  // per row: written by the forward of L2 normalisation, read by its gradient
  double epsilon, clamp_limit;
  const float* add;  // to x first, laid out like it; or null. Of the forward softmax of rows alone
};
using AxisFn = void (*)(const AxisArgs&);

// Weighted sums of rows, the two steps of a resize.
struct BlendRowsArgs {
  const void* const* rows;
  const float* weights;
  int64_t count, n;
  float* y;
};
struct BlendTapsArgs {
  const float* x;        // (inputs, channels)
  const int64_t* start;  // taps of output i: [start[i], start[i + 1])
  const int64_t* index;
  const float* weight;
  void* y;  // (outputs, channels)
  int64_t outputs, channels;
};

// Rows of logits with i32 labels known to be valid or equal to `ignore`.
struct LossArgs {
  const float* x;
  const int32_t* labels;
  const float* weight;  // per class, may be null
  float* y;             // gradient
  int64_t rows, classes;
  int32_t ignore;
  float scale;  // of a gradient
};
using LossFn = double (*)(const LossArgs&);

// Softmax with cross entropy and class sums; rows of one sample.
constexpr int64_t most_head_classes = 64;
struct LossHeadArgs {
  const float* x;
  const int32_t* labels;
  int64_t rows, classes;
  int32_t ignore;
  bool squared;
  double *loss, *sums;  // added to: the sum of the losses; per class the sums of p t, of p or p^2, of t
  float* y;             // of gradients, as what follows
  float share;          // of one row in the cross entropy's gradient
  const float *d_true, *d_all;
};

struct SgdArgs {
  float* param;
  const float* grad;
  float* buffer;  // null without momentum
  int64_t n;
  float lr, momentum, undamped, weight_decay, grad_scale;
  bool nesterov, first;
};

struct AdamArgs {
  float* param;
  const float* grad;
  float *m, *v, *largest;  // largest: amsgrad only, else null
  int64_t n;
  float step_size, beta1, beta2, rest1, rest2, eps, weight_decay, grad_scale, keep, root_scale;
};

constexpr int64_t drop_block = 8;  // numbers from one block of Philox

// Which elements a dropout keeps, and what it multiplies them by.
struct DropRule {
  uint32_t key[2];
  uint32_t stream, step;
  uint32_t limit;  // 16 bits below it are dropped; 2^16 drops all
  float factor;
};

// Element dropout of blocks [begin, end), at most up to element n.
struct DropArgs {
  const void* x;
  void* y;
  int64_t begin, end, n;
  DropRule rule;
};

// One row a query, in any layout: floats between queries, between values of one.
struct QueryRows {
  const float* at;
  int64_t row, col;
};

// y = dropout(softmax(q k)) v, rows of as many values as q is deep; k and v are one row a key.
struct NarrowAttentionArgs {
  QueryRows q;
  const float* k;
  const float* v;
  const uint16_t* tiles;  // both in the form of kernels on tiles, which read nothing else of them
  float* scratch;         // 2 keys x lanes; of kernels on tiles tile_attention_floats
  float* y;
  int64_t y_row, y_col;  // floats between rows, between values of one
  float* sums;  // or null: of each row the logarithm of the sum of its exponentials
  int64_t rows, keys;
  const DropRule* drop;  // or null; else keys come in whole blocks
  uint64_t first_block;  // of the first row's random numbers
};

// Its gradient, from the forward's y and sums. dq has rows like y; dk is depth x keys, dv one row a key.
struct NarrowAttentionGradArgs {
  QueryRows dy, q, y;
  const float* k;
  const float* v;
  const uint16_t* tiles;
  const float* sums;
  float* scratch;  // narrow_grad_floats; tile_gradient_floats
  float *dq, *dk, *dv;
  int64_t rows, keys;
  const DropRule* drop;
  uint64_t first_block;
};
constexpr int64_t narrow_grad_vectors = 4;  // of queries at a time
constexpr int64_t narrow_grad_floats(int64_t keys, int64_t depth) {  // for the widest vectors
  return 16 * (keys * (1 + 2 * narrow_grad_vectors) + 2 * depth * (keys + narrow_grad_vectors));
}

// Rows of scores that become dropped weights; or, of gradients, scores that become their gradient and gradients of dropped
// weights that become the dropped weights themselves.
struct WeightRowsArgs {
  float* scores;
  float* dweights;       // of gradients
  const float* factors;  // laid out like the scores, or null
  float* sums;           // of each row the logarithm of the sum of its exponentials: written
  const float* known_sums;  // of gradients, as what follows
  const float* delta;       // of each row the sum of dy y
  int64_t rows, keys;
};

struct Loops {
  void (*drop[2])(const DropArgs&);
  // Factors of the elements of these blocks; up to 128 more are written.
  void (*keep_factors)(const DropRule&, uint64_t first, int64_t blocks, float* factors);
  UnaryFn unary[unary_kinds][2];
  UnaryFn unary_grad[unary_kinds][2];
  BinaryFn binary[binary_kinds][3][2];  // [1]: b is one value a row; [2]: a is
  ReduceRowFn reduce_row[reduce_kinds][2];
  ReduceColumnsFn reduce_columns[reduce_kinds][2];
  MomentsFn moments[2];
  void (*finish_columns)(const FinishColumnsArgs&);
  // total_dy += dy, total_dot += dy * (x - mean) * scale
  GradColumnsFn grad_columns;
  // dx = scale * dy - (a + (x - mean) * b)
  GradColumnsFn grad_apply_columns;
  // total_dy += dy, total_dot += dy * (x - mean); then dx as above
  void (*grad_sum_columns)(const GradSumArgs&);
  void (*grad_sum_apply_columns)(const GradSumArgs&);
  LayerNormFn layer_norm[2], layer_norm_grad[2];  // plain; with a GELU behind it
  LayerNormFn layer_norm_gelu_bf16;               // y is bf16
  void (*norm_scaling)(const NormScalingArgs&);
  void (*norm_scaling_grad)(const NormScalingArgs&);
  AxisFn axis_rows[axis_functions], axis_rows_grad[axis_functions];
  AxisFn axis_columns_total[axis_functions], axis_columns_grad_total[axis_functions];
  AxisFn axis_columns_apply[axis_functions], axis_columns_grad_apply[axis_functions];
  void (*blend_rows[2])(const BlendRowsArgs&);
  void (*blend_taps[2])(const BlendTapsArgs&);
  void (*loss_head)(const LossHeadArgs&);
  void (*loss_head_grad)(const LossHeadArgs&);
  LossFn cross_entropy, cross_entropy_grad, binary_cross_entropy, binary_cross_entropy_grad;
  void (*sgd)(const SgdArgs&);
  void (*adam)(const AdamArgs&);
  double (*squared_norm[2])(const void* x, int64_t n);
  void (*copy_rows)(const void* x, void* y, int64_t rows, int64_t row_bytes, int64_t x_pitch_bytes,
                    int64_t y_pitch_bytes);
  // Of heads 8 and 16 deep; null where their sums do not fit the registers. Lanes: queries at a time.
  void (*attend_narrow[2])(const NarrowAttentionArgs&);
  void (*attend_narrow_grad[2])(const NarrowAttentionGradArgs&);
  int64_t narrow_lanes[2];
  void (*dropped_weights)(const WeightRowsArgs&);
  void (*dropped_weights_grad)(const WeightRowsArgs&);
  void (*widen)(const void* x, void* y, int64_t n);   // bf16 -> f32
  void (*narrow)(const void* x, void* y, int64_t n);  // f32 -> bf16
};

extern const Loops loops_plain;
#if defined(__x86_64__)
extern const Loops loops_avx2;
extern const Loops loops_avx512;
void set_bf16_loops(Loops& table);  // in place of those of loops_avx512 that write bf16, for machines that multiply it
#endif

}  // namespace voxlab::cpu
