// Average pooling by hand: what the padding counts for.
#include "runtime/ops/pool.h"

#include <gtest/gtest.h>

#include "runtime/ops/call.h"

namespace voxlab {
namespace {

using Values = std::vector<double>;

void expect_near(const Tensor& got, const Values& expected) {
  const Values values = got.to_vector();
  ASSERT_EQ(values.size(), expected.size());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_NEAR(values[i], expected[i], 1e-12) << i;
}

// Windows of 3 in steps of 2 around 1 2 3 4 5: (0 1 2) (2 3 4) (4 5 0).
TEST(AvgPool, PaddingCountedOrNot) {
  const Tensor x =
      Tensor::from_span({1, 5, 1}, std::span<const double>(Values{1, 2, 3, 4, 5}), Device::ref);
  const Tensor one = Tensor::full({1, 3, 1}, 1, DType::f64, Device::ref);
  AvgPoolAttrs attrs{.kernel = {3}, .stride = {2}, .padding = {1}};
  expect_near(avg_pool(x, attrs), {1, 3, 3});
  expect_near(call1<AvgPoolGrad>({attrs, {5}}, {one}), {1. / 3, 2. / 3, 1. / 3, 2. / 3, 1. / 3});
  attrs.count_padding = false;
  expect_near(avg_pool(x, attrs), {1.5, 3, 4.5});
  expect_near(call1<AvgPoolGrad>({attrs, {5}}, {one}), {1. / 2, 5. / 6, 1. / 3, 5. / 6, 1. / 2});
}

// Two channels of a 2 x 3 image; the default halves each axis and drops the odd column.
TEST(AvgPool, DefaultHalvesEachAxis) {
  const Tensor x = Tensor::from_span(
      {1, 2, 3, 2}, std::span<const double>(Values{1, 10, 2, 20, 9, 9, 3, 30, 6, 60, 9, 9}),
      Device::ref);
  expect_near(avg_pool(x), {3, 30});
}

TEST(AvgPool, CostCountsEachMemberOfEachWindow) {
  const Meta x{{1, 8, 8, 4}, DType::f32}, y{{1, 4, 4, 4}, DType::f32};
  const Cost cost =
      record_of<AvgPool>().cost(std::make_shared<AvgPool::Attrs>().get(), {&x, 1}, {&y, 1});
  EXPECT_EQ(cost.flops, 8 * 8 * 4);
  EXPECT_EQ(cost.macs, 0);
  EXPECT_EQ(cost.bytes, 4 * (8 * 8 * 4 + 4 * 4 * 4));
}

}  // namespace
}  // namespace voxlab
