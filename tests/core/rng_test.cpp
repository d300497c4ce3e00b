// Philox against the known answers of Random123 (kat_vectors, philox4x32 10), and what is drawn
// from it.
#include "runtime/core/rng.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

namespace voxlab {
namespace {

using Block = std::array<uint32_t, 4>;

TEST(Philox, KnownAnswers) {
  EXPECT_EQ(philox4x32_10({0, 0, 0, 0}, {0, 0}),
            (Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox4x32_10({~0U, ~0U, ~0U, ~0U}, {~0U, ~0U}),
            (Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(
      philox4x32_10({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, CounterHoldsIndexStreamAndStep) {
  const Philox random(0x299f31d0a4093822, 0x13198a2e, 0x03707344);
  EXPECT_EQ(random.block(0x85a308d3243f6a88),
            (Block{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
  const Philox zero(0);
  EXPECT_EQ(zero.bits(2), 0xbc57ac4cU);
  EXPECT_EQ(zero.bits(4), zero.block(1)[0]);
}

// 0x6627e8d5 / 2^32, and Box-Muller of the first two pairs of that block, worked out apart.
TEST(Philox, UniformAndNormalByHand) {
  const Philox zero(0);
  EXPECT_DOUBLE_EQ(zero.uniform(0), 0x6627e8d5 * 0x1p-32);
  EXPECT_NEAR(zero.normal(0), 0.9911376790966604, 1e-14);
  EXPECT_NEAR(zero.normal(1), -0.6176089596525953, 1e-14);
}

TEST(Philox, MomentsOfManyDraws) {
  constexpr uint64_t n = 200000;
  const Philox random(7, 1, 2);
  double u1 = 0, u2 = 0, n1 = 0, n2 = 0, n4 = 0;
  for (uint64_t i = 0; i < n; ++i) {
    const double u = random.uniform(i), z = random.normal(i);
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    u1 += u, u2 += u * u, n1 += z, n2 += z * z, n4 += z * z * z * z;
  }
  // Five standard errors of each mean.
  EXPECT_NEAR(u1 / n, 0.5, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(u2 / n, 1.0 / 3, 5 * std::sqrt(4.0 / 45 / n));
  EXPECT_NEAR(n1 / n, 0, 5 * std::sqrt(1.0 / n));
  EXPECT_NEAR(n2 / n, 1, 5 * std::sqrt(2.0 / n));
  EXPECT_NEAR(n4 / n, 3, 5 * std::sqrt(96.0 / n));
}

TEST(Philox, StreamsAndStepsDiffer) {
  EXPECT_NE(Philox(1, 0, 0).bits(0), Philox(1, 1, 0).bits(0));
  EXPECT_NE(Philox(1, 0, 0).bits(0), Philox(1, 0, 1).bits(0));
  EXPECT_NE(Philox(1, 0, 0).bits(0), Philox(2, 0, 0).bits(0));
}

TEST(Philox, BelowReachesEveryValueEqually) {
  constexpr int64_t sides = 6, throws = 60000;
  const Philox random(3);
  std::array<int64_t, sides> seen{};
  for (uint64_t i = 0; i < throws; ++i) ++seen.at(static_cast<size_t>(random.below(i, sides)));
  for (const int64_t count : seen) EXPECT_NEAR(count, 10000, 5 * std::sqrt(60000.0 * 5 / 36));
}

}  // namespace
}  // namespace voxlab
