// softmax(q k) v for heads a few values deep: a lane is a query, so that every product meets all lanes, and scores,
// their softmax and its products never leave the first-level cache. Included once per instruction set.
#pragma once

#include <algorithm>

#include "runtime/backend/cpu/loops.h"
#include "runtime/backend/cpu/vec_math.h"

namespace voxlab::cpu {
namespace {

// Heads `Depth` deep whose sums fit the registers, for as many vectors of queries at a time.
template <int Depth, int Vectors>
void attend_narrow(const NarrowAttentionArgs& t) {
  constexpr int64_t lanes = Vectors * vec_width;
  const auto at = [](float* p, int v) { return p + v * vec_width; };
  for (int64_t row = 0; row < t.rows; row += lanes) {
    const int64_t count = std::min<int64_t>(lanes, t.rows - row);
    // Queries beyond the last repeat it.
    alignas(64) float turned[Depth * lanes];
    for (int64_t lane = 0; lane < lanes; ++lane) {
      const float* q = t.q + (row + std::min(lane, count - 1)) * t.q_row;
      for (int64_t d = 0; d < Depth; ++d) turned[d * lanes + lane] = q[d * t.q_col];
    }
    Vec q[Depth][Vectors], largest[Vectors];
    for (int v = 0; v < Vectors; ++v) {
      for (int d = 0; d < Depth; ++d) q[d][v] = load(at(turned + d * lanes, v));
      largest[v] = splat(-__builtin_inff());
    }
    for (int64_t key = 0; key < t.keys; ++key) {
      const float* k = t.k + key * Depth;
      for (int v = 0; v < Vectors; ++v) {
        Vec score = splat(k[0]) * q[0][v];
#pragma GCC unroll 16
        for (int d = 1; d < Depth; ++d) score = mul_add(splat(k[d]), q[d][v], score);
        store(at(t.scores + key * lanes, v), score);
        largest[v] = max(score, largest[v]);
      }
    }
    Vec sum[Vectors], y[Depth][Vectors];
    for (int v = 0; v < Vectors; ++v) {
      sum[v] = zero();
      for (int d = 0; d < Depth; ++d) y[d][v] = zero();
    }
    for (int64_t key = 0; key < t.keys; ++key) {
      const float* values = t.v + key * Depth;
      for (int v = 0; v < Vectors; ++v) {
        const Vec weight = exponential(load(at(t.scores + key * lanes, v)) - largest[v]);
        sum[v] += weight;
#pragma GCC unroll 16
        for (int d = 0; d < Depth; ++d) y[d][v] = mul_add(splat(values[d]), weight, y[d][v]);
      }
    }
    for (int v = 0; v < Vectors; ++v) {
      const Vec scale = splat(1.0F) / sum[v];
      for (int d = 0; d < Depth; ++d) store(at(turned + d * lanes, v), y[d][v] * scale);
    }
    for (int64_t lane = 0; lane < count; ++lane)
      for (int64_t d = 0; d < Depth; ++d) t.y[(row + lane) * Depth + d] = turned[d * lanes + lane];
  }
}

constexpr void set_attention(Loops& table) {
  table.narrow_lanes[0] = (vec_registers >= 32 ? 2 : 1) * vec_width;
  table.narrow_lanes[1] = vec_width;
  table.attend_narrow[0] = attend_narrow<8, vec_registers >= 32 ? 2 : 1>;
  if (vec_registers >= 32) table.attend_narrow[1] = attend_narrow<16, 1>;
}

}  // namespace
}  // namespace voxlab::cpu
