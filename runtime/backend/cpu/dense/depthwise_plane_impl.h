// Depthwise 3x3 micro-kernels that read the tensors themselves: neighbouring outputs of a row, all
// channels in order. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/dense/kernels.h"
#include "runtime/backend/cpu/dense/vec.h"

namespace voxlab::cpu {
namespace {

// f(first channel, load, store) for every vector of channels; the last one may be short.
template <class F>
VOXLAB_INLINE void for_channel_vectors(int64_t channels, F f) {
  int64_t c = 0;
  for (; c + vec_width <= channels; c += vec_width) {
    f(
        c, [](const float* p) { return load(p); }, [](float* p, Vec v) { store(p, v); });
  }
  const int rest = static_cast<int>(channels - c);
  if (rest == 0) return;
  f(
      c, [rest](const float* p) { return load_first(p, rest); },
      [rest](float* p, Vec v) { store_first(p, v, rest); });
}

template <int T>
void depthwise_plane(const DepthwisePlaneArgs& t) {
  for_channel_vectors(
      t.channels, [&](int64_t c, auto get, auto put) __attribute__((always_inline)) {
        Vec acc[T];
#pragma GCC unroll 4
        for (int i = 0; i < T; ++i) acc[i] = t.bias == nullptr ? zero() : get(t.bias + c);
#pragma GCC unroll 3
        for (int row = 0; row < 3; ++row) {
          Vec weight[3];
#pragma GCC unroll 3
          for (int k = 0; k < 3; ++k) weight[k] = get(t.w[3 * row + k] + c);
#pragma GCC unroll 6
          for (int i = 0; i < T + 2; ++i) {
            const Vec value = get(t.x[row * (T + 2) + i] + c);
#pragma GCC unroll 3
            for (int k = 0; k < 3; ++k) {
              if (i - k >= 0 && i - k < T) acc[i - k] = mul_add(value, weight[k], acc[i - k]);
            }
          }
        }
#pragma GCC unroll 4
        for (int i = 0; i < T; ++i) put(t.y + i * t.channels + c, acc[i]);
      });
}

template <int T>
void depthwise_plane_wgrad(const DepthwisePlaneArgs& t) {
  for_channel_vectors(
      t.channels, [&](int64_t c, auto get, auto put) __attribute__((always_inline)) {
        Vec dy[T];
#pragma GCC unroll 4
        for (int i = 0; i < T; ++i) dy[i] = get(t.dy + i * t.channels + c);
#pragma GCC unroll 3
        for (int row = 0; row < 3; ++row) {
          Vec sum[3];
#pragma GCC unroll 3
          for (int k = 0; k < 3; ++k) sum[k] = get(t.y + (3 * row + k) * t.channels + c);
#pragma GCC unroll 6
          for (int i = 0; i < T + 2; ++i) {
            const Vec value = get(t.x[row * (T + 2) + i] + c);
#pragma GCC unroll 3
            for (int k = 0; k < 3; ++k) {
              if (i - k >= 0 && i - k < T) sum[k] = mul_add(value, dy[i - k], sum[k]);
            }
          }
#pragma GCC unroll 3
          for (int k = 0; k < 3; ++k) put(t.y + (3 * row + k) * t.channels + c, sum[k]);
        }
      });
}

constexpr void set_depthwise_plane(KernelTable& table) {
  constexpr DepthwisePlaneFn forward[] = {depthwise_plane<1>, depthwise_plane<2>,
                                          depthwise_plane<3>, depthwise_plane<4>};
  constexpr DepthwisePlaneFn wgrad[] = {depthwise_plane_wgrad<1>, depthwise_plane_wgrad<2>,
                                        depthwise_plane_wgrad<3>, depthwise_plane_wgrad<4>};
  for (int i = 0; i < max_plane_outputs; ++i) {
    table.depthwise_plane[i] = forward[i];
    table.depthwise_plane_wgrad[i] = wgrad[i];
  }
}

}  // namespace
}  // namespace voxlab::cpu
