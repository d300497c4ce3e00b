// Cross entropy on class labels and on 0/1 channels, with gradients. Included once per instruction
// set.
#pragma once

#include "runtime/backend/cpu/axis_impl.h"

namespace voxlab::cpu {
namespace {

VOXLAB_INLINE float weight_of(const LossArgs& args, int32_t label) {
  return args.weight == nullptr ? 1.0F : args.weight[label];
}

// -w log softmax(x)[label] of one row whose powers, relative to the largest value, add up to
// `total`.
VOXLAB_INLINE double row_loss(const LossArgs& args, const float* x, int32_t label, float largest,
                              float total) {
  const float spread = logarithm(splat(total))[0];
  return weight_of(args, label) * (static_cast<double>(spread) + (largest - x[label]));
}

// Read from 4 vectors in, minus a label: 1 in the label's place.
struct OneHot {
  float at[8 * vec_width] = {};
  constexpr OneHot() { at[4 * vec_width] = 1; }
};
constexpr OneHot one_hot;

// f(row, label) for every row that counts; `skip` for the others.
template <class F, class Skip>
VOXLAB_INLINE void for_counted_rows(const LossArgs& args, F f, Skip skip) {
  for (int64_t r = 0; r < args.rows; ++r) {
    if (args.labels[r] == args.ignore) {
      skip(r);
    } else {
      f(r, args.labels[r]);
    }
  }
}

template <int vectors>
double cross_entropy_held(const LossArgs& args) {
  double loss = 0;
  for_counted_rows(
      args,
      [&](int64_t r, int32_t label) {
        const float* x = args.x + r * args.classes;
        auto row = HeldRow<vectors>::of(x, args.classes);
        const float largest = row.largest();
        loss += row_loss(args, x, label, largest, row.to_powers(largest));
      },
      [](int64_t) {});
  return loss;
}

template <int vectors>
void cross_entropy_grad_held(const LossArgs& args) {
  const int64_t n = args.classes, rows = args.rows;
  if (rows == 0) return;
  auto next = HeldRow<vectors>::of(args.x, n);
  for (int64_t r = 0; r < rows; ++r) {
    auto row = next;
    if (r + 1 < rows) next = HeldRow<vectors>::of(args.x + (r + 1) * n, n);
    const int32_t label = args.labels[r];
    if (label == args.ignore) {
      for (Vec& v : row.v) v = zero();
    } else {
      const float share = args.scale * weight_of(args, label);
      const Vec factor = splat(share / row.to_powers(row.largest()));
      const float* hit = one_hot.at + 4 * vec_width - label;
      for (int k = 0; k < vectors; ++k)
        row.v[k] = row.v[k] * factor - get(hit + k * vec_width) * splat(share);
    }
    row.write(args.y + r * n);
  }
}

struct RowPeak {
  Vec largest;
  double total;  // sum of exp(x - largest)
};

template <class F>
VOXLAB_INLINE RowPeak row_peak(const float* x, int64_t n, F on_power) {
  Vec most = splat(-__builtin_inff());
  for_vectors(n, [&](int64_t i, auto count) {
    most = max(keep_or(get(x + i, count), -__builtin_inff(), count), most);
  });
  const Vec largest = splat(max_of(most));
  const double total = row_total(n, [&](int64_t i, auto count) {
    const Vec e = keep(exponential(get(x + i, count) - largest), count);
    on_power(i, e, count);
    return e;
  });
  return {largest, total};
}

// Sum of -w log softmax(x)[label] over the rows that count.
double cross_entropy_loop(const LossArgs& args) {
  if (args.classes <= vec_width) return cross_entropy_held<1>(args);
  if (args.classes <= 2 * vec_width) return cross_entropy_held<2>(args);
  double loss = 0;
  for_counted_rows(
      args,
      [&](int64_t r, int32_t label) {
        const float* x = args.x + r * args.classes;
        const RowPeak peak = row_peak(x, args.classes, [](int64_t, Vec, auto) {});
        loss += row_loss(args, x, label, peak.largest[0], static_cast<float>(peak.total));
      },
      [](int64_t) {});
  return loss;
}

// y = scale w (softmax(x) - [label]), 0 for rows that do not count.
double cross_entropy_grad_loop(const LossArgs& args) {
  if (args.classes <= vec_width) return cross_entropy_grad_held<1>(args), 0;
  if (args.classes <= 2 * vec_width) return cross_entropy_grad_held<2>(args), 0;
  for_counted_rows(
      args,
      [&](int64_t r, int32_t label) {
        float* y = args.y + r * args.classes;
        const RowPeak peak = row_peak(args.x + r * args.classes, args.classes,
                                      [&](int64_t i, Vec e, auto count) { put(y + i, e, count); });
        const float share = args.scale * weight_of(args, label);
        const Vec factor = splat(static_cast<float>(share / peak.total));
        for_vectors(args.classes,
                    [&](int64_t i, auto count) { put(y + i, get(y + i, count) * factor, count); });
        y[label] -= share;
      },
      [&](int64_t r) {
        for (int64_t i = 0; i < args.classes; ++i) args.y[r * args.classes + i] = 0;
      });
  return 0;
}

VOXLAB_INLINE Vec label_values(const int32_t* p, All) {
  VecInts v;
  __builtin_memcpy(&v, p, sizeof v);
  return __builtin_convertvector(v, Vec);
}
VOXLAB_INLINE Vec label_values(const int32_t* p, First count) {
  VecInts v = {};
  __builtin_memcpy(&v, p, static_cast<size_t>(4 * count.n));
  return __builtin_convertvector(v, Vec);
}

// Sum of max(x, 0) - x y + log(1 + exp(-|x|)); `rows` counts elements.
double binary_cross_entropy_loop(const LossArgs& args) {
  return row_total(args.rows, [&](int64_t i, auto count) {
    const Vec x = get(args.x + i, count), y = label_values(args.labels + i, count);
    const Vec soft = logarithm(splat(1.0F) + exponential(-absolute(x)));
    return keep(max(x, zero()) - x * y + soft, count);
  });
}

double binary_cross_entropy_grad_loop(const LossArgs& args) {
  for_vectors(args.rows, [&](int64_t i, auto count) {
    const Vec level = logistic(get(args.x + i, count)) - label_values(args.labels + i, count);
    put(args.y + i, level * splat(args.scale), count);
  });
  return 0;
}

constexpr void set_losses(Loops& table) {
  table.cross_entropy = cross_entropy_loop;
  table.cross_entropy_grad = cross_entropy_grad_loop;
  table.binary_cross_entropy = binary_cross_entropy_loop;
  table.binary_cross_entropy_grad = binary_cross_entropy_grad_loop;
}

}  // namespace
}  // namespace voxlab::cpu
