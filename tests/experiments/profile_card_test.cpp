// Cards of `voxlab profile`: sums, bounds and memory of rows that were made by hand.
#include "experiments/report/profile_card.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace voxlab {
namespace {

// 100 Gflop/s in f32, 300 in bf16, 10 GB/s.
constexpr MachinePeaks peaks{.f32_gflops = 100, .bf16_gflops = 300, .copy_gbytes_per_s = 10};

LedgerRow row(std::string scope, std::string kernel, double seconds, int64_t macs, int64_t bytes,
              Part part = Part::forward, int64_t memory = 0) {
  LedgerRow r;
  r.scope = std::move(scope);
  r.op = "conv";
  r.kernel = std::move(kernel);
  r.seconds = seconds;
  r.cost = {.macs = macs, .flops = 2 * macs, .bytes = bytes};
  r.part = part;
  r.memory_after = memory;
  return r;
}

TEST(ProfileCard, TheBoundIsTheLargerOfArithmeticAndMemory) {
  // 5 G multiply-adds are 10 Gflop, 0.1 s at 100 Gflop/s; 2 GB are 0.2 s at 10 GB/s.
  const Bound bound = bound_of(row("a", "k", 1, 5'000'000'000, 2'000'000'000), peaks);
  EXPECT_DOUBLE_EQ(bound.arithmetic, 0.1);
  EXPECT_DOUBLE_EQ(bound.memory, 0.2);
  EXPECT_DOUBLE_EQ(bound.seconds(), 0.2);
}

TEST(ProfileCard, TheBoundKnowsTheArithmeticOfTheKernel) {
  LedgerRow r = row("a", "cpu.conv.avx512.winograd", 1, 4'500'000'000, 8);
  EXPECT_DOUBLE_EQ(bound_of(r, peaks).arithmetic, 0.04);  // 2 G multiply-adds are made
  r.kernel = "cpu.conv.avx512.winograd3";
  r.cost.macs = 13'500'000'000;
  EXPECT_DOUBLE_EQ(bound_of(r, peaks).arithmetic, 0.08);  // 4 G
  r.cost.macs = 4'500'000'000;
  r.kernel = "cpu.conv.amx.bf16x3";
  EXPECT_DOUBLE_EQ(bound_of(r, peaks).arithmetic, 0.09);  // three products at 300 Gflop/s
  r.kernel = "cpu.conv.amx.bf16";
  r.dtype = DType::bf16;
  EXPECT_DOUBLE_EQ(bound_of(r, peaks).arithmetic, 0.03);
}

TEST(ProfileCard, CallsOfALayerAddUpAndTheMostExpensiveLayerIsFirst) {
  std::vector<LedgerRow> rows;
  rows.push_back(row("stem.conv", "a", 0.25, 5'000'000'000, 8, Part::forward, 100));
  rows.push_back(row("stem.norm", "b", 0.25, 0, 1'000'000'000, Part::forward, 140));
  rows.push_back(row("stem.norm", "view", 0, 0, 0));  // a view costs nothing
  rows.push_back(row("head", "a", 0.125, 5'000'000'000, 8, Part::forward, 180));
  rows.push_back(row("stem.conv", "a", 0.5, 5'000'000'000, 8, Part::backward, 60));
  const auto cards = cards_of(rows, peaks, 1);
  ASSERT_EQ(cards.size(), 2u);
  const LayerCard& stem = cards[0];
  EXPECT_EQ(stem.layer, "stem");
  EXPECT_DOUBLE_EQ(stem.work.seconds, 1.0);
  EXPECT_DOUBLE_EQ(stem.work.bound_seconds, 0.3);  // 0.1 + 0.1 of memory + 0.1
  EXPECT_EQ(stem.work.bound(), "arithmetic");
  EXPECT_EQ(stem.work.calls, 3);
  EXPECT_EQ(stem.work.macs, 10'000'000'000);
  EXPECT_EQ(stem.memory_after, 140);  // after the forward pass
  ASSERT_EQ(stem.kernels.size(), 3u);
  EXPECT_TRUE(stem.kernels[0].backward);
  EXPECT_DOUBLE_EQ(stem.kernels[0].work.seconds, 0.5);
  EXPECT_EQ(stem.kernels[1].kernel, "a");
  EXPECT_EQ(stem.kernels[2].work.bound(), "memory");
  EXPECT_EQ(cards[1].layer, "head");
  EXPECT_DOUBLE_EQ(cards[1].work.attained(), 0.8);
}

TEST(ProfileCard, DepthCutsTheNames) {
  const std::vector<LedgerRow> rows{row("a.b.c", "k", 1, 1, 1), row("a.b.d", "k", 1, 1, 1), row("a.e", "k", 1, 1, 1),
                                    row("", "k", 1, 1, 1)};
  EXPECT_EQ(cards_of(rows, peaks, 0).size(), 1u);
  EXPECT_EQ(cards_of(rows, peaks, 1).size(), 2u);
  EXPECT_EQ(cards_of(rows, peaks, 2).size(), 3u);
  EXPECT_EQ(cards_of(rows, peaks, 9).size(), 4u);
}

TEST(ProfileCard, TheBooksCloseWithTheEndToEndTime) {
  Profile p{.title = "inference", .peaks = peaks, .runs = 1, .end_to_end = 2};
  p.cards = cards_of(std::vector{row("a", "k", 1.5, 1, 1)}, peaks, 1);
  EXPECT_DOUBLE_EQ(p.unattributed(), 0.5);
  const std::string text = to_text(p, 40);
  EXPECT_NE(text.find("   500.000  25.00  unattributed"), std::string::npos) << text;
  EXPECT_NE(text.find("fwd conv k (1)"), std::string::npos) << text;
  const nlohmann::json json = to_json(p);
  EXPECT_EQ(json["unattributed_seconds"], 0.5);
  EXPECT_EQ(json["layers"][0]["kernels"][0]["kernel"], "k");
}

}  // namespace
}  // namespace voxlab
