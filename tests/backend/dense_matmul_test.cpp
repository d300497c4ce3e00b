// Matrix products of the CPU dense core against naive f64 sums, over strides, batches and
// epilogues.
#include <cmath>
#include <cstring>
#include <limits>

#include "runtime/backend/cpu/dense/dense.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/isa.h"
#include "runtime/core/parallel.h"
#include "runtime/core/tensor.h"
#include "tests/backend/dense_reference.h"

namespace voxlab::cpu {
namespace {

constexpr double f32_limit = 2e-6;
constexpr float untouched = 12345.0F;

// Furthest element an operand reaches, plus one.
int64_t extent(int64_t rows, int64_t cols, const MatrixStrides& s, const MatmulShape& shape,
               int64_t BatchAxis::*stride) {
  int64_t last = (rows - 1) * s.row + (cols - 1) * s.col;
  for (const BatchAxis& axis : shape.batch) last += (axis.size - 1) * axis.*stride;
  return last + 1;
}

template <class Visit>
void for_each_matrix(const MatmulShape& s, const Visit& visit) {
  for (int64_t i = 0; i < s.batch[0].size; ++i) {
    for (int64_t j = 0; j < s.batch[1].size; ++j) {
      for (int64_t k = 0; k < s.batch[2].size; ++k) {
        const auto at = [&](int64_t BatchAxis::*stride) {
          return i * s.batch[0].*stride + j * s.batch[1].*stride + k * s.batch[2].*stride;
        };
        visit(at(&BatchAxis::a), at(&BatchAxis::b), at(&BatchAxis::c));
      }
    }
  }
}

void check_matmul(const MatmulShape& s, const std::string& what) {
  const Values a = random_values(extent(s.m, s.k, s.a, s, &BatchAxis::a), 1);
  const Values b = random_values(extent(s.k, s.n, s.b, s, &BatchAxis::b), 2);
  const int64_t floats = extent(s.m, s.n, s.c, s, &BatchAxis::c);
  Sums want(floats);
  std::vector<bool> written(static_cast<size_t>(floats));
  for_each_matrix(s, [&](int64_t at_a, int64_t at_b, int64_t at_c) {
    for (int64_t m = 0; m < s.m; ++m) {
      for (int64_t n = 0; n < s.n; ++n) {
        const int64_t c = at_c + m * s.c.row + n * s.c.col;
        written[static_cast<size_t>(c)] = true;
        for (int64_t k = 0; k < s.k; ++k) {
          want.add(c, double{a[static_cast<size_t>(at_a + m * s.a.row + k * s.a.col)]} *
                          double{b[static_cast<size_t>(at_b + k * s.b.row + n * s.b.col)]});
        }
      }
    }
  });
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    Values c(static_cast<size_t>(floats) + 32, untouched);
    matmul(s, {a.data(), DType::f32}, {b.data(), DType::f32}, {c.data(), DType::f32});
    for (size_t i = 0; i < c.size(); ++i) {
      if (i < written.size() && written[i]) {
        ASSERT_NEAR(c[i], want.value[i], f32_limit * want.magnitude[i] + 1e-30)
            << name(isa) << " " << what << " element " << i;
      } else {
        ASSERT_EQ(c[i], untouched) << name(isa) << " " << what << " wrote outside C at " << i;
      }
    }
  }
}

MatmulShape row_major(int64_t m, int64_t k, int64_t n) {
  return {.m = m, .n = n, .k = k, .a = {k, 1}, .b = {n, 1}, .c = {n, 1}};
}

TEST(DenseMatmul, Sizes) {
  for (const int64_t m : {1, 2, 3, 13, 29}) {
    for (const int64_t n : {1, 8, 33, 48, 100}) {
      for (const int64_t k : {1, 17, 530}) check_matmul(row_major(m, k, n), "row major");
    }
  }
}

TEST(DenseMatmul, EveryStrideOrder) {
  for (const int64_t k : {9, 70}) {
    for (int orders = 0; orders < 8; ++orders) {
      MatmulShape s = row_major(31, k, 50);
      if ((orders & 1) != 0) s.a = {1, 31};
      if ((orders & 2) != 0) s.b = {1, k};
      if ((orders & 4) != 0) s.c = {1, 31};
      check_matmul(s, "order " + std::to_string(orders));
      s.a = {s.a.row * 2, s.a.col * 2};
      s.b = {s.b.row * 3, s.b.col * 3};
      s.c = {s.c.row * 2, s.c.col * 2};
      check_matmul(s, "gaps, order " + std::to_string(orders));
    }
  }
}

TEST(DenseMatmul, CollidingRowStrides) {
  MatmulShape s = row_major(40, 1024, 96);
  check_matmul(s, "4 KiB rows");
  s.a = {1, 1024};
  check_matmul(s, "4 KiB columns");
  s = row_major(130, 64, 1024);
  check_matmul(s, "packed B");
}

// Products whose sides are exchanged, so that neither operand is copied, or only the smaller one.
TEST(DenseMatmul, ExchangedSides) {
  struct Case {
    int64_t m, n, k;
    bool a_turned, b_turned;
  };
  for (const Case& t : {Case{64, 8, 4500, true, true}, Case{33, 130, 5000, true, true}, Case{301, 21, 130, true, true},
                        Case{19, 301, 70, false, true}, Case{3, 70, 600, false, true}, Case{130, 400, 90, true, true},
                        Case{7, 65, 40, true, false}, Case{1, 1, 700, true, true}}) {
    for (const int64_t batches : {1, 3}) {
      MatmulShape s = row_major(t.m, t.k, t.n);
      if (t.a_turned) s.a = {1, t.m};
      if (t.b_turned) s.b = {1, t.k};
      s.batch[1] = {batches, t.m * t.k, t.k * t.n, t.m * t.n};
      check_matmul(s, std::to_string(t.m) + "x" + std::to_string(t.n) + "x" + std::to_string(t.k));
    }
  }
}

// Rows of either operand a multiple of 4 KiB apart, read or copied by one task.
TEST(DenseMatmul, CollidingRowsOfBothSides) {
  for (const int64_t n : {24, 50, 90}) {
    for (const int64_t m : {12, 40}) {
      MatmulShape s = row_major(m, 100, n);
      s.a = {1024, 1};
      s.b = {1024, 1};
      check_matmul(s, "plain");
      s.a = {1, 1024};
      check_matmul(s, "A turned");
      s.b = {1, 1024};
      check_matmul(s, "both turned");
      s.a = {1024, 1};
      check_matmul(s, "B turned");
    }
  }
}

// Written past the caches.
TEST(DenseMatmul, LargeAlignedOutput) {
  const int64_t n = 40, pitch = 48;
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    const int64_t m = far_bytes() / static_cast<int64_t>(sizeof(float)) / n + 7;
    const Values a = random_values(2 * m, 1), b = random_values(2 * n, 2), bias = random_values(n, 3);
    Values memory(static_cast<size_t>(m * pitch + 16), untouched);
    const size_t skip = (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64 / sizeof(float);
    float* c = memory.data() + skip;
    const MatmulShape s = {.m = m, .n = n, .k = 2, .a = {1, m}, .b = {n, 1}, .c = {pitch, 1}};
    matmul(s, {a.data(), DType::f32}, {b.data(), DType::f32}, {c, DType::f32}, {.bias = bias.data()});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < pitch; ++j) {
        const auto row = static_cast<size_t>(i), column = static_cast<size_t>(j);
        if (j >= n) {
          ASSERT_EQ(c[i * pitch + j], untouched) << name(isa);
        } else {
          const double want = double{a[row]} * b[column] + double{a[row + static_cast<size_t>(m)]} * b[column + n] + bias[column];
          ASSERT_NEAR(c[i * pitch + j], want, 1e-6) << name(isa) << " row " << i << " column " << j;
        }
      }
    }
  }
}

TEST(DenseMatmul, BatchesAndBroadcast) {
  MatmulShape s = row_major(10, 20, 24);
  s.batch[0] = {3, 200, 480, 240};
  check_matmul(s, "one batch axis");
  s.batch[0] = {3, 200, 0, 240};
  check_matmul(s, "B broadcast");
  s.batch[0] = {3, 0, 480, 240};
  check_matmul(s, "A broadcast");
  s.batch[0] = {2, 1000, 0, 1200};
  s.batch[1] = {4, 200, 480, 240};
  check_matmul(s, "two axes, B broadcast over one");
  s.b = {1, 20};
  check_matmul(s, "the same, B transposed");
}

// Attention over heads that lie side by side: q (tokens, heads * size).
TEST(DenseMatmul, HeadsOfAttention) {
  constexpr int64_t tokens = 5000;
  constexpr int64_t heads = 4;
  constexpr int64_t size = 8;
  constexpr int64_t row = heads * size;
  MatmulShape channel = {
      .m = size, .n = size, .k = tokens, .a = {1, row}, .b = {row, 1}, .c = {size, 1}};
  channel.batch[0] = {heads, size, size, size * size};
  check_matmul(channel, "q^T k");
  MatmulShape one_head = channel;
  one_head.batch[0] = {};
  one_head.k = 20001;
  check_matmul(one_head, "one long sum");
  MatmulShape projection = {
      .m = size, .n = 64, .k = tokens, .a = {1, row}, .b = {64, 1}, .c = {64, 1}};
  projection.batch[0] = {heads, size, 0, size * 64};
  check_matmul(projection, "k^T E");
  MatmulShape spatial = {.m = 300, .n = 64, .k = size, .a = {row, 1}, .b = {64, 1}, .c = {64, 1}};
  spatial.batch[0] = {heads, size, size * 64, 300 * 64};
  check_matmul(spatial, "q kp");
  MatmulShape value = {.m = 300, .n = size, .k = 64, .a = {64, 1}, .b = {1, 64}, .c = {row, 1}};
  value.batch[0] = {heads, 300 * 64, size * 64, size};
  check_matmul(value, "P v");
}

// Products large enough for AMX; elsewhere the same calls take the f32 kernels.
TEST(DenseMatmul, Bf16AndSplitBf16) {
  for (const bool transposed : {false, true}) {
    MatmulShape s = row_major(131, 100, 90);  // with its batch, rows enough for tiles
    if (transposed) s.b = {1, 100};
    s.batch[0] = {2, 131 * 100, 0, 131 * 90};
    const Values a = random_values(2 * 131 * 100, 1);
    const Values b = random_values(100 * 90, 2);
    std::vector<uint16_t> ah;
    std::vector<uint16_t> bh;
    for (const float x : a) ah.push_back(bfloat16(x).bits);
    for (const float x : b) bh.push_back(bfloat16(x).bits);
    const auto from = [](uint16_t bits) {
      bfloat16 x;
      x.bits = bits;
      return double{static_cast<float>(x)};
    };
    Sums exact(2 * 131 * 90);
    Sums halved(2 * 131 * 90);
    for (int64_t m = 0; m < 2 * 131; ++m) {
      for (int64_t n = 0; n < 90; ++n) {
        for (int64_t k = 0; k < 100; ++k) {
          const auto i = static_cast<size_t>(m * 100 + k);
          const auto j = static_cast<size_t>(k * s.b.row + n * s.b.col);
          exact.add(m * 90 + n, double{a[i]} * double{b[j]});
          halved.add(m * 90 + n, from(ah[i]) * from(bh[j]));
        }
      }
    }
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      Values c(2 * 131 * 90);
      matmul(s, {ah.data(), DType::bf16}, {bh.data(), DType::bf16}, {c.data(), DType::f32});
      expect_close(c, halved, f32_limit, "bf16 " + std::string(name(isa)));
      const auto used = matmul(s, {a.data(), DType::f32}, {b.data(), DType::f32},
                               {c.data(), DType::f32}, {}, Precision::bf16x3);
      expect_close(c, exact, 1.4e-5, "bf16x3 " + std::string(name(isa)));
      EXPECT_EQ(used == "cpu.matmul." + std::string(name(isa)) + ".bf16x3", has_amx(isa));
      matmul(s, {a.data(), DType::f32}, {b.data(), DType::f32}, {c.data(), DType::f32}, {}, Precision::bf16);
      expect_close(c, halved, f32_limit, "bf16 of f32 " + std::string(name(isa)));
      std::vector<uint16_t> ch(c.size());
      matmul(s, {ah.data(), DType::bf16}, {bh.data(), DType::bf16}, {ch.data(), DType::bf16});
      for (size_t i = 0; i < c.size(); ++i) c[i] = static_cast<float>(from(ch[i]));
      expect_close(c, halved, 1.0 / 256, "bf16 to bf16 " + std::string(name(isa)));
    }
  }
}

// A^T B, the weight gradient of a linear layer: on AMX by the kernels of convolutions' weight gradients.
TEST(DenseMatmul, TransposedTimesPlainInEveryPrecision) {
  const int64_t m = 176, n = 250, k = 333;
  const MatmulShape s = {.m = m, .n = n, .k = k, .a = {1, m}, .b = {n, 1}, .c = {n, 1}};
  const Values a = random_values(m * k, 1), b = random_values(k * n, 2);
  Values ar, br;
  for (const float x : a) ar.push_back(static_cast<float>(bfloat16(x)));
  for (const float x : b) br.push_back(static_cast<float>(bfloat16(x)));
  const auto product = [&](const Values& left, const Values& right) {
    Sums sums(m * n);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t l = 0; l < k; ++l)
          sums.add(i * n + j, double{left[static_cast<size_t>(l * m + i)]} * right[static_cast<size_t>(l * n + j)]);
    return sums;
  };
  const Sums exact = product(a, b), halved = product(ar, br);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    Values c(static_cast<size_t>(m * n));
    const Buffer out = {c.data(), DType::f32};
    const auto split = matmul(s, {a.data(), DType::f32}, {b.data(), DType::f32}, out, {}, Precision::bf16x3);
    expect_close(c, exact, 1.4e-5, std::string(split));
    EXPECT_EQ(split == "cpu.matmul." + std::string(name(isa)) + ".bf16x3", has_amx(isa)) << split;
    const auto used = matmul(s, {a.data(), DType::f32}, {b.data(), DType::f32}, out, {}, Precision::bf16);
    const bool rounds = used.find("bf16") != std::string_view::npos || used.find("widened") != std::string_view::npos;
    expect_close(c, rounds ? halved : exact, f32_limit, std::string(used));
  }
}

// A constant B as tiles: products for which making them would not pay run on tiles too.
TEST(DenseMatmul, KeptMatrix) {
  const MatmulShape s = {.m = 48, .n = 384, .k = 192, .a = {192, 1}, .b = {384, 1}, .c = {384, 1}};
  const Values a = random_values(s.m * s.k, 1), b = random_values(s.k * s.n, 2);
  Sums want(s.m * s.n);
  for (int64_t m = 0; m < s.m; ++m)
    for (int64_t n = 0; n < s.n; ++n)
      for (int64_t k = 0; k < s.k; ++k)
        want.add(m * s.n + n, double{a[static_cast<size_t>(m * s.k + k)]} * double{b[static_cast<size_t>(k * s.n + n)]});
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    for (const Precision precision : {Precision::strict, Precision::bf16x3, Precision::bf16}) {
      const auto kept = keep_matrix(s, b.data(), precision);
      const bool tiles = has_amx(isa) && precision != Precision::strict;
      ASSERT_EQ(kept != nullptr, tiles) << name(isa);
      if (!tiles) continue;
      EXPECT_EQ(takes_bf16(s, kept.get(), precision), precision == Precision::bf16);
      Values c(static_cast<size_t>(s.m * s.n));
      const auto used = matmul(s, {a.data(), DType::f32}, {b.data(), DType::f32, kept.get()}, {c.data(), DType::f32}, {}, precision);
      EXPECT_NE(used.find("amx"), std::string_view::npos) << used;
      EXPECT_EQ(matmul(s, {}, {}, {}, {}, precision).find("amx"), std::string_view::npos);
      double error = 0, size = 0;
      for (size_t i = 0; i < c.size(); ++i) {
        error += (c[i] - want.value[i]) * (c[i] - want.value[i]);
        size += want.value[i] * want.value[i];
      }
      EXPECT_LT(std::sqrt(error / size), precision == Precision::bf16 ? 3e-3 : 1e-5) << used;
      // Alone: the same bits; where f32 kernels take over for a value that is not finite, those of the numbers held.
      Values alone(c.size());
      const ConstBuffer tiles_alone = {nullptr, DType::f32, kept.get()};
      matmul(s, {a.data(), DType::f32}, tiles_alone, {alone.data(), DType::f32}, {}, precision);
      EXPECT_EQ(std::memcmp(c.data(), alone.data(), c.size() * sizeof(float)), 0) << used;
      Values infinite = a;
      infinite[7 * 192 + 5] = std::numeric_limits<float>::infinity();
      const Values seen = held(b, precision);
      matmul(s, {infinite.data(), DType::f32}, {seen.data(), DType::f32}, {c.data(), DType::f32}, {}, Precision::strict);
      matmul(s, {infinite.data(), DType::f32}, tiles_alone, {alone.data(), DType::f32}, {}, precision);
      EXPECT_EQ(std::memcmp(c.data(), alone.data(), c.size() * sizeof(float)), 0) << used;
    }
  }
}

// A C that nobody reads soon has the same bits, whether its lines are whole, cut at the end or not aligned.
TEST(DenseMatmul, WritesPastTheCaches) {
  for (const auto& [m, n, k, at] : {std::array<int64_t, 4>{96, 64, 20, 0}, {40, 50, 33, 0}, {96, 64, 20, 3}}) {
    const MatmulShape s = {.m = m, .n = n, .k = k, .a = {1, m}, .b = {n, 1}, .c = {n, 1}};
    const Values a = random_values(m * k, 1), b = random_values(k * n, 2);
    for (const Isa isa : available_isas()) {
      const IsaScope scope(isa);
      const Tensor near = Tensor::full({m * n + 16}, 1, DType::f32), far = Tensor::full({m * n + 16}, 1, DType::f32);
      matmul(s, {a.data(), DType::f32}, {b.data(), DType::f32}, {near.data<float>() + at, DType::f32});
      matmul(s, {a.data(), DType::f32}, {b.data(), DType::f32}, {far.data<float>() + at, DType::f32, true});
      EXPECT_EQ(near.to_vector(), far.to_vector()) << name(isa) << " " << n;
    }
  }
}

TEST(DenseMatmul, EmptySumIsTheEpilogueOfZero) {
  const Values bias = {1.0F, -2.0F, 3.0F};
  const MatmulShape s = {.m = 2, .n = 3, .k = 0, .a = {1, 1}, .b = {3, 1}, .c = {3, 1}};
  const Values none(4);
  for (const Isa isa : available_isas()) {
    const IsaScope scope(isa);
    Values c(6, untouched);
    matmul(s, {none.data(), DType::f32}, {none.data(), DType::f32}, {c.data(), DType::f32},
           {.bias = bias.data(), .activation = Activation::relu});
    EXPECT_EQ(c, (Values{1, 0, 3, 1, 0, 3})) << name(isa);
  }
}

TEST(DenseMatmul, EpilogueWithLongSumsAndStridedOutput) {
  for (const bool transposed : {false, true}) {
    for (const int64_t k : {30, 1500, 9000}) {
      MatmulShape s = row_major(5, k, 21);
      if (transposed) s.c = {1, 5};
      const Values a = random_values(5 * k, 1);
      const Values b = random_values(k * 21, 2);
      const Values bias = random_values(21, 3);
      for (const Isa isa : available_isas()) {
        const IsaScope scope(isa);
        Values c(105);
        matmul(s, {a.data(), DType::f32}, {b.data(), DType::f32}, {c.data(), DType::f32},
               {.bias = bias.data(), .activation = Activation::gelu});
        for (int64_t m = 0; m < 5; ++m) {
          for (int64_t n = 0; n < 21; ++n) {
            double sum = bias[static_cast<size_t>(n)];
            for (int64_t i = 0; i < k; ++i) {
              sum += double{a[static_cast<size_t>(m * k + i)]} *
                     double{b[static_cast<size_t>(i * 21 + n)]};
            }
            const double want = 0.5 * sum * (1.0 + std::erf(sum / std::sqrt(2.0)));
            ASSERT_NEAR(c[static_cast<size_t>(m * s.c.row + n * s.c.col)], want,
                        1e-5 * std::sqrt(k))
                << name(isa) << " k " << k;
          }
        }
      }
    }
  }
}

TEST(DenseMatmul, RandomShapesAndStrides) {
  std::mt19937 rng(11);
  const auto pick = [&](int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(rng);
  };
  for (int i = 0; i < 80 && !testing::Test::HasFailure(); ++i) {
    MatmulShape s = row_major(pick(1, 50), pick(1, 60), pick(1, 50));
    const auto strides = [&](int64_t rows, int64_t cols) {
      const int64_t gap = pick(0, 2) == 0 ? pick(1, 3) : 1;
      return pick(0, 1) == 0 ? MatrixStrides{cols * gap + pick(0, 3), gap}
                             : MatrixStrides{gap, rows * gap + pick(0, 3)};
    };
    s.a = strides(s.m, s.k);
    s.b = strides(s.k, s.n);
    s.c = strides(s.m, s.n);
    int64_t step_a = 0;
    int64_t step_b = 0;
    int64_t step_c = (s.m - 1) * s.c.row + (s.n - 1) * s.c.col + 1;
    for (BatchAxis& axis : s.batch) {
      axis.size = pick(1, 3);
      step_a = pick(0, 1) * ((s.m - 1) * s.a.row + (s.k - 1) * s.a.col + 1);
      step_b = pick(0, 1) * ((s.k - 1) * s.b.row + (s.n - 1) * s.b.col + 1);
      axis.a = step_a;
      axis.b = step_b;
      axis.c = step_c;
      step_c *= axis.size;
    }
    check_matmul(s, "case " + std::to_string(i));
  }
}

}  // namespace
}  // namespace voxlab::cpu
