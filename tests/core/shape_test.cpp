#include "runtime/core/shape.h"

#include <gtest/gtest.h>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

TEST(Shapes, AxesCountFromBothEnds) {
  const Shape s{2, 3, 5};
  EXPECT_EQ(s.rank(), 3);
  EXPECT_EQ(s[0], 2);
  EXPECT_EQ(s[-1], 5);
  EXPECT_EQ(s.index(-3), 0);
  EXPECT_EQ(s.numel(), 30);
  EXPECT_EQ(s.to_string(), "(2, 3, 5)");
  EXPECT_THROW(s[3], Error);
  EXPECT_THROW(s[-4], Error);
}

TEST(Shapes, EmptyShapeIsAScalar) {
  const Shape scalar;
  EXPECT_EQ(scalar.rank(), 0);
  EXPECT_EQ(scalar.numel(), 1);
  EXPECT_EQ(scalar.to_string(), "()");
  EXPECT_EQ((Shape{3, 0, 4}.numel()), 0);
}

TEST(Shapes, Equality) {
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_FALSE((Shape{2, 3} == Shape{2, 3, 1}));
  EXPECT_FALSE((Shape{2, 3} == Shape{3, 2}));
}

TEST(Shapes, RefusesWhatCannotBe) {
  EXPECT_THROW((Shape{1, -1}), Error);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1, 1, 1}), Error);
  Shape s{2};
  EXPECT_THROW(s.set(0, -3), Error);
  const int64_t large = int64_t{1} << 32;
  EXPECT_THROW((Shape{large, large}.numel()), Error);
}

TEST(Shapes, ContiguousStrides) {
  EXPECT_EQ(contiguous_strides({2, 3, 5}), (Strides{15, 5, 1}));
  EXPECT_EQ(contiguous_strides({}), Strides{});
}

TEST(Shapes, Broadcasting) {
  EXPECT_EQ(broadcast_shapes("op", {4, 1, 3}, {2, 1}), (Shape{4, 2, 3}));
  EXPECT_EQ(broadcast_shapes("op", {}, {5}), (Shape{5}));
  EXPECT_EQ(broadcast_shapes("op", {1}, {0}), (Shape{0}));
  try {
    broadcast_shapes("add", {2, 3}, {2, 4});
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "add: shapes (2, 3) and (2, 4) do not broadcast");
  }
}

}  // namespace
}  // namespace voxlab
