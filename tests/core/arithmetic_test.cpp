#include "runtime/core/arithmetic.h"

#include <gtest/gtest.h>

#include <thread>

#include "runtime/core/error.h"
#include "runtime/core/visit.h"

namespace voxlab {
namespace {

TEST(Arithmetics, StrictUnlessAScopeOfTheThreadSaysOtherwise) {
  EXPECT_EQ(current_arithmetic(), Arithmetic::strict);
  {
    const ArithmeticScope outer(Arithmetic::bf16x3);
    EXPECT_EQ(current_arithmetic(), Arithmetic::bf16x3);
    {
      const ArithmeticScope inner(Arithmetic::strict);
      EXPECT_EQ(current_arithmetic(), Arithmetic::strict);
    }
    std::thread([] { EXPECT_EQ(current_arithmetic(), Arithmetic::strict); }).join();
    EXPECT_EQ(current_arithmetic(), Arithmetic::bf16x3);
  }
  EXPECT_EQ(current_arithmetic(), Arithmetic::strict);
  EXPECT_THROW(ArithmeticScope(Arithmetic::automatic), Error);
}

TEST(Arithmetics, OnlyBf16CastsAndOnlyWhereKernelsDoNotRound) {
  EXPECT_EQ(cast_type(Arithmetic::bf16, Device::ref), DType::bf16);
  EXPECT_EQ(cast_type(Arithmetic::bf16, Device::cpu), DType::f32);
  for (const Arithmetic a : {Arithmetic::strict, Arithmetic::bf16x3}) EXPECT_EQ(cast_type(a, Device::ref), DType::f32);
}

}  // namespace
}  // namespace voxlab
