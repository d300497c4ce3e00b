// Rewrites of inference: which ops are folded or fused, and that they give the same values.
#include "tests/plan/plan_support.h"

namespace voxlab {
namespace {

TEST(Plan, ConvolutionNormSumAndActivationAreOneOp) {
  const Tensor w1 = random({3, 3, 3, 4, 6}, 10), w2 = random({3, 3, 3, 6, 6}, 11);
  const Tensor scale = random({6}, 12, 0.5, 2), shift = random({6}, 13), mean = random({6}, 14);
  const Tensor variance = random({6}, 15, 0.5, 2);
  const auto forward = [=](const Tensor& x) {
    const Tensor a = leaky_relu(batch_norm_inference(conv(x, w1, {}, {.padding = {1}}), scale, shift, mean, variance));
    const Tensor b = batch_norm_inference(conv(a, w2, shift, {.padding = {1}}), scale, shift, mean, variance);
    return Tensors{leaky_relu(add(b, a), 0.3)};
  };
  const Shape shape{2, 3, 4, 5, 4};
  const auto ops = ops_of(fused(forward, shape));
  EXPECT_EQ(ops, (std::map<std::string, int>{{"fused_conv", 2}}));
  expect_same(forward, shape);
}

// Where kernels read both where they lie (tiles of AMX), the joined tensor is never made.
TEST(Plan, ConvolutionsReadTheTwoPartsOfTheirInput) {
  const Tensor w = random({3, 3, 3, 40, 16}, 10), v = random({1, 1, 1, 40, 24}, 11), u = random({1, 1, 1, 24, 16}, 12);
  const auto forward = [=](const Tensor& x) {
    const Tensor both = concat({x, relu(conv(x, u))}, -1);
    return Tensors{relu(conv(both, w, {}, {.padding = {1}})), conv(both, v)};
  };
  const Shape shape{2, 3, 4, 5, 24};
  EXPECT_EQ(ops_of(fused(forward, shape)).count("concat"), 1u);  // strict: joining is the kernel's cheapest way
  expect_same(forward, shape);
  const auto& isas = cpu::available_isas();
  if (std::find(isas.begin(), isas.end(), cpu::Isa::amx_emulated) == isas.end()) return;  // no AVX-512
  const cpu::IsaScope isa(cpu::Isa::amx_emulated);
  const ArithmeticScope arithmetic(Arithmetic::bf16x3);
  EXPECT_EQ(ops_of(fused(forward, shape)).count("concat"), 0u);
  expect_same(forward, shape, 3e-5);
  // Under bf16 one part is, the other, an input, is not; what is counted does not depend on it.
  const ArithmeticScope low(Arithmetic::bf16);
  expect_same(forward, shape, 2e-2);
  Ledger ledger;
  const Observe observe(ledger);
  PlannedForward planned(forward);
  planned(random(shape, 1));
  int64_t macs = 0;
  for (const LedgerRow& row : ledger.rows()) macs += row.cost.macs;
  EXPECT_EQ(macs, 2 * 3 * 4 * 5 * (24 * 16 + 40 * 24 + 27 * 40 * 16));
}

// A join reads views as they lie; a convolution of its parts would not.
TEST(Plan, JoinedViewsStayJoined) {
  const Tensor w = random({3, 3, 3, 16, 16}, 10);
  const auto forward = [=](const Tensor& x) {
    const Tensor halves = reshape(x, {2, 3, 4, 5, 2, 8});
    const Tensor front = reshape(slice(halves, 4, 0, 1), {2, 3, 4, 5, 8}), back = reshape(slice(halves, 4, 1, 1), {2, 3, 4, 5, 8});
    return Tensors{relu(conv(concat({back, front}, -1), w, {}, {.padding = {1}}))};
  };
  const auto& isas = cpu::available_isas();
  if (std::find(isas.begin(), isas.end(), cpu::Isa::amx_emulated) == isas.end()) return;  // no AVX-512
  const cpu::IsaScope isa(cpu::Isa::amx_emulated);
  const ArithmeticScope arithmetic(Arithmetic::bf16x3);
  expect_same(forward, {2, 3, 4, 5, 16}, 3e-5);
}

// Around instance and group norms: moments come from the convolution before, one convolution after takes the norm in, and
// under bf16 values between them are bf16.
TEST(Plan, NormsTakeNoPassesOnTiles) {
  const Tensor w1 = random({3, 3, 3, 12, 24}, 10), w2 = random({3, 3, 3, 24, 24}, 11), w3 = random({1, 1, 1, 12, 24}, 12);
  const Tensor scale = random({24}, 13, 0.5, 2), shift = random({24}, 14), u = random({1, 1, 1, 6, 6}, 15);
  const auto forward = [=](const Tensor& x) {
    const Tensor both = concat({x, relu(conv(x, u))}, -1);
    const Tensor a = leaky_relu(group_norm(conv(both, w1, {}, {.padding = {1}}), 24));
    const Tensor b = group_norm(conv(a, w2, {}, {.padding = {1}}), 24, scale, shift);
    const Tensor c = leaky_relu(add(b, group_norm(conv(both, w3), 24)));
    return Tensors{c, group_norm(conv(c, w2, {}, {.padding = {1}}), 6)};
  };
  const Shape shape{2, 5, 6, 10, 6};
  expect_same(forward, shape);
  const auto& isas = cpu::available_isas();
  if (std::find(isas.begin(), isas.end(), cpu::Isa::amx_emulated) == isas.end()) return;  // no AVX-512
  const cpu::IsaScope isa(cpu::Isa::amx_emulated);
  for (const Arithmetic arithmetic : {Arithmetic::bf16x3, Arithmetic::bf16}) {
    const ArithmeticScope scope(arithmetic);
    const Trace graph = fused(forward, shape);
    EXPECT_EQ(ops_of(graph).at("fused_group_norm"), 2);
    int64_t moments = 0, halves = 0;
    for (const TraceStep& node : graph.steps) moments += node.op == &record_of<FusedConv>() && node.outputs.size() == 2;
    for (const TraceValue& value : graph.values) halves += value.meta.dtype == DType::bf16;
    EXPECT_EQ(moments, 4);
    EXPECT_EQ(halves, arithmetic == Arithmetic::bf16 ? 5 : 0);  // what each convolution but the last stores, and c
    expect_same(forward, shape, arithmetic == Arithmetic::bf16 ? 2e-2 : 5e-5);
  }
}

// The same around convolutions by minimal filtering, of two sides and of three; what reads an input in two parts is one of them.
TEST(Plan, NormsTakeNoPassesBesideMinimalFiltering) {
  const Tensor w1 = random({3, 3, 3, 24, 48}, 10), w2 = random({3, 3, 3, 48, 48}, 11), u = random({1, 1, 1, 12, 12}, 12);
  const Tensor scale = random({48}, 13, 0.5, 2), shift = random({48}, 14);
  const auto forward = [=](const Tensor& x) {
    const Tensor both = concat({x, relu(conv(x, u))}, -1);
    const Tensor a = leaky_relu(group_norm(conv(both, w1, {}, {.padding = {1}}), 48));
    const Tensor b = relu(group_norm(conv(a, w2, {}, {.padding = {1}}), 8, scale, shift));
    return Tensors{group_norm(conv(b, w2, {}, {.padding = {1}}), 48)};
  };
  for (const Shape& shape : {Shape{2, 5, 30, 34, 12}, Shape{1, 16, 31, 34, 12}}) {
    for (const cpu::Isa isa : cpu::available_isas()) {
      const cpu::IsaScope scope(isa);
      const ArithmeticScope strict(Arithmetic::strict);
      const Trace graph = fused(forward, shape);
      const auto ops = ops_of(graph);
      EXPECT_EQ(ops.at("fused_group_norm"), 1) << cpu::name(isa);
      EXPECT_EQ(ops.count("concat"), 0u) << cpu::name(isa);
      int64_t moments = 0;
      for (const TraceStep& node : graph.steps) moments += node.op == &record_of<FusedConv>() && node.outputs.size() == 2;
      EXPECT_EQ(moments, 3) << cpu::name(isa);
      expect_same(forward, shape);
    }
  }
}

TEST(Plan, TwoNormsThatMeetInASumAreOneOp) {
  const Tensor w = random({1, 1, 1, 4, 8}, 10), v = random({5, 1, 1, 4, 8}, 11);
  const auto forward = [=](const Tensor& x) {
    const Tensor y = group_norm(conv(x, v, {}, {.padding = {2, 0, 0}}), 8);
    return Tensors{leaky_relu(add(y, group_norm(conv(x, w), 8)))};
  };
  const Shape shape{2, 3, 4, 5, 4};
  const auto ops = ops_of(fused(forward, shape));
  EXPECT_EQ(ops, (std::map<std::string, int>{{"conv", 2}, {"fused_group_norm", 1}}));
  expect_same(forward, shape);
}

TEST(Plan, ProductSoftmaxProductIsOneOp) {
  const Tensor key = random({2, 4, 9}, 10), value = random({2, 5, 9}, 11), bias = random({6, 9}, 12);
  const auto forward = [=](const Tensor& x) {
    const Tensor plain = matmul(softmax(matmul(x, key), -1), transpose(value));
    return Tensors{plain, matmul(softmax(add(matmul(x, key), bias)), transpose(value))};
  };
  const auto ops = ops_of(fused(forward, {2, 6, 4}));
  EXPECT_EQ(ops, (std::map<std::string, int>{{"fused_attention", 2}}));
  expect_same(forward, {2, 6, 4});
}

TEST(Plan, ScoresThatAreReadTwiceStay) {
  const Tensor key = random({4, 9}, 10), value = random({9, 3}, 11), wide = random({2, 6, 9}, 12);
  const auto forward = [=](const Tensor& x) {
    const Tensor scores = matmul(x, key), weights = softmax(matmul(x, key));
    return Tensors{matmul(softmax(scores), value), scores,                      // the scores are an output
                   matmul(weights, value), weights,                            // so are the weights
                   matmul(softmax(matmul(x, key), 0), value),                  // over the queries
                   matmul(softmax(add(matmul(x, key), wide)), value)};         // the sum is larger than the scores
  };
  EXPECT_EQ(ops_of(fused(forward, {6, 4})).count("fused_attention"), 0u);
  expect_same(forward, {6, 4});
}

TEST(Plan, ATransposedConvolutionTakesInTheSumBehindIt) {
  const auto body = [](const Tensors& in) { return Tensors{relu(add(conv_transpose(in[0], in[1], {.stride = {2}}), in[2]))}; };
  const Tensors in{random({2, 2, 3, 2, 6}, 1), random({2, 2, 2, 4, 6}, 2), random({2, 4, 6, 4, 4}, 3)};
  const auto ops = ops_of(fused(body, metas_of(in)));
  EXPECT_EQ(ops.at("fused_conv_transpose"), 1);
  EXPECT_EQ(ops.count("binary"), 0U);
  Plan planned(body, metas_of(in));
  EXPECT_LT(difference(body(in)[0], planned(in)[0]), 1e-6);
}

TEST(Plan, ADepthwiseConvolutionOverManyChannelsHandsItsRowsToTheNormBehindIt) {
  const Shape x{2, 5, 4, 70};
  const Tensor w = random({3, 3, 1, 70}, 1), c = random({70}, 2);
  const auto forward = [&](int64_t padding, bool twice) -> Forward {
    return [&, padding, twice](const Tensor& h) {
      const Tensor s = conv(h, w, c, {.padding = {padding}, .groups = 70});
      const Tensor y = gelu(layer_norm(s, c, {}, 1e-3));
      return twice ? Tensors{y, s} : Tensors{y};
    };
  };
  for (const int64_t padding : {0, 1}) {
    SCOPED_TRACE(padding);
    EXPECT_EQ(ops_of(fused(forward(padding, false), x)), (std::map<std::string, int>{{"conv_norm_gelu", 1}}));
    expect_same(forward(padding, false), x);
  }
  EXPECT_EQ(ops_of(fused(forward(1, true), x)).count("conv_norm_gelu"), 0U) << "its rows are an output too";
  expect_same(forward(1, true), x);
}

Tensor in_heads(const Tensor& x, int64_t heads) { return permute(reshape(x, {x.size(0), x.size(1), heads, -1}), {0, 2, 1, 3}); }

Tensor out_of_heads(const Tensor& x) { return reshape(permute(x, {0, 2, 1, 3}), {x.size(0), x.size(2), x.size(1) * x.size(3)}); }

// Attention that compares no tokens, of parts of one tensor: no copies either.
TEST(Plan, AttentionThatComparesNoTokensIsOneOp) {
  const Tensor weight = random({12, 36}, 1), temperature = random({3, 1, 1}, 2);
  for (const int64_t heads : {1, 3}) {
    SCOPED_TRACE(heads);
    const Forward efficient = [&](const Tensor& x) {
      const Tensors part = split(linear(x, weight, {}), -1, {12, 12, 12});
      const Tensor q = permute(softmax(reshape(part[0], {2, 20, heads, -1}), -1), {0, 2, 1, 3});
      const Tensor context = matmul(transpose(in_heads(softmax(part[1], 1), heads)), in_heads(part[2], heads));
      return Tensors{relu(out_of_heads(matmul(q, context)))};
    };
    const auto ops = ops_of(fused(efficient, {2, 20, 12}));
    EXPECT_EQ(ops, (std::map<std::string, int>{{"linear", 1}, {"split", 1}, {"efficient_attention", 1}, {"unary", 1}}));
    expect_same(efficient, {2, 20, 12});
  }
  const auto transposed = [&](int axis, bool twice) -> Forward {
    return [&, axis, twice](const Tensor& x) {
      const Tensors part = split(linear(x, weight, {}), -1, {12, 12, 12});
      const Tensor q = in_heads(l2_normalise(part[0], axis), 3), k = in_heads(l2_normalise(part[1], axis), 3);
      const Tensor weights = softmax(mul(matmul(transpose(q), k), temperature), -1);
      const Tensor y = relu(out_of_heads(matmul(in_heads(part[2], 3), transpose(weights))));
      return twice ? Tensors{y, relu(weights)} : Tensors{y};
    };
  };
  EXPECT_EQ(ops_of(fused(transposed(1, false), {2, 20, 12})), (std::map<std::string, int>{{"linear", 1}, {"split", 1}, {"transpose_attention", 1}, {"unary", 1}}));
  expect_same(transposed(1, false), {2, 20, 12});
  EXPECT_EQ(ops_of(fused(transposed(1, true), {2, 20, 12})).count("transpose_attention"), 0U) << "its weights are an output too";
  expect_same(transposed(1, true), {2, 20, 12});
  EXPECT_EQ(ops_of(fused(transposed(2, false), {2, 20, 12})).count("transpose_attention"), 0U) << "norms over channels are another function";
  expect_same(transposed(2, false), {2, 20, 12});
}

TEST(Plan, ConvolutionsThatMovePositionsKeepTheirSums) {
  const Tensor x = random({2, 5, 4, 6}, 1), w = random({3, 3, 1, 6}, 2), whole = random({3, 3, 6, 6}, 3), wide = random({5, 5, 1, 6}, 4);
  const auto sums = [&](const Tensor& weight, ConvOptions options) {
    const Forward forward = [&, options](const Tensor& in) { return Tensors{add(conv(in, weight, {}, options), in)}; };
    expect_same(forward, x.shape());
    const auto ops = ops_of(fused(forward, x.shape()));
    return ops.contains("binary") || ops.contains("fused_conv");
  };
  EXPECT_FALSE(sums(w, {.padding = {1}, .groups = 6}));
  EXPECT_FALSE(sums(wide, {.padding = {2}, .groups = 6}));
  EXPECT_TRUE(sums(whole, {.padding = {1}})) << "channels meet";
  EXPECT_TRUE(sums(wide, {.padding = {4}, .dilation = {2}, .groups = 6})) << "dilated";
}

}  // namespace
}  // namespace voxlab
