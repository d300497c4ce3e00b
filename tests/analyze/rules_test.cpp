// Counting rules on single calls, counted by hand from the tools' sources, and the difference of two rules.
#include "runtime/analyze/rules.h"

#include <gtest/gtest.h>

#include "runtime/core/error.h"
#include "runtime/ops/conv.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/norm.h"
#include "runtime/ops/pool.h"
#include "runtime/ops/resize.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"

namespace voxlab {
namespace {

Tensor meta(const Shape& shape) { return Tensor::empty(shape, DType::f32, Device::meta); }

// The rows of what `run` calls, returned by it.
template <class F>
std::vector<LedgerRow> rows_of(F run) {
  Ledger ledger;
  const Observe observe(ledger);
  run();
  return ledger.rows();
}

using Expected = std::vector<std::pair<std::string_view, double>>;

void expect_counts(const std::vector<LedgerRow>& rows, const Expected& expected) {
  for (const auto& [rule, count] : expected) EXPECT_EQ(total(rows, count_rule(rule)), count) << rule;
}

// 64 output positions, 5 channels, 27 taps of 2 channels: 17280; a bias for each of 320 outputs.
TEST(Rules, ConvolutionWithBias) {
  const auto rows = rows_of([] { conv(meta({1, 4, 4, 4, 2}), meta({3, 3, 3, 2, 5}), meta({5}), {.padding = {1}}); });
  expect_counts(rows, {{"mac", 17280}, {"flop", 34880}, {"fvcore", 17280}, {"ptflops-0.6", 17600},
                       {"ptflops-0.7", 17600}, {"ptflops-aten", 17600}, {"thop", 17280}, {"torch", 34560},
                       {"torchprofile", 17280}});
}

// Two groups: each output sees 3 of 6 channels. 9 outputs positions, 4 channels, 9 taps, 3 channels: 972.
TEST(Rules, GroupedConvolution) {
  const auto rows = rows_of([] { conv(meta({1, 3, 3, 6}), meta({3, 3, 3, 4}), {}, {.padding = {1}, .groups = 2}); });
  expect_counts(rows, {{"mac", 972}, {"fvcore", 972}, {"ptflops-0.6", 972}, {"thop", 972}, {"torch", 1944},
                       {"torchprofile", 972}});
}

// 18 input positions, 4 channels to 3, 8 taps: 1728; at the 144 output positions 8 times as many.
TEST(Rules, TransposedConvolution) {
  const auto rows = rows_of([] { conv_transpose(meta({1, 2, 3, 3, 4}), meta({2, 2, 2, 3, 4}), {.stride = {2}}); });
  expect_counts(rows, {{"mac", 1728}, {"flop", 3456}, {"fvcore", 1728}, {"ptflops-0.6", 13824}, {"ptflops-0.7", 1728},
                       {"ptflops-aten", 1728}, {"thop", 13824}, {"torch", 3456}, {"torchprofile", 13824}});
}

// 2 x 2 input positions become 5 x 5 with kernel 3 and stride 2: taps outside count as well.
TEST(Rules, OverlappingTransposedConvolution) {
  const auto rows = rows_of([] { conv_transpose(meta({1, 2, 2, 4}), meta({3, 3, 2, 4}), {.stride = {2}}); });
  expect_counts(rows, {{"mac", 4 * 9 * 8}, {"ptflops-0.6", 25 * 9 * 8}, {"thop", 25 * 9 * 8}});
}

// 10 rows of 7 to 4: 280, and 40 outputs with a bias; ptflops 0.6 adds the bias of one row only.
TEST(Rules, LinearWithBias) {
  const auto rows = rows_of([] { linear(meta({2, 5, 7}), meta({7, 4}), meta({4})); });
  expect_counts(rows, {{"mac", 280}, {"flop", 600}, {"fvcore", 280}, {"ptflops-0.6", 284}, {"ptflops-0.7", 320},
                       {"ptflops-aten", 320}, {"thop", 280}, {"torch", 560}, {"torchprofile", 280}});
}

// On PyTorch's meta device ptflops 0.7 sees the product and the leaky ReLU twice.
TEST(Rules, PtflopsOnMeta) {
  expect_counts(rows_of([] { linear(meta({2, 5, 7}), meta({7, 4}), meta({4})); }), {{"ptflops-0.7-meta", 600}});
  expect_counts(rows_of([] { linear(meta({2, 5, 7}), meta({7, 4})); }), {{"ptflops-0.7-meta", 280}});
  expect_counts(rows_of([] { leaky_relu(meta({2, 5, 7})); }), {{"ptflops-0.7-meta", 140}});
}

// 144 outputs of 5 terms. As an operator (a @ b) no tool that looks at layers sees it, as a function one does.
TEST(Rules, MatrixProduct) {
  auto rows = rows_of([] { matmul(meta({2, 3, 4, 5}), meta({2, 3, 5, 6})); });
  expect_counts(rows, {{"mac", 720}, {"flop", 1440}, {"fvcore", 720}, {"ptflops-0.6", 0}, {"ptflops-0.7", 0},
                       {"ptflops-aten", 720}, {"thop", 0}, {"torch", 1440}, {"torchprofile", 720}});
  rows.front().written = Written::function;
  expect_counts(rows, {{"ptflops-0.6", 0}, {"ptflops-0.7", 720}, {"thop", 0}});
}

TEST(Rules, LayerNorm) {  // of 70 elements
  const auto affine = rows_of([] { layer_norm(meta({2, 5, 7}), meta({7}), meta({7})); });
  expect_counts(affine, {{"mac", 0}, {"flop", 560}, {"fvcore", 350}, {"ptflops-0.6", 0}, {"ptflops-0.7", 70},
                         {"ptflops-aten", 0}, {"thop", 280}, {"torch", 0}, {"torchprofile", 70}});
  auto plain = rows_of([] { layer_norm(meta({2, 5, 7})); });
  expect_counts(plain, {{"flop", 420}, {"fvcore", 280}, {"ptflops-0.7", 70}, {"thop", 140}, {"torchprofile", 0}});
  plain.front().written = Written::expression;  // step by step: no norm to any tool
  expect_counts(plain, {{"fvcore", 0}, {"ptflops-0.7", 0}, {"thop", 0}});
}

TEST(Rules, BatchNormInBothModes) {  // of 48 elements
  const auto evaluation = rows_of([] {
    batch_norm_inference(meta({1, 4, 4, 3}), meta({3}), meta({3}), meta({3}), meta({3}));
  });
  expect_counts(evaluation, {{"fvcore", 96}, {"ptflops-0.6", 96}, {"ptflops-0.7", 96}, {"thop", 192},
                             {"torchprofile", 48}});
  const auto training = rows_of([] { call<BatchNorm>({}, {meta({1, 4, 4, 3}), meta({3}), meta({3})}); });
  expect_counts(training, {{"fvcore", 240}, {"ptflops-0.6", 96}, {"ptflops-0.7", 96}, {"thop", 192},
                           {"torchprofile", 48}});
}

// Instance norm is told from group norm: thop knows only the first.
TEST(Rules, InstanceAndGroupNorm) {
  const auto instance = rows_of([] { group_norm(meta({1, 4, 4, 4}), 4); });
  expect_counts(instance, {{"fvcore", 256}, {"ptflops-0.6", 64}, {"ptflops-0.7", 64}, {"thop", 128},
                           {"torchprofile", 0}});
  const auto group = rows_of([] { group_norm(meta({1, 4, 4, 4}), 2, meta({4}), meta({4})); });
  expect_counts(group, {{"fvcore", 320}, {"ptflops-0.6", 128}, {"ptflops-0.7", 128}, {"thop", 0},
                        {"torchprofile", 64}});
}

TEST(Rules, ActivationsAndSoftmax) {  // of 24 elements; ptflops 0.7 sees a ReLU layer and the function it calls
  expect_counts(rows_of([] { relu(meta({2, 3, 4})); }), {{"fvcore", 0}, {"ptflops-0.6", 24}, {"ptflops-0.7", 48},
                                                         {"thop", 0}, {"torchprofile", 0}, {"flop", 24}});
  expect_counts(rows_of([] { leaky_relu(meta({2, 3, 4})); }), {{"ptflops-0.6", 24}, {"ptflops-0.7", 24}});
  expect_counts(rows_of([] { gelu(meta({2, 3, 4})); }), {{"ptflops-0.6", 24}, {"ptflops-0.7", 48}});
  expect_counts(rows_of([] { hardswish(meta({2, 3, 4})); }), {{"ptflops-0.6", 0}, {"ptflops-0.7", 0}, {"thop", 0}});
  auto method = rows_of([] { softmax(meta({2, 3, 4})); });
  expect_counts(method, {{"mac", 0}, {"fvcore", 0}, {"ptflops-0.7", 0}, {"torch", 0}});
  method.front().written = Written::function;
  expect_counts(method, {{"ptflops-0.6", 0}, {"ptflops-0.7", 24}});
}

TEST(Rules, ResizingAndPooling) {  // 16 to 64 positions of 3 channels, and 16 to 4
  auto rows = rows_of([] { resize(meta({1, 4, 4, 3}), {8, 8}); });
  expect_counts(rows, {{"fvcore", 768}, {"ptflops-0.6", 0}, {"ptflops-0.7", 192}, {"thop", 0}, {"torchprofile", 768}});
  rows.front().written = Written::layer;
  expect_counts(rows, {{"ptflops-0.6", 192}, {"ptflops-0.7", 384}, {"thop", 2112}});
  // With aligned corners it is nn.UpsamplingBilinear2d, a class that ptflops has no hook for.
  auto aligned = rows_of([] { resize(meta({1, 4, 4, 3}), {8, 8}, ResizeMode::linear, true); });
  aligned.front().written = Written::layer;
  expect_counts(aligned, {{"fvcore", 768}, {"ptflops-0.6", 0}, {"ptflops-0.7", 192}, {"thop", 2112}});
  const auto volume = rows_of([] { resize(meta({1, 2, 2, 2, 3}), {4, 4, 4}); });
  expect_counts(volume, {{"fvcore", 0}, {"torchprofile", 0}});
  expect_counts(rows_of([] { avg_pool(meta({1, 4, 4, 3})); }),
                {{"fvcore", 0}, {"ptflops-0.6", 48}, {"ptflops-0.7", 96}, {"thop", 12}, {"torchprofile", 12}});
}

// Calls without effect on the result are not in a traced graph; a layer under two names counts twice, and four
// times by thop, which also hooks it twice.
TEST(Rules, DeadCallsAndRepeatedNames) {
  std::vector<uint64_t> outputs;
  auto rows = rows_of([&] {
    const Tensor x = meta({2, 5, 7});
    outputs.push_back(linear(reshape(linear(x, meta({7, 7})), {10, 7}), meta({7, 4})).id());  // 490 and 280
    linear(x, meta({7, 3}));                                                                  // 210, dead
  });
  mark_returned(rows, outputs);
  expect_counts(rows, {{"mac", 980}, {"fvcore", 770}, {"torchprofile", 770}, {"ptflops-0.6", 980}, {"thop", 980}});
  rows.front().module_names = 2;
  expect_counts(rows, {{"mac", 980}, {"fvcore", 770}, {"ptflops-0.6", 1470}, {"ptflops-aten", 980}, {"thop", 2450}});
}

// Tools run no backward pass, but PyTorch's counter sees it.
TEST(Rules, BackwardRowsCountWhereTheToolSeesThem) {
  Ledger ledger;
  {
    const Observe observe(ledger);
    conv(meta({1, 4, 4, 2}), meta({1, 1, 2, 3}));  // 96
    ledger.begin(Part::backward);
    call<ConvDgrad>({{}, {4, 4}}, {meta({1, 4, 4, 3}), meta({1, 1, 2, 3})});
  }
  expect_counts(ledger.rows(), {{"mac", 192}, {"torch", 384}, {"fvcore", 96}, {"ptflops-aten", 96}});
}

TEST(Rules, ExplanationAddsUp) {
  const auto rows = rows_of([] {
    conv_transpose(meta({1, 2, 3, 3, 4}), meta({2, 2, 2, 3, 4}), {.stride = {2}});
    linear(meta({2, 5, 7}), meta({7, 4}), meta({4}));
    matmul(meta({2, 3, 4, 5}), meta({2, 3, 5, 6}));
    layer_norm(meta({2, 5, 7}), meta({7}), meta({7}));
  });
  const auto causes = explain(rows, count_rule("fvcore"), count_rule("ptflops-0.6"));
  ASSERT_EQ(causes.size(), 4u);
  EXPECT_EQ(causes[0].text,
            "transposed convolutions: 1 per multiply-add -> 1 per tap at every output position");
  EXPECT_EQ(causes[0].amount, 13824 - 1728);
  EXPECT_EQ(causes[1].text, "matrix products: 1 per multiply-add -> not counted");
  EXPECT_EQ(causes[1].amount, -720);
  EXPECT_EQ(causes[2].text, "layer norms: 5 per element with weights -> not counted");
  EXPECT_EQ(causes[2].amount, -350);
  EXPECT_EQ(causes[3].text, "biases: not counted -> 1 per output channel, once a call");
  EXPECT_EQ(causes[3].amount, 4);
  for (const CountRule& from : count_rules())
    for (const CountRule& to : count_rules()) {
      double sum = total(rows, from);
      for (const Cause& cause : explain(rows, from, to)) sum += cause.amount;
      EXPECT_EQ(sum, total(rows, to)) << from.name << " to " << to.name;
    }
}

TEST(Rules, WhatARuleLeavesOut) {
  const auto rows = rows_of([] {
    const Tensor x = softmax(meta({2, 3, 4}));
    l2_normalise(reshape(x, {6, 4}));
    softmax(x);
  });
  const auto list = uncounted(rows, count_rule("fvcore"));
  ASSERT_EQ(list.size(), 5u);
  EXPECT_EQ(list[0].name, "softmax");
  EXPECT_EQ(list[0].calls, 2);
  EXPECT_EQ(list[1].name, "clamp_min");
  EXPECT_TRUE(uncounted(rows, count_rule("flop")).empty());
}

TEST(Rules, AnUnknownRuleIsRefusedWithTheKnownOnes) {
  try {
    count_rule("flops");
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "count: rule 'flops' is none of mac, flop, fvcore, ptflops-0.6, ptflops-0.7, "
                           "ptflops-0.7-meta, ptflops-aten, "
                           "thop, torch, torchprofile, levit");
  }
}

}  // namespace
}  // namespace voxlab
