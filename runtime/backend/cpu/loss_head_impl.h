// Softmax, cross entropy and class sums of a block of rows, a row a lane. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

// A block of up to vec_width rows from `first` on: lanes past the last row repeat the first and do not count.
struct HeadBlock {
  HeadBlock(const LossHeadArgs& args, int64_t first) : classes(args.classes), rows(args.rows - first < vec_width ? args.rows - first : vec_width) {
    Lanes at;
    for (int lane = 0; lane < vec_width; ++lane) at[lane] = static_cast<int32_t>((lane < rows ? lane : 0) * classes);
    const Lanes ignored = Lanes{} + args.ignore, nobody = Lanes{} - 1;
    label = ignored;  // past the last row
    __builtin_memcpy(&label, args.labels + first, static_cast<size_t>(rows) * sizeof(int32_t));
    counted = label == ignored ? zero() : splat(1);
    label = counted == zero() ? nobody : label;
    const float* x = args.x + first * classes;
    largest = splat(-__builtin_inff());
    chosen = zero();
    for (int64_t k = 0; k < classes; ++k) {
      const Vec v = gather(x + k, at);
      put(&value[k * vec_width], v);
      largest = max(v, largest);
      chosen = of_label(k, v, chosen);
    }
    total = zero();
    for (int64_t k = 0; k < classes; ++k) {
      const Vec e = exponential(get(&value[k * vec_width]) - largest);
      put(&value[k * vec_width], e);
      total += e;
    }
  }
  // `v` in the lanes that have this label.
  Vec of_label(int64_t k, Vec v, Vec otherwise) const { return label == Lanes{} + static_cast<int32_t>(k) ? v : otherwise; }

  int64_t classes, rows;
  Lanes label;                          // of each lane; -1: of none that counts
  Vec counted, largest, chosen, total;  // 0 or 1; the largest logit and that of the label; the sum of the powers
  float value[most_head_classes * vec_width];  // exp(x - largest), class by class
};

void loss_head_loop(const LossHeadArgs& args) {
  constexpr int64_t stretch = 64 * vec_width;  // rows whose sums are f32
  const int64_t classes = args.classes;
  double* sums[3] = {args.sums, args.sums + classes, args.sums + 2 * classes};
  for (int64_t start = 0; start < args.rows; start += stretch) {
    const int64_t end = start + stretch < args.rows ? start + stretch : args.rows;
    float part[3][most_head_classes * vec_width];  // of p t, of p or p^2, of t
    for (auto& all : part)
      for (int64_t k = 0; k < classes; ++k) put(&all[k * vec_width], zero());
    Vec loss = zero();
    for (int64_t first = start; first < end; first += vec_width) {
      const HeadBlock block(args, first);
      const Vec factor = block.counted / block.total;
      for (int64_t k = 0; k < classes; ++k) {
        const Vec p = get(&block.value[k * vec_width]) * factor;
        const Vec terms[3] = {block.of_label(k, p, zero()), args.squared ? p * p : p, block.of_label(k, splat(1), zero())};
        for (int i = 0; i < 3; ++i) put(&part[i][k * vec_width], get(&part[i][k * vec_width]) + terms[i]);
      }
      loss += block.counted * (logarithm(block.total) + (block.largest - block.chosen));
    }
    *args.loss += sum_of(loss);
    for (int i = 0; i < 3; ++i)
      for (int64_t k = 0; k < classes; ++k) sums[i][k] += sum_of(get(&part[i][k * vec_width]));
  }
}

// With p = softmax(x): dx = share (p - t) + p (dp - sum(p dp)), dp = d_all (1 or 2 p) + d_true t.
void loss_head_grad_loop(const LossHeadArgs& args) {
  const int64_t classes = args.classes;
  Lanes places[most_head_classes];  // where the values of a row lie in a block
  for (int64_t i = 0; i < classes * vec_width; ++i)
    places[i / vec_width][i % vec_width] = static_cast<int32_t>(i % classes * vec_width + i / classes);
  const Vec share = splat(args.share);
  for (int64_t first = 0; first < args.rows; first += vec_width) {
    HeadBlock block(args, first);
    const Vec factor = block.counted / block.total;
    Vec dot = zero(), at_label = zero();  // at_label: p d_true of the label
    for (int64_t k = 0; k < classes; ++k) {
      const Vec p = get(&block.value[k * vec_width]) * factor, weighted = p * splat(args.d_all[k]);
      put(&block.value[k * vec_width], p);
      dot += args.squared ? (p + p) * weighted : weighted;
      at_label = block.of_label(k, p * splat(args.d_true[k]), at_label);
    }
    dot += at_label;
    const Vec extra = at_label - share;
    for (int64_t k = 0; k < classes; ++k) {
      const Vec p = get(&block.value[k * vec_width]), d_all = splat(args.d_all[k]);
      put(&block.value[k * vec_width], p * (share + (args.squared ? (p + p) * d_all : d_all) - dot) + block.of_label(k, extra, zero()));
    }
    float* y = args.y + first * classes;
    for_vectors(block.rows * classes, [&](int64_t i, auto count) { put(y + i, gather(block.value, places[i / vec_width]), count); });
  }
}

constexpr void set_loss_heads(Loops& table) {
  table.loss_head = loss_head_loop;
  table.loss_head_grad = loss_head_grad_loop;
}

}  // namespace
}  // namespace voxlab::cpu
