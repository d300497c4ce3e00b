// Weighted sums of whole rows, and of voxels along a row. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

template <class T>
void blend_rows_loop(const BlendRowsArgs& args) {
  for_vectors(args.n, [&](int64_t i, auto count) {
    Vec sum = zero();
    for (int64_t k = 0; k < args.count; ++k)
      sum =
          mul_add(splat(args.weights[k]), get(static_cast<const T*>(args.rows[k]) + i, count), sum);
    put(args.y + i, sum, count);
  });
}

template <class T>
void blend_taps_loop(const BlendTapsArgs& args) {
  const int64_t channels = args.channels;
  T* y = static_cast<T*>(args.y);
  for (int64_t o = 0; o < args.outputs; ++o) {
    for_vectors(channels, [&](int64_t i, auto count) {
      Vec sum = zero();
      for (int64_t k = args.start[o]; k < args.start[o + 1]; ++k)
        sum =
            mul_add(splat(args.weight[k]), get(args.x + args.index[k] * channels + i, count), sum);
      put(y + o * channels + i, sum, count);
    });
  }
}

constexpr void set_resize(Loops& table) {
  table.blend_rows[0] = blend_rows_loop<float>;
  table.blend_rows[1] = blend_rows_loop<uint16_t>;
  table.blend_taps[0] = blend_taps_loop<float>;
  table.blend_taps[1] = blend_taps_loop<uint16_t>;
}

}  // namespace
}  // namespace voxlab::cpu
