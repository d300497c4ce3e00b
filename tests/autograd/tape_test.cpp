// What the tape records, keeps, frees and refuses. Gradients of single ops are tests/ops' business.
#include "runtime/autograd/tape.h"

#include <gtest/gtest.h>

#include "runtime/core/scope.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/update.h"
#include "tests/support/draw.h"

namespace voxlab {
namespace {

using Values = std::vector<double>;

Tensor vector_of(const Values& values) {
  return Tensor::from_span({static_cast<int64_t>(values.size())}, std::span<const double>(values),
                           Device::ref);
}
Tensor total(const Tensor& x) { return sum(x, {}); }

std::string message_of(const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

// d/dx of sum(x^2 y) = 2 x y, d/dy = x^2.
TEST(Tape, ProductRule) {
  const Tensor x = vector_of({1, -2, 3}), y = vector_of({5, 7, -1});
  Tape tape;
  tape.watch({x, y});
  Tensor loss;
  {
    const auto recording = tape.recording();
    loss = total(mul(square(x), y));
  }
  const Tensors g = tape.gradient(loss, {x, y});
  EXPECT_EQ(g[0].to_vector(), (Values{10, -28, -6}));
  EXPECT_EQ(g[1].to_vector(), (Values{1, 4, 9}));
}

// x is used by three ops: the gradients add up. d/dx sum(x x + 3 x) = 2 x + 3.
TEST(Tape, UsesAddUp) {
  const Tensor x = vector_of({1, 2});
  Tape tape;
  tape.watch(x);
  Tensor loss;
  {
    const auto recording = tape.recording();
    loss = total(add(mul(x, x), scale(x, 3)));
  }
  EXPECT_EQ(tape.gradient(loss, {x})[0].to_vector(), (Values{5, 7}));
}

TEST(Tape, WhatTheLossDoesNotDependOnIsUndefined) {
  const Tensor x = vector_of({1, 2}), unused = vector_of({3}), aside = vector_of({4});
  Tape tape;
  tape.watch({x, unused, aside});
  Tensor loss;
  {
    const auto recording = tape.recording();
    square(aside);  // recorded, but no part of the loss
    loss = total(x);
  }
  const Tensors g = tape.gradient(loss, {x, unused, aside});
  EXPECT_EQ(g[0].to_vector(), (Values{1, 1}));
  EXPECT_FALSE(g[1]);
  EXPECT_FALSE(g[2]);
}

TEST(Tape, RecordsOnlyWhatTouchesWatchedTensors) {
  const Tensor x = vector_of({1, 2}), constant = vector_of({3, 4});
  Tape tape;
  tape.watch(x);
  {
    const auto recording = tape.recording();
    square(constant);
    EXPECT_EQ(tape.size(), 0U);
    const Tensor y = mul(x, constant);
    EXPECT_EQ(tape.size(), 1U);
    {
      const RecordTo none(nullptr);
      square(y);
    }
    EXPECT_EQ(tape.size(), 1U);
  }
  square(x);
  EXPECT_EQ(tape.size(), 1U);
}

// mul saves both operands; scale saves nothing, so its output may go at once.
TEST(Tape, KeepsWhatBackwardReadsAndNoMore) {
  const int64_t before = memory_report(Device::ref).current;
  const Tensor x = Tensor::full({1000}, 2, DType::f64, Device::ref), y = x.clone();
  Tape tape;
  tape.watch({x, y});
  {
    const auto recording = tape.recording();
    Tensor z = mul(x, y);
    for (int i = 0; i < 5; ++i) z = scale(z, 0.5);
  }
  EXPECT_EQ(tape.saved_bytes(), 2 * 8000);
  EXPECT_EQ(memory_report(Device::ref).current - before, 2 * 8000);
}

TEST(Tape, FreesSavedTensorsAsItPassesThem) {
  const Tensor x = Tensor::full({1000}, 1.01, DType::f64, Device::ref);
  Tape tape;
  tape.watch(x);
  std::vector<int64_t> left;  // bytes still saved when the walk is at a probe
  const auto probe = [&](const Tensor& t) {
    const Tensor out = t.clone();
    tape.record_custom("probe", {t}, {out}, [&](const Tensors& dout) {
      left.push_back(tape.saved_bytes());
      return dout;
    });
    return out;
  };
  Tensor y = x;
  {
    const auto recording = tape.recording();
    for (int i = 0; i < 4; ++i) y = probe(square(y));
    y = total(y);
  }
  EXPECT_EQ(tape.saved_bytes(), 4 * 8000);
  tape.gradient(y, {x});
  EXPECT_EQ(left, (std::vector<int64_t>{4 * 8000, 3 * 8000, 2 * 8000, 8000}));
  EXPECT_EQ(tape.saved_bytes(), 0);
  EXPECT_EQ(tape.size(), 0U);
}

TEST(Tape, BackwardIsBookedOnTheForwardScope) {
  struct Scopes : Observer {
    void on_call(const CallEvent& e) override { seen.emplace_back(e.op.name, e.scope); }
    std::vector<std::pair<std::string, std::string>> seen;
  };
  const Tensor x = vector_of({1, 2});
  Tape tape;
  tape.watch(x);
  Tensor y;
  {
    const auto recording = tape.recording();
    const Scope outer("encoder"), inner("act");
    y = gelu(x);
  }
  Scopes scopes;
  const Observe observe(scopes);
  const Scope elsewhere("loss");
  tape.gradient({y}, {y}, {x});
  ASSERT_EQ(scopes.seen.size(), 1U);
  EXPECT_EQ(scopes.seen[0], (std::pair<std::string, std::string>("unary_grad", "encoder.act")));
}

TEST(Tape, RefusesALossOfManyElements) {
  const Tensor x = vector_of({1, 2});
  Tape tape;
  EXPECT_EQ(message_of([&] { tape.gradient(x, {x}); }),
            "gradient: the loss must have one element, got f64 (2)");
}

TEST(Tape, RefusesInPlaceUpdates) {
  const auto draw = [](const OpRecord& op) {
    return test::draw(op.samples().front(), DType::f32, Device::ref, 1);
  };
  const OpRecord& op = record_of<SgdStep>();
  const Tensors in = draw(op);
  Tape tape;
  tape.watch(in);
  const auto recording = tape.recording();
  EXPECT_EQ(message_of([&] { call(op, op.samples().front().attrs, in); }),
            "sgd_step: overwrites its input, so a tape cannot record it");
}

// An op whose backward is wrong in the way that Attrs says. On meta no kernel is needed.
struct Faulty {
  static constexpr std::string_view name = "faulty";
  enum class Fault : uint8_t { shape, dtype, count, unsaved };
  struct Attrs {
    Fault fault = Fault::shape;
  };
  static Metas infer(const Attrs&, MetaSpan in) { return {in[0]}; }
  static Tensors backward(const Attrs& a, const Saved& saved, const Tensors& dout) {
    switch (a.fault) {
      case Fault::shape:
        return {Tensor::empty({7}, DType::f32, Device::meta)};
      case Fault::dtype:
        return {Tensor::empty(dout[0].shape(), DType::f64, Device::meta)};
      case Fault::count:
        return {dout[0], dout[0]};
      case Fault::unsaved:
        return {mul(dout[0], saved.in(0))};
    }
    return {};
  }
  static std::vector<Sample> samples() { return {}; }
};

TEST(Tape, AWrongGradientIsAnErrorAtItsOp) {
  const auto error_of = [](Faulty::Fault fault) {
    const Tensor x = Tensor::empty({2, 3}, DType::f32, Device::meta);
    Tape tape;
    tape.watch(x);
    Tensor y;
    {
      const auto recording = tape.recording();
      const Scope scope("layer");
      y = scale(call1<Faulty>({fault}, {x}), 2);
    }
    return message_of([&] { tape.gradient({y}, {y}, {x}); });
  };
  using Fault = Faulty::Fault;
  EXPECT_EQ(error_of(Fault::shape),
            "faulty: gradient of input 0 is f32 (7), expected f32 (2, 3); at layer");
  EXPECT_EQ(error_of(Fault::dtype),
            "faulty: gradient of input 0 is f64 (2, 3), expected f32 (2, 3); at layer");
  EXPECT_EQ(error_of(Fault::count), "faulty: backward returned 2 gradients for 1 inputs; at layer");
  EXPECT_EQ(error_of(Fault::unsaved),
            "faulty: backward reads tensor 0 of 1, which the op does not save; at layer");
}

// Under autocast the product runs in bf16; its gradient comes back as the f32 of the master weight.
TEST(Tape, AutocastGradientsAreF32) {
  const Tensor x = Tensor::full({4, 8}, 0.5, DType::f32),
               w = Tensor::full({8, 2}, 0.25, DType::f32);
  Tape tape;
  tape.watch(w);
  Tensor y;
  {
    const Autocast autocast(DType::bf16);
    const auto recording = tape.recording();
    y = matmul(x, w);
  }
  EXPECT_EQ(y.dtype(), DType::bf16);
  const Tensor g = tape.gradient({y}, {Tensor::full({4, 2}, 1, DType::bf16)}, {w})[0];
  EXPECT_EQ(g.dtype(), DType::f32);
  EXPECT_EQ(g.to_vector(), Values(16, 2.0));  // sum over the four rows of 0.5
}

}  // namespace
}  // namespace voxlab
