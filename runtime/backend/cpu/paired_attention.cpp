// Efficient paired attention in two passes over the tokens X (N, C). Query, key and values are X W; no (N, C) tensor of them is
// ever whole. The first pass makes queries and keys a block at a time for norms and Q^T K, and with E, the projection to P
// tokens, X^T E: keys and values of P tokens are Wk^T (X^T E) and so on, P C^2 products in place of N C^2. (Q^T K from X^T X
// would be cheaper, but squares the condition of X W in the norms.) The second pass makes the queries again for the spatial
// branch. The channel branch is X M, M = Wv softmax(..) Wout of C rows.
#include <algorithm>
#include <cmath>
#include <memory>

#include "runtime/backend/cpu/attention.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/driver.h"
#include "runtime/backend/cpu/epilogue.h"

namespace voxlab::cpu {
namespace {

using Op = PairedAttention;

struct Paired {
  int64_t batch = 0, tokens = 0, width = 0, heads = 0, depth = 0, keys = 0;
  int64_t spatial_columns = 0, channel_columns = 0;  // of the output layers, or 0
  bool own_values = false;
  Op::Attrs attrs;
  Precision precision = Precision::strict;
  std::shared_ptr<const KeptWeights> kept_out;  // of the spatial branch's output layer, or null

  bool layers() const { return spatial_columns > 0; }
  int64_t columns() const { return layers() ? spatial_columns + channel_columns : width; }
  MatmulShape out_product(int64_t rows) const {
    return {.m = rows, .n = spatial_columns, .k = width, .a = {width, 1}, .b = {spatial_columns, 1}, .c = {columns(), 1}};
  }
};

// Of one sample. Column i of W, and so of all that has C columns or rows for it, is head * depth + channel of the head.
struct Middle {
  float* spatial;     // N C values, in the order that the network reads them in
  float* key_sums;    // X^T E (C, P)
  float* value_sums;  // the same of the values' own projection
  float* keys;        // (C, P), with temperature and the queries' norms
  float* values;      // (C, P)
  float* mixing;      // of channels (heads, d, d)
  float* mixed;       // Wv softmax(..) (C, C)
  float* mixed_out;   // that through the output layer

  // From `base` on; returns the floats that it takes.
  int64_t place(const Paired& p, float* base) {
    int64_t at = 0;
    const auto take = [&](int64_t floats) {
      at += ceil_div(floats, 16) * 16;
      return base == nullptr ? nullptr : base + at - ceil_div(floats, 16) * 16;
    };
    spatial = take(p.tokens * p.width);
    key_sums = take(p.width * p.keys);
    value_sums = p.own_values ? take(p.width * p.keys) : key_sums;
    keys = take(p.width * p.keys);
    values = take(p.width * p.keys);
    mixing = take(p.width * p.depth);
    mixed = take(p.width * p.width);
    mixed_out = p.layers() ? take(p.width * p.channel_columns) : mixed;
    return at;
  }
};

void product(const MatmulShape& shape, const float* a, const float* b, float* c, const Epilogue& epilogue = {},
             Precision precision = Precision::strict, const KeptWeights* kept = nullptr) {
  matmul(shape, {a, DType::f32}, {b, DType::f32, kept}, {c, DType::f32}, epilogue, precision);
}

struct Inputs {
  const float* x[Op::input_count];
  const float* operator[](size_t i) const { return x[i]; }
};

// What the first pass adds up in blocks: |column|^2 of queries and keys, and Q^T K of each head (heads, d, d).
struct Sums {
  std::vector<double> squares, gram;
};

// Rows of tokens that are worth a task, and whose queries and keys stay in the second-level cache.
int64_t block_of(const Paired& p) {
  constexpr int64_t most_rows = 256, least_rows = 32;
  const int64_t share = ceil_div(p.tokens, 4 * thread_count());
  return std::clamp(ceil_div(share, least_rows) * least_rows, least_rows, most_rows);
}

// `weight`: of queries and keys.
void add_block(const Paired& p, const float* weight, const float* x, int64_t rows, Sums& sums) {
  const int64_t width = p.width, d = p.depth, both = 2 * width;
  float* made = scratch(Purpose::queries, rows * both + width * d);
  float* gram = made + rows * both;
  product({.m = rows, .n = both, .k = width, .a = {width, 1}, .b = {4 * width, 1}, .c = {both, 1}}, x, weight, made, {}, p.precision);
  active_loops().reduce_columns[static_cast<int>(ReduceKind::sum_squares)][0](made, rows, both, both, sums.squares.data());
  product({.m = d, .n = d, .k = rows, .a = {1, both}, .b = {both, 1}, .c = {d, 1}, .batch = {{{p.heads, d, d, d * d}}}}, made,
          made + width, gram);
  for (int64_t i = 0; i < width * d; ++i) sums.gram[static_cast<size_t>(i)] += gram[i];
}

// First pass: everything that sums over tokens.
Sums sum_tokens(const Paired& p, const Inputs& in, const float* x, const Middle& m) {
  const MatmulShape projection{.m = p.width, .n = p.keys, .k = p.tokens, .a = {1, p.width}, .b = {p.keys, 1}, .c = {p.keys, 1}};
  product(projection, x, in[Op::key_projection], m.key_sums, {}, p.precision);
  if (p.own_values) product(projection, x, in[Op::value_projection], m.value_sums, {}, p.precision);
  const Sums none{std::vector<double>(static_cast<size_t>(2 * p.width)), std::vector<double>(static_cast<size_t>(p.width * p.depth))};
  std::vector<Sums> pieces(static_cast<size_t>(thread_count()), none);
  const int64_t block = block_of(p), blocks = ceil_div(p.tokens, block);
  parallel_pieces(blocks, task_grain(blocks, p.tokens * p.width * (2 * p.width + p.depth)), [&](int piece, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      add_block(p, in[Op::weight] + p.width, x + i * block * p.width, std::min(block, p.tokens - i * block), pieces[static_cast<size_t>(piece)]);
  });
  Sums all = none;
  for (const Sums& piece : pieces) {
    for (size_t i = 0; i < all.squares.size(); ++i) all.squares[i] += piece.squares[i];
    for (size_t i = 0; i < all.gram.size(); ++i) all.gram[i] += piece.gram[i];
  }
  return all;
}

// Of queries, then of keys.
std::vector<double> inverse_norms(const Paired& p, const std::vector<double>& squares) {
  std::vector<double> inverse;
  for (const double square : squares) inverse.push_back(1 / std::max(std::sqrt(square), p.attrs.eps));
  return inverse;
}

// The matrix that makes the channel branch of X.
void mix_channels(const Paired& p, const Inputs& in, const Sums& sums, const std::vector<double>& inverse, const Middle& m) {
  const int64_t d = p.depth, width = p.width;
  for (int64_t i = 0; i < width; ++i) {
    const double* keys = inverse.data() + width + i / d * d;
    const double scale = in[Op::channel_temperature][i / d] * inverse[static_cast<size_t>(i)];
    for (int64_t j = 0; j < d; ++j)
      m.mixing[i * d + j] = static_cast<float>(sums.gram[static_cast<size_t>(i * d + j)] * scale * keys[j]);
  }
  AxisArgs rows = {};
  rows.x = rows.y = m.mixing;
  rows.rows = width;
  rows.columns = d;
  active_loops().axis_rows[axis_softmax](rows);
  product({.m = width, .n = d, .k = d, .a = {4 * width, 1}, .b = {1, d}, .c = {width, 1}, .batch = {{{p.heads, d, d * d, d}}}},
          in[Op::weight], m.mixing, m.mixed);
  if (!p.layers()) return;
  const int64_t n = p.channel_columns;
  product({.m = width, .n = n, .k = width, .a = {width, 1}, .b = {n, 1}, .c = {n, 1}}, m.mixed, in[Op::channel_out], m.mixed_out);
}

// Keys, scaled by the temperature and the queries' norms, and values of the P tokens.
void project(const Paired& p, const Inputs& in, const std::vector<double>& inverse, const Middle& m) {
  const int64_t width = p.width;
  const MatmulShape shape{.m = width, .n = p.keys, .k = width, .a = {1, 4 * width}, .b = {p.keys, 1}, .c = {p.keys, 1}};
  product(shape, in[Op::weight] + 2 * width, m.key_sums, m.keys, {.bias = in[Op::key_bias]});
  const float* bias = in[p.own_values ? Op::value_bias : Op::key_bias];
  product(shape, in[Op::weight] + 3 * width, m.value_sums, m.values, {.bias = bias});
  for (int64_t i = 0; i < width; ++i) {
    const auto scale = static_cast<float>(in[Op::spatial_temperature][i / p.depth] * inverse[static_cast<size_t>(i)]);
    for (int64_t key = 0; key < p.keys; ++key) m.keys[i * p.keys + key] *= scale;
  }
}

// Second pass: the spatial branch of every token, a block with its queries at a time.
// `weight`: of queries.
void attend_tokens(const Paired& p, const float* weight, const float* x, const Middle& m) {
  Attention head;
  head.depth = head.width = p.depth;
  head.keys = p.keys;
  head.k.strides = {p.keys, 1};
  head.v.strides = {1, p.keys};
  head.y = p.attrs.tokens_last ? MatrixStrides{1, p.heads * p.tokens} : MatrixStrides{p.width, 1};
  head.precision = p.precision;
  const std::optional<NarrowKernels> narrow = head.narrow();
  std::vector<PackedHead> heads;
  float* packed = narrow ? scratch(Purpose::panel, p.heads * narrow->packed_floats) : nullptr;
  for (int64_t at = 0; narrow && at < p.heads; ++at, packed += narrow->packed_floats)
    heads.push_back(pack_head(head, *narrow, m.keys + at * p.depth * p.keys, m.values + at * p.depth * p.keys, packed));
  const int64_t block = block_of(p), blocks = ceil_div(p.tokens, block), multiply_adds = p.tokens * p.width * (p.width + 2 * p.keys);
  parallel_for(blocks, task_grain(blocks, multiply_adds), [&](int64_t begin, int64_t end) {
    float* queries = scratch(Purpose::queries, block * p.width);
    Attention h = head;
    MatrixStrides& q = h.q.strides;
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = i * block, rows = std::min(block, p.tokens - first);
      q = narrow ? MatrixStrides{1, rows} : MatrixStrides{p.width, 1};  // narrow heads have a query a lane
      product({.m = rows, .n = p.width, .k = p.width, .a = {p.width, 1}, .b = {4 * p.width, 1}, .c = q}, x + first * p.width, weight, queries, {}, p.precision);
      for (int64_t at = 0; at < p.heads; ++at) {
        const int64_t channel = at * p.depth;
        float* y = m.spatial + first * h.y.row + (p.attrs.tokens_last ? at * p.tokens : channel);
        const float* of = queries + channel * q.col;
        if (narrow) attend(h, *narrow, of, heads[static_cast<size_t>(at)], y, rows);
        else attend(h, of, m.keys + channel * p.keys, m.values + channel * p.keys, y, rows);
      }
    }
  });
}

// Both branches of some rows through their output layers side by side, or added up.
void join(const Paired& p, const Inputs& in, const float* x, const float* spatial, const Middle& m, float* y, int64_t rows) {
  if (!p.layers()) {
    const MatmulShape sum{.m = rows, .n = p.width, .k = p.width, .a = {p.width, 1}, .b = {p.width, 1}, .c = {p.width, 1}};
    return product(sum, x, m.mixed, y, {.residual = spatial}, p.precision);
  }
  MatmulShape shape = p.out_product(rows);
  product(shape, spatial, in[Op::spatial_out], y, {.bias = in[Op::spatial_out_bias]}, p.precision, p.kept_out.get());
  shape.n = shape.b.row = p.channel_columns;
  product(shape, x, m.mixed_out, y + p.spatial_columns, {.bias = in[Op::channel_out_bias]}, p.precision);
}

// y = residual + gamma z, a block of z at a time.
void write(const Paired& p, const Inputs& in, const float* x, const Middle& m, const float* residual, float* y) {
  if (residual == nullptr) return join(p, in, x, m.spatial, m, y, p.tokens);
  const int64_t columns = p.columns(), block = block_of(p), blocks = ceil_div(p.tokens, block);
  const std::vector<float> none(static_cast<size_t>(columns));
  parallel_for(blocks, task_grain(blocks, p.tokens * columns * p.width), [&](int64_t begin, int64_t end) {
    float* joined = scratch(Purpose::queries, block * columns);
    for (int64_t first = begin * block; first < std::min(end * block, p.tokens); first += block) {
      const int64_t rows = std::min(block, p.tokens - first);
      join(p, in, x + first * p.width, m.spatial + first * p.width, m, joined, rows);
      FinishColumnsArgs args = {};
      args.x = joined;
      args.residual = residual + first * columns;
      args.y = y + first * columns;
      args.rows = rows;
      args.columns = columns;
      args.value = {.mean = none.data(), .scale = in[Op::gamma], .shift = none.data()};
      active_loops().finish_columns(args);
    }
  });
}

void run_sample(const Paired& p, const Inputs& in, int64_t sample, const Middle& m, float* out) {
  const float* x = in[Op::tokens] + sample * p.tokens * p.width;
  const Sums sums = sum_tokens(p, in, x, m);
  const std::vector<double> inverse = inverse_norms(p, sums.squares);
  mix_channels(p, in, sums, inverse, m);
  project(p, in, inverse, m);
  attend_tokens(p, in[Op::weight] + p.width, x, m);
  const int64_t at = sample * p.tokens * p.columns();
  write(p, in, x, m, in[Op::residual] == nullptr ? nullptr : in[Op::residual] + at, out + at);
}

}  // namespace

Kernel prepare(const PairedAttention::Attrs& a, Descs in, Descs) {
  if (!all_f32(in)) return {};
  const auto given = [&](size_t i) { return i < in.size() && in[i].present; };
  Paired p{.batch = in[0].size(0), .tokens = in[0].size(1), .width = in[0].size(2), .heads = in[Op::channel_temperature].size(0)};
  p.depth = p.width / p.heads;
  p.keys = in[Op::key_projection].size(1);
  p.own_values = given(Op::value_projection);
  p.attrs = a;
  p.precision = f32_precision();
  if (given(Op::spatial_out)) {
    p.spatial_columns = in[Op::spatial_out].size(1);
    p.channel_columns = in[Op::channel_out].size(1);
    if (const std::byte* constant = in[Op::spatial_out].constant)
      p.kept_out = keep_matrix(p.out_product(p.tokens), reinterpret_cast<const float*>(constant), p.precision);
  }
  const int64_t floats = Middle{}.place(p, nullptr);
  return {.name = loop_name("paired_attention"),
          .workspace = floats * int64_t{sizeof(float)},
          .run = [p](Pointers x, Pointers y, std::byte* workspace) {
            Inputs inputs = {};
            for (size_t i = 0; i < x.size(); ++i) inputs.x[i] = reinterpret_cast<const float*>(x[i]);
            Middle m{};
            m.place(p, reinterpret_cast<float*>(workspace));
            for (int64_t sample = 0; sample < p.batch; ++sample) run_sample(p, inputs, sample, m, reinterpret_cast<float*>(y[0]));
          }};
}

}  // namespace voxlab::cpu
