// The limits of golden records under products coarser than f32's.
#include <fmt/format.h>

#include <algorithm>

#include "experiments/golden/golden.h"

namespace voxlab {

double GoldenBound::of(double strict_limit) const { return std::max(floor, factor * strict_limit); }
double GoldenBound::of_gradient(double strict_limit) const { return std::max(gradient_floor, factor * strict_limit); }

// Relative error of one layer against f64: f32 4e-7 to 9e-7, bf16x3 4e-6 to 5e-6, bf16 2.5e-3. The factors are
// quotients of these, to the least of f32. The floors are for records whose float32 noise happens to be small: the
// error of twenty layers in a row. A bf16 gradient passes them forth and back and flips activations besides; what is
// a small difference of large sums (a temperature, the bias before a norm) is lost in 8 bits, hence `of_largest`.
GoldenBound golden_bound(Arithmetic precision) {
  if (precision == Arithmetic::bf16x3) return {.floor = 1e-4, .gradient_floor = 1e-4, .factor = 12.5};
  if (precision == Arithmetic::bf16)
    return {.floor = 0.05, .gradient_floor = 0.2, .factor = 6250, .of_largest = true};
  return {};
}

std::string describe_limits(const GoldenOptions& options) {
  if (options.dtype == DType::f64) return "1e-9 of the tensor's norm, gradients 1e-8";
  const std::string strict = "four times the record's float32 noise";
  if (options.precision == Arithmetic::strict) return strict;
  const GoldenBound bound = golden_bound(options.precision);
  return fmt::format("{:g} of the tensor's norm, gradients {:g} of {}, or {:g} times what strict is allowed, {}",
                     bound.floor, bound.gradient_floor, bound.of_largest ? "the largest one's norm" : "theirs",
                     bound.factor, strict);
}

}  // namespace voxlab
