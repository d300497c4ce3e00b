// The one matrix micro-kernel behind convolution, its gradients and matmul. Included once per
// instruction set, inside an anonymous namespace.
#pragma once

#include "runtime/backend/cpu/dense/kernels.h"
#include "runtime/backend/cpu/dense/vec.h"

namespace voxlab::cpu {
namespace {

// Adds products of a and b to c: mul_add, or what stands in for it where a float's place holds two bf16.
using Product = Vec (*)(Vec a, Vec b, Vec c);

template <int NR, bool Tail>
VOXLAB_INLINE void load_row(Vec (&b)[NR], const float* p, int last_columns) {
#pragma GCC unroll 3
  for (int n = 0; n < NR; ++n) {
    b[n] =
        Tail && n == NR - 1 ? load_first(p + n * vec_width, last_columns) : load(p + n * vec_width);
  }
}

// Rows of sums, which C's own values or the bias, and residuals, are added to first.
template <int NR, int Rows, bool Tail>
VOXLAB_INLINE void store_rows(const TileArgs& t, Vec (&sum)[Rows][NR]) {
  const auto at = [&](int m, int n) __attribute__((always_inline)) { return t.c[m] + n * vec_width; };
  if (t.accumulate) {
#pragma GCC unroll 24
    for (int m = 0; m < Rows; ++m) {
      Vec c[NR];
      load_row<NR, Tail>(c, t.c[m], t.last_columns);
#pragma GCC unroll 3
      for (int n = 0; n < NR; ++n) sum[m][n] += c[n];
    }
  } else if (t.bias != nullptr) {
    Vec bias[NR];
    load_row<NR, Tail>(bias, t.bias, t.last_columns);
#pragma GCC unroll 24
    for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 3
      for (int n = 0; n < NR; ++n) sum[m][n] += bias[n];
  }
  if (t.residual != nullptr) {
#pragma GCC unroll 24
    for (int m = 0; m < Rows; ++m) {
      if (t.residual[m] == nullptr) continue;
      Vec residual[NR];
      load_row<NR, Tail>(residual, t.residual[m], t.last_columns);
#pragma GCC unroll 3
      for (int n = 0; n < NR; ++n) sum[m][n] += residual[n];
    }
  }
  if (!Tail && t.past_caches) {
#pragma GCC unroll 24
    for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 3
      for (int n = 0; n < NR; ++n) store_past_caches(at(m, n), sum[m][n]);
    return;
  }
#pragma GCC unroll 24
  for (int m = 0; m < Rows; ++m)
#pragma GCC unroll 3
    for (int n = 0; n < NR; ++n) {
      if (Tail && n == NR - 1) {
        store_first(at(m, n), sum[m][n], t.last_columns);
      } else {
        store(at(m, n), sum[m][n]);
      }
    }
}

// Of k that share the counting. Where vectors are short it takes a tenth of a tile's time, on processors that two programs
// share more; with three vectors the registers are full.
template <int NR>
constexpr int steps_at_once = vec_registers == 16 && NR < 3 ? 2 : 1;

// Rows 2g and 2g + 1 of pair g lie at a + offset(g) and a + offset(g) + pair_step. With Unit, row m
// lies at a + 4 m: no offsets to keep in registers, so tiles can be taller.
template <Product Multiply, int NR, int G, bool Tail, bool Unit, bool Fetch>
void tile_body(const TileArgs& t) {
  constexpr int64_t next = sizeof(float);  // from a value to its neighbour
  Vec sum[2 * G][NR];
  int64_t offset[G];
#pragma GCC unroll 12
  for (int g = 0; g < G; ++g) {
    offset[g] = Unit ? 2 * g * next : t.pair_bytes[g];
#pragma GCC unroll 3
    for (int n = 0; n < NR; ++n) sum[2 * g][n] = sum[2 * g + 1][n] = zero();
  }
  const int64_t k_step = Unit ? t.k_step : next;
  const int64_t pair_step = Unit ? next : t.pair_step;
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* a0 = t.a + t.runs[r].a_bytes;
    const char* a1 = a0 + pair_step;
    const float* b = t.b + t.runs[r].b_row * t.ldb;
    const auto add_step = [&](int step) __attribute__((always_inline)) {
      Vec row[NR];
      load_row<NR, Tail>(row, b + step * t.ldb, t.last_columns);
      if constexpr (Fetch) {
#pragma GCC unroll 3
        for (int n = 0; n < NR; ++n) __builtin_prefetch(b + step * t.ldb + t.b_ahead + n * vec_width);
      }
#pragma GCC unroll 24
      for (int m = 0; m < 2 * G; ++m) {
        const Vec x = splat(*reinterpret_cast<const float*>((m % 2 == 0 ? a0 : a1) + offset[m / 2] + step * k_step));
#pragma GCC unroll 3
        for (int n = 0; n < NR; ++n) sum[m][n] = Multiply(x, row[n], sum[m][n]);
      }
    };
    int64_t k = t.k;
    if (steps_at_once<NR> == 2 && (Unit || t.k_step == next)) {
      for (; k >= 2; k -= 2) {
        add_step(0);
        add_step(1);
        a0 += 2 * k_step;
        a1 += 2 * k_step;
        b += 2 * t.ldb;
      }
    }
    for (; k > 0; --k) {
      add_step(0);
      a0 += t.k_step;
      a1 += t.k_step;
      b += t.ldb;
    }
  }
  store_rows<NR, 2 * G, Tail>(t, sum);
  if (t.activation != 0) {
    const int columns = (NR - 1) * vec_width + t.last_columns;
    for (int m = 0; m < 2 * G; ++m) finish_row(t.c[m], nullptr, columns, t.activation, t.slope);
  }
}

template <Product Multiply, int NR, int G>
void tile_stack(const TileStackArgs& t) {
  constexpr int rows = 2 * G, at_once = 3, bases = (rows + at_once - 1) / at_once;  // row 3i + j lies at base i + j * row_bytes
  constexpr int64_t pitch = NR * vec_width;
  const int64_t row_bytes = t.row_bytes;
  const char* tile_a = t.a;
  float* c = t.c;
  for (int64_t tile = 0; tile < t.tiles; ++tile, tile_a += rows * row_bytes, c += rows * pitch) {
    Vec sum[rows][NR];
#pragma GCC unroll 14
    for (int m = 0; m < rows; ++m)
#pragma GCC unroll 3
      for (int n = 0; n < NR; ++n) sum[m][n] = zero();
    for (int64_t r = 0; r < t.run_count; ++r) {
      const char* a[bases];
#pragma GCC unroll 5
      for (int i = 0; i < bases; ++i) a[i] = tile_a + t.runs[r].a_bytes + i * at_once * row_bytes;
      const float* b = t.b + t.runs[r].b_row * pitch;
      const auto add_step = [&](int step) __attribute__((always_inline)) {
        Vec row[NR];
#pragma GCC unroll 3
        for (int n = 0; n < NR; ++n) row[n] = load(b + step * pitch + n * vec_width);
#pragma GCC unroll 14
        for (int m = 0; m < rows; ++m) {
          const Vec x = splat(*reinterpret_cast<const float*>(a[m / at_once] + m % at_once * row_bytes + step * sizeof(float)));
#pragma GCC unroll 3
          for (int n = 0; n < NR; ++n) sum[m][n] = Multiply(x, row[n], sum[m][n]);
        }
      };
      const auto advance = [&](int steps) __attribute__((always_inline)) {
#pragma GCC unroll 5
        for (int i = 0; i < bases; ++i) a[i] += steps * sizeof(float);
        b += steps * pitch;
      };
      int64_t k = t.k;
      if (steps_at_once<NR> == 2) {
        for (; k >= 2; k -= 2) {
          add_step(0);
          add_step(1);
          advance(2);
        }
      }
      for (; k > 0; --k) {
        add_step(0);
        advance(1);
      }
    }
    if (t.accumulate) {
#pragma GCC unroll 14
      for (int m = 0; m < rows; ++m)
#pragma GCC unroll 3
        for (int n = 0; n < NR; ++n) sum[m][n] += load(c + m * pitch + n * vec_width);
    }
#pragma GCC unroll 14
    for (int m = 0; m < rows; ++m)
#pragma GCC unroll 3
      for (int n = 0; n < NR; ++n) store(c + m * pitch + n * vec_width, sum[m][n]);
  }
}

// Output t sums A[t + tap] * B[tap]: one broadcast feeds up to three outputs, where a plain tile of
// one column vector would spend a load on every multiply-add.
template <int T, bool Tail>
void row_tile_body(const TileArgs& t) {
  constexpr int inputs = T + row_taps - 1;
  Vec acc[T][1];
  int64_t offset[(inputs + 1) / 2];
#pragma GCC unroll 16
  for (int i = 0; i < T; ++i) acc[i][0] = zero();
#pragma GCC unroll 16
  for (int i = 0; i < (inputs + 1) / 2; ++i) offset[i] = 2 * i * t.pair_step;
  const int64_t tap_step = t.k * t.ldb;
  for (int64_t r = 0; r < t.run_count; ++r) {
    const char* a0 = t.a + t.runs[r].a_bytes;
    const char* a1 = a0 + t.pair_step;
    const float* b = t.b + t.runs[r].b_row * t.ldb;
    for (int64_t k = t.k; k > 0; --k) {
      Vec w[row_taps][1];
#pragma GCC unroll 3
      for (int i = 0; i < row_taps; ++i) load_row<1, Tail>(w[i], b + i * tap_step, t.last_columns);
#pragma GCC unroll 16
      for (int i = 0; i < inputs; ++i) {
        const char* p = (i % 2 == 0 ? a0 : a1) + offset[i / 2];
        const Vec x = splat(*reinterpret_cast<const float*>(p));
#pragma GCC unroll 3
        for (int tap = 0; tap < row_taps; ++tap) {
          if (i - tap >= 0 && i - tap < T) acc[i - tap][0] = mul_add(x, w[tap][0], acc[i - tap][0]);
        }
      }
      a0 += t.k_step;
      a1 += t.k_step;
      b += t.ldb;
    }
  }
  store_rows<1, T, Tail>(t, acc);
  if (t.activation != 0) {
    for (int i = 0; i < T; ++i) finish_row(t.c[i], nullptr, t.last_columns, t.activation, t.slope);
  }
}

template <int T>
void row_tile(const TileArgs& t) {
  if (t.last_columns == vec_width) {
    row_tile_body<T, false>(t);
  } else {
    row_tile_body<T, true>(t);
  }
}

template <Product Multiply, int NR, int G, bool Unit, bool Fetch>
void whole_or_tail(const TileArgs& t) {
  if (t.last_columns == vec_width) {
    tile_body<Multiply, NR, G, false, Unit, Fetch>(t);
  } else {
    tile_body<Multiply, NR, G, true, Unit, Fetch>(t);
  }
}

template <Product Multiply, int NR, int G, bool Unit>
void tile(const TileArgs& t) {
  if (!Unit && t.b_ahead != 0) {
    whole_or_tail<Multiply, NR, G, Unit, !Unit>(t);
  } else {
    whole_or_tail<Multiply, NR, G, Unit, false>(t);
  }
}

// Most row pairs whose accumulators, one B row and one broadcast fit the registers.
constexpr int pairs_of(int vectors, int limit) {
  const int rows = (vec_registers - 1 - vectors) / vectors;
  return rows / 2 < limit ? rows / 2 : limit;
}

template <Product Multiply, int NR, bool Unit, int... G>
constexpr void fill_tiles(TileFn (&out)[sizeof...(G)]) {
  constexpr int most = pairs_of(NR, Unit ? max_unit_pairs : max_pairs);
  constexpr TileFn found[] = {(G < most ? tile<Multiply, NR, (G < most ? G : 0) + 1, Unit> : nullptr)...};
  for (unsigned i = 0; i < sizeof...(G); ++i) out[i] = found[i];
}

template <Product Multiply, int NR, int... G>
constexpr void fill_tile_stacks(TileStackFn (&out)[sizeof...(G)]) {
  constexpr int most = pairs_of(NR, max_pairs);
  constexpr TileStackFn found[] = {(G < most ? tile_stack<Multiply, NR, (G < most ? G : 0) + 1> : nullptr)...};
  for (unsigned i = 0; i < sizeof...(G); ++i) out[i] = found[i];
}

// All kinds of tiles of a KernelTable or PairTable.
template <Product Multiply, class Table>
constexpr void fill_table(Table& table) {
  fill_tiles<Multiply, 1, false, 0, 1, 2, 3, 4, 5, 6>(table.tile[0]);
  fill_tiles<Multiply, 2, false, 0, 1, 2, 3, 4, 5, 6>(table.tile[1]);
  fill_tiles<Multiply, 3, false, 0, 1, 2, 3, 4, 5, 6>(table.tile[2]);
  fill_tile_stacks<Multiply, 1, 0, 1, 2, 3, 4, 5, 6>(table.tile_stack[0]);
  fill_tile_stacks<Multiply, 2, 0, 1, 2, 3, 4, 5, 6>(table.tile_stack[1]);
  fill_tile_stacks<Multiply, 3, 0, 1, 2, 3, 4, 5, 6>(table.tile_stack[2]);
  fill_tiles<Multiply, 1, true, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11>(table.unit_tile[0]);
  fill_tiles<Multiply, 2, true, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11>(table.unit_tile[1]);
  fill_tiles<Multiply, 3, true, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11>(table.unit_tile[2]);
}

template <int... T>
constexpr void fill_row_tiles(TileFn (&out)[sizeof...(T)]) {
  constexpr TileFn found[] = {row_tile<T + 1>...};
  for (unsigned i = 0; i < sizeof...(T); ++i) out[i] = found[i];
}

float spin(int64_t repeats) {
  Vec sum[spin_multiply_adds];
#pragma GCC unroll 12
  for (int i = 0; i < spin_multiply_adds; ++i) sum[i] = splat(static_cast<float>(i));
  const Vec x = splat(0.5F), y = splat(0.25F);
  for (int64_t r = 0; r < repeats; ++r) {
#pragma GCC unroll 12
    for (int i = 0; i < spin_multiply_adds; ++i) sum[i] = mul_add(sum[i], x, y);
  }
  Vec all = zero();
#pragma GCC unroll 12
  for (int i = 0; i < spin_multiply_adds; ++i) all += sum[i];
  float lanes[vec_width];
  store(lanes, all);
  return lanes[0];
}

constexpr void set_tiles(KernelTable& table) {
  table.spin = spin;
  table.row_outputs = vec_registers == 32 ? max_row_outputs : 10;
  fill_row_tiles<0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13>(table.row_tile);
  for (int n = 1; n <= max_panel_vectors; ++n) {
    table.pairs[n - 1] = pairs_of(n, max_pairs);
    table.unit_pairs[n - 1] = pairs_of(n, max_unit_pairs);
  }
  fill_table<mul_add>(table);
}

}  // namespace
}  // namespace voxlab::cpu
