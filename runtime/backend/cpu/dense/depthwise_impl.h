// Depthwise micro-kernels: outputs along W in registers, input straight from a compact scratch.
// Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/dense/kernels.h"
#include "runtime/backend/cpu/dense/vec.h"

namespace voxlab::cpu {
namespace {

constexpr int depthwise_most_outputs(int vectors) {
  return (vec_registers == 32 ? 24 : 12) / vectors;
}

template <int NV, int T>
VOXLAB_INLINE void store_outputs(const DepthwiseArgs& t, const Vec (&acc)[T][NV]) {
#pragma GCC unroll 24
  for (int i = 0; i < T; ++i) {
    float* y = reinterpret_cast<float*>(t.y + i * t.y_step);
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      Vec sum = acc[i][v];
      if (t.bias != nullptr) sum += load(t.bias + v * vec_width);
      store_some(y + v * vec_width, sum, v == NV - 1 ? t.last_columns : vec_width);
    }
    if (t.activation != 0) {
      finish_row(y, nullptr, (NV - 1) * vec_width + t.last_columns, t.activation, t.slope);
    }
  }
}

template <int NV, int T>
void depthwise_tile(const DepthwiseArgs& t) {
  Vec acc[T][NV];
#pragma GCC unroll 24
  for (int i = 0; i < T; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[i][v] = zero();
  }
  for (int64_t r = 0; r < t.row_count; ++r) {
    const char* row = t.x + t.rows[r].a_bytes;
    const float* w = t.w + t.rows[r].b_row * (NV * vec_width);
    for (int64_t tap = 0; tap < t.taps; ++tap) {
      const float* x = reinterpret_cast<const float*>(row + t.tap_bytes[tap]);
#pragma GCC unroll 2
      for (int v = 0; v < NV; ++v) {
        const Vec weight = load(w + v * vec_width);
#pragma GCC unroll 24
        for (int i = 0; i < T; ++i) {
          acc[i][v] = mul_add(load(x + (i * NV + v) * vec_width), weight, acc[i][v]);
        }
      }
      w += NV * vec_width;
    }
  }
  store_outputs<NV, T>(t, acc);
}

// K neighbouring taps: weights of the kernel row stay in registers, each input is loaded once.
template <int NV, int T, int K>
void depthwise_row_tile(const DepthwiseArgs& t) {
  Vec acc[T][NV];
#pragma GCC unroll 24
  for (int i = 0; i < T; ++i) {
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) acc[i][v] = zero();
  }
  for (int64_t r = 0; r < t.row_count; ++r) {
    const float* x = reinterpret_cast<const float*>(t.x + t.rows[r].a_bytes);
    const float* w = t.w + t.rows[r].b_row * (NV * vec_width);
#pragma GCC unroll 2
    for (int v = 0; v < NV; ++v) {
      Vec weight[K];
#pragma GCC unroll 7
      for (int k = 0; k < K; ++k) weight[k] = load(w + (k * NV + v) * vec_width);
#pragma GCC unroll 32
      for (int i = 0; i < T + K - 1; ++i) {
        const Vec value = load(x + (i * NV + v) * vec_width);
#pragma GCC unroll 7
        for (int k = 0; k < K; ++k) {
          if (i - k >= 0 && i - k < T) acc[i - k][v] = mul_add(value, weight[k], acc[i - k][v]);
        }
      }
    }
  }
  store_outputs<NV, T>(t, acc);
}

// Two accumulators a tap, for even and odd positions, hide the latency of the multiply-add.
template <int K>
void depthwise_wgrad_tile(const DepthwiseWgradArgs& t) {
  Vec even[K];
  Vec odd[K];
  int64_t offset[K];
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) {
    even[i] = odd[i] = zero();
    offset[i] = t.tap_bytes[i];
  }
  for (int64_t r = 0; r < t.rows; ++r) {
    const char* x = t.x + t.row_x_bytes[r];
    const float* dy = reinterpret_cast<const float*>(t.dy + t.row_dy_bytes[r]);
    int64_t w = t.width;
    for (; w >= 2; w -= 2) {
      const Vec first = load(dy);
      const Vec second = load(dy + vec_width);
#pragma GCC unroll 8
      for (int i = 0; i < K; ++i) {
        const float* p = reinterpret_cast<const float*>(x + offset[i]);
        even[i] = mul_add(first, load(p), even[i]);
        odd[i] = mul_add(second, load(p + vec_width), odd[i]);
      }
      x += 2 * sizeof(Vec);
      dy += 2 * vec_width;
    }
    if (w != 0) {
      const Vec first = load(dy);
#pragma GCC unroll 8
      for (int i = 0; i < K; ++i) {
        even[i] = mul_add(first, load(reinterpret_cast<const float*>(x + offset[i])), even[i]);
      }
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < K; ++i) {
    float* out = t.dw + i * vec_width;
    store(out, load(out) + (even[i] + odd[i]));
  }
}

template <int... T>
struct Outputs {};

template <int NV, int... T>
constexpr void fill_depthwise(DepthwiseFn (&out)[sizeof...(T)]) {
  constexpr int most = depthwise_most_outputs(NV);
  constexpr DepthwiseFn found[] = {
      (T < most ? depthwise_tile<NV, (T < most ? T : 0) + 1> : nullptr)...};
  for (unsigned i = 0; i < sizeof...(T); ++i) out[i] = found[i];
}

// One vector of weights at a time is live, beside all accumulators and an input.
template <int NV, int K, int... T>
constexpr void fill_depthwise_row(DepthwiseFn (&out)[sizeof...(T)]) {
  constexpr int most = (vec_registers - K - 1) / NV;
  constexpr DepthwiseFn found[] = {
      (T < most ? depthwise_row_tile<NV, (T < most ? T : 0) + 1, K> : nullptr)...};
  for (unsigned i = 0; i < sizeof...(T); ++i) out[i] = found[i];
}

template <int... T>
constexpr void fill_depthwise_tiles(KernelTable& table, Outputs<T...>) {
  fill_depthwise<1, T...>(table.depthwise[0]);
  fill_depthwise<2, T...>(table.depthwise[1]);
  fill_depthwise_row<1, 3, T...>(table.depthwise_row[0][0]);
  fill_depthwise_row<2, 3, T...>(table.depthwise_row[0][1]);
  fill_depthwise_row<1, 5, T...>(table.depthwise_row[1][0]);
  fill_depthwise_row<2, 5, T...>(table.depthwise_row[1][1]);
  fill_depthwise_row<1, 7, T...>(table.depthwise_row[2][0]);
  fill_depthwise_row<2, 7, T...>(table.depthwise_row[2][1]);
}

template <int... K>
constexpr void fill_depthwise_wgrad(DepthwiseWgradFn (&out)[sizeof...(K)]) {
  constexpr DepthwiseWgradFn found[] = {depthwise_wgrad_tile<K + 1>...};
  for (unsigned i = 0; i < sizeof...(K); ++i) out[i] = found[i];
}

constexpr void set_depthwise(KernelTable& table) {
  table.depthwise_outputs[0] = depthwise_most_outputs(1);
  table.depthwise_outputs[1] = depthwise_most_outputs(2);
  fill_depthwise_tiles(table, Outputs<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17,
                                      18, 19, 20, 21, 22, 23>());
  fill_depthwise_wgrad<0, 1, 2, 3, 4, 5, 6, 7>(table.depthwise_wgrad);
}

}  // namespace
}  // namespace voxlab::cpu
