// Plans: the same values as op by op, however they are laid over each other in memory.
#include "tests/plan/plan_support.h"

namespace voxlab {
namespace {

TEST(Plan, ASumThatIsReadTwiceIsNotFusedAway) {
  const Tensor w = random({5, 5}, 10);
  const auto forward = [=](const Tensor& x) {
    const Tensor sum = add(linear(x, w), x);
    return Tensors{gelu(sum), sum, linear(gelu(linear(x, w)), w)};
  };
  const auto ops = ops_of(fused(forward, {7, 5}));
  EXPECT_EQ(ops, (std::map<std::string, int>{{"fused_linear", 2}, {"linear", 1}, {"unary", 1}}));
  expect_same(forward, {7, 5});
}

TEST(Plan, ValuesThatAreReadLaterAreNotOverwritten) {
  const auto forward = [](const Tensor& x) {
    const Tensor a = relu(scale(x, 2)), b = relu(affine(a, -1, 1));
    const Tensor halves = concat(split(b, -1, {2, 4}), -1);
    return Tensors{add(add(a, b), halves), reshape(b, {-1}), b};
  };
  expect_same(forward, {3, 6});
}

TEST(Plan, ConstantsAreComputedOnce) {
  const Tensor table = random({4, 3}, 10);
  const auto forward = [=](const Tensor& x) { return Tensors{add(x, gelu(transpose(table)))}; };
  const auto ops = ops_of(fused(forward, {3, 4}));
  EXPECT_EQ(ops, (std::map<std::string, int>{{"binary", 1}}));
  expect_same(forward, {3, 4});
}

TEST(Plan, RefusesAnotherShape) {
  const Tensor x = random({2, 3}, 1);
  Plan planned([](const Tensors& in) { return Tensors{relu(in[0])}; }, {x.meta()});
  EXPECT_THROW(planned({random({2, 4}, 1)}), Error);
  EXPECT_THROW(planned({x, x}), Error);
  PlannedForward any([](const Tensor& x) { return Tensors{relu(x)}; });
  EXPECT_EQ(any(random({2, 4}, 1))[0].shape(), (Shape{2, 4}));
  EXPECT_EQ(any(random({5, 4}, 1))[0].shape(), (Shape{5, 4}));
}

// Tracing computes nothing of what depends on the inputs: who needs a value there is told so.
TEST(Plan, IsMadeOnShapesAlone) {
  const Metas x{{Shape{1000, 1000, 1000, 4}}};  // 16 GB
  const Trace graph = trace(x, [](const Tensors& in) { return Tensors{relu(scale(relu(in[0]), 2))}; });
  EXPECT_EQ(graph.steps.size(), 3U);
  const Metas small{{Shape{2, 3}}};
  try {
    trace(small, [](const Tensors& in) { return Tensors{scale(in[0], sum(relu(in[0]), {0, 1}, false).item())}; });
    FAIL() << "read a value that there is not";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("traced on shapes alone"), std::string::npos) << e.what();
  }
}

// Weights that kernels keep as tiles are freed where nobody but the plan held them, a folded norm's too; the others stay.
TEST(Plan, LetsGoOfWeightsThatItsKernelsKeep) {
  const cpu::Isa best = cpu::available_isas().back();
  if (!cpu::has_amx(best)) GTEST_SKIP() << "no AVX-512";
  const cpu::IsaScope isa(best);
  const Tensor x = random({1, 2, 33, 33, 32}, 1);
  for (const Arithmetic arithmetic : {Arithmetic::strict, Arithmetic::bf16x3, Arithmetic::bf16}) {
    const ArithmeticScope scope(arithmetic);
    Tensor w = random({1, 3, 3, 32, 48}, 2), matrix = random({48, 64}, 3), scales = random({48}, 4, 0.5, 1);
    const Tensor depthwise = random({1, 3, 3, 1, 32}, 5);
    const std::weak_ptr<Storage> folded = w.storage(), kept = matrix.storage();
    Body body = [w, matrix, scales, depthwise](const Tensors& in) {
      const Tensor y = conv(conv(in[0], depthwise, {}, {.padding = {0, 1, 1}, .groups = 32}), w, {}, {.padding = {0, 1, 1}});
      return Tensors{linear(batch_norm_inference(y, scales, {}, scales, scales), matrix, {})};
    };
    w = matrix = scales = {};
    const Tensor expected = body({x})[0];
    Tensors bad{x.clone()};
    bad[0].data<float>()[0] = std::numeric_limits<float>::infinity();  // reaches a corner of the first plane
    const Tensor spoilt = body(bad)[0];
    Plan plan(std::exchange(body, nullptr), {x.meta()});
    EXPECT_TRUE(folded.expired());
    EXPECT_EQ(kept.expired(), arithmetic != Arithmetic::strict);
    const double limit = arithmetic == Arithmetic::bf16 ? 1e-2 : 3e-5;
    EXPECT_LT(difference(expected, plan({x})[0]), limit);
    const auto want = spoilt.to_vector(), got = plan(bad)[0].to_vector();
    double largest = 0;
    for (const double v : expected.to_vector()) largest = std::fmax(largest, std::fabs(v));
    size_t finite = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      ASSERT_EQ(std::isfinite(want[i]), std::isfinite(got[i])) << i;
      if (!std::isfinite(want[i])) continue;
      ++finite;
      EXPECT_NEAR(got[i], want[i], limit * largest) << i;
    }
    EXPECT_GT(finite, want.size() / 2);
  }
}

TEST(Plan, GivesWhatTheNetworkGives) {
  NetConfig config = net_preset("unetr_pp", "acdc");
  config.unetr_pp.image = {8, 64, 64};
  config.unetr_pp.feature_size = 8;
  config.unetr_pp.dims = {16, 32, 64, 128};
  config.unetr_pp.encoder_depths = {1, 1, 1, 1};
  config.unetr_pp.decoder_depths = {1, 1, 1};
  const Network net = make_network(config, {.seed = 5});
  expect_same([&](const Tensor& x) { return net.forward(x, {}); }, {1, 8, 64, 64, 1}, 1e-5);
}

TEST(Layout, LifetimesThatMeetDoNotShareBytes) {
  std::vector<plan::Lifetime> lives;
  const Philox draw_from(3);
  for (uint64_t i = 0; i < 200; ++i) {
    const auto first = static_cast<int>(draw_from.below(3 * i, 100));
    lives.push_back({static_cast<int64_t>(1 + draw_from.below(3 * i + 1, 5000)), first,
                     first + static_cast<int>(draw_from.below(3 * i + 2, 12))});
  }
  const plan::Layout layout = plan::lay_out(lives);
  for (size_t i = 0; i < lives.size(); ++i) {
    EXPECT_LE(layout.offsets[i] + lives[i].bytes, layout.bytes);
    for (size_t j = 0; j < i; ++j) {
      const bool together = lives[i].first <= lives[j].last && lives[j].first <= lives[i].last;
      const bool overlap = layout.offsets[i] < layout.offsets[j] + lives[j].bytes &&
                           layout.offsets[j] < layout.offsets[i] + lives[i].bytes;
      EXPECT_FALSE(together && overlap) << i << " and " << j;
    }
  }
}

TEST(Layout, AChainNeedsTwoBuffers) {
  // Steps 0 to 4 hand 640 bytes from one to the next: never more than two are alive.
  std::vector<plan::Lifetime> chain;
  for (int step = 0; step < 5; ++step) chain.push_back({640, step, step + 1});
  EXPECT_EQ(plan::lay_out(chain).bytes, 1280);
}

// The kernels of a plan keep their arithmetic, so another arithmetic gets another plan.
TEST(Plan, IsMadeAnewForAnotherArithmetic) {
  const cpu::Isa tiles = cpu::available_isas().back();
  if (!cpu::has_amx(tiles)) GTEST_SKIP() << "no AVX-512";
  const cpu::IsaScope isa(tiles);
  const Tensor w = random({1, 3, 3, 32, 32}, 7), x = random({1, 1, 9, 9, 32}, 8);
  PlannedForward planned([&](const Tensor& t) { return Tensors{conv(t, w, {}, {.padding = {0, 1, 1}})}; });
  const auto run = [&](Arithmetic arithmetic) {
    const ArithmeticScope scope(arithmetic);
    return planned(x).front().to_vector();
  };
  const auto strict = run(Arithmetic::strict), split = run(Arithmetic::bf16x3);
  EXPECT_NE(strict, split);
  EXPECT_EQ(strict, run(Arithmetic::strict));
  EXPECT_EQ(split, run(Arithmetic::bf16x3));
}

}  // namespace
}  // namespace voxlab
