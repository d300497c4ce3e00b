// The 16-bit floats, exhaustively: every value, and the rounding around every midpoint of
// neighbours.
#include "runtime/core/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "runtime/core/error.h"

namespace voxlab {
namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

// The value of a binary format by its definition: fraction bits below an exponent of the given
// bias.
double value_by_definition(uint16_t bits, int fraction_bits, int bias) {
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const int exponent = (bits & 0x7fff) >> fraction_bits;
  const double magnitude =
      exponent == 0 ? std::ldexp(fraction, 1 - bias - fraction_bits)
                    : std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
  return bits & 0x8000 ? -magnitude : magnitude;
}

template <class Half>
Half of_bits(uint16_t bits) {
  Half h;
  h.bits = bits;
  return h;
}

// `infinite`: the bits of +infinity; all below are finite and ordered as their values.
template <class Half>
void check_every_value(uint16_t infinite, int fraction_bits, int bias) {
  for (uint32_t bits = 0; bits < infinite; ++bits)
    for (const uint32_t sign : {0U, 0x8000U}) {
      const auto h = of_bits<Half>(static_cast<uint16_t>(bits | sign));
      const auto value = static_cast<float>(h);
      ASSERT_EQ(value, value_by_definition(h.bits, fraction_bits, bias)) << std::hex << h.bits;
      ASSERT_EQ(Half(value).bits, h.bits) << value;  // bits: -0 is not +0
    }
  EXPECT_EQ(static_cast<float>(of_bits<Half>(infinite)), infinity);
  EXPECT_EQ(static_cast<float>(of_bits<Half>(static_cast<uint16_t>(infinite | 0x8000))), -infinity);
  for (uint32_t bits = infinite + 1U; bits < 0x8000; ++bits) {
    const auto h = of_bits<Half>(static_cast<uint16_t>(bits));
    ASSERT_TRUE(std::isnan(static_cast<float>(h)));
    ASSERT_TRUE(std::isnan(static_cast<float>(Half(static_cast<float>(h)))));
  }
}

// Round to nearest, ties to even, of the f32 values at and next to each midpoint. Beyond the
// largest value the next one would be 2^(emax + 1): from half-way on it is infinity.
template <class Half>
void check_every_midpoint(uint16_t infinite, int fraction_bits, int bias) {
  for (uint32_t bits = 0; bits < infinite; ++bits) {
    const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits + 1);
    const double a = value_by_definition(low, fraction_bits, bias);
    const double b = value_by_definition(high, fraction_bits, bias);  // of `infinite`: 2^(emax + 1)
    const auto middle = static_cast<float>((a + b) / 2);
    ASSERT_EQ(middle, (a + b) / 2) << "the midpoint is an f32";
    const uint16_t even = low % 2 == 0 ? low : high;
    ASSERT_EQ(Half(middle).bits, even) << std::hex << bits;
    ASSERT_EQ(Half(std::nextafter(middle, 0.0F)).bits, low) << std::hex << bits;
    ASSERT_EQ(Half(std::nextafter(middle, infinity)).bits, high) << std::hex << bits;
    ASSERT_EQ(Half(-middle).bits, even | 0x8000) << std::hex << bits;
  }
}

TEST(Float16, EveryValue) { check_every_value<float16>(0x7c00, 10, 15); }
TEST(Float16, EveryMidpointRoundsToEven) { check_every_midpoint<float16>(0x7c00, 10, 15); }
TEST(Bfloat16, EveryValue) { check_every_value<bfloat16>(0x7f80, 7, 127); }
TEST(Bfloat16, EveryMidpointRoundsToEven) { check_every_midpoint<bfloat16>(0x7f80, 7, 127); }

TEST(Float16, LargeAndTiny) {
  EXPECT_EQ(float16(65504.0F).bits, 0x7bff);  // the largest
  EXPECT_EQ(float16(1e30F).bits, 0x7c00);
  EXPECT_EQ(float16(-infinity).bits, 0xfc00);
  EXPECT_EQ(float16(1e-30F).bits, 0x0000);
  EXPECT_EQ(float16(0x1p-24F).bits, 0x0001);  // the smallest
}

TEST(DTypes, NamesAndSizes) {
  const std::pair<DType, int64_t> sizes[] = {{DType::f64, 8}, {DType::f32, 4},    {DType::bf16, 2},
                                             {DType::f16, 2}, {DType::i64, 8},    {DType::i32, 4},
                                             {DType::u8, 1},  {DType::boolean, 1}};
  for (const auto& [dtype, size] : sizes) {
    EXPECT_EQ(size_of(dtype), size);
    EXPECT_EQ(parse_dtype(name(dtype)), dtype);
    EXPECT_EQ(is_floating(dtype), dtype < DType::i64);
  }
  EXPECT_THROW(parse_dtype("float32"), Error);
}

}  // namespace
}  // namespace voxlab
