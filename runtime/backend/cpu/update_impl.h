// Optimizer updates and the squared norm of gradients. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

void sgd_loop(const SgdArgs& args) {
  for_vectors(args.n, [&](int64_t i, auto count) {
    fetch_ahead(args.param + i);
    fetch_ahead(args.grad + i);
    if (args.buffer != nullptr) fetch_ahead(args.buffer + i);
    const Vec p = get(args.param + i, count);
    const Vec g =
        mul_add(splat(args.weight_decay), p, get(args.grad + i, count) * splat(args.grad_scale));
    Vec step = g;
    if (args.buffer != nullptr) {
      Vec buffer = g;
      if (!args.first)
        buffer =
            mul_add(splat(args.momentum), get(args.buffer + i, count), splat(args.undamped) * g);
      put(args.buffer + i, buffer, count);
      step = args.nesterov ? mul_add(splat(args.momentum), buffer, g) : buffer;
    }
    put(args.param + i, mul_add(splat(-args.lr), step, p), count);
  });
}

// keep = 1 - lr * decay for a decoupled decay, root_scale = 1 / sqrt(1 - beta2^t),
// step_size = lr / (1 - beta1^t).
void adam_loop(const AdamArgs& args) {
  for_vectors(args.n, [&](int64_t i, auto count) {
    const Vec before = get(args.param + i, count), p = before * splat(args.keep);
    const Vec g = mul_add(splat(args.weight_decay), before,
                          get(args.grad + i, count) * splat(args.grad_scale));
    const Vec m = mul_add(splat(args.beta1), get(args.m + i, count), splat(args.rest1) * g);
    Vec v = mul_add(splat(args.beta2), get(args.v + i, count), splat(args.rest2) * (g * g));
    put(args.m + i, m, count);
    put(args.v + i, v, count);
    if (args.largest != nullptr) {
      v = max(get(args.largest + i, count), v);
      put(args.largest + i, v, count);
    }
    const Vec root = mul_add(square_root(v), splat(args.root_scale), splat(args.eps));
    put(args.param + i, mul_add(splat(-args.step_size), m / root, p), count);
  });
}

using HalfVec = float __attribute__((vector_size(2 * vec_width)));
using WideVec = double __attribute__((vector_size(4 * vec_width)));

// In f64 throughout, in fixed lanes: vectors of them, for the compiler makes scalars of a loop.
template <class T>
double squared_norm_loop(const void* data, int64_t n) {
  constexpr int lanes = 32, width = vec_width / 2;
  const T* x = static_cast<const T*>(data);
  WideVec sum[lanes / width] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int k = 0; k < lanes / vec_width; ++k) {
      const Vec v = get(x + i + k * vec_width);
      HalfVec half[2];
      __builtin_memcpy(half, &v, sizeof v);
      for (int h = 0; h < 2; ++h) {
        const WideVec wide = __builtin_convertvector(half[h], WideVec);
        sum[2 * k + h] += wide * wide;
      }
    }
  double total = 0;
  for (; i < n; ++i) {
    const double v = scalar(x + i);
    total += v * v;
  }
  for (const WideVec& s : sum)
    for (int k = 0; k < width; ++k) total += s[k];
  return total;
}

constexpr void set_updates(Loops& table) {
  table.sgd = sgd_loop;
  table.adam = adam_loop;
  table.squared_norm[0] = squared_norm_loop<float>;
  table.squared_norm[1] = squared_norm_loop<uint16_t>;
}

}  // namespace
}  // namespace voxlab::cpu
