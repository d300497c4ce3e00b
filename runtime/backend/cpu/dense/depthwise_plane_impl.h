// Depthwise 3x3 micro-kernels that read the tensors themselves: neighbouring outputs of a row, all
// channels in order. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/dense/kernels.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

// X: float, or uint16_t holding a bf16.
template <int T, class X>
void depthwise_plane(const DepthwisePlaneArgs& t) {
  for_vectors(t.channels, [&](int64_t c, auto count) __attribute__((always_inline)) {
    Vec acc[T];
#pragma GCC unroll 4
    for (int i = 0; i < T; ++i) acc[i] = t.bias == nullptr ? zero() : get(t.bias + c, count);
#pragma GCC unroll 3
    for (int row = 0; row < 3; ++row) {
      Vec weight[3];
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) weight[k] = get(t.w[3 * row + k] + c, count);
#pragma GCC unroll 6
      for (int i = 0; i < T + 2; ++i) {
        const Vec value = get(static_cast<const X*>(t.x[row * (T + 2) + i]) + c, count);
#pragma GCC unroll 3
        for (int k = 0; k < 3; ++k) {
          if (i - k >= 0 && i - k < T) acc[i - k] = mul_add(value, weight[k], acc[i - k]);
        }
      }
    }
#pragma GCC unroll 4
    for (int i = 0; i < T; ++i) put(t.y + i * t.channels + c, acc[i], count);
  });
}

template <int T>
void depthwise_plane_wgrad(const DepthwisePlaneArgs& t) {
  for_vectors(t.channels, [&](int64_t c, auto count) __attribute__((always_inline)) {
    Vec dy[T];
#pragma GCC unroll 4
    for (int i = 0; i < T; ++i) dy[i] = get(t.dy + i * t.channels + c, count);
#pragma GCC unroll 3
    for (int row = 0; row < 3; ++row) {
      Vec sum[3];
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) sum[k] = get(t.y + (3 * row + k) * t.channels + c, count);
#pragma GCC unroll 6
      for (int i = 0; i < T + 2; ++i) {
        const Vec value = get(static_cast<const float*>(t.x[row * (T + 2) + i]) + c, count);
#pragma GCC unroll 3
        for (int k = 0; k < 3; ++k) {
          if (i - k >= 0 && i - k < T) sum[k] = mul_add(value, dy[i - k], sum[k]);
        }
      }
#pragma GCC unroll 3
      for (int k = 0; k < 3; ++k) put(t.y + (3 * row + k) * t.channels + c, sum[k], count);
    }
  });
}

constexpr void set_depthwise_plane(KernelTable& table) {
  constexpr DepthwisePlaneFn forward[2][max_plane_outputs] = {
      {depthwise_plane<1, float>, depthwise_plane<2, float>, depthwise_plane<3, float>, depthwise_plane<4, float>},
      {depthwise_plane<1, uint16_t>, depthwise_plane<2, uint16_t>, depthwise_plane<3, uint16_t>, depthwise_plane<4, uint16_t>}};
  constexpr DepthwisePlaneFn wgrad[] = {depthwise_plane_wgrad<1>, depthwise_plane_wgrad<2>,
                                        depthwise_plane_wgrad<3>, depthwise_plane_wgrad<4>};
  for (int i = 0; i < max_plane_outputs; ++i) {
    for (int x = 0; x < 2; ++x) table.depthwise_plane[x][i] = forward[x][i];
    table.depthwise_plane_wgrad[i] = wgrad[i];
  }
}

}  // namespace
}  // namespace voxlab::cpu
