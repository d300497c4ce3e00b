// Gradients of attention, and its weights in blocks of scores. For heads a few values deep a lane is a query, as in
// attention_impl.h: one pass over the keys makes dq and leaves the gradients of the scores and the dropped weights in the
// cache for a few vectors of queries, from which sums over queries, a lane each, become dk and dv. Included once per
// instruction set.
#pragma once

#include <type_traits>

#include "runtime/backend/cpu/attention_impl.h"
#include "runtime/backend/cpu/norm_impl.h"

namespace voxlab::cpu {
namespace {

// Where the parts of the scratch lie. Rows of a key are `pitch` floats apart.
template <int Depth>
struct NarrowGradScratch {
  static constexpr int64_t pitch = narrow_grad_vectors * vec_width;
  NarrowGradScratch(float* at, int64_t keys)
      : factors(at),
        dscores(factors + keys * vec_width),
        weights(dscores + keys * pitch),
        q(weights + keys * pitch),
        dy(q + Depth * pitch),
        dk(dy + Depth * pitch),
        dv(dk + keys * Depth * vec_width) {}
  float* factors;  // (keys, lanes) of one vector of queries
  float *dscores, *weights;  // (keys, vectors, lanes): of the scores; dropped
  float *q, *dy;             // (vectors, Depth, lanes)
  float *dk, *dv;            // (keys, Depth, lanes): sums of each lane's queries
};

// One vector of queries.
struct QueryVector {
  const float *q, *dy;  // (Depth, lanes)
  Vec sum, delta;
};

// `Keys` keys' part in one vector's dq.
template <int Depth, int Keys, bool drop>
VOXLAB_INLINE void key_gradients(const QueryVector& t, const float* k, const float* v, const float* factors, int64_t pitch,
                                 float* dscores, float* weights, Vec (&dq)[Depth]) {
  Vec score[Keys], d[Keys];  // scores less the logarithm of their sum; gradients of weights, then of scores
  for (int j = 0; j < Keys; ++j) {
    score[j] = -t.sum;
    d[j] = zero();
  }
#pragma GCC unroll 16
  for (int i = 0; i < Depth; ++i) {
    const Vec q = load(t.q + i * vec_width), dy = load(t.dy + i * vec_width);
    for (int j = 0; j < Keys; ++j) {
      score[j] = mul_add(splat(k[j * Depth + i]), q, score[j]);
      d[j] = mul_add(splat(v[j * Depth + i]), dy, d[j]);
    }
  }
  for (int j = 0; j < Keys; ++j) {
    const Vec weight = exponential(score[j]);
    const Vec factor = drop ? load(factors + j * vec_width) : splat(1.0F);
    store(weights + j * pitch, drop ? weight * factor : weight);
    d[j] = weight * ((drop ? d[j] * factor : d[j]) - t.delta);
    store(dscores + j * pitch, d[j]);
  }
#pragma GCC unroll 16
  for (int i = 0; i < Depth; ++i)
    for (int j = 0; j < Keys; ++j) dq[i] = mul_add(splat(k[j * Depth + i]), d[j], dq[i]);
}

// Queries [row, row + lanes): dq, and vector `at` of what dk and dv need.
template <int Depth, bool drop>
void query_gradients(const NarrowAttentionGradArgs& t, int64_t row, const NarrowGradScratch<Depth>& s, int64_t at) {
  const int64_t count = std::min<int64_t>(vec_width, t.rows - row), pitch = s.pitch;
  float *q = s.q + at * Depth * vec_width, *dy = s.dy + at * Depth * vec_width;
  alignas(64) float turned[Depth * vec_width];
  turn_queries<Depth, vec_width>(t.q, row, t.rows, q);
  turn_queries<Depth, vec_width>(t.dy, row, t.rows, dy);
  turn_queries<Depth, vec_width>(t.y, row, t.rows, turned);
  // Queries beyond the last add nothing to any sum: no weights, no dy.
  QueryVector vector{q, dy, keep_or(get_first(t.sums + row, count), __builtin_inff(), First{count}), zero()};
  for (int d = 0; d < Depth; ++d) {
    const Vec of = load_some(dy + d * vec_width, static_cast<int>(count));
    store(dy + d * vec_width, of);
    vector.delta = mul_add(of, load(turned + d * vec_width), vector.delta);
  }
  if constexpr (drop) query_factors(*t.drop, t.first_block + static_cast<uint64_t>(row * t.keys / drop_block), t.keys, vec_width, s.factors);
  Vec dq[Depth] = {};
  const auto of_keys = [&]<int Keys>(int64_t key, std::integral_constant<int, Keys>) {
    const int64_t to = key * pitch + at * vec_width;
    key_gradients<Depth, Keys, drop>(vector, t.k + key * Depth, t.v + key * Depth, s.factors + key * vec_width, pitch, s.dscores + to,
                                     s.weights + to, dq);
  };
  int64_t key = 0;
  for (; key + 4 <= t.keys; key += 4) of_keys(key, std::integral_constant<int, 4>{});
  for (; key < t.keys; ++key) of_keys(key, std::integral_constant<int, 1>{});
  for (int d = 0; d < Depth; ++d) store(turned + d * vec_width, dq[d]);
  put_queries<Depth, vec_width>(turned, count, t.dq + row * Depth);
}

// sums (Keys, Depth, lanes) += weights (Keys, vectors, lanes) times x (vectors, Depth, lanes), lane by lane.
template <int Depth, int Keys>
VOXLAB_INLINE void add_products(const float* weights, int64_t pitch, const float* x, int64_t vectors, float* sums) {
  Vec sum[Keys][Depth];
  for (int j = 0; j < Keys; ++j)
    for (int d = 0; d < Depth; ++d) sum[j][d] = load(sums + (j * Depth + d) * vec_width);
  for (int64_t at = 0; at < vectors; ++at) {
    Vec weight[Keys];
    for (int j = 0; j < Keys; ++j) weight[j] = load(weights + j * pitch + at * vec_width);
#pragma GCC unroll 16
    for (int d = 0; d < Depth; ++d) {
      const Vec value = load(x + (at * Depth + d) * vec_width);
      for (int j = 0; j < Keys; ++j) sum[j][d] = mul_add(weight[j], value, sum[j][d]);
    }
  }
  for (int j = 0; j < Keys; ++j)
    for (int d = 0; d < Depth; ++d) store(sums + (j * Depth + d) * vec_width, sum[j][d]);
}

template <int Depth>
void add_key_sums(const float* weights, const float* x, int64_t vectors, int64_t keys, float* sums) {
  constexpr int some = std::max(1, vec_registers / 2 / Depth);
  constexpr int64_t pitch = NarrowGradScratch<Depth>::pitch;
  int64_t key = 0;
  for (; key + some <= keys; key += some)
    add_products<Depth, some>(weights + key * pitch, pitch, x, vectors, sums + key * Depth * vec_width);
  for (; key < keys; ++key) add_products<Depth, 1>(weights + key * pitch, pitch, x, vectors, sums + key * Depth * vec_width);
}

template <int Depth, bool drop>
void attend_narrow_grad_rows(const NarrowAttentionGradArgs& t) {
  const NarrowGradScratch<Depth> s(t.scratch, t.keys);
  for (int64_t i = 0; i < 2 * t.keys * Depth; ++i) store(s.dk + i * vec_width, zero());  // dk, and dv behind it
  for (int64_t first = 0; first < t.rows; first += s.pitch) {
    int64_t vectors = 0;
    for (int64_t row = first; row < std::min(t.rows, first + s.pitch); row += vec_width)
      query_gradients<Depth, drop>(t, row, s, vectors++);
    add_key_sums<Depth>(s.dscores, s.q, vectors, t.keys, s.dk);
    add_key_sums<Depth>(s.weights, s.dy, vectors, t.keys, s.dv);
  }
  for (int64_t key = 0; key < t.keys; ++key)
    for (int64_t d = 0; d < Depth; ++d) {
      t.dk[d * t.keys + key] = sum_of(load(s.dk + (key * Depth + d) * vec_width));
      t.dv[key * Depth + d] = sum_of(load(s.dv + (key * Depth + d) * vec_width));
    }
}

template <int Depth>
void attend_narrow_grad(const NarrowAttentionGradArgs& t) {
  if (t.drop != nullptr) return attend_narrow_grad_rows<Depth, true>(t);
  attend_narrow_grad_rows<Depth, false>(t);
}

// ---- blocks of scores ----

void dropped_weights(const WeightRowsArgs& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    float* x = t.scores + r * t.keys;
    Vec most = splat(-__builtin_inff());
    for_vectors(t.keys, [&](int64_t i, auto count) {
      most = max(keep_or(get(x + i, count), -__builtin_inff(), count), most);
    });
    const Vec largest = splat(max_of(most));
    Vec total = zero();
    for_vectors(t.keys, [&](int64_t i, auto count) {
      const Vec power = keep(exponential(get(x + i, count) - largest), count);
      total += power;
      put(x + i, power, count);
    });
    const float sum = sum_of(total);
    const Vec scale = splat(1.0F / sum);
    t.sums[r] = (largest + logarithm(splat(sum)))[0];
    for_vectors(t.keys, [&](int64_t i, auto count) {
      const Vec weight = get(x + i, count) * scale;
      put(x + i, t.factors == nullptr ? weight : weight * get(t.factors + r * t.keys + i, count), count);
    });
  }
}

void dropped_weights_grad(const WeightRowsArgs& t) {
  for (int64_t r = 0; r < t.rows; ++r) {
    float *x = t.scores + r * t.keys, *d = t.dweights + r * t.keys;
    const Vec sum = splat(t.known_sums[r]), delta = splat(t.delta[r]);
    for_vectors(t.keys, [&](int64_t i, auto count) {
      const Vec weight = exponential(get(x + i, count) - sum);
      const Vec factor = t.factors == nullptr ? splat(1.0F) : get(t.factors + r * t.keys + i, count);
      put(x + i, weight * (get(d + i, count) * factor - delta), count);
      put(d + i, weight * factor, count);
    });
  }
}

constexpr void set_training_attention(Loops& table) {
  table.attend_narrow_grad[0] = attend_narrow_grad<8>;
  if (vec_registers >= 32) table.attend_narrow_grad[1] = attend_narrow_grad<16>;
  table.dropped_weights = dropped_weights;
  table.dropped_weights_grad = dropped_weights_grad;
}

}  // namespace
}  // namespace voxlab::cpu
