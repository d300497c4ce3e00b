// Checkpointing gives the bits of the plain run, and keeps the inputs only.
#include <gtest/gtest.h>

#include "runtime/autograd/tape.h"
#include "runtime/core/scope.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/call.h"
#include "runtime/ops/dropout.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/norm.h"
#include "runtime/ops/unary.h"
#include "tests/support/draw.h"

namespace voxlab {
namespace {

Tensor drawn(const Shape& shape, uint64_t seed) {
  return test::draw(SampleInput{.shape = shape}, DType::f32, Device::cpu, seed);
}

// Two layers with dropout between, on parameters that the body captures.
struct Model {
  Tensor w1 = drawn({16, 32}, 1), w2 = drawn({32, 16}, 2), scale = drawn({16}, 3);

  Tensors operator()(const Tensors& in) const {
    Tensor y = gelu(matmul(layer_norm(in[0], scale), w1));
    y = dropout(y, step_number(4, y.device()), {.p = 0.3, .seed = 5, .stream = 9});
    return {matmul(y, w2)};
  }
};

struct Outcome {
  std::vector<double> output;
  std::vector<std::vector<double>> gradients;
  int64_t saved = 0;
};

Outcome run(const Model& model, bool checkpointed, DType low = DType::f32) {
  const Tensor x = drawn({40, 16}, 7), cotangent = drawn({40, 16}, 8);
  const Tensors wrt{x, model.w1, model.w2, model.scale};
  Tape tape;
  tape.watch(wrt);
  Tensor y;
  {
    const Autocast autocast(low);
    const auto recording = tape.recording();
    const Tensor hidden = scale(x, 0.5);
    y = checkpointed ? checkpoint("block", model, {hidden})[0] : model({hidden})[0];
    y = add(y, hidden);
  }
  Outcome result{.output = y.to_vector(), .gradients = {}, .saved = tape.saved_bytes()};
  for (const Tensor& g : tape.gradient({y}, {cotangent}, wrt))
    result.gradients.push_back(g.to_vector());
  return result;
}

TEST(Checkpoint, SameBitsFewerSavedBytes) {
  const Model model;
  const Outcome plain = run(model, false), again = run(model, true);
  EXPECT_EQ(again.output, plain.output);
  ASSERT_EQ(again.gradients.size(), plain.gradients.size());
  for (size_t i = 0; i < plain.gradients.size(); ++i)
    EXPECT_EQ(again.gradients[i], plain.gradients[i]) << i;
  EXPECT_LT(again.saved, plain.saved / 4);
}

// The second run casts as the first did, though the backward pass runs without autocast.
TEST(Checkpoint, SameBitsUnderAutocast) {
  const Model model;
  const Outcome plain = run(model, false, DType::bf16), again = run(model, true, DType::bf16);
  EXPECT_NE(plain.output, run(model, false).output);
  EXPECT_EQ(again.output, plain.output);
  EXPECT_EQ(again.gradients, plain.gradients);
}

TEST(Checkpoint, WithoutATapeItIsTheBody) {
  const Model model;
  const Tensor x = drawn({4, 16}, 7);
  EXPECT_EQ(checkpoint("block", model, {x})[0].to_vector(), model({x})[0].to_vector());
}

TEST(Checkpoint, OutputsThatNobodyUsesAreSkipped) {
  const Tensor x = drawn({4}, 1);
  Tape tape;
  tape.watch(x);
  Tensors y;
  {
    const auto recording = tape.recording();
    y = checkpoint("pair",
                   [](const Tensors& in) {
                     return Tensors{square(in[0]), gelu(in[0])};
                   },
                   {x});
  }
  const auto g = tape.gradient({y[0]}, {Tensor::full({4}, 1, DType::f32)}, {x})[0].to_vector();
  for (size_t i = 0; i < 4; ++i) EXPECT_FLOAT_EQ(static_cast<float>(g[i]), 2 * x.data<float>()[i]);
}

TEST(Checkpoint, BackwardRunsInTheScopeOfTheForward) {
  struct Scopes : Observer {
    void on_call(const CallEvent& e) override { seen.emplace_back(e.scope); }
    std::vector<std::string> seen;
  };
  const Tensor x = drawn({4}, 1);
  Tape tape;
  tape.watch(x);
  Tensors y;
  {
    const auto recording = tape.recording();
    const Scope scope("encoder");
    y = checkpoint("stage", [](const Tensors& in) { return Tensors{square(in[0])}; }, {x});
  }
  Scopes scopes;
  const Observe observe(scopes);
  tape.gradient({y[0]}, {x}, {x});
  ASSERT_FALSE(scopes.seen.empty());
  for (const std::string& scope : scopes.seen) EXPECT_EQ(scope, "encoder.stage");
}

}  // namespace
}  // namespace voxlab
