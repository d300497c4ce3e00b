// The vector functions behind activations and softmax, on values of every magnitude, against
// <cmath> in f64; and their limits.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>

#include "runtime/backend/cpu/isa.h"
#include "runtime/ops/unary.h"

namespace voxlab {
namespace {

// About a million floats that walk through all bit patterns, so through all exponents and both
// signs.
std::vector<float> every_magnitude() {
  std::vector<float> values;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 4099) {
    const auto v = std::bit_cast<float>(static_cast<uint32_t>(bits));
    if (std::isfinite(v)) values.push_back(v);
  }
  return values;
}

struct Function {
  UnaryKind kind;
  double (*exact)(double);
  double relative;  // allowed, where the result is a normal number
  double absolute;  // allowed besides: a value near a zero that is not at x = 0
};

double logistic(double x) { return 1 / (1 + std::exp(-x)); }
double gelu_exact(double x) { return 0.5 * x * std::erfc(-x / std::numbers::sqrt2); }

const Function functions[] = {
    {UnaryKind::exp, [](double x) { return std::exp(x); }, 3e-7, 0},
    {UnaryKind::log, [](double x) { return std::log(x); }, 3e-7, 0},
    {UnaryKind::tanh, [](double x) { return std::tanh(x); }, 3e-7, 0},
    {UnaryKind::sigmoid, logistic, 3e-7, 0},
    {UnaryKind::erf, [](double x) { return std::erf(x); }, 6e-7, 0},
    {UnaryKind::gelu, gelu_exact, 3e-7, 1e-6},  // 1 + erf cancels far below zero
    {UnaryKind::sqrt, [](double x) { return std::sqrt(x); }, 6e-8, 0},
    {UnaryKind::rsqrt, [](double x) { return 1 / std::sqrt(x); }, 1.3e-7, 0},
};

TEST(VecMath, CloseToExactOnEveryMagnitude) {
  const std::vector<float> x = every_magnitude();
  const Tensor input =
      Tensor::from_span({static_cast<int64_t>(x.size())}, std::span<const float>(x));
  for (const cpu::Isa isa : cpu::available_isas())
    for (const Function& f : functions) {
      SCOPED_TRACE(std::string(cpu::name(isa)) + " " + std::string(to_string(f.kind)));
      const cpu::IsaScope scope(isa);
      const Tensor output = unary(f.kind, input);
      const float* y = output.data<float>();
      double worst = 0;
      size_t at = 0;
      for (size_t i = 0; i < x.size(); ++i) {
        const double exact = f.exact(x[i]);
        if (std::isnan(exact)) {
          EXPECT_TRUE(std::isnan(y[i])) << x[i] << " gives " << y[i];
          continue;
        }
        const auto rounded = static_cast<float>(exact);
        if (rounded == y[i]) continue;
        constexpr double subnormal = 1e-38;  // results or steps this small may be flushed
        const double excess =
            std::fabs(y[i] - exact) / (f.relative * std::fabs(exact) + f.absolute + subnormal);
        if (!(excess <= worst)) worst = excess, at = i;
      }
      EXPECT_LE(worst, 1) << "at " << x[at] << ": " << y[at] << ", exactly " << f.exact(x[at]);
    }
}

TEST(VecMath, LimitsAndNan) {
  constexpr float inf = std::numeric_limits<float>::infinity();
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor x = Tensor::from_span({4}, std::vector<float>{inf, -inf, nan, 0});
  const struct {
    UnaryKind kind;
    std::vector<double> y;
  } cases[] = {{UnaryKind::exp, {inf, 0, nan, 1}}, {UnaryKind::log, {inf, nan, nan, -inf}},
               {UnaryKind::tanh, {1, -1, nan, 0}}, {UnaryKind::sigmoid, {1, 0, nan, 0.5}},
               {UnaryKind::erf, {1, -1, nan, 0}},  {UnaryKind::sqrt, {inf, nan, nan, 0}},
               {UnaryKind::relu, {inf, 0, 0, 0}},  {UnaryKind::abs, {inf, inf, nan, 0}}};
  for (const cpu::Isa isa : cpu::available_isas())
    for (const auto& c : cases) {
      SCOPED_TRACE(std::string(cpu::name(isa)) + " " + std::string(to_string(c.kind)));
      const cpu::IsaScope scope(isa);
      const auto y = unary(c.kind, x).to_vector();
      for (size_t i = 0; i < 4; ++i) {
        if (c.kind == UnaryKind::relu && i == 2) continue;
        if (std::isnan(c.y[i])) {
          EXPECT_TRUE(std::isnan(y[i])) << "entry " << i << " is " << y[i];
        } else {
          EXPECT_EQ(y[i], c.y[i]) << "entry " << i;
        }
      }
    }
}

}  // namespace
}  // namespace voxlab
