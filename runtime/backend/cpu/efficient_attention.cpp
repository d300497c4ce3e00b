// Attention that compares no tokens: products of a few channels with all tokens, what stands between them made in the caches.
#include "runtime/ops/efficient_attention.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/backend/cpu/attention.h"
#include "runtime/backend/cpu/axis.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/epilogue.h"

namespace voxlab::cpu {
namespace {

// A tensor (batch, tokens, channels) whose tokens' channels lie together, or else a copy of it where they do.
class Tokens {
 public:
  explicit Tokens(const TensorDesc& t)
      : shape_(t.shape()), together_(t.stride(-1) == 1 || t.size(-1) == 1), strides_{t.stride(0), t.stride(1), t.stride(2)} {}
  int64_t channels() const { return shape_[2]; }
  int64_t row() const { return together_ ? strides_[1] : channels(); }

  // The tokens of sample `b`; a copy goes to `room`.
  const float* of(const std::byte* data, int64_t b, std::vector<float>& room) const {
    const float* at = reinterpret_cast<const float*>(data) + b * strides_[0];
    if (together_) return at;
    room.resize(static_cast<size_t>(shape_[1] * shape_[2]));
    copy_strided(sizeof(float), {{shape_[1], {shape_[2], strides_[1], 0}}, {shape_[2], {1, strides_[2], 0}}},
                 reinterpret_cast<const std::byte*>(at), reinterpret_cast<std::byte*>(room.data()));
    return room.data();
  }

 private:
  Shape shape_;
  bool together_;
  int64_t strides_[3];
};

// What both kernels know of their tensors.
struct Call {
  Call(int64_t heads, Descs in)
      : q(in[0]), k(in[1]), v(in[2]), batch(in[0].size(0)), tokens(in[0].size(1)), heads(heads), depth(q.channels() / heads),
        width(v.channels() / heads), precision(f32_precision()) {}
  // The products' name, as the larger of the two has it.
  std::string name(std::string_view op, const MatmulShape& shape) const {
    const std::string_view product = matmul(shape, {}, {}, {}, {}, precision);
    return "cpu." + std::string(op) + std::string(product.substr(std::string_view("cpu.matmul").size()));
  }

  Tokens q, k, v;
  int64_t batch, tokens, heads, depth, width;
  Precision precision;
};

void copy_rows(const float* x, int64_t pitch, float* y, int64_t rows, int64_t columns) {
  active_loops().copy_rows(x, y, rows, columns * int64_t{sizeof(float)}, pitch * int64_t{sizeof(float)}, columns * int64_t{sizeof(float)});
}

// ---- efficient attention ----

// (heads, dk, dv) from softmax(k) over the tokens, which lies in `weights`.
MatmulShape context_shape(const Call& c) {
  const int64_t keys = c.k.channels();
  return {.m = c.depth,
          .n = c.width,
          .k = c.tokens,
          .a = {1, keys},
          .b = {c.v.row(), 1},
          .c = {c.width, 1},
          .batch = {{{c.heads, c.depth, c.width, c.depth * c.width}}}};
}

void efficient(const Call& c, const float* q, const float* k, const float* v, float* y) {
  const int64_t keys = c.k.channels(), values = c.v.channels();
  float* const weights = scratch(Purpose::queries, c.tokens * keys);
  float* const context = scratch(Purpose::scores, keys * c.width);
  if (c.k.row() != keys) {
    copy_rows(k, c.k.row(), weights, c.tokens, keys);
    k = weights;
  }
  softmax_columns(k, weights, c.tokens, keys);
  matmul(context_shape(c), constant(weights), constant(v), writable(context), {}, c.precision);
  parallel_for(c.tokens, grain_rows(keys), [&](int64_t begin, int64_t end) {
    float* const rows = weights + begin * keys;
    const float* from = q + begin * c.q.row();
    if (c.q.row() != keys) {
      copy_rows(from, c.q.row(), rows, end - begin, keys);
      from = rows;
    }
    active_loops().axis_rows[axis_softmax]({.x = from, .y = rows, .rows = (end - begin) * c.heads, .columns = c.depth});
  });
  matmul({.m = c.tokens,
          .n = c.width,
          .k = c.depth,
          .a = {keys, 1},
          .b = {c.width, 1},
          .c = {values, 1},
          .batch = {{{c.heads, c.depth, c.depth * c.width, c.width}}}},
         constant(weights), constant(context), writable(y), {}, c.precision);
}

// ---- transpose attention ----

// (heads, d, d): q^T k before any norm.
MatmulShape scores_shape(const Call& c) {
  return {.m = c.depth,
          .n = c.depth,
          .k = c.tokens,
          .a = {1, c.q.row()},
          .b = {c.k.row(), 1},
          .c = {c.depth, 1},
          .batch = {{{c.heads, c.depth, c.depth, c.depth * c.depth}}}};
}

// 1 / max(norm, eps) of each channel, over the tokens.
std::vector<double> inverse_norms(const Call& c, const Tokens& t, const float* x, double eps) {
  const int64_t channels = t.channels();
  const auto count = static_cast<size_t>(channels);
  std::vector<double> squares(static_cast<size_t>(thread_count()) * count);
  parallel_pieces(c.tokens, grain_rows(channels), [&](int piece, int64_t begin, int64_t end) {
    active_loops().axis_columns_total[axis_l2]({.x = x + begin * t.row(),
                                                .rows = end - begin,
                                                .columns = channels,
                                                .pitch = t.row(),
                                                .total = &squares[static_cast<size_t>(piece) * count]});
  });
  for (size_t i = count; i < squares.size(); ++i) squares[i % count] += squares[i];
  squares.resize(count);
  for (double& s : squares) s = 1 / std::max(std::sqrt(s), eps);
  return squares;
}

// `temperature` has a value a head, `step` apart.
void transposed(const Call& c, double eps, const float* q, const float* k, const float* v, const float* temperature, int64_t step, float* y) {
  const std::vector<double> of_q = inverse_norms(c, c.q, q, eps), of_k = inverse_norms(c, c.k, k, eps);
  std::vector<float> scores(static_cast<size_t>(c.q.channels() * c.depth));
  matmul(scores_shape(c), constant(q), constant(k), writable(scores.data()), {}, c.precision);
  for (int64_t row = 0; row < c.q.channels(); ++row) {
    const int64_t head = row / c.depth;
    const double factor = static_cast<double>(temperature[head * step]) * of_q[static_cast<size_t>(row)];
    for (int64_t j = 0; j < c.depth; ++j) {
      float& score = scores[static_cast<size_t>(row * c.depth + j)];
      score = static_cast<float>(score * (factor * of_k[static_cast<size_t>(head * c.depth + j)]));
    }
  }
  active_loops().axis_rows[axis_softmax]({.x = scores.data(), .y = scores.data(), .rows = c.q.channels(), .columns = c.depth});
  matmul({.m = c.tokens,
          .n = c.depth,
          .k = c.depth,
          .a = {c.v.row(), 1},
          .b = {1, c.depth},
          .c = {c.v.channels(), 1},
          .batch = {{{c.heads, c.depth, c.depth * c.depth, c.depth}}}},
         constant(v), constant(scores.data()), writable(y), {}, c.precision);
}

}  // namespace

Kernel prepare(const EfficientAttention::Attrs& a, Descs in, Descs) {
  if (!all_f32(in)) return {};
  const Call c(a.heads, in);
  return {.name = c.name(EfficientAttention::name, context_shape(c)), .run = [c](Pointers data, Pointers out, std::byte*) {
            std::vector<float> rooms[3];
            for (int64_t b = 0; b < c.batch; ++b)
              efficient(c, c.q.of(data[0], b, rooms[0]), c.k.of(data[1], b, rooms[1]), c.v.of(data[2], b, rooms[2]),
                        floats(out[0]) + b * c.tokens * c.v.channels());
          }};
}

Kernel prepare(const TransposeAttention::Attrs& a, Descs in, Descs) {
  if (!all_f32(in)) return {};
  const Call c(a.heads, in);
  int64_t step = 0;
  for (int axis = 0; axis < in[3].shape().rank(); ++axis)
    if (in[3].size(axis) > 1) step = in[3].stride(axis);
  return {.name = c.name(TransposeAttention::name, scores_shape(c)), .run = [c, step, eps = a.eps](Pointers data, Pointers out, std::byte*) {
            std::vector<float> rooms[3];
            for (int64_t b = 0; b < c.batch; ++b)
              transposed(c, eps, c.q.of(data[0], b, rooms[0]), c.k.of(data[1], b, rooms[1]), c.v.of(data[2], b, rooms[2]), floats(data[3]), step,
                         floats(out[0]) + b * c.tokens * c.v.channels());
          }};
}

}  // namespace voxlab::cpu
