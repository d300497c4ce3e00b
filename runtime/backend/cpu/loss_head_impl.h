// Softmax, cross entropy and class sums of a block of rows, a row a lane. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

// A block of up to vec_width rows from `first` on: lanes past the last row repeat the first and do not count.
struct HeadBlock {
  HeadBlock(const LossHeadArgs& args, int64_t first) : classes(args.classes), rows(args.rows - first < vec_width ? args.rows - first : vec_width) {
    for (int lane = 0; lane < vec_width; ++lane) {
      const int64_t row = lane < rows ? lane : 0;
      const bool counts = lane < rows && args.labels[first + row] != args.ignore;
      at[lane] = static_cast<int32_t>(row * classes);
      label[lane] = counts ? args.labels[first + row] : 0;
      counted[lane] = counts ? 1.0F : 0.0F;
    }
    const float* x = args.x + first * classes;
    largest = splat(-__builtin_inff());
    for (int64_t k = 0; k < classes; ++k) {
      const Vec v = gather(x + k, at);
      put(&value[k * vec_width], v);
      largest = max(v, largest);
    }
    chosen = gather(x, at + label);
    total = zero();
    for (int64_t k = 0; k < classes; ++k) {
      const Vec e = exponential(get(&value[k * vec_width]) - largest);
      put(&value[k * vec_width], e);
      total += e;
    }
  }
  float& of(int64_t k, int lane) { return value[k * vec_width + lane]; }

  int64_t classes, rows;
  Lanes at, label;              // of each lane: its row's first element, its label
  Vec counted, largest, chosen, total;  // 0 or 1; the largest logit and that of the label; the sum of the powers
  float value[most_head_classes * vec_width];  // exp(x - largest), class by class
};

void loss_head_loop(const LossHeadArgs& args) {
  constexpr int64_t stretch = 64 * vec_width;  // rows whose sums are f32
  const int64_t classes = args.classes;
  double* sum_true = args.sums;
  double* sum_all = sum_true + classes;
  double* sum_labels = sum_all + classes;
  for (int64_t start = 0; start < args.rows; start += stretch) {
    const int64_t end = start + stretch < args.rows ? start + stretch : args.rows;
    float all[most_head_classes * vec_width] = {};
    for (int64_t first = start; first < end; first += vec_width) {
      HeadBlock block(args, first);
      const Vec factor = block.counted / block.total;
      for (int64_t k = 0; k < classes; ++k) {
        const Vec p = get(&block.value[k * vec_width]) * factor;
        put(&block.value[k * vec_width], p);
        put(&all[k * vec_width], get(&all[k * vec_width]) + (args.squared ? p * p : p));
      }
      *args.loss += sum_of(block.counted * (logarithm(block.total) + (block.largest - block.chosen)));
      for (int lane = 0; lane < block.rows; ++lane) {
        if (block.counted[lane] == 0) continue;
        sum_true[block.label[lane]] += block.of(block.label[lane], lane);
        sum_labels[block.label[lane]] += 1;
      }
    }
    for (int64_t k = 0; k < classes; ++k) sum_all[k] += sum_of(get(&all[k * vec_width]));
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
    Vec dot = zero();
    for (int64_t k = 0; k < classes; ++k) {
      const Vec p = get(&block.value[k * vec_width]) * factor, weighted = p * splat(args.d_all[k]);
      put(&block.value[k * vec_width], p);
      dot += args.squared ? (p + p) * weighted : weighted;
    }
    Vec at_label;  // p d_true of the label
    for (int lane = 0; lane < vec_width; ++lane) at_label[lane] = block.of(block.label[lane], lane) * args.d_true[block.label[lane]];
    dot += at_label;
    for (int64_t k = 0; k < classes; ++k) {
      const Vec p = get(&block.value[k * vec_width]), d_all = splat(args.d_all[k]);
      put(&block.value[k * vec_width], p * (share + (args.squared ? (p + p) * d_all : d_all) - dot));
    }
    const Vec extra = at_label - share * block.counted;
    for (int lane = 0; lane < vec_width; ++lane) block.of(block.label[lane], lane) += extra[lane];
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
