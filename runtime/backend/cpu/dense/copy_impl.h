// Transposition, type conversion and addition of plain arrays. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/dense/kernels.h"
#include "runtime/backend/cpu/dense/vec.h"

namespace voxlab::cpu {
namespace {

using Quad = float __attribute__((vector_size(16)));
using UnalignedQuad = float __attribute__((vector_size(16), aligned(4), may_alias));
using QuadIndex = int32_t __attribute__((vector_size(16)));

VOXLAB_INLINE void transpose_4x4(const float* in, int64_t in_pitch, float* out, int64_t out_pitch) {
  const Quad a = *reinterpret_cast<const UnalignedQuad*>(in);
  const Quad b = *reinterpret_cast<const UnalignedQuad*>(in + in_pitch);
  const Quad c = *reinterpret_cast<const UnalignedQuad*>(in + 2 * in_pitch);
  const Quad d = *reinterpret_cast<const UnalignedQuad*>(in + 3 * in_pitch);
  const Quad ab_low = __builtin_shuffle(a, b, QuadIndex{0, 4, 1, 5});
  const Quad ab_high = __builtin_shuffle(a, b, QuadIndex{2, 6, 3, 7});
  const Quad cd_low = __builtin_shuffle(c, d, QuadIndex{0, 4, 1, 5});
  const Quad cd_high = __builtin_shuffle(c, d, QuadIndex{2, 6, 3, 7});
  const auto put = [&](int64_t row, Quad v) {
    *reinterpret_cast<UnalignedQuad*>(out + row * out_pitch) = v;
  };
  put(0, __builtin_shuffle(ab_low, cd_low, QuadIndex{0, 1, 4, 5}));
  put(1, __builtin_shuffle(ab_low, cd_low, QuadIndex{2, 3, 6, 7}));
  put(2, __builtin_shuffle(ab_high, cd_high, QuadIndex{0, 1, 4, 5}));
  put(3, __builtin_shuffle(ab_high, cd_high, QuadIndex{2, 3, 6, 7}));
}

void transpose_block(const float* in, int64_t rows, int64_t cols, int64_t in_pitch, float* out,
                     int64_t out_pitch) {
  constexpr int64_t strip = 64;  // four neighbouring cache lines of every output row at a time
  for (int64_t r0 = 0; r0 < rows; r0 += strip) {
    const int64_t r1 = r0 + strip < rows ? r0 + strip : rows;
    int64_t c = 0;
    for (; c + 4 <= cols; c += 4) {
      int64_t r = r0;
      for (; r + 4 <= r1; r += 4) {
        transpose_4x4(in + r * in_pitch + c, in_pitch, out + c * out_pitch + r, out_pitch);
      }
      for (; r < r1; ++r) {
        for (int64_t i = c; i < c + 4; ++i) out[i * out_pitch + r] = in[r * in_pitch + i];
      }
    }
    for (; c < cols; ++c) {
      for (int64_t r = r0; r < r1; ++r) out[c * out_pitch + r] = in[r * in_pitch + c];
    }
  }
}

void pick_lanes(const float* in, int64_t in_pitch, int64_t positions, const int32_t* lanes,
                int lane_count, float* out, int64_t out_pitch) {
  const float* from = in + lanes[0];
  const int span = lanes[lane_count - 1] - lanes[0] + 1;
  Lanes index = {};
  bool neighbours = true;
  for (int i = 0; i < lane_count; ++i) {
    index[i] = lanes[i] - lanes[0];
    neighbours = neighbours && index[i] == i;
  }
  if (neighbours) {
    for (int64_t i = 0; i < positions; ++i, from += in_pitch, out += out_pitch) {
      store(out, lane_count == vec_width ? load(from) : load_first(from, lane_count));
    }
    return;
  }
  for (int64_t i = 0; i < positions; ++i, from += in_pitch, out += out_pitch) {
    Vec picked;
    if (span <= vec_width) {
      picked = permute(load_first(from, span), index);
    } else {
      picked = gather(from, index);
    }
    store(out, lane_count == vec_width ? picked : keep_first(picked, lane_count));
  }
}

void widen_bf16(const uint16_t* in, int64_t n, float* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(in[i]) << 16;
    out[i] = __builtin_bit_cast(float, bits);
  }
}

void narrow_bf16(const float* in, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = __builtin_bit_cast(uint32_t, in[i]);
    // Adding just under half of the dropped part, plus the last kept bit, rounds to nearest even. A
    // NaN is quieted instead, for the addition could carry it into infinity or change its sign.
    const uint32_t rounded = (bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40U;
    const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
    out[i] = static_cast<uint16_t>(is_nan ? quiet : rounded);
  }
}

void add_arrays(const float* in, int64_t n, float* inout) {
  for (int64_t i = 0; i < n; ++i) inout[i] += in[i];
}

void finish_array(float* inout, const float* residual, int64_t n, int activation, float slope) {
  constexpr int64_t stretch = 1 << 20;
  for (int64_t i = 0; i < n; i += stretch) {
    const int64_t count = n - i < stretch ? n - i : stretch;
    finish_row(inout + i, residual == nullptr ? nullptr : residual + i, static_cast<int>(count),
               activation, slope);
  }
}

}  // namespace
}  // namespace voxlab::cpu
