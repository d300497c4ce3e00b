// Gradients of attention by blocks of query rows, from the scores made again. dk and dv are sums over queries: each task of
// a batch has its part of them, and the parts are added up in order.
#include <algorithm>
#include <string>

#include "runtime/backend/cpu/attention.h"
#include "runtime/backend/cpu/dense/scratch.h"

namespace voxlab::cpu {
namespace {

// Tasks of one batch: as many as give every thread some.
int64_t tasks_of(const Attention& a) {
  if (a.batches % thread_count() == 0) return 1;
  return std::clamp<int64_t>(ceil_div(4 * thread_count(), a.batches), 1, ceil_div(a.queries, 64));
}

// The gradient of one attention: `a` with the layouts of dy and y.
struct AttentionGrad {
  Attention a;
  Matrices dy, y;
  int64_t tasks;  // of one batch

  int64_t key_floats() const { return a.depth * a.keys; }
  int64_t part_floats() const { return key_floats() + a.keys * a.width; }
};

// The tensors of one call, or where one task's rows of them begin.
struct Data {
  const float *dy, *q, *k, *v, *y, *sums;
  float *dq, *dk, *dv;
  const DropRule* rule;  // or null
};

void add_to(float* sum, const float* part, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sum[i] += part[i];
}

// Of each row the sum of dy y.
void put_deltas(const AttentionGrad& g, const Data& t, int64_t first, int64_t rows, float* delta) {
  for (int64_t r = 0; r < rows; ++r) {
    const float *dy = t.dy + (first + r) * g.dy.strides.row, *y = t.y + (first + r) * g.y.strides.row;
    float sum = 0;
    for (int64_t e = 0; e < g.a.width; ++e) sum += dy[e * g.dy.strides.col] * y[e * g.y.strides.col];
    delta[r] = sum;
  }
}

MatrixStrides turned(MatrixStrides s) { return {s.col, s.row}; }

// Rows [first, first + rows) of the task; the first block's dk and dv are written, those of others added.
void grad_block(const AttentionGrad& g, const Data& t, int64_t row, int64_t first, int64_t rows) {
  const Attention& a = g.a;
  const int64_t size = rows * a.keys;
  float* scores = scratch(Purpose::scores, 3 * size + drop_slack + rows + g.part_floats());
  float *weights = scores + size, *delta = weights + size;
  float *dk = delta + rows, *dv = dk + g.key_floats(), *factors = dv + a.keys * a.width;
  const float *q = t.q + first * a.q.strides.row, *dy = t.dy + first * g.dy.strides.row;
  const MatrixStrides by_row{a.keys, 1};
  const auto multiply = [&](MatmulShape shape, const float* x, const float* y, float* z) {
    matmul(shape, constant(x), constant(y), writable(z), {}, a.precision);
  };
  multiply({.m = rows, .n = a.keys, .k = a.depth, .a = a.q.strides, .b = a.k.strides, .c = by_row}, q, t.k, scores);
  multiply({.m = rows, .n = a.keys, .k = a.width, .a = g.dy.strides, .b = turned(a.v.strides), .c = by_row}, dy, t.v, weights);
  put_deltas(g, t, first, rows, delta);
  active_loops().dropped_weights_grad(
      {.scores = scores,
       .dweights = weights,
       .factors = t.rule == nullptr ? nullptr : block_factors(*t.rule, row, rows, a.keys, factors),
       .sums = nullptr,
       .known_sums = t.sums + first,
       .delta = delta,
       .rows = rows,
       .keys = a.keys});
  multiply({.m = rows, .n = a.depth, .k = a.keys, .a = by_row, .b = turned(a.k.strides), .c = {a.depth, 1}}, scores, t.k,
           t.dq + first * a.depth);
  const bool adds = first > 0;
  multiply({.m = a.depth, .n = a.keys, .k = rows, .a = turned(a.q.strides), .b = by_row, .c = by_row}, q, scores, adds ? dk : t.dk);
  multiply({.m = a.keys, .n = a.width, .k = rows, .a = turned(by_row), .b = g.dy.strides, .c = {a.width, 1}}, weights, dy,
           adds ? dv : t.dv);
  if (!adds) return;
  add_to(t.dk, dk, g.key_floats());
  add_to(t.dv, dv, a.keys * a.width);
}

QueryRows rows_of(const float* at, const Matrices& m) { return {at, m.strides.row, m.strides.col}; }

void grad_narrow(const AttentionGrad& g, const NarrowKernels& kernels, const Data& t, int64_t row, int64_t rows) {
  const Attention& a = g.a;
  const PackedHead head = pack_head(a, kernels, t.k, t.v, scratch(Purpose::panel, kernels.packed_floats));
  kernels.gradients({.dy = rows_of(t.dy, g.dy), .q = rows_of(t.q, a.q), .y = rows_of(t.y, g.y), .k = head.k, .v = head.v,
                     .tiles = head.tiles, .sums = t.sums, .scratch = scratch(Purpose::scores, kernels.gradient_floats), .dq = t.dq,
                     .dk = t.dk, .dv = t.dv, .rows = rows, .keys = a.keys, .drop = t.rule,
                     .first_block = static_cast<uint64_t>(row * a.keys / drop_block)});
}

// Queries [first, first + rows) of one batch; dk and dv are the task's own.
void run_task(const AttentionGrad& g, const Data& t, int64_t batch, int64_t first, int64_t rows, float* dk, float* dv) {
  const Attention& a = g.a;
  const int64_t row = batch * a.queries + first;
  const Data part{.dy = t.dy + g.dy.offset(a.leading, batch) + first * g.dy.strides.row,
                  .q = t.q + a.q.offset(a.leading, batch) + first * a.q.strides.row,
                  .k = t.k + a.k.offset(a.leading, batch),
                  .v = t.v + a.v.offset(a.leading, batch),
                  .y = t.y + g.y.offset(a.leading, batch) + first * g.y.strides.row,
                  .sums = t.sums + row,
                  .dq = t.dq + row * a.depth,
                  .dk = dk,
                  .dv = dv,
                  .rule = t.rule};
  if (const auto narrow = a.narrow()) return grad_narrow(g, *narrow, part, row, rows);
  const int64_t most = a.block_rows(a.drop ? 3 : 2);
  for (int64_t at = 0; at < rows; at += most) grad_block(g, part, row + at, at, std::min(most, rows - at));
}

// `parts`: tasks x part_floats for every batch, unused where a batch is one task.
void run_grad(const AttentionGrad& g, const Data& t, float* parts) {
  const Attention& a = g.a;
  const int64_t tasks = g.tasks, rows = ceil_div(a.queries, tasks), all = a.batches * tasks;
  const int64_t n_k = g.key_floats(), n_v = a.keys * a.width, macs = a.batches * a.queries * a.keys * (3 * a.depth + 2 * a.width);
  parallel_for(all, task_grain(all, macs), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t batch = i / tasks, first = i % tasks * rows;
      float* part = parts + i * g.part_floats();
      run_task(g, t, batch, first, std::clamp<int64_t>(a.queries - first, 0, rows), tasks == 1 ? t.dk + batch * n_k : part,
               tasks == 1 ? t.dv + batch * n_v : part + n_k);
    }
  });
  if (tasks == 1) return;
  for (int64_t batch = 0; batch < a.batches; ++batch) {
    std::fill_n(t.dk + batch * n_k, n_k, 0.0F);
    std::fill_n(t.dv + batch * n_v, n_v, 0.0F);
    for (int64_t i = batch * tasks; i < (batch + 1) * tasks; ++i) {
      if (i % tasks * rows >= a.queries) continue;
      add_to(t.dk + batch * n_k, parts + i * g.part_floats(), n_k);
      add_to(t.dv + batch * n_v, parts + i * g.part_floats() + n_k, n_v);
    }
  }
}

}  // namespace

Kernel prepare(const TrainingAttentionGrad::Attrs& attrs, Descs in, Descs) {
  if (!all_f32(in.first(6))) return {};
  Attention a(leading_axes(in[1].shape()), in[1], in[2], in[3]);
  if (in[0].numel() == 0 || in[1].numel() == 0 || a.keys == 0) return {};
  if (attrs.p > 0) a.drop = attrs.dropout();
  const AttentionGrad g{.a = a, .dy = matrices_of(in[0], a.leading), .y = matrices_of(in[4], a.leading), .tasks = tasks_of(a)};
  const int64_t parts = g.tasks == 1 ? 0 : g.a.batches * g.tasks * g.part_floats();
  const auto narrow = g.a.narrow();
  return {.name = narrow ? narrow_name("attention_grad", g.a, *narrow) : loop_name("attention_grad", "blocks"),
          .workspace = parts * int64_t{sizeof(float)},
          .run = [g](Pointers x, Pointers y, std::byte* workspace) {
            const DropRule rule = rule_of(g.a, g.a.drop ? x[6] : nullptr);
            run_grad(g, {.dy = floats(x[0]), .q = floats(x[1]), .k = floats(x[2]), .v = floats(x[3]), .y = floats(x[4]),
                         .sums = floats(x[5]), .dq = floats(y[0]), .dk = floats(y[1]), .dv = floats(y[2]),
                         .rule = g.a.drop ? &rule : nullptr},
                     floats(workspace));
          }};
}

}  // namespace voxlab::cpu
