// softmax(q k + bias) v by blocks of query rows: a block's scores are made, normalised and used while they lie
// in the second-level cache. Narrow heads have a kernel of their own.
#include <algorithm>
#include <optional>
#include <string>

#include "runtime/backend/cpu/driver.h"
#include "runtime/backend/cpu/dense/dense.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/epilogue.h"

namespace voxlab::cpu {
namespace {

// One operand: matrices over the leading axes of the output, a stride of 0 where it broadcasts.
struct Matrices {
  std::vector<int64_t> batch;
  MatrixStrides strides;

  int64_t offset(const Shape& leading, int64_t index) const {
    int64_t at = 0;
    for (int axis = leading.rank() - 1; axis >= 0; --axis) {
      at += index % leading[axis] * batch[static_cast<size_t>(axis)];
      index /= leading[axis];
    }
    return at;
  }
};

Matrices matrices_of(const TensorDesc& t, const Shape& leading) {
  Matrices m;
  const int rank = t.meta.shape.rank();
  const auto stride = [&](int axis) -> int64_t { return axis < 0 || t.size(axis) == 1 ? 0 : t.stride(axis); };
  for (int axis = 0; axis < leading.rank(); ++axis) m.batch.push_back(stride(axis - leading.rank() + rank - 2));
  m.strides = {stride(rank - 2), rank > 0 ? stride(rank - 1) : 0};
  return m;
}

struct Attention {
  Shape leading;
  int64_t batches = 0, queries = 0, depth = 0, keys = 0, width = 0;
  Matrices q, k, v, bias;
  bool biased = false;
  Precision precision = Precision::strict;

  // Query rows at a time: a quarter of the cache for the scores, and work for every thread.
  int64_t block_rows() const {
    const int64_t fit = std::max<int64_t>(8, l2_bytes() / 4 / int64_t{sizeof(float)} / std::max<int64_t>(1, keys));
    const int64_t share = ceil_div(queries * batches, 4 * thread_count());
    return std::clamp<int64_t>(std::min(fit, ceil_div(share, 8) * 8), 1, std::max<int64_t>(1, queries));
  }
};

ConstBuffer constant(const float* p) { return {reinterpret_cast<const std::byte*>(p), DType::f32}; }
Buffer writable(float* p) { return {reinterpret_cast<std::byte*>(p), DType::f32}; }

// Rows [first, first + rows) of one batch; `bias` points at the bias of the first row, or nowhere.
void attend(const Attention& a, const float* q, const float* k, const float* v, const float* bias, float* y, int64_t rows) {
  float* scores = scratch(Purpose::scores, rows * a.keys);
  Epilogue epilogue;
  const bool like_scores = a.bias.strides.row == a.keys && a.bias.strides.col == 1;
  if (a.biased && like_scores) epilogue.residual = bias;
  matmul({.m = rows, .n = a.keys, .k = a.depth, .a = a.q.strides, .b = a.k.strides, .c = {a.keys, 1}}, constant(q),
         constant(k), writable(scores), epilogue, a.precision);
  if (a.biased && !like_scores)
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < a.keys; ++n)
        scores[m * a.keys + n] += bias[m * a.bias.strides.row + n * a.bias.strides.col];
  AxisArgs args = {};
  args.x = args.y = scores;
  args.rows = rows;
  args.columns = a.keys;
  active_loops().axis_rows[axis_softmax](args);
  matmul({.m = rows, .n = a.width, .k = a.keys, .a = {a.keys, 1}, .b = a.v.strides, .c = {a.width, 1}}, constant(scores),
         constant(v), writable(y), {}, a.precision);
}

// Which kernel for narrow heads, if one.
std::optional<size_t> narrow_form(const Attention& a) {
  constexpr int64_t most_keys = 1024;  // whose scores stay in the first-level cache for a few queries
  if (a.biased || a.depth != a.width || a.keys == 0 || a.keys > most_keys || (a.depth != 8 && a.depth != 16)) return {};
  const size_t form = a.depth == 8 ? 0 : 1;
  return active_loops().attend_narrow[form] != nullptr ? std::optional(form) : std::nullopt;
}

void attend_narrow(const Attention& a, size_t form, const float* q, const float* k, const float* v, float* y, int64_t rows) {
  const Loops& loops = active_loops();
  float* packed = scratch(Purpose::panel, 2 * a.keys * a.depth);
  float* values = packed + a.keys * a.depth;
  for (int64_t key = 0; key < a.keys; ++key)
    for (int64_t d = 0; d < a.depth; ++d) {
      packed[key * a.depth + d] = k[d * a.k.strides.row + key * a.k.strides.col];
      values[key * a.depth + d] = v[key * a.v.strides.row + d * a.v.strides.col];
    }
  loops.attend_narrow[form]({.q = q, .q_row = a.q.strides.row, .q_col = a.q.strides.col, .k = packed, .v = values,
                             .scores = scratch(Purpose::scores, a.keys * loops.narrow_lanes[form]), .y = y, .rows = rows,
                             .keys = a.keys});
}

void run_attention(const Attention& a, const float* q, const float* k, const float* v, const float* bias, float* y) {
  const std::optional<size_t> narrow = narrow_form(a);
  const int64_t most = a.block_rows(), blocks = ceil_div(a.queries, most), tasks = a.batches * blocks;
  const int64_t multiply_adds = a.batches * a.queries * a.keys * (a.depth + a.width);
  parallel_for(tasks, task_grain(tasks, multiply_adds), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t batch = i / blocks, first = i % blocks * most;
      const float* from = q + a.q.offset(a.leading, batch) + first * a.q.strides.row;
      const float *keys = k + a.k.offset(a.leading, batch), *values = v + a.v.offset(a.leading, batch);
      float* to = y + (batch * a.queries + first) * a.width;
      const int64_t rows = std::min(most, a.queries - first);
      if (narrow) {
        attend_narrow(a, *narrow, from, keys, values, to, rows);
      } else {
        attend(a, from, keys, values,
               a.biased ? bias + a.bias.offset(a.leading, batch) + first * a.bias.strides.row : nullptr, to, rows);
      }
    }
  });
}

}  // namespace

Kernel prepare(const FusedAttention::Attrs&, Descs in, Descs out) {
  if (!all_f32(in)) return {};
  Attention a;
  const Shape& shape = out[0].shape();
  a.leading = Shape(std::span<const int64_t>(shape.begin(), static_cast<size_t>(shape.rank() - 2)));
  a.batches = a.leading.numel();
  a.queries = shape[-2];
  a.width = shape[-1];
  a.depth = in[0].size(-1);
  a.keys = in[1].size(-1);
  a.biased = in.size() > 3 && in[3].present;
  a.q = matrices_of(in[0], a.leading);
  a.k = matrices_of(in[1], a.leading);
  a.v = matrices_of(in[2], a.leading);
  if (a.biased) a.bias = matrices_of(in[3], a.leading);
  a.precision = f32_precision();
  const auto run = [a](Pointers x, Pointers y, std::byte*) {
    const auto floats = [](std::byte* p) { return reinterpret_cast<float*>(p); };
    if (a.batches * a.queries * a.width == 0) return;
    run_attention(a, floats(x[0]), floats(x[1]), floats(x[2]), a.biased ? floats(x[3]) : nullptr, floats(y[0]));
  };
  if (narrow_form(a)) return {.name = loop_name("attention", "narrow"), .run = run};
  const MatmulShape first{.m = a.queries, .n = a.keys, .k = a.depth, .a = a.q.strides, .b = a.k.strides, .c = {a.keys, 1}};
  const std::string product(matmul(first, {nullptr, DType::f32}, {nullptr, DType::f32}, {nullptr, DType::f32}, {}, a.precision));
  return {.name = "cpu.attention" + product.substr(std::string_view("cpu.matmul").size()),
          .run = run};
}

}  // namespace voxlab::cpu
