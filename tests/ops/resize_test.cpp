// Values of torch.nn.functional.interpolate (PyTorch 2.x, float64) for both rules and both modes.
#include "runtime/ops/resize.h"

#include <gtest/gtest.h>

namespace voxlab {
namespace {

std::vector<double> resized(std::vector<double> x, int64_t size, ResizeMode mode, bool align_corners = false) {
  const Shape shape{1, static_cast<int64_t>(x.size()), 1};
  return resize(Tensor::from_span(shape, std::span<const double>(x), Device::ref), {size}, mode, align_corners).to_vector();
}

void expect_near(const std::vector<double>& got, const std::vector<double>& expected) {
  ASSERT_EQ(got.size(), expected.size());
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], expected[i], 1e-12) << i;
}

const std::vector<double> squares{0, 1, 4, 9};

TEST(Resize, LinearWithHalfVoxelCentres) {
  expect_near(resized(squares, 7, ResizeMode::linear),
              {0, 2.5 / 7, 6.5 / 7, 2.5, 4 + 2.5 / 7, 4 + 22.5 / 7, 9});
  expect_near(resized(squares, 3, ResizeMode::linear), {1.0 / 6, 2.5, 49.0 / 6});
}

TEST(Resize, LinearWithAlignedCorners) {
  expect_near(resized(squares, 7, ResizeMode::linear, true), {0, 0.5, 1, 2.5, 4, 6.5, 9});
}

TEST(Resize, Nearest) {
  expect_near(resized(squares, 7, ResizeMode::nearest), {0, 0, 1, 1, 4, 4, 9});
  expect_near(resized(squares, 9, ResizeMode::nearest), {0, 0, 0, 1, 1, 4, 4, 9, 9});
  expect_near(resized(squares, 3, ResizeMode::nearest), {0, 1, 4});
  expect_near(resized({0, 1, 2, 3, 4, 5}, 10, ResizeMode::nearest), {0, 0, 1, 1, 2, 3, 3, 4, 4, 5});
  expect_near(resized({0, 1, 2, 3, 4, 5, 6}, 5, ResizeMode::nearest), {0, 1, 2, 4, 5});
}

}  // namespace
}  // namespace voxlab
