// Micro-kernels of channel scaling: a vector of narrow channels at a time, its lanes spread over (or summed
// from) as many vectors of wide channels as the ratio. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/dense/kernels.h"
#include "runtime/backend/cpu/dense/vec.h"

namespace voxlab::cpu {
namespace {

// Lanes of the narrow vector that the lanes of wide vector `part` belong to.
template <int R>
VOXLAB_INLINE Lanes spread_lanes(int part) {
  Lanes index = {};
  for (int i = 0; i < vec_width; ++i) index[i] = (part * vec_width + i) / R;
  return index;
}

VOXLAB_INLINE int clamp_lanes(int64_t n) {
  return static_cast<int>(n < 0 ? 0 : n < vec_width ? n : vec_width);
}

// Sums of neighbouring lanes, of a in the lower half and of b in the upper.
VOXLAB_INLINE Vec pair_sums(Vec a, Vec b) {
  Lanes even = {};
  for (int i = 0; i < vec_width; ++i) even[i] = 2 * i;
  return __builtin_shuffle(a, b, even) + __builtin_shuffle(a, b, even + 1);
}

template <int R>
void widen_channels(const ChannelScaleArgs& t) {
  const int64_t wide = R * t.channels;
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* in = t.narrow + r * t.channels;
    float* out = t.out + r * wide;
    for (int64_t c = 0; c < t.channels; c += vec_width) {
      const Vec value = load_some(in + c, clamp_lanes(t.channels - c));
#pragma GCC unroll 8
      for (int part = 0; part < R; ++part) {
        const int64_t at = c * R + part * vec_width;
        const int lanes = clamp_lanes(wide - at);
        if (lanes == 0) break;
        const Vec bias = t.bias == nullptr ? zero() : load_some(t.bias + at, lanes);
        const Vec spread = R == 1 ? value : permute(value, spread_lanes<R>(part));
        store_some(out + at, mul_add(spread, load_some(t.w + at, lanes), bias), lanes);
      }
    }
    if (t.activation != 0) finish_row(out, nullptr, static_cast<int>(wide), t.activation, t.slope);
  }
}

template <int R>
void narrow_channels(const ChannelScaleArgs& t) {
  const int64_t wide = R * t.channels;
  for (int64_t r = 0; r < t.rows; ++r) {
    const float* in = t.wide + r * wide;
    float* out = t.out + r * t.channels;
    for (int64_t c = 0; c < t.channels; c += vec_width) {
      Vec terms[R];
#pragma GCC unroll 8
      for (int part = 0; part < R; ++part) {
        const int64_t at = c * R + part * vec_width;
        const int lanes = clamp_lanes(wide - at);
        terms[part] = load_some(in + at, lanes) * load_some(t.w + at, lanes);
      }
#pragma GCC unroll 4
      for (int half = R / 2; half > 0; half /= 2) {
#pragma GCC unroll 4
        for (int i = 0; i < half; ++i) terms[i] = pair_sums(terms[2 * i], terms[2 * i + 1]);
      }
      const int lanes = clamp_lanes(t.channels - c);
      if (t.bias != nullptr) terms[0] += load_some(t.bias + c, lanes);
      store_some(out + c, terms[0], lanes);
    }
    if (t.activation != 0) finish_row(out, nullptr, static_cast<int>(t.channels), t.activation, t.slope);
  }
}

// `count` rows at once, added to the sums in t.out: values are read in the order they have in memory.
template <int R, int count>
VOXLAB_INLINE void add_wgrad_rows(const ChannelScaleArgs& t, int64_t row) {
  const int64_t wide = R * t.channels;
  int64_t c = 0;
  for (; c + vec_width <= t.channels; c += vec_width) {
    Vec value[count];
#pragma GCC unroll 4
    for (int r = 0; r < count; ++r) value[r] = load(t.narrow + (row + r) * t.channels + c);
#pragma GCC unroll 8
    for (int part = 0; part < R; ++part) {
      const int64_t at = c * R + part * vec_width;
      Vec sum = load(t.out + at);
#pragma GCC unroll 4
      for (int r = 0; r < count; ++r) {
        const Vec spread = R == 1 ? value[r] : permute(value[r], spread_lanes<R>(part));
        sum = mul_add(spread, load(t.wide + (row + r) * wide + at), sum);
      }
      store(t.out + at, sum);
    }
  }
  for (int64_t i = c * R; i < wide; ++i)
    for (int r = 0; r < count; ++r)
      t.out[i] += t.narrow[(row + r) * t.channels + i / R] * t.wide[(row + r) * wide + i];
}

template <int R>
void scale_wgrad(const ChannelScaleArgs& t) {
  for (int64_t i = 0; i < R * t.channels; ++i) t.out[i] = 0;
  int64_t row = 0;
  for (; row + 4 <= t.rows; row += 4) add_wgrad_rows<R, 4>(t, row);
  for (; row < t.rows; ++row) add_wgrad_rows<R, 1>(t, row);
}

constexpr void set_channel_scale(KernelTable& table) {
  constexpr ChannelScaleFn widen[] = {widen_channels<1>, widen_channels<2>, widen_channels<4>,
                                      widen_channels<8>};
  constexpr ChannelScaleFn narrow[] = {narrow_channels<1>, narrow_channels<2>, narrow_channels<4>,
                                       narrow_channels<8>};
  constexpr ChannelScaleFn wgrad[] = {scale_wgrad<1>, scale_wgrad<2>, scale_wgrad<4>,
                                      scale_wgrad<8>};
  for (int i = 0; i < channel_ratios; ++i) {
    table.widen_channels[i] = widen[i];
    table.narrow_channels[i] = narrow[i];
    table.scale_wgrad[i] = wgrad[i];
  }
}

}  // namespace
}  // namespace voxlab::cpu
