// The f32 kernels on pairs of bf16: vdpbf16ps adds the products of two neighbouring bf16 to each f32 sum, twice the
// rate of f32 multiply-adds on Zen 4. Flags come from isa_flags.cmake.
#include "runtime/backend/cpu/dense/tile_impl.h"
#include "runtime/backend/cpu/dense/winograd_impl.h"

namespace voxlab::cpu {
namespace {

VOXLAB_INLINE Vec add_pairs(Vec a, Vec b, Vec c) {
  return _mm512_dpbf16_ps(c, reinterpret_cast<__m512bh>(a), reinterpret_cast<__m512bh>(b));
}

VOXLAB_INLINE __m256i rounded(Vec v) { return reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(v)); }

// `even` in the lower half of each word, `odd` in the upper.
VOXLAB_INLINE Vec interleaved(Vec even, Vec odd) {
  const __m512i low = _mm512_maskz_cvtepu16_epi32(0xffff, rounded(even));
  const __m512i high = _mm512_maskz_slli_epi32(0xffff, _mm512_maskz_cvtepu16_epi32(0xffff, rounded(odd)), 16);
  return reinterpret_cast<Vec>(_mm512_or_si512(low, high));
}

// The points of two tiles as a pair of bf16.
struct PairPoints {
  using Element = float;
  static constexpr int tiles = 2;
  static void put(float* p, const Vec (&v)[2], int lanes) { store_some(p, interleaved(v[0], v[1]), lanes); }
};

void round(const float* in, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; i += vec_width) {
    const int lanes = n - i < vec_width ? static_cast<int>(n - i) : vec_width;
    store_some(out + i, load_some(in + i, lanes), lanes);
  }
}

void pack(const float* in, int64_t rows, int64_t n, int64_t in_pitch, float* out, int64_t out_pitch) {
  for (int64_t r = 0; r < rows; r += 2, in += 2 * in_pitch, out += out_pitch) {
    for (int64_t i = 0; i < n; i += vec_width) {
      const int lanes = n - i < vec_width ? static_cast<int>(n - i) : vec_width;
      const Vec odd = r + 1 < rows ? load_some(in + in_pitch + i, lanes) : zero();
      store_some(out + i, interleaved(load_some(in + i, lanes), odd), lanes);
    }
  }
}

void pair_weights(const float* w, int64_t tap_step, int64_t rows, int64_t columns, float* u, int64_t point_step) {
  for (int64_t r = 0; r < rows; r += 2, w += 2 * columns, u += columns) {
    for (int64_t i = 0; i < columns; i += vec_width) {
      Vec even[16];
      both_sides<3, 4, weight_points>([&](int y, int x) { return load(w + (3 * y + x) * tap_step + i); },
                                      [&](int y, int x, Vec v) { even[4 * y + x] = v; });
      both_sides<3, 4, weight_points>([&](int y, int x) { return load(w + (3 * y + x) * tap_step + columns + i); },
                                      [&](int y, int x, Vec v) {
                                        store(u + (4 * y + x) * point_step + i, interleaved(even[4 * y + x], v));
                                      });
    }
  }
}

void pair_depth_weights(const float* w, int64_t tap_step, int64_t rows, int64_t columns, float* u, int64_t point_step) {
  for (int64_t r = 0; r < rows; r += 2, w += 2 * columns, u += columns) {
    for (int64_t i = 0; i < columns; i += vec_width) {
      Vec points[2][4];
#pragma GCC unroll 2
      for (int row = 0; row < 2; ++row) {
        const float* at = w + row * columns + i;
        const Vec taps[3] = {load(at), load(at + tap_step), load(at + 2 * tap_step)};
        weight_points(taps, points[row]);
      }
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) store(u + k * point_step + i, interleaved(points[0][k], points[1][k]));
    }
  }
}

void join_rows(float* b, int64_t rows) {
  for (int64_t r = 0; r < rows; r += 2, b += 2 * vec_width) {
    const Vec first = load(b), second = load(b + vec_width);
    store(b, _mm512_maskz_unpacklo_ps(0xffff, first, second));
    store(b + vec_width, _mm512_maskz_unpackhi_ps(0xffff, first, second));
  }
}

// A broadcast before each vdpbf16ps costs two fifths more than the product alone, and as an operand of it twice more. Here one
// serves two: its even lanes hold a pair of A and its odd ones the next, and B lies such that a column's two sums are neighbours.
template <int G>
void joined_stack(const TileStackArgs& t) {
  constexpr int rows = 2 * G;
  const char* tile_a = t.a;
  float* c = t.c;
  for (int64_t tile = 0; tile < t.tiles; ++tile, tile_a += rows * t.row_bytes) {
    Vec sum[rows][2];
#pragma GCC unroll 14
    for (int m = 0; m < rows; ++m) sum[m][0] = sum[m][1] = zero();
    for (int64_t r = 0; r < t.run_count; ++r) {
      const char* a = tile_a + t.runs[r].a_bytes;
      const float* b = t.b + t.runs[r].b_row * 2 * vec_width;
      for (int64_t k = t.k; k > 0; --k, a += sizeof(int64_t), b += 2 * vec_width) {
        const Vec low = load(b), high = load(b + vec_width);
#pragma GCC unroll 14
        for (int m = 0; m < rows; ++m) {
          const void* at = a + m * t.row_bytes;
          const Vec pairs = reinterpret_cast<Vec>(_mm512_maskz_set1_epi64(0xff, *static_cast<const int64_t*>(at)));
          sum[m][0] = add_pairs(pairs, low, sum[m][0]);
          sum[m][1] = add_pairs(pairs, high, sum[m][1]);
        }
      }
    }
#pragma GCC unroll 14
    for (int m = 0; m < rows; ++m, c += vec_width) {
      const Vec all = _mm512_maskz_shuffle_ps(0xffff, sum[m][0], sum[m][1], 0x88) +
                      _mm512_maskz_shuffle_ps(0xffff, sum[m][0], sum[m][1], 0xdd);
      store(c, t.accumulate ? all + load(c) : all);
    }
  }
}

template <int... G>
constexpr void fill_joined_stacks(TileStackFn (&out)[sizeof...(G)]) {
  constexpr TileStackFn found[] = {joined_stack<G + 1>...};
  for (unsigned i = 0; i < sizeof...(G); ++i) out[i] = found[i];
}

void output_of_either(const WinogradOutputArgs& t) {
  if (t.out_bf16) {
    (t.residual_bf16 ? winograd_output<uint16_t, uint16_t> : winograd_output<uint16_t, float>)(t);
  } else {
    (t.residual_bf16 ? winograd_output<float, uint16_t> : winograd_output<float, float>)(t);
  }
}

template <class Stored, int Type>
constexpr void set_transforms(PairTable& table) {
  table.winograd_input[Type] = winograd_input<TilePoints<uint16_t>, Stored>;
  table.winograd_planes[Type] = winograd_input<TilePoints<float>, Stored>;
  table.winograd_input_pairs[Type] = input_points<PairPoints, as_they_are, Stored>;
  table.winograd_gradient_pairs[Type] = winograd_gradient<PairPoints, Stored>;
}

constexpr PairTable make_pairs() {
  PairTable table = {};
  fill_table<add_pairs>(table);
  fill_joined_stacks<0, 1, 2, 3, 4, 5, 6>(table.joined_stack);
  table.join_rows = join_rows;
  table.round = round;
  table.pack = pack;
  set_transforms<float, 0>(table);
  set_transforms<uint16_t, 1>(table);
  table.winograd_output = output_of_either;
  table.winograd_depth_input = winograd_depth_input<TilePoints<uint16_t>>;
  table.winograd_weights = pair_weights;
  table.winograd_depth_weights = pair_depth_weights;
  return table;
}

}  // namespace

constexpr PairTable pairs_avx512_bf16 = make_pairs();

}  // namespace voxlab::cpu
