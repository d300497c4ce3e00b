// The fast CPU kernels against the reference backend, which computes in f64: every sample of every
// op and larger shapes where vector tails, shared rows and long sums matter, on every instruction
// set.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/backend/cpu/isa.h"
#include "runtime/core/arithmetic.h"
#include "runtime/core/parallel.h"
#include "runtime/ops/all.h"
#include "runtime/ops/call.h"
#include "tests/support/draw.h"

namespace voxlab {
namespace {

using test::draw;

class KernelNames : public Observer {
 public:
  void on_call(const CallEvent& event) override { last = event.kernel; }
  std::string last;
};

// The same value in f64 on the reference device: rounding happened when it was drawn.
Tensor as_reference(const Tensor& t) {
  if (!t) return t;
  const Tensor copy = t.clone().to(Device::ref);
  return is_floating(t.dtype()) ? copy.to(DType::f64) : copy;
}

// Errors of up to `limit` times the root mean square of the expected values, or times the value
// itself.
void expect_near(const Tensor& got, const Tensor& expected, double limit, const std::string& what) {
  ASSERT_EQ(got.shape(), expected.shape()) << what;
  const auto a = got.to_vector(), b = expected.to_vector();
  double squares = 0;
  for (double v : b) squares += std::isfinite(v) ? v * v : 0;
  const double size = std::sqrt(squares / std::max<double>(1, static_cast<double>(b.size())));
  size_t bad = 0, worst = 0;
  double worst_excess = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    if (a[i] == b[i] || (std::isnan(a[i]) && std::isnan(b[i]))) continue;
    const double excess = std::fabs(a[i] - b[i]) / (limit * (size + std::fabs(b[i])) + 1e-30);
    if (excess <= 1) continue;
    ++bad;
    if (!(excess <= worst_excess)) worst = i, worst_excess = excess;
  }
  EXPECT_EQ(bad, 0U) << what << ": " << bad << " of " << b.size() << " are off, the worst at "
                     << worst << ": " << a[worst] << ", expected " << b[worst];
}

double limit_of(DType dtype) { return dtype == DType::bf16 ? 1e-2 : 1e-5; }

// Runs one case on Device::cpu on every instruction set and compares all outputs. `must_be_fast`:
// falling back to the reference kernel is a failure.
void compare(const OpRecord& op, const Sample& sample, DType dtype, double limit,
             bool must_be_fast) {
  Tensors reference_in;
  for (const Tensor& t : draw(sample, dtype, Device::cpu, 5))
    reference_in.push_back(as_reference(t));
  const Tensors expected = call(op, sample.attrs, reference_in);
  for (const cpu::Isa isa : cpu::available_isas()) {
    SCOPED_TRACE(std::string(cpu::name(isa)) + ", " + std::string(name(dtype)) + ", " +
                 sample.label);
    const cpu::IsaScope scope(isa);
    const Tensors in =
        draw(sample, dtype, Device::cpu, 5);  // again: an update overwrites its inputs
    KernelNames names;
    Observe observe(names);
    const Tensors got = call(op, sample.attrs, in);
    EXPECT_TRUE(!must_be_fast || names.last.starts_with("cpu.")) << "fell back to " << names.last;
    ASSERT_EQ(got.size(), expected.size());
    for (size_t i = 0; i < got.size(); ++i)
      expect_near(got[i], expected[i], limit * sample.tolerance, "output " + std::to_string(i));
  }
}

class CpuAgainstRef : public testing::TestWithParam<const OpRecord*> {};

std::string op_name(const testing::TestParamInfo<const OpRecord*>& info) {
  return std::string(info.param->name);
}

TEST_P(CpuAgainstRef, EverySampleOnEveryInstructionSet) {
  const OpRecord& op = *GetParam();
  if (op.view != nullptr) return;
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const Sample& sample : op.samples())
      if (sample.error.empty()) compare(op, sample, dtype, limit_of(dtype), dtype == DType::f32);
}

INSTANTIATE_TEST_SUITE_P(Ops, CpuAgainstRef, testing::ValuesIn(all_ops()), op_name);

template <class Op>
void check(const std::string& what, typename Op::Attrs attrs, std::vector<SampleInput> inputs,
           DType dtype = DType::f32, double limit = 0) {
  compare(record_of<Op>(), sample<Op>(what, std::move(attrs), std::move(inputs)), dtype,
          limit > 0 ? limit : limit_of(dtype), true);
}

TEST(CpuShapes, Copies) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    // (B, N, h, d) -> (B, d, h, N), as efficient attention wants it, and back
    check<Contiguous>("tokens last", {}, {{.shape = {2, 1131, 4, 8}, .permuted = {0, 3, 2, 1}}},
                      dtype, 1e-9);
    check<Contiguous>("tokens first", {}, {{.shape = {2, 8, 4, 1131}, .permuted = {0, 3, 2, 1}}},
                      dtype, 1e-9);
    check<Contiguous>("heads out", {}, {{.shape = {2, 1301, 4, 7}, .permuted = {0, 2, 1, 3}}},
                      dtype, 1e-9);
    check<Contiguous>("transpose", {}, {{.shape = {517, 263}, .permuted = {1, 0}}}, dtype, 1e-9);
    check<Contiguous>("no dense axis", {},
                      {{.shape = {3, 5, 7, 2, 1, 4}, .permuted = {5, 2, 1, 0, 4, 3}}}, dtype, 1e-9);
    check<Concat>("channels", {-1},
                  {{.shape = {4999, 16}}, {.shape = {4999, 3}}, {.shape = {4999, 1}}}, dtype, 1e-9);
    check<Concat>("permuted", {1},
                  {{.shape = {70, 33, 65}, .permuted = {2, 1, 0}}, {.shape = {65, 9, 70}}}, dtype,
                  1e-9);
  }
  for (const DType dtype : {DType::f32, DType::bf16}) {
    check<Pad>("last", {-1, 3, 70, 0.5}, {{.shape = {211, 37}}}, dtype, 1e-9);
    check<Pad>("first", {0, 1, 2, -1}, {{.shape = {5, 3001}}}, dtype, 1e-9);
    check<Cast>("to bf16", {DType::bf16}, {{.shape = {70001}}}, dtype, 4e-3);
    check<Cast>("to f32", {DType::f32}, {{.shape = {70001}}}, dtype, 1e-9);
  }
}

TEST(CpuShapes, Broadcasting) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const BinaryKind kind :
         {BinaryKind::add, BinaryKind::sub, BinaryKind::mul, BinaryKind::div}) {
      const SampleInput big{.shape = {2, 2531, 14}, .low = 0.5, .high = 2};
      const auto of = [](Shape shape) {
        return SampleInput{.shape = shape, .low = 0.5, .high = 2};
      };
      SCOPED_TRACE(to_string(kind));
      check<Binary>("row", {kind}, {big, of({14})}, dtype);
      check<Binary>("row left", {kind}, {of({14}), big}, dtype);
      check<Binary>("sample row", {kind}, {big, of({2, 1, 14})}, dtype);
      check<Binary>("position", {kind}, {big, of({2, 2531, 1})}, dtype);
      check<Binary>("position left", {kind}, {of({2531, 1}), big}, dtype);
      check<Binary>("scalar", {kind}, {big, of({})}, dtype);
      check<Binary>("scalar left", {kind}, {of({1, 1, 1}), big}, dtype);
      check<Binary>("outer", {kind}, {of({2531, 1}), of({1, 37})}, dtype);
      check<Binary>("wide row", {kind}, {of({333, 131}), of({131})}, dtype);
      check<Binary>(
          "permuted", {kind},
          {of({70, 301}), {.shape = {301, 70}, .low = 0.5, .high = 2, .permuted = {1, 0}}}, dtype);
      check<Binary>("both permuted", {kind},
                    {{.shape = {9, 301, 5}, .low = 0.5, .high = 2, .permuted = {2, 1, 0}},
                     {.shape = {9, 5, 301}, .low = 0.5, .high = 2, .permuted = {1, 2, 0}}},
                    dtype);
      check<Binary>("long", {kind}, {of({70003}), of({70003})}, dtype);
    }
}

TEST(CpuShapes, Reductions) {
  for (const ReduceKind kind :
       {ReduceKind::sum, ReduceKind::mean, ReduceKind::max, ReduceKind::sum_squares})
    for (const DType dtype : {DType::f32, DType::bf16}) {
      SCOPED_TRACE(to_string(kind));
      const SampleInput x{.shape = {3, 5, 67, 129}}, volume{.shape = {2, 9, 40, 50, 14}};
      const auto reduce = [&](const std::string& what, std::vector<int> axes,
                              const SampleInput& in) {
        check<Reduce>(what, {kind, std::move(axes)}, {in}, dtype, dtype == DType::f32 ? 2e-6 : 0);
      };
      reduce("all", {}, x);
      reduce("bias gradient", {0, 1, 2, 3}, volume);
      reduce("space", {1, 2, 3}, volume);
      reduce("last", {-1}, x);
      reduce("first", {0}, x);
      reduce("middle", {1}, x);
      reduce("two apart", {0, 2}, x);
      reduce("two apart, last", {1, 3}, x);
      reduce("tall", {0}, {.shape = {70001, 3}});
      reduce("few long rows", {1}, {.shape = {1, 200003}});
      reduce("wide", {0}, {.shape = {7, 5003}});
      reduce("nothing", {1}, {.shape = {70, 1, 3}});
    }
  check<Argmax>("classes", {}, {{.shape = {5003, 14}}});
  check<Argmax>("ties", {}, {{.shape = {5003, 14}, .low = -1, .high = 1.01}}, DType::bf16);
}

// A million values far from zero: means good to 1e-7, deviations to 1e-5 although mean / deviation
// is 1000.
TEST(CpuShapes, NormStatisticsOfAMillionValues) {
  for (const cpu::Isa isa : cpu::available_isas()) {
    SCOPED_TRACE(cpu::name(isa));
    const cpu::IsaScope scope(isa);
    const Sample s =
        sample<GroupNorm>("", {{1, 1e-5}}, {{.shape = {1, 1 << 19, 2}, .low = 999, .high = 1001}});
    const Tensors in = draw(s, DType::f32, Device::cpu, 3);
    const Tensors got = call(record_of<GroupNorm>(), s.attrs, in);
    const Tensors expected = call(record_of<GroupNorm>(), s.attrs, {as_reference(in[0])});
    EXPECT_NEAR(got[1].item() / expected[1].item(), 1, 1e-7);
    EXPECT_NEAR(got[2].item() / expected[2].item(), 1, 1e-6);
    expect_near(got[0], expected[0], 1e-4, "y");  // x itself holds 1000 to 3e-5 of the deviation
  }
}

TEST(CpuShapes, Norms) {
  const auto near_one = [](Shape s) { return SampleInput{.shape = s, .low = 0.5, .high = 2}; };
  for (const int64_t channels : {1, 3, 16, 30, 66, 144}) {
    SCOPED_TRACE(std::to_string(channels) + " channels");
    const SampleInput x{.shape = {2, 7, 21, 13, channels}, .low = -1, .high = 3},
        c{.shape = {channels}};
    for (const int64_t groups : {int64_t{1}, channels, channels % 3 == 0 ? channels / 3 : 1}) {
      check<GroupNorm>("group", {{groups}}, {x, c, c}, DType::f32, 3e-6);
      check<GroupNormGrad>("group grad", {{groups}},
                           {x, x, c, {.shape = {2, groups}}, near_one({2, groups})});
    }
    check<BatchNorm>("batch", {}, {x, c, c}, DType::f32, 3e-6);
    check<BatchNormGrad>("batch grad", {}, {x, x, c, c, near_one({channels})});
    check<BatchNormInference>("batch inference", {}, {x, c, c, c, near_one({channels})}, DType::f32,
                              3e-6);
    if (channels > 1) check<LayerNorm>("layer", {}, {x, c, c}, DType::f32, 3e-6);
    check<LayerNormGrad>("layer grad", {},
                         {x, x, c, {.shape = {2, 7, 21, 13}}, near_one({2, 7, 21, 13})});
  }
  check<LayerNorm>("long rows", {}, {{.shape = {3, 20011}, .low = 5, .high = 6}}, DType::f32, 1e-5);
}

TEST(CpuShapes, AlongAnAxis) {
  const auto probabilities = [](Shape s) {
    return SampleInput{.shape = s, .low = 0.01, .high = 1};
  };
  const auto all = [&](const std::string& what, Shape shape, int axis) {
    SCOPED_TRACE(what);
    const SampleInput x{.shape = shape, .low = -5, .high = 5}, dy{.shape = shape},
        y = probabilities(shape);
    Shape norm = shape;
    norm.set(axis, 1);
    check<Softmax>("softmax", {{axis}}, {x}, DType::f32, 3e-6);
    check<SoftmaxGrad>("softmax grad", {{axis}}, {y, dy});
    check<LogSoftmax>("log softmax", {{axis}}, {x}, DType::f32, 3e-6);
    check<LogSoftmaxGrad>("log softmax grad", {{axis}},
                          {{.shape = shape, .low = -5, .high = 0}, dy});
    check<L2Normalise>("l2", {{axis}}, {x}, DType::f32, 3e-6);
    check<L2NormaliseGrad>("l2 grad", {{axis}}, {{.shape = shape}, probabilities(norm), dy});
  };
  all("channels", {1, 3001, 14}, -1);
  all("two classes", {2, 3001, 2}, -1);
  all("attention", {2, 4, 300, 64}, -1);
  all("a vector and a half", {1, 2001, 24}, -1);
  all("tokens last", {2, 4, 8, 2049}, -1);
  all("tokens", {1, 2049, 32}, 1);
  all("tokens of heads", {2, 501, 4, 8}, 1);
  all("first axis", {5, 7013}, 0);
}

TEST(CpuShapes, Resizing) {
  for (const DType dtype : {DType::f32, DType::bf16})
    for (const ResizeMode mode : {ResizeMode::nearest, ResizeMode::linear})
      for (const int64_t channels : {1, 14, 33}) {
        const auto both = [&](const std::string& what, std::vector<int64_t> from,
                              std::vector<int64_t> to, bool corners) {
          Shape coarse{2}, fine{2};
          for (int64_t s : from) coarse.push_back(s);
          for (int64_t s : to) fine.push_back(s);
          coarse.push_back(channels), fine.push_back(channels);
          check<Resize>(what, {{to, mode, corners}}, {{.shape = coarse}}, dtype);
          check<ResizeGrad>(what + " grad", {{from, mode, corners}}, {{.shape = fine}}, dtype);
        };
        both("double", {5, 7, 9}, {10, 14, 18}, false);
        both("odd", {4, 7, 3}, {9, 5, 3}, mode == ResizeMode::linear);
        both("shrink", {31, 45}, {14, 9}, false);
        both("line", {31}, {127}, false);
      }
}

TEST(CpuShapes, LossesAndUpdates) {
  const auto labels = [](Shape s, double classes) {
    return SampleInput{.shape = s, .low = 0, .high = classes, .integer = true};
  };
  const SampleInput scalar{.shape = {}, .low = 0.5, .high = 2};
  for (const int64_t k : {2, 14, 37}) {
    const SampleInput x{.shape = {2, 5003, k}, .low = -6, .high = 6},
        p{.shape = {2, 5003, k}, .low = 0, .high = 1};
    const SampleInput y = labels({2, 5003}, static_cast<double>(k)), z = labels({2, 5003, k}, 2);
    const SampleInput w{.shape = {k}, .low = 0.5, .high = 2}, d{.shape = {2, k}};
    for (const int64_t ignored : {-100, 1}) {
      check<CrossEntropy>("cross entropy", {{ignored}}, {x, y, w}, DType::f32, 1e-6);
      check<CrossEntropyGrad>("cross entropy grad", {{ignored}}, {scalar, x, y, w});
      for (const bool squared : {false, true}) {
        check<ClassSums>("class sums", {{squared, ignored}}, {p, y}, DType::f32, 1e-6);
        check<ClassSumsGrad>("class sums grad", {{squared, ignored}}, {d, d, p, y});
      }
    }
    check<ClassSums>("channel sums", {}, {p, z}, DType::f32, 1e-6);
    check<ClassSumsGrad>("channel sums grad", {}, {d, d, p, z});
    check<BinaryCrossEntropy>("binary", {}, {x, z}, DType::f32, 1e-6);
    check<BinaryCrossEntropyGrad>("binary grad", {}, {scalar, x, z});
  }
  const SampleInput q{.shape = {70003}}, positive{.shape = {70003}, .low = 0.01, .high = 1};
  check<SgdStep>(
      "nesterov",
      {.lr = 0.1, .momentum = 0.9, .nesterov = true, .weight_decay = 0.1, .grad_scale = 0.5},
      {q, q, q});
  check<AdamStep>("amsgrad", {.weight_decay = 0.1, .amsgrad = true, .step = 3},
                  {q, q, q, positive, positive});
  check<AdamStep>("decoupled", {.weight_decay = 0.1, .decoupled = true, .step = 30},
                  {q, q, q, positive});
  check<SquaredNorm>("squared norm", {}, {q}, DType::f32, 1e-12);
  check<SquaredNorm>("squared norm", {}, {{.shape = {70003}, .low = 1e25, .high = 3e25}},
                     DType::f32, 1e-12);
  check<Dropout>("elements", {.p = 0.3, .seed = 5}, {q, {.shape = {1}, .low = 0, .high = 9, .integer = true}}, DType::bf16);
}

// Several blocks of rows and several tasks, keys that fill no vector, random numbers that begin within a block of four.
TEST(CpuShapes, TrainingAttention) {
  const SampleInput step{.shape = {1}, .low = 0, .high = 1000, .integer = true};
  struct Sizes {
    int64_t batches, queries, depth, keys, width;
  };
  const auto check_both = [&](const Sizes& s, double p, bool rows, const std::string& what, double limit) {
    // Queries and gradients as networks have them: rows, or channels first, seen transposed.
    const auto values = [&](int64_t of) {
      return rows ? SampleInput{.shape = {s.batches, s.queries, of}}
                  : SampleInput{.shape = {s.batches, of, s.queries}, .permuted = {0, 2, 1}};
    };
    const SampleInput q = values(s.depth), dy = values(s.width), k{.shape = {s.batches, s.depth, s.keys}};
    const SampleInput v{.shape = {s.batches, s.width, s.keys}, .permuted = {0, 2, 1}}, y{.shape = {s.batches, s.queries, s.width}};
    const double middle = std::log(static_cast<double>(s.keys)) + static_cast<double>(s.depth) / 18;
    const SampleInput sums{.shape = {s.batches, s.queries}, .low = middle - 0.3, .high = middle + 0.3};
    check<TrainingAttention>(what, {{p, 5, 3}}, {q, k, v, step}, DType::f32, limit);
    check<TrainingAttentionGrad>(what, {{p, 5, 3}}, {dy, q, k, v, y, sums, step}, DType::f32, limit);
  };
  for (const Sizes& s :
       {Sizes{1, 1003, 8, 64, 8}, Sizes{3, 333, 8, 20, 8}, Sizes{1, 517, 16, 64, 16}, Sizes{3, 211, 16, 36, 16}, Sizes{2, 144, 16, 32, 16},
        Sizes{2, 209, 8, 96, 8}, Sizes{1, 601, 8, 31, 8}, Sizes{1, 5003, 32, 64, 32}, Sizes{3, 1409, 12, 197, 20}})
    for (const double p : {0.0, 0.1, 0.5})
      for (const bool rows : {false, true}) {
        const std::string what =
            std::to_string(s.queries) + " queries, " + std::to_string(s.depth) + " deep, p " + std::to_string(p) + (rows ? ", rows" : "");
        // For the largest error among thousands of values, about twelve times the root mean square: that is 5e-6 in bf16x3.
        for (const auto& [arithmetic, limit] : {std::pair{Arithmetic::strict, 1e-5}, {Arithmetic::bf16x3, 1e-4}, {Arithmetic::bf16, 5e-2}}) {
          const ArithmeticScope scope(arithmetic);
          check_both(s, p, rows, what + ", " + std::string(to_string(arithmetic)), limit);
        }
      }
}

// Exponentials of the scores alone overflow; queries that fill no vector must not bring them into sums over queries.
TEST(CpuShapes, TrainingAttentionOfLargeScores) {
  for (const cpu::Isa isa : cpu::available_isas()) {
    SCOPED_TRACE(cpu::name(isa));
    const cpu::IsaScope scope(isa);
    for (const int64_t depth : {8, 16, 12}) {
      const auto drawn = [](Shape shape, uint64_t seed) { return draw({.shape = std::move(shape)}, DType::f32, Device::cpu, seed); };
      const auto all = [](Shape shape, double value) { return Tensor::full(std::move(shape), value, DType::f32, Device::cpu); };
      // One coordinate adds 256 to every score.
      const Tensor q = concat({all({1, 19, 1}, 256), drawn({1, 19, depth - 1}, 1)}, -1);
      const Tensor k = concat({all({1, 1, 20}, 1), drawn({1, depth - 1, 20}, 2)}, 1);
      const Tensor v = drawn({1, 20, depth}, 3), dy = drawn({1, 19, depth}, 4);
      const Tensors y = call<TrainingAttention>({}, {q, k, v});
      const Tensors inputs{dy, q, k, v, y[0], y[1]};
      Tensors reference;
      for (const Tensor& t : inputs) reference.push_back(as_reference(t));
      const Tensors got = call<TrainingAttentionGrad>({}, inputs), expected = call<TrainingAttentionGrad>({}, reference);
      // The rounding of such scores alone moves a weight by 5e-5.
      for (size_t i = 0; i < got.size(); ++i) expect_near(got[i], expected[i], 3e-4, "output " + std::to_string(i));
    }
  }
}

TEST(CpuShapes, LabelsOutsideTheClassesAreRefused) {
  const Tensor x = Tensor::zeros({70000, 3}, DType::f32);
  Tensor labels = Tensor::zeros({70000}, DType::i32);
  for (const int32_t bad : {-1, 3, 1 << 30}) {
    labels.data<int32_t>()[69999] = bad;
    EXPECT_THROW(call<CrossEntropy>({}, {x, labels}), Error);
    EXPECT_THROW(call<CrossEntropyGrad>({}, {Tensor::zeros({}, DType::f32), x, labels}), Error);
    EXPECT_THROW(call<Gather>({}, {Tensor::zeros({3, 2}, DType::f32), labels}), Error);
  }
}

// The same bits for the same number of threads, and values that do not depend on it beyond
// rounding.
TEST(CpuShapes, ThreadCounts) {
  const int before = thread_count();
  const auto on = [](int threads, const OpRecord& op, const Sample& s) {
    set_thread_count(threads);
    return call(op, s.attrs, draw(s, DType::f32, Device::cpu, 9));
  };
  const SampleInput x{.shape = {1, 40, 50, 60, 3}}, c{.shape = {3}},
      stat{.shape = {1, 3}, .low = 0.5};
  const SampleInput labels{.shape = {1, 40, 50, 60}, .low = 0, .high = 3, .integer = true};
  // Sums over so few queries that f32 adds them up in any order within the limit below.
  const auto attention = [](int64_t depth) {
    const SampleInput q{.shape = {3, 300, depth}}, k{.shape = {3, depth, 64}}, v{.shape = {3, 64, depth}};
    return std::vector<SampleInput>{q, q, k, v, q, {.shape = {3, 300}, .low = 4, .high = 5}};
  };
  const std::vector<std::pair<const OpRecord*, Sample>> cases = {
      {&record_of<GroupNorm>(), sample<GroupNorm>("norm", {{3}}, {x, c, c})},
      {&record_of<GroupNormGrad>(),
       sample<GroupNormGrad>("norm grad", {{3}}, {x, x, c, stat, stat})},
      {&record_of<LayerNormGrad>(), sample<LayerNormGrad>("layer grad", {},
                                                          {{.shape = {5000, 30}},
                                                           {.shape = {5000, 30}},
                                                           {.shape = {30}},
                                                           {.shape = {5000}},
                                                           {.shape = {5000}}})},
      {&record_of<Reduce>(), sample<Reduce>("columns", {ReduceKind::sum, {0, 1, 2, 3}}, {x})},
      {&record_of<Reduce>(), sample<Reduce>("all", {ReduceKind::sum_squares, {}}, {x})},
      {&record_of<Softmax>(), sample<Softmax>("tokens", {{0}}, {{.shape = {20000, 7}}})},
      {&record_of<CrossEntropy>(), sample<CrossEntropy>("loss", {}, {x, labels})},
      {&record_of<ClassSums>(), sample<ClassSums>("class sums", {}, {x, labels})},
      {&record_of<TrainingAttentionGrad>(), sample<TrainingAttentionGrad>("attention grad, narrow", {}, attention(8))},
      {&record_of<TrainingAttentionGrad>(), sample<TrainingAttentionGrad>("attention grad, blocks", {}, attention(24))},
      {&record_of<Dropout>(), sample<Dropout>("dropout", {.p = 0.3}, {x, {.shape = {1}, .low = 0, .high = 9, .integer = true}})}};
  for (const auto& [op, s] : cases) {
    SCOPED_TRACE(s.label);
    const Tensors one = on(1, *op, s);
    for (const int threads : {2, 3, 5}) {
      const Tensors first = on(threads, *op, s), second = on(threads, *op, s);
      for (size_t i = 0; i < one.size(); ++i) {
        EXPECT_EQ(first[i].to_vector(), second[i].to_vector())
            << threads << " threads, output " << i;
        expect_near(first[i], one[i], 1e-6, std::to_string(threads) + " threads");
      }
    }
  }
  set_thread_count(before);
}

TEST(CpuShapes, InfinitiesInSoftmax) {
  for (const cpu::Isa isa : cpu::available_isas()) {
    SCOPED_TRACE(cpu::name(isa));
    const cpu::IsaScope scope(isa);
    const float inf = std::numeric_limits<float>::infinity();
    const Tensor masked = Tensor::from_span({3, 2}, std::vector<float>{1, -inf, -inf, 2, 1, 2});
    for (const int axis : {0, 1}) {
      const auto p = softmax(masked, axis).to_vector();
      const auto expected = softmax(as_reference(masked), axis).to_vector();
      for (size_t i = 0; i < p.size(); ++i)
        EXPECT_NEAR(p[i], expected[i], 1e-6) << axis << " at " << i;
    }
  }
}

}  // namespace
}  // namespace voxlab
