// DType and the two 16-bit float types.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>

namespace voxlab {

enum class DType : uint8_t { f64, f32, bf16, f16, i64, i32, u8, boolean };

int64_t size_of(DType dtype);
std::string_view name(DType dtype);
DType parse_dtype(std::string_view text);  // Error on an unknown name
constexpr bool is_floating(DType d) {
  return d == DType::f64 || d == DType::f32 || d == DType::bf16 || d == DType::f16;
}

// Brain float: the upper half of an f32, rounded to nearest even.
struct bfloat16 {
  uint16_t bits = 0;
  bfloat16() = default;
  explicit bfloat16(float value) {
    uint32_t u = std::bit_cast<uint32_t>(value);
    if ((u & 0x7fffffffu) > 0x7f800000u) {
      bits = static_cast<uint16_t>((u >> 16) | 0x40u);  // a NaN stays a NaN, made quiet
    } else {
      u += 0x7fffu + ((u >> 16) & 1u);
      bits = static_cast<uint16_t>(u >> 16);
    }
  }
  explicit operator float() const { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }
};

// IEEE binary16.
struct float16 {
  uint16_t bits = 0;
  float16() = default;
  explicit float16(float value);
  explicit operator float() const;
};

template <class T>
struct dtype_of_impl;
template <> struct dtype_of_impl<double> { static constexpr DType value = DType::f64; };
template <> struct dtype_of_impl<float> { static constexpr DType value = DType::f32; };
template <> struct dtype_of_impl<bfloat16> { static constexpr DType value = DType::bf16; };
template <> struct dtype_of_impl<float16> { static constexpr DType value = DType::f16; };
template <> struct dtype_of_impl<int64_t> { static constexpr DType value = DType::i64; };
template <> struct dtype_of_impl<int32_t> { static constexpr DType value = DType::i32; };
template <> struct dtype_of_impl<uint8_t> { static constexpr DType value = DType::u8; };
template <> struct dtype_of_impl<bool> { static constexpr DType value = DType::boolean; };

template <class T>
constexpr DType dtype_of = dtype_of_impl<T>::value;

}  // namespace voxlab
