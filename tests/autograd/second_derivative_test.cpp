// Derivatives of derivatives against finite differences of the first ones, in f64.
#include <gtest/gtest.h>

#include <cmath>

#include "runtime/autograd/tape.h"
#include "runtime/ops/binary.h"
#include "runtime/ops/conv.h"
#include "runtime/ops/matmul.h"
#include "runtime/ops/norm.h"
#include "runtime/ops/reduce.h"
#include "runtime/ops/softmax.h"
#include "runtime/ops/unary.h"
#include "runtime/ops/view.h"
#include "tests/support/draw.h"

namespace voxlab {
namespace {

using Function = std::function<Tensor(const Tensors&)>;

Tensor drawn(const Shape& shape, uint64_t seed) {
  return test::draw(SampleInput{.shape = shape}, DType::f64, Device::ref, seed);
}

struct Derivatives {
  Tensors first;   // of <f(in), c>
  Tensors second;  // of sum over inputs of <first, d>
};

Derivatives differentiate(const Function& f, const Tensors& in, const Tensor& c, const Tensors& d) {
  Tape tape;
  tape.watch(in);
  const auto recording = tape.recording();
  const Tensor y = f(in);
  Derivatives result;
  result.first = tape.gradient({y}, {c}, in, true);
  Tensor along;
  for (size_t i = 0; i < in.size(); ++i) {
    const Tensor part = sum(mul(result.first[i], d[i]), {});
    along = along ? add(along, part) : part;
  }
  result.second = tape.gradient(along, in);
  return result;
}

void check(const Function& f, const std::vector<Shape>& shapes, const Shape& out) {
  Tensors in, d;
  for (size_t i = 0; i < shapes.size(); ++i) {
    in.push_back(drawn(shapes[i], 10 + i));
    d.push_back(drawn(shapes[i], 20 + i));
  }
  const Tensor c = drawn(out, 30);
  const Derivatives analytic = differentiate(f, in, c, d);

  // sum over inputs of <first, d>, as a function of the inputs
  const auto along = [&] {
    double total = 0;
    const Tensors first = differentiate(f, in, c, d).first;
    for (size_t i = 0; i < in.size(); ++i) {
      const auto a = first[i].to_vector(), b = d[i].to_vector();
      for (size_t j = 0; j < a.size(); ++j) total += a[j] * b[j];
    }
    return total;
  };
  for (size_t i = 0; i < in.size(); ++i) {
    // Undefined: the first derivative does not depend on this input.
    const auto got = analytic.second[i] ? analytic.second[i].to_vector()
                                        : std::vector<double>(static_cast<size_t>(in[i].numel()));
    double largest = 1e-3;
    for (double g : got) largest = std::fmax(largest, std::fabs(g));
    auto* x = in[i].data<double>();
    for (size_t j = 0; j < got.size(); ++j) {
      const double at = x[j], step = 1e-5;
      x[j] = at + step;
      const double up = along();
      x[j] = at - step;
      const double down = along();
      x[j] = at;
      EXPECT_NEAR(got[j], (up - down) / (2 * step), 1e-6 * largest)
          << "input " << i << " element " << j;
    }
  }
}

TEST(SecondDerivative, Gelu) {
  check([](const Tensors& in) { return gelu(in[0]); }, {{6}}, {6});
}

TEST(SecondDerivative, Product) {
  check([](const Tensors& in) { return matmul(in[0], in[1]); }, {{2, 3}, {3, 2}}, {2, 2});
}

TEST(SecondDerivative, Convolution) {
  const ConvOptions options{.stride = {2}, .padding = {1}};
  check([&](const Tensors& in) { return conv(in[0], in[1], {}, options); },
        {{1, 4, 3, 2}, {3, 3, 2, 2}}, {1, 2, 2, 2});
}

TEST(SecondDerivative, GroupNorm) {
  check([](const Tensors& in) { return group_norm(in[0], 2, in[1], in[2]); }, {{1, 3, 4}, {4}, {4}},
        {1, 3, 4});
}

TEST(SecondDerivative, Attention) {
  check(
      [](const Tensors& in) {
        const Tensor q = l2_normalise(in[0], -1);
        return matmul(softmax(matmul(q, transpose(in[1])), -1), in[2]);
      },
      {{3, 2}, {4, 2}, {4, 2}}, {3, 2});
}

// f = x^3 by hand: f' = 3 x^2, f'' = 6 x, f''' = 6.
TEST(SecondDerivative, ThirdOfACube) {
  const Tensor x = Tensor::full({1}, 2, DType::f64, Device::ref),
               one = Tensor::full({1}, 1, DType::f64, Device::ref);
  Tape tape;
  tape.watch(x);
  const auto recording = tape.recording();
  Tensor f = mul(square(x), x);
  for (const double expected : {12.0, 12.0, 6.0}) {
    f = tape.gradient({f}, {one}, {x}, true)[0];
    EXPECT_NEAR(f.item(), expected, 1e-12);
  }
}

}  // namespace
}  // namespace voxlab
