// softmax(q k) v for heads a few values deep: a lane is a query, so that every product meets all lanes, and scores,
// their softmax and its products never leave the first-level cache. Included once per instruction set.
#pragma once

#include "runtime/backend/cpu/queries_impl.h"

namespace voxlab::cpu {
namespace {

// Heads `Depth` deep whose sums fit the registers, for as many vectors of queries at a time.
template <int Depth, int Vectors, bool drop>
void attend_narrow_rows(const NarrowAttentionArgs& t) {
  constexpr int64_t lanes = Vectors * vec_width;
  const auto at = [](float* p, int v) { return p + v * vec_width; };
  float *scores = t.scratch, *factors = t.scratch + t.keys * lanes;
  for (int64_t row = 0; row < t.rows; row += lanes) {
    const int64_t count = std::min<int64_t>(lanes, t.rows - row);
    alignas(64) float turned[Depth * lanes];
    turn_queries<Depth, lanes>(t.q, row, t.rows, turned);
    if constexpr (drop)
      for (int v = 0; v < Vectors; ++v) {
        const int64_t block = (row + v * vec_width) * (t.keys / drop_block);
        query_factors(*t.drop, t.first_block + static_cast<uint64_t>(block), t.keys, lanes, at(factors, v));
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
        store(at(scores + key * lanes, v), score);
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
        Vec weight = exponential(load(at(scores + key * lanes, v)) - largest[v]);
        sum[v] += weight;
        if constexpr (drop) weight = weight * load(at(factors + key * lanes, v));
#pragma GCC unroll 16
        for (int d = 0; d < Depth; ++d) y[d][v] = mul_add(splat(values[d]), weight, y[d][v]);
      }
    }
    const bool lanes_lie = t.y_row == 1 && count == lanes;
    float* const to = lanes_lie ? t.y + row : turned;
    const int64_t step = lanes_lie ? t.y_col : lanes;
    for (int v = 0; v < Vectors; ++v) {
      const Vec scale = splat(1.0F) / sum[v];
      for (int d = 0; d < Depth; ++d) store(at(to + d * step, v), y[d][v] * scale);
      if (t.sums != nullptr && count > v * vec_width)
        put_first(at(t.sums + row, v), largest[v] + logarithm(sum[v]), std::min<int64_t>(vec_width, count - v * vec_width));
    }
    if (!lanes_lie) put_queries<Depth, lanes>(turned, count, t.y + row * t.y_row, t.y_row, t.y_col);
  }
}

template <int Depth, int Vectors>
void attend_narrow(const NarrowAttentionArgs& t) {
  if (t.drop != nullptr) return attend_narrow_rows<Depth, Vectors, true>(t);
  attend_narrow_rows<Depth, Vectors, false>(t);
}

constexpr void set_attention(Loops& table) {
  table.narrow_lanes[0] = (vec_registers >= 32 ? 2 : 1) * vec_width;
  table.narrow_lanes[1] = vec_width;
  table.attend_narrow[0] = attend_narrow<8, vec_registers >= 32 ? 2 : 1>;
  if (vec_registers >= 32) table.attend_narrow[1] = attend_narrow<16, 1>;
}

}  // namespace
}  // namespace voxlab::cpu
