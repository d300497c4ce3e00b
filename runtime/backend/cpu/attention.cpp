// dropout(softmax(q k + bias)) v by blocks of query rows: a block's scores are made, normalised and used while they lie
// in the second-level cache. Narrow heads have a kernel of their own.
#include "runtime/backend/cpu/attention.h"

#include <algorithm>
#include <string>

#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/epilogue.h"

namespace voxlab::cpu {

int64_t Matrices::offset(const Shape& leading, int64_t index) const {
  int64_t at = 0;
  for (int axis = leading.rank() - 1; axis >= 0; --axis) {
    at += index % leading[axis] * batch[static_cast<size_t>(axis)];
    index /= leading[axis];
  }
  return at;
}

Matrices matrices_of(const TensorDesc& t, const Shape& leading) {
  Matrices m;
  const int rank = t.meta.shape.rank();
  const auto stride = [&](int axis) -> int64_t { return axis < 0 || t.size(axis) == 1 ? 0 : t.stride(axis); };
  for (int axis = 0; axis < leading.rank(); ++axis) m.batch.push_back(stride(axis - leading.rank() + rank - 2));
  m.strides = {stride(rank - 2), rank > 0 ? stride(rank - 1) : 0};
  return m;
}

Shape leading_axes(const Shape& shape) {
  return Shape(std::span<const int64_t>(shape.begin(), static_cast<size_t>(shape.rank() - 2)));
}

Attention::Attention(const Shape& leading, const TensorDesc& q, const TensorDesc& k, const TensorDesc& v)
    : leading(leading),
      batches(leading.numel()),
      queries(q.size(-2)),
      depth(q.size(-1)),
      keys(k.size(-1)),
      width(v.size(-1)),
      q(matrices_of(q, leading)),
      k(matrices_of(k, leading)),
      v(matrices_of(v, leading)),
      y{width, 1},
      precision(f32_precision()) {}

int64_t Attention::block_rows(int64_t arrays) const {
  const int64_t fit = std::max<int64_t>(8, l2_bytes() / 4 / int64_t{sizeof(float)} / std::max<int64_t>(1, arrays * keys));
  const int64_t share = ceil_div(queries * batches, 4 * thread_count());
  return std::clamp<int64_t>(std::min(fit, ceil_div(share, 8) * 8), 1, std::max<int64_t>(1, queries));
}

std::optional<NarrowKernels> Attention::narrow() const {
  constexpr int64_t most_keys = 1024;  // whose scores stay in the first-level cache for a few queries
  if (biased || depth != width || keys == 0 || keys > most_keys || (depth != 8 && depth != 16)) return {};
  if (drop && keys % drop_block != 0) return {};  // a block of random numbers belongs to one query
  const size_t form = depth == 8 ? 0 : 1;
  const int64_t rows = 2 * keys * depth;
#if defined(__x86_64__)
  if (has_amx(active_isa()) && precision != Precision::strict && keys % tile_keys == 0) {
    const bool emulated = active_isa() == Isa::amx_emulated, split = precision == Precision::bf16x3;
    const TileAttention& tiles = (emulated ? attention_amx_emulated : attention_amx)[form];
    return NarrowKernels{.attend = tiles.attend[split],
                         .gradients = tiles.gradients[split],
                         .attend_floats = tile_attention_floats(keys),
                         .gradient_floats = tile_gradient_floats(keys),
                         .tiles = &tiles,
                         .packed_floats = rows + packed_tile_halves(keys) / 2};
  }
#endif
  const Loops& loops = active_loops();
  if (loops.attend_narrow[form] == nullptr) return {};
  return NarrowKernels{.attend = loops.attend_narrow[form],
                       .gradients = loops.attend_narrow_grad[form],
                       .attend_floats = 2 * keys * loops.narrow_lanes[form],
                       .gradient_floats = narrow_grad_floats(keys, depth),
                       .tiles = nullptr,
                       .packed_floats = rows};
}

namespace {

// ".amx.bf16x3" and so on.
std::string suffix(std::string_view matmul) { return std::string(matmul.substr(std::string_view("cpu.matmul").size())); }

}  // namespace

std::string narrow_name(std::string_view op, const Attention& a, const NarrowKernels& kernels) {
  if (kernels.tiles == nullptr) return loop_name(op, "narrow");
  return "cpu." + std::string(op) + ".narrow" + suffix(amx_name(KernelKind::matmul, a.precision == Precision::bf16x3));
}

PackedHead pack_head(const Attention& a, const NarrowKernels& kernels, const float* k, const float* v, float* packed) {
  float* const values = packed + a.keys * a.depth;
  for (int64_t key = 0; key < a.keys; ++key)
    for (int64_t d = 0; d < a.depth; ++d) {
      packed[key * a.depth + d] = k[d * a.k.strides.row + key * a.k.strides.col];
      values[key * a.depth + d] = v[key * a.v.strides.row + d * a.v.strides.col];
    }
  if (kernels.tiles == nullptr) return {packed, values, nullptr};
  auto* const tiles = reinterpret_cast<uint16_t*>(packed + 2 * a.keys * a.depth);
  kernels.tiles->pack(packed, values, a.keys, tiles);
  return {packed, values, tiles};
}

const float* block_factors(const DropRule& rule, int64_t row, int64_t rows, int64_t keys, float* room) {
  const int64_t first = row * keys, last = first + rows * keys;
  active_loops().keep_factors(rule, static_cast<uint64_t>(first / drop_block), ceil_div(last, drop_block) - first / drop_block, room);
  return room + first % drop_block;
}

DropRule rule_of(const Attention& a, const std::byte* step) {
  if (!a.drop) return {};
  return drop_rule(*a.drop, static_cast<uint32_t>(*reinterpret_cast<const int32_t*>(step)));
}

namespace {

// The tensors of one call.
struct Data {
  const float *q, *k, *v;
  const float* bias;  // or null
  float* y;
  float* sums;           // or null: see TrainingAttention
  const DropRule* rule;  // or null
};

// Rows [first, first + rows) of one batch, whose parts `t` points at; `row` is the first one's number over all batches.
void attend_wide(const Attention& a, const Data& t, int64_t row, int64_t rows) {
  const int64_t size = rows * a.keys;
  float* scores = scratch(Purpose::scores, 2 * size + drop_slack);
  const bool softmax_adds = a.biased && t.sums == nullptr && a.bias.strides.row == a.keys && a.bias.strides.col == 1;
  matmul({.m = rows, .n = a.keys, .k = a.depth, .a = a.q.strides, .b = a.k.strides, .c = {a.keys, 1}}, constant(t.q),
         constant(t.k), writable(scores), {}, a.precision);
  if (a.biased && !softmax_adds)
    for (int64_t m = 0; m < rows; ++m)
      for (int64_t n = 0; n < a.keys; ++n)
        scores[m * a.keys + n] += t.bias[m * a.bias.strides.row + n * a.bias.strides.col];
  if (t.sums != nullptr) {
    const float* factors = t.rule == nullptr ? nullptr : block_factors(*t.rule, row, rows, a.keys, scores + size);
    active_loops().dropped_weights({.scores = scores, .dweights = nullptr, .factors = factors, .sums = t.sums,
                                    .known_sums = nullptr, .delta = nullptr, .rows = rows, .keys = a.keys});
  } else {
    AxisArgs args = {};
    args.x = args.y = scores;
    args.rows = rows;
    args.columns = a.keys;
    args.add = softmax_adds ? t.bias : nullptr;
    active_loops().axis_rows[axis_softmax](args);
  }
  matmul({.m = rows, .n = a.width, .k = a.keys, .a = {a.keys, 1}, .b = a.v.strides, .c = a.y}, constant(scores),
         constant(t.v), writable(t.y), {}, a.precision);
}

void attend_narrow(const Attention& a, const NarrowKernels& kernels, const PackedHead& head, const Data& t, int64_t row, int64_t rows) {
  kernels.attend({.q = {t.q, a.q.strides.row, a.q.strides.col}, .k = head.k, .v = head.v, .tiles = head.tiles,
                  .scratch = scratch(Purpose::scores, kernels.attend_floats), .y = t.y, .y_row = a.y.row, .y_col = a.y.col,
                  .sums = t.sums, .rows = rows, .keys = a.keys, .drop = t.rule,
                  .first_block = static_cast<uint64_t>(row * a.keys / drop_block)});
}

void run_attention(const Attention& a, const Data& t) {
  if (a.batches * a.queries * a.width == 0) return;
  const std::optional<NarrowKernels> narrow = a.narrow();
  const int64_t most = narrow ? ceil_div(a.queries * a.batches, 4 * thread_count()) : a.block_rows(a.drop ? 2 : 1);
  const int64_t blocks = ceil_div(a.queries, most), tasks = a.batches * blocks;
  const int64_t multiply_adds = a.batches * a.queries * a.keys * (a.depth + a.width);
  parallel_for(tasks, task_grain(tasks, multiply_adds), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t batch = i / blocks, first = i % blocks * most, row = batch * a.queries + first;
      const int64_t rows = std::min(most, a.queries - first);
      const Data part{.q = t.q + a.q.offset(a.leading, batch) + first * a.q.strides.row,
                      .k = t.k + a.k.offset(a.leading, batch),
                      .v = t.v + a.v.offset(a.leading, batch),
                      .bias = a.biased ? t.bias + a.bias.offset(a.leading, batch) + first * a.bias.strides.row : nullptr,
                      .y = t.y + row * a.width,
                      .sums = t.sums == nullptr ? nullptr : t.sums + row,
                      .rule = t.rule};
      if (!narrow) {
        attend_wide(a, part, row, rows);
        continue;
      }
      const PackedHead head = pack_head(a, *narrow, part.k, part.v, scratch(Purpose::panel, narrow->packed_floats));
      attend_narrow(a, *narrow, head, part, row, rows);
    }
  });
}

std::string kernel_name_of(const Attention& a) {
  if (const auto narrow = a.narrow()) return narrow_name("attention", a, *narrow);
  const MatmulShape first{.m = a.queries, .n = a.keys, .k = a.depth, .a = a.q.strides, .b = a.k.strides, .c = {a.keys, 1}};
  return "cpu.attention" + suffix(matmul(first, {nullptr, DType::f32}, {nullptr, DType::f32}, {nullptr, DType::f32}, {}, a.precision));
}

}  // namespace

void attend(const Attention& a, const NarrowKernels& kernels, const float* q, const PackedHead& head, float* y, int64_t rows) {
  attend_narrow(a, kernels, head, {.q = q, .k = nullptr, .v = nullptr, .bias = nullptr, .y = y, .sums = nullptr, .rule = nullptr}, 0, rows);
}

void attend(const Attention& a, const float* q, const float* k, const float* v, float* y, int64_t rows) {
  attend_wide(a, {.q = q, .k = k, .v = v, .bias = nullptr, .y = y, .sums = nullptr, .rule = nullptr}, 0, rows);
}

Kernel prepare(const FusedAttention::Attrs&, Descs in, Descs out) {
  if (!all_f32(in)) return {};
  Attention a(leading_axes(out[0].shape()), in[0], in[1], in[2]);
  a.biased = in.size() > 3 && in[3].present;
  if (a.biased) a.bias = matrices_of(in[3], a.leading);
  return {.name = kernel_name_of(a), .run = [a](Pointers x, Pointers y, std::byte*) {
            run_attention(a, {.q = floats(x[0]), .k = floats(x[1]), .v = floats(x[2]), .bias = a.biased ? floats(x[3]) : nullptr,
                              .y = floats(y[0]), .sums = nullptr, .rule = nullptr});
          }};
}

Kernel prepare(const TrainingAttention::Attrs& attrs, Descs in, Descs) {
  if (!all_f32(in.first(3))) return {};
  Attention a(leading_axes(in[0].shape()), in[0], in[1], in[2]);
  if (attrs.p > 0) a.drop = attrs.dropout();
  return {.name = kernel_name_of(a), .run = [a](Pointers x, Pointers y, std::byte*) {
            const DropRule rule = rule_of(a, a.drop ? x[3] : nullptr);
            run_attention(a, {.q = floats(x[0]), .k = floats(x[1]), .v = floats(x[2]), .bias = nullptr, .y = floats(y[0]),
                              .sums = floats(y[1]), .rule = a.drop ? &rule : nullptr});
          }};
}

}  // namespace voxlab::cpu
