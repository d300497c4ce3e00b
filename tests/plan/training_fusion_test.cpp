// Rewrites of training steps: which ops are fused, and that they give the same values and gradients.
#include "tests/plan/plan_support.h"

namespace voxlab {
namespace {

// A convolution, a norm with an activation, a loss of logits, and all gradients.
struct SmallStep {
  Tensors operator()(int64_t classes, bool batch) const {
    Tape tape;
    const Tensors parameters{weight, scale, shift, head};
    tape.watch(parameters);
    Tensor total;
    {
      const auto recording = tape.recording();
      Tensor y = conv(x, weight, {}, {.padding = {1}});
      y = batch ? call<BatchNorm>({}, {y, scale, shift})[0] : group_norm(y, 3, scale, shift);
      const Tensor logits = conv(leaky_relu(y), slice(head, 4, 0, classes), {});
      const Tensors sums = call<ClassSums>({}, {softmax(logits), labels});
      total = add(cross_entropy(logits, labels), mean(div(sums[0], add(sums[1], sums[2]))));
    }
    Tensors out = tape.gradient(total, parameters);
    out.push_back(total);
    return out;
  }
  Tensors inputs() const { return {x, labels, weight, scale, shift, head}; }
  static SmallStep of(const Tensors& in) {
    return {.x = in[0], .weight = in[2], .head = in[5], .scale = in[3], .shift = in[4], .labels = in[1]};
  }

  Tensor x = random({2, 3, 4, 5, 4}, 1), weight = random({3, 3, 3, 4, 6}, 10), head = random({1, 1, 1, 6, 70}, 11);
  Tensor scale = random({6}, 12, 0.5, 2), shift = random({6}, 13);
  Tensor labels = draw({.shape = {2, 3, 4, 5}, .low = 0, .high = 5, .integer = true}, DType::i32, Device::cpu, 14);
};

TEST(Plan, TrainingNormsTakeInTheirActivation) {
  for (const bool batch : {false, true}) {
    SCOPED_TRACE(batch);
    const SmallStep step;
    const auto body = [&](const Tensors& in) { return SmallStep::of(in)(5, batch); };
    const auto ops = ops_of(fused(body, metas_of(step.inputs())));
    EXPECT_EQ(ops.count("unary_grad") + ops.count("group_norm_grad") + ops.count("batch_norm_grad"), 0U);
    EXPECT_EQ(ops.at("norm_activation") + ops.at("norm_activation_grad"), 2);
    EXPECT_EQ(ops.at("loss_head") + ops.at("loss_head_grad"), 2);
    EXPECT_EQ(ops.count("softmax") + ops.count("softmax_grad") + ops.count("class_sums") + ops.count("cross_entropy_grad"), 0U);
    Plan planned(body, metas_of(step.inputs()));
    SmallStep other;
    other.x = random({2, 3, 4, 5, 4}, 2);
    other.weight = random({3, 3, 3, 4, 6}, 20);
    const Tensors expected = other(5, batch), got = planned(other.inputs());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_LT(difference(expected[i], got[i]), 2e-6) << "output " << i;
  }
}

// Two convolutions of x, normalised and added up before an activation, as a residual block whose channels change has them, and
// all gradients.
Tensors norm_sum_step(const Tensors& in, bool batch) {
  Tape tape;
  tape.watch({in[0], in[1], in[2], in[3], in[4], in[5], in[6]});
  Tensor y;
  {
    const auto recording = tape.recording();
    const auto norm = [&](const Tensor& x, const Tensor& weight, const Tensor& bias) {
      return batch ? call<BatchNorm>({}, {x, weight, bias})[0] : group_norm(x, 6, weight, bias);
    };
    const Tensor wide = norm(conv(in[0], in[1], {}, {.padding = {1}}), in[3], in[4]);
    y = leaky_relu(add(wide, norm(conv(in[0], in[2]), in[5], in[6])), 0.01);
  }
  Tensors out = tape.gradient({y}, {in[7]}, {in[0], in[1], in[2], in[3], in[4], in[5], in[6]});
  out.push_back(y);
  return out;
}

TEST(Plan, TwoNormsThatMeetInASumAreOneOpEachWay) {
  for (const bool batch : {false, true}) {
    SCOPED_TRACE(batch);
    const auto inputs = [](uint64_t seed) {
      return Tensors{random({2, 3, 4, 5, 4}, seed), random({3, 3, 3, 4, 6}, seed + 1), random({1, 1, 1, 4, 6}, seed + 2),
                     random({6}, seed + 3, 0.5, 2), random({6}, seed + 4), random({6}, seed + 5, 0.5, 2), random({6}, seed + 6),
                     random({2, 3, 4, 5, 6}, seed + 7)};
    };
    const auto body = [&](const Tensors& in) { return norm_sum_step(in, batch); };
    const auto ops = ops_of(fused(body, metas_of(inputs(1))));
    EXPECT_EQ(ops.at("norm_sum"), 1);
    EXPECT_EQ(ops.at("norm_sum_grad"), 1);
    for (const char* gone : {"unary", "unary_grad", "group_norm", "batch_norm", "group_norm_grad", "batch_norm_grad", "norm_activation"})
      EXPECT_EQ(ops.count(gone), 0U) << gone;
    Plan planned(body, metas_of(inputs(1)));
    const Tensors in = inputs(40), expected = body(in), got = planned(in);
    for (size_t i = 0; i < got.size(); ++i) EXPECT_LT(difference(expected[i], got[i]), 3e-6) << "output " << i;
  }
}

// The middle of a mix feed-forward, gelu(norm(depthwise(h) + h)), in two or three dimensions, and all gradients.
Tensors mix_step(const Tensors& in, bool gradients, ConvOptions options = {.padding = {1}, .groups = 6}) {
  Tape tape;
  if (gradients) tape.watch({in[0], in[1], in[2], in[3], in[4]});
  Tensor y;
  {
    const auto recording = tape.recording();
    const Tensor h = in[0];
    y = gelu(layer_norm(add(conv(h, in[1], in[2], std::move(options)), h), in[3], in[4]));
  }
  if (!gradients) return {y};
  Tensors out = tape.gradient({y}, {in[5]}, {in[0], in[1], in[2], in[3], in[4]});
  out.push_back(y);
  return out;
}

TEST(Plan, ADepthwiseConvolutionWithItsInputIsOneOpAndSoIsTheNormWithItsActivation) {
  using Ops = std::map<std::string, int>;
  for (const bool planar : {true, false}) {
    SCOPED_TRACE(planar);
    const auto inputs = [&](uint64_t seed) {
      const Shape x = planar ? Shape{2, 5, 4, 6} : Shape{1, 3, 5, 4, 6}, w = planar ? Shape{3, 3, 1, 6} : Shape{3, 3, 3, 1, 6};
      return Tensors{random(x, seed), random(w, seed + 1), random({6}, seed + 2), random({6}, seed + 3, 0.5, 2), random({6}, seed + 4), random(x, seed + 5)};
    };
    const auto step = [](const Tensors& in) { return mix_step(in, true); };
    const auto ops = ops_of(fused(step, metas_of(inputs(1))));
    EXPECT_EQ(ops, (Ops{{"binary", 1}, {"conv", 1}, {"conv_dgrad", 1}, {"conv_wgrad", 1}, {"reduce", 1}, {"layer_norm_gelu", 1}, {"layer_norm_gelu_grad", 1}}))
        << "one sum, of the weight and 1";
    Plan planned(step, metas_of(inputs(1)));
    for (const uint64_t seed : {10U, 20U}) {
      const Tensors in = inputs(seed), expected = step(in), got = planned(in);
      for (size_t i = 0; i < got.size(); ++i) EXPECT_LT(difference(expected[i], got[i]), 2e-6) << "output " << i;
    }
    const Tensors constants = inputs(1);
    const Forward forward = [&](const Tensor& x) {
      Tensors in = constants;
      in[0] = x;
      return mix_step(in, false);
    };
    EXPECT_EQ(ops_of(fused(forward, constants[0].shape())), (Ops{{"conv", 1}, {"layer_norm_gelu", 1}})) << "the weight is known, channels are few";
    expect_same(forward, constants[0].shape());
  }
}

// The block of 3D UX-Net, and its gradients for all parameters and the input where they are asked for.
// in: x, depthwise weight and bias, the norm's, those that expand, those that reduce, gamma, dy.
Tensors scaled_block(const Tensors& in, bool gradients, bool with_gamma = true) {
  Tape tape;
  const Tensors watched(in.begin(), in.end() - 1);
  if (gradients) tape.watch(watched);
  Tensor y;
  {
    const auto recording = tape.recording();
    const int64_t channels = in[0].size(-1);
    y = layer_norm(conv(in[0], in[1], in[2], {.padding = {1}, .groups = channels}), in[3], in[4], 1e-6);
    y = conv(gelu(conv(y, in[5], in[6], {.groups = channels})), in[7], in[8], {.groups = channels});
    if (with_gamma) y = mul(in[9], y);
    y = add(in[0], y);
  }
  if (!gradients) return {y};
  Tensors out = tape.gradient({y}, {in[10]}, with_gamma ? watched : Tensors(watched.begin(), watched.end() - 1));
  out.push_back(y);
  return out;
}

Tensors scaled_block_inputs(uint64_t seed) {
  const Shape x{2, 3, 4, 5, 6};
  const auto c = [&](uint64_t k) { return random({6}, seed + k); };
  return {random(x, seed), random({3, 3, 3, 1, 6}, seed + 1), c(2), c(3), c(4), random({1, 1, 1, 1, 24}, seed + 5), random({24}, seed + 6),
          random({1, 1, 1, 4, 6}, seed + 7), c(8), c(9), random(x, seed + 10)};
}

TEST(Plan, ABlockThatScalesChannelsIsOneOp) {
  const Tensors in = scaled_block_inputs(1);
  const auto forward = [&](bool with_gamma) -> Forward {
    return [&, with_gamma](const Tensor& x) {
      Tensors all = in;
      all[0] = x;
      return scaled_block(all, false, with_gamma);
    };
  };
  for (const bool with_gamma : {true, false}) {
    EXPECT_EQ(ops_of(fused(forward(with_gamma), in[0].shape())), (std::map<std::string, int>{{"conv_norm_scaling", 1}}));
    expect_same(forward(with_gamma), in[0].shape());
  }
  const Forward normed = [&](const Tensor& x) {  // neither a convolution before it nor a residual
    return Tensors{conv(gelu(conv(layer_norm(x), in[5], {}, {.groups = 6})), in[7], {}, {.groups = 6})};
  };
  EXPECT_EQ(ops_of(fused(normed, in[0].shape())), (std::map<std::string, int>{{"norm_scaling", 1}}));
  expect_same(normed, in[0].shape());
}

TEST(Plan, GradientsOfABlockThatScalesChannelsAreOneOp) {
  for (const bool with_gamma : {true, false}) {
    SCOPED_TRACE(with_gamma);
    const auto step = [with_gamma](const Tensors& in) { return scaled_block(in, true, with_gamma); };
    const auto ops = ops_of(fused(step, metas_of(scaled_block_inputs(1))));
    EXPECT_EQ(ops.at("norm_scaling") + ops.at("norm_scaling_grad"), 2);
    EXPECT_EQ(ops.count("unary") + ops.count("unary_grad") + ops.count("layer_norm") + ops.count("layer_norm_grad"), 0U);
    EXPECT_EQ(ops.at("conv") + ops.at("conv_dgrad") + ops.at("conv_wgrad"), 3) << "of the depthwise convolution";
    EXPECT_EQ(ops.at("reduce"), with_gamma ? 1 : 2) << "the depthwise bias's; without gamma dy's sum stays with the others that read dy";
    Plan planned(step, metas_of(scaled_block_inputs(1)));
    for (const uint64_t seed : {20U, 40U}) {
      const Tensors in = scaled_block_inputs(seed), expected = step(in), got = planned(in);
      ASSERT_EQ(expected.size(), got.size());
      for (size_t i = 0; i < got.size(); ++i) EXPECT_LT(difference(expected[i], got[i]), 3e-6) << "output " << i;
    }
  }
}

// What somebody else reads stays.
TEST(Plan, ABlockWhosePartsAreReadStaysApart) {
  const Tensors in = scaled_block_inputs(1);
  for (const int part : {0, 1, 2}) {
    SCOPED_TRACE(part);
    const Forward forward = [&](const Tensor& x) {
      const Tensor n = layer_norm(x), z = conv(n, in[5], in[6], {.groups = 6}), g = gelu(z);
      return Tensors{conv(g, in[7], in[8], {.groups = 6}), relu(std::array{n, z, g}[static_cast<size_t>(part)])};
    };
    EXPECT_EQ(ops_of(fused(forward, in[0].shape())).count("norm_scaling"), 0U);
    expect_same(forward, in[0].shape());
  }
}

// A bias before a norm that takes its mean away has no gradient but rounding errors; one that a group shares has.
TEST(Plan, BiasesBeforeNormsThatTakeTheirMeanAwayHaveNoGradient) {
  const Tensor w = random({3, 3, 3, 4, 6}, 10), dy = random({2, 3, 4, 5, 6}, 11);
  for (const int64_t groups : {0, 3, 6}) {  // 0: batch norm
    SCOPED_TRACE(groups);
    const auto body = [&](const Tensors& in) {
      Tape tape;
      tape.watch(in[1]);
      Tensor y;
      {
        const auto recording = tape.recording();
        y = conv(in[0], w, in[1], {.padding = {1}});
        y = leaky_relu(groups == 0 ? call<BatchNorm>({}, {y, {}, {}})[0] : group_norm(y, groups));
      }
      return tape.gradient({y}, {dy}, {in[1]});
    };
    const Tensors in{random({2, 3, 4, 5, 4}, 1), random({6}, 2)};
    const bool zero = groups != 3;
    EXPECT_EQ(ops_of(fused(body, metas_of(in))).count("reduce"), zero ? 0U : 1U);
    const std::vector<double> expected = body(in)[0].to_vector(), got = Plan(body, metas_of(in))(in)[0].to_vector();
    for (size_t c = 0; c < got.size(); ++c) {
      EXPECT_NEAR(got[c], expected[c], 1e-5);
      EXPECT_EQ(got[c] == 0, zero);
    }
  }
}

// Two convolutions with norms, joined with the first's output, and all gradients.
struct ConvolutionsStep {
  Tensors operator()() const {
    Tape tape;
    const Tensors parameters{first, second, third, shift};
    tape.watch(parameters);
    Tensor total;
    {
      const auto recording = tape.recording();
      const Tensor a = leaky_relu(group_norm(conv(x, first, {}, {.padding = {1}}), 32));
      const Tensor b = call<BatchNorm>({}, {conv(a, second, {}, {.padding = {1}}), {}, {}})[0];
      const Tensor c = conv(concat({leaky_relu(add(b, a)), a}, -1), third, shift, {.padding = {1}});
      total = mean(mul(c, c));
    }
    Tensors out = tape.gradient(total, parameters);
    out.push_back(total);
    return out;
  }
  Tensors inputs() const { return {x, first, second, third, shift}; }
  static Tensors run(const Tensors& in) {
    return ConvolutionsStep{.x = in[0], .first = in[1], .second = in[2], .third = in[3], .shift = in[4]}();
  }

  Tensor x = random({2, 6, 9, 10, 8}, 1), first = random({3, 3, 3, 8, 32}, 10), second = random({3, 3, 3, 32, 32}, 11);
  Tensor third = random({3, 3, 3, 64, 16}, 12), shift = random({16}, 13);
};

// Under bf16 what convolutions, norms and their gradients hand each other is bf16, and joins, sums and views between follow.
TEST(Plan, ValuesOfATrainingStepAreBf16BetweenKernelsOnTiles) {
  const auto& isas = cpu::available_isas();
  if (std::find(isas.begin(), isas.end(), cpu::Isa::amx_emulated) == isas.end()) GTEST_SKIP() << "no AVX-512";
  const cpu::IsaScope isa(cpu::Isa::amx_emulated);
  const ConvolutionsStep step, other{.x = random({2, 6, 9, 10, 8}, 2), .shift = random({16}, 20)};
  const Tensors expected = other();
  for (const Arithmetic arithmetic : {Arithmetic::bf16x3, Arithmetic::bf16}) {
    const ArithmeticScope scope(arithmetic);
    const bool narrow = arithmetic == Arithmetic::bf16;
    const Trace graph = fused(ConvolutionsStep::run, metas_of(step.inputs()));
    // The joined tensor and its gradient are never made; the sum of a's two gradients is part of a convolution.
    const auto ops = ops_of(graph);
    EXPECT_EQ(ops.count("concat") + ops.count("split"), 0U);
    EXPECT_EQ(ops.at("fused_conv_wgrad"), 1);
    EXPECT_EQ(ops.at("conv_dgrad") + ops.at("fused_conv_dgrad"), 3);
    EXPECT_GE(ops.at("fused_conv_dgrad"), 1);
    int64_t large = 0, halves = 0;  // of values as large as the norms' outputs
    for (const TraceStep& node : graph.steps)
      for (const int value : node.outputs) {
        const Meta& meta = graph.values[static_cast<size_t>(value)].meta;
        if (meta.shape.numel() < 2 * 6 * 9 * 10 * 32) continue;
        ++large;
        halves += meta.dtype == DType::bf16;
      }
    EXPECT_EQ(halves, narrow ? large : 0);
    EXPECT_GT(large, 8);
    Plan planned(ConvolutionsStep::run, metas_of(step.inputs()));
    const Tensors got = planned(other.inputs()), by_op = other();
    // Gradients pass kinks: bf16 moves them by some hundredths op by op too.
    for (size_t i = 0; i < got.size(); ++i)
      EXPECT_LT(norm_difference(expected[i], got[i]), 1.5 * norm_difference(expected[i], by_op[i])) << "output " << i;
  }
}

// A convolution, what it makes in twice the size, another convolution, and all gradients. in: x, both weights.
Tensors resized_step(const Tensors& in) {
  Tape tape;
  const Tensors parameters{in[1], in[2]};
  tape.watch(parameters);
  Tensor total;
  {
    const auto recording = tape.recording();
    const Tensor a = relu(group_norm(conv(in[0], in[1], {}, {.padding = {1}}), 32));
    const Tensor y = conv(resize(a, {18, 20}), in[2], {}, {.padding = {1}});
    total = mean(mul(y, y));
  }
  Tensors out = tape.gradient(total, parameters);
  out.push_back(total);
  return out;
}

TEST(Plan, ResizedValuesBetweenKernelsOnTilesAreBf16) {
  const auto& isas = cpu::available_isas();
  if (std::find(isas.begin(), isas.end(), cpu::Isa::amx_emulated) == isas.end()) GTEST_SKIP() << "no AVX-512";
  const cpu::IsaScope isa(cpu::Isa::amx_emulated);
  const Tensors in{random({2, 9, 10, 16}, 1), random({3, 3, 16, 32}, 2), random({3, 3, 32, 32}, 3)};
  const Tensors expected = resized_step(in);
  const ArithmeticScope scope(Arithmetic::bf16);
  const Trace graph = fused(resized_step, metas_of(in));
  for (const TraceStep& node : graph.steps)
    if (node.op->name == "resize" || node.op->name == "resize_grad") {
      for (const int value : {node.inputs[0], node.outputs[0]})
        EXPECT_EQ(graph.values[static_cast<size_t>(value)].meta.dtype, DType::bf16) << node.op->name;
    }
  EXPECT_EQ(ops_of(graph).at("resize") + ops_of(graph).at("resize_grad"), 2);
  Plan planned(resized_step, metas_of(in));
  const Tensors got = planned(in), by_op = resized_step(in);
  for (size_t i = 0; i < got.size(); ++i)
    EXPECT_LT(norm_difference(expected[i], got[i]), 1.5 * norm_difference(expected[i], by_op[i]) + 1e-3) << "output " << i;
}

TEST(Plan, LossesOfMoreClassesThanAKernelHoldsStayApart) {
  const SmallStep step;
  const auto ops = ops_of(fused([](const Tensors& in) { return SmallStep::of(in)(70, true); }, metas_of(step.inputs())));
  EXPECT_EQ(ops.count("loss_head"), 0U);
  EXPECT_EQ(ops.at("class_sums"), 1);
}

// A linear layer's result turned, cut, and two of its parts joined for a second layer.
struct TurnedParts {
  int64_t inputs = 24;
  bool bias = false;
  std::vector<size_t> joined{1, 2};
  Tensors operator()(const Tensor& x) const {
    const Tensor all = linear(x, random({inputs, 12}, 10), bias ? random({12}, 11) : Tensor());
    const Tensors part = split(contiguous(transpose(all)), 1, {5, 3, 4});
    return {linear(concat({part[joined[0]], part[joined[1]]}, 1), random({x.size(1), 6}, 12)), scale(part[0], 2)};
  }
};

TEST(Plan, TurnedProductsMakeNoCopyAndJoinedNeighboursAreAView) {
  const auto ops = [](const TurnedParts& f, int64_t batch) { return ops_of(fused(f, Shape{batch, 20, f.inputs})); };
  const std::map<std::string, int> all = ops({}, 1);
  EXPECT_EQ(all.at("matmul"), 1);
  EXPECT_EQ(all.at("linear"), 1);
  EXPECT_EQ(all.count("contiguous") + all.count("concat"), 0U);
  EXPECT_EQ(ops({}, 2).count("matmul") + ops({}, 2).at("concat"), 2U) << "two samples: parts are not one piece";
  EXPECT_EQ(ops({.joined = {2, 1}}, 1).at("concat"), 1);
  EXPECT_EQ(ops({.joined = {0, 2}}, 1).at("concat"), 1);
  EXPECT_EQ(ops({.bias = true}, 1).at("contiguous"), 1);
  EXPECT_EQ(ops({.inputs = 65}, 1).at("contiguous"), 1);
  for (const TurnedParts& f : {TurnedParts{}, TurnedParts{.joined = {0, 1}}, TurnedParts{.joined = {2, 1}}, TurnedParts{.bias = true}})
    for (const int64_t batch : {1, 2}) expect_same(f, {batch, 20, f.inputs});
}

// Attention on projected keys and values, with dropout, and gradients of all that it reads.
struct AttentionStep {
  using Attend = std::function<Tensor(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& step)>;

  Tensors operator()(const Attend& attend) const {
    Tape tape;
    const Tensors parameters{q, k, v};
    tape.watch(parameters);
    Tensor y;
    {
      const auto recording = tape.recording();
      y = attend(transpose(scale(q, 1.5)), scale(k, 0.5), transpose(scale(v, 2)), step);
    }
    Tensors out = tape.gradient({y}, {dy}, parameters);
    out.push_back(scale(y, 2));
    return out;
  }
  Tensors inputs() const { return {q, k, v, dy, step}; }
  static Body body(const Attend& attend) {
    return [attend](const Tensors& in) {
      AttentionStep traced(1);
      traced.q = in[0], traced.k = in[1], traced.v = in[2], traced.dy = in[3], traced.step = in[4];
      return traced(attend);
    };
  }

  explicit AttentionStep(uint64_t seed)
      : q(random({2, 3, 8, 70}, seed)), k(random({2, 3, 8, 16}, seed + 1)), v(random({2, 3, 8, 16}, seed + 2)),
        dy(random({2, 3, 70, 8}, seed + 3)), step(step_number(static_cast<int64_t>(seed), Device::cpu)) {}
  Tensor q, k, v, dy, step;
};

TEST(Plan, AttentionOfATrainingStepIsOneOpEachWay) {
  for (const double p : {0.0, 0.2}) {
    SCOPED_TRACE(p);
    const auto attend = [p](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& step) {
      const Tensor weights = softmax(matmul(q, k));
      return matmul(p > 0 ? dropout(weights, step, {.p = p, .seed = 5, .stream = 3}) : weights, v);
    };
    const AttentionStep one(1), other(7);
    const auto ops = ops_of(fused(AttentionStep::body(attend), metas_of(one.inputs())));
    EXPECT_EQ(ops.at("training_attention"), 1);
    EXPECT_EQ(ops.at("training_attention_grad"), 1);
    EXPECT_EQ(ops.count("matmul") + ops.count("softmax") + ops.count("softmax_grad") + ops.count("dropout"), 0U);
    Plan planned(AttentionStep::body(attend), metas_of(one.inputs()));
    const Tensors expected = other(attend), got = planned(other.inputs());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_LT(difference(expected[i], got[i]), 2e-6) << "output " << i;
  }
}

// What recomputation throws away: dropped weights that no backward pass reads.
TEST(Plan, AttentionWithDropoutAloneIsOneOp) {
  const AttentionStep one(1);
  const auto body = [](const Tensors& in) {
    return Tensors{matmul(dropout(softmax(matmul(transpose(in[0]), in[1])), in[4], {.p = 0.2}), transpose(in[2]))};
  };
  EXPECT_EQ(ops_of(fused(body, metas_of(one.inputs()))), (std::map<std::string, int>{{"permute", 2}, {"training_attention", 1}}));
}

TEST(Plan, AttentionOfATrainingStepStaysWhereItsPartsAreRead) {
  const Dropout::Attrs drop{.p = 0.2};
  const std::vector<std::pair<std::string, AttentionStep::Attend>> cases{
      {"weights read twice", [](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor&) {
         const Tensor weights = softmax(matmul(q, k));
         return add(matmul(weights, v), sum(weights, {-1}, true));
       }},
      {"dropped weights read twice", [=](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& step) {
         const Tensor weights = dropout(softmax(matmul(q, k)), step, drop);
         return add(matmul(weights, v), sum(weights, {-1}, true));
       }},
      {"scores read twice", [](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor&) {
         const Tensor scores = matmul(q, k);
         return add(matmul(softmax(scores), v), sum(scores, {-1}, true));
       }},
      {"over the queries", [](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor&) { return matmul(softmax(matmul(q, k), 2), v); }},
      {"whole channels dropped", [](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& step) {
         return matmul(dropout(softmax(matmul(q, k)), step, {.p = 0.2, .unit = DropUnit::channel}), v);
       }},
      {"one key for all", [](const Tensor& q, const Tensor& k, const Tensor& v, const Tensor&) {
         return matmul(softmax(matmul(q, slice(k, 1, 0, 1))), v);
       }}};
  for (const auto& [what, attend] : cases) {
    SCOPED_TRACE(what);
    const AttentionStep one(1), other(7);
    const auto ops = ops_of(fused(AttentionStep::body(attend), metas_of(one.inputs())));
    EXPECT_EQ(ops.count("training_attention") + ops.count("training_attention_grad"), 0U);
    Plan planned(AttentionStep::body(attend), metas_of(one.inputs()));
    const Tensors expected = other(attend), got = planned(other.inputs());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_LT(difference(expected[i], got[i]), 2e-6) << "output " << i;
  }
}

}  // namespace
}  // namespace voxlab
