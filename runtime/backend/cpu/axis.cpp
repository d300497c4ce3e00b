// Softmax, log-softmax, L2 normalisation and their gradients along any axis of a contiguous tensor,
// seen as (outer, size, inner).
#include "runtime/backend/cpu/axis.h"

#include <cmath>

#include "runtime/backend/cpu/driver.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t column_block = 256;

struct AxisCall {
  AxisFunction function;
  AxisSplit split;
  double epsilon = 0, clamp_limit = 0;
  bool backward = false;
};

// Where the data of one call lies. x is y for a gradient, y is dx.
struct AxisData {
  const float* x;
  const float* dy;
  float* y;
  float* norm;  // of L2 normalisation: written forward, read backward
};

// Totals of a block of columns.
struct Totals {
  std::vector<double> total;
  std::vector<float> largest;
  explicit Totals(size_t n) : total(n), largest(n, -__builtin_inff()) {}
};

// Joins the pieces' totals of column c into `shift` and `factor`, as the apply loops want them.
void finish_column(const AxisCall& call, const std::vector<Totals>& pieces, size_t c, float* norm,
                   float& shift, float& factor) {
  double total = 0;
  if (call.backward) {
    for (const Totals& p : pieces) total += p.total[c];
    if (call.function == axis_l2) {
      if (*norm <= call.clamp_limit) total = 0;  // a clamped norm does not move with x
      factor = 1.0F / *norm;
    }
    shift = static_cast<float>(total);
    return;
  }
  if (call.function == axis_l2) {
    for (const Totals& p : pieces) total += p.total[c];
    const double size = std::max(std::sqrt(total), call.epsilon);
    *norm = static_cast<float>(size);
    factor = static_cast<float>(1 / size);
    return;
  }
  float largest = -__builtin_inff();
  for (const Totals& p : pieces) largest = std::max(largest, p.largest[c]);
  for (const Totals& p : pieces)
    if (p.total[c] != 0)
      total += p.total[c] * std::exp(static_cast<double>(p.largest[c]) - largest);
  shift = largest;
  factor = static_cast<float>(call.function == axis_softmax ? 1 / total : std::log(total));
}

// One block of columns; its rows are shared out in `most_pieces` at most.
void run_columns(const AxisCall& call, const AxisData& data, int64_t outer, int64_t first,
                 int64_t width, bool share) {
  const AxisSplit& s = call.split;
  const int64_t at = outer * s.size * s.inner + first;
  const auto rows = [&](int64_t begin, int64_t end) {
    const int64_t row = at + begin * s.inner;
    AxisArgs args{.x = data.x + row,
                  .y = data.y + row,
                  .rows = end - begin,
                  .columns = width,
                  .pitch = s.inner};
    if (call.backward) args.dy = data.dy + row;
    return args;
  };
  const int64_t grain = share ? grain_rows(width) : s.size;
  const Loops& loops = active_loops();
  const auto sum =
      (call.backward ? loops.axis_columns_grad_total : loops.axis_columns_total)[call.function];
  const auto apply =
      (call.backward ? loops.axis_columns_grad_apply : loops.axis_columns_apply)[call.function];

  std::vector<Totals> pieces(share ? static_cast<size_t>(thread_count()) : 1,
                             Totals(static_cast<size_t>(width)));
  parallel_pieces(s.size, grain, [&](int piece, int64_t begin, int64_t end) {
    Totals& totals = pieces[static_cast<size_t>(piece)];
    AxisArgs args = rows(begin, end);
    args.total = totals.total.data();
    args.largest = totals.largest.data();
    sum(args);
  });
  std::vector<float> shift(static_cast<size_t>(width)), factor(static_cast<size_t>(width));
  for (int64_t c = 0; c < width; ++c) {
    const auto i = static_cast<size_t>(c);
    float* norm = data.norm == nullptr ? nullptr : data.norm + outer * s.inner + first + c;
    finish_column(call, pieces, i, norm, shift[i], factor[i]);
  }
  parallel_for(s.size, grain, [&](int64_t begin, int64_t end) {
    AxisArgs args = rows(begin, end);
    args.shift = shift.data();
    args.factor = factor.data();
    apply(args);
  });
}

void run_axis(const AxisCall& call, const AxisData& data) {
  const AxisSplit& s = call.split;
  if (s.outer * s.size * s.inner == 0) return;
  if (s.inner == 1) {
    const Loops& loops = active_loops();
    const auto loop = (call.backward ? loops.axis_rows_grad : loops.axis_rows)[call.function];
    parallel_for(s.outer, grain_rows(s.size), [&](int64_t begin, int64_t end) {
      const int64_t at = begin * s.size;
      loop({.x = data.x + at,
            .dy = data.dy == nullptr ? nullptr : data.dy + at,
            .y = data.y + at,
            .rows = end - begin,
            .columns = s.size,
            .norm = data.norm == nullptr ? nullptr : data.norm + begin,
            .epsilon = call.epsilon,
            .clamp_limit = call.clamp_limit});
    });
    return;
  }
  const int64_t blocks = ceil_divide(s.inner, column_block), all = s.outer * blocks;
  const auto block = [&](int64_t i, bool share) {
    const int64_t first = i % blocks * column_block;
    run_columns(call, data, i / blocks, first, std::min(column_block, s.inner - first), share);
  };
  if (all >= thread_count()) {
    const int64_t elements = s.size * std::min(s.inner, column_block);
    parallel_for(all, grain_rows(elements), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) block(i, false);
    });
  } else {
    for (int64_t i = 0; i < all; ++i) block(i, true);
  }
}

}  // namespace

void softmax_columns(const float* x, float* y, int64_t rows, int64_t columns) {
  run_axis({.function = axis_softmax, .split = {.outer = 1, .size = rows, .inner = columns}}, {.x = x, .dy = nullptr, .y = y, .norm = nullptr});
}

namespace {

constexpr std::array<std::string_view, axis_functions> function_names{"softmax", "log_softmax",
                                                                      "l2_normalise"};

std::string axis_name(const AxisCall& call) {
  std::string op(function_names[static_cast<size_t>(call.function)]);
  if (call.backward) op += "_grad";
  return loop_name(op, call.split.inner == 1 ? "rows" : "columns");
}

Kernel forward(AxisFunction function, const Shape& shape, int axis, double epsilon, Descs in) {
  if (!all_f32(in)) return {};
  const AxisCall call{.function = function, .split = split_at(shape, axis), .epsilon = epsilon};
  return {.name = axis_name(call), .run = [call](Pointers x, Pointers y, std::byte*) {
            float* norm = call.function == axis_l2 ? floats(y[1]) : nullptr;
            run_axis(call, {.x = floats(x[0]), .dy = nullptr, .y = floats(y[0]), .norm = norm});
          }};
}

Kernel backward(AxisFunction function, const Shape& shape, int axis, double clamp_limit, Descs in) {
  if (!all_f32(in)) return {};
  const AxisCall call{.function = function,
                      .split = split_at(shape, axis),
                      .clamp_limit = clamp_limit,
                      .backward = true};
  return {.name = axis_name(call), .run = [call](Pointers in_data, Pointers out, std::byte*) {
            const bool l2 = call.function == axis_l2;
            run_axis(call, {.x = floats(in_data[0]),
                            .dy = floats(in_data[l2 ? 2 : 1]),
                            .y = floats(out[0]),
                            .norm = l2 ? floats(in_data[1]) : nullptr});
          }};
}

}  // namespace

Kernel prepare(const Softmax::Attrs& a, Descs in, Descs) {
  return forward(axis_softmax, in[0].shape(), a.axis, 0, in);
}
Kernel prepare(const SoftmaxGrad::Attrs& a, Descs in, Descs) {
  return backward(axis_softmax, in[0].shape(), a.axis, 0, in);
}
Kernel prepare(const LogSoftmax::Attrs& a, Descs in, Descs) {
  return forward(axis_log_softmax, in[0].shape(), a.axis, 0, in);
}
Kernel prepare(const LogSoftmaxGrad::Attrs& a, Descs in, Descs) {
  return backward(axis_log_softmax, in[0].shape(), a.axis, 0, in);
}
Kernel prepare(const L2Normalise::Attrs& a, Descs in, Descs) {
  return forward(axis_l2, in[0].shape(), a.axis, a.eps, in);
}
Kernel prepare(const L2NormaliseGrad::Attrs& a, Descs in, Descs) {
  return backward(axis_l2, in[0].shape(), a.axis, L2Normalise::clamp_limit(a), in);
}

}  // namespace voxlab::cpu
