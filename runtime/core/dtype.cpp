#include "runtime/core/dtype.h"

#include <array>
#include <string>

#include "runtime/core/error.h"

namespace voxlab {
namespace {
struct Row {
  DType dtype;
  std::string_view name;
  int64_t size;
};
constexpr std::array<Row, 8> rows{{{DType::f64, "f64", 8},
                                   {DType::f32, "f32", 4},
                                   {DType::bf16, "bf16", 2},
                                   {DType::f16, "f16", 2},
                                   {DType::i64, "i64", 8},
                                   {DType::i32, "i32", 4},
                                   {DType::u8, "u8", 1},
                                   {DType::boolean, "bool", 1}}};
}  // namespace

int64_t size_of(DType dtype) { return rows[static_cast<size_t>(dtype)].size; }
std::string_view name(DType dtype) { return rows[static_cast<size_t>(dtype)].name; }

DType parse_dtype(std::string_view text) {
  for (const Row& row : rows)
    if (row.name == text) return row.dtype;
  fail("dtype", "'" + std::string(text) + "' is none of f64 f32 bf16 f16 i64 i32 u8 bool");
}

float16::float16(float value) {
  const uint32_t u = std::bit_cast<uint32_t>(value);
  const uint32_t sign = (u >> 16) & 0x8000u;
  const uint32_t magnitude = u & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {
    bits = static_cast<uint16_t>(sign | 0x7e00u);
  } else if (magnitude >= 0x477ff000u) {  // rounds to 65520 or more: infinity
    bits = static_cast<uint16_t>(sign | 0x7c00u);
  } else if (magnitude < 0x38800000u) {  // subnormal half: let the f32 adder round for us
    const float shifted = std::bit_cast<float>(magnitude) + 0.5f;
    bits = static_cast<uint16_t>(sign | (std::bit_cast<uint32_t>(shifted) - 0x3f000000u));
  } else {
    const uint32_t odd = (magnitude >> 13) & 1u;
    bits = static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
  }
}

float16::operator float() const {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000u) << 16;
  const uint32_t magnitude = bits & 0x7fffu;
  float value = 0;
  if (magnitude >= 0x7c00u) {
    value = std::bit_cast<float>((magnitude << 13) | 0x7f800000u);
  } else if (magnitude < 0x400u) {
    value = static_cast<float>(magnitude) * 0x1p-24f;
  } else {
    value = std::bit_cast<float>((magnitude << 13) + 0x38000000u);
  }
  return std::bit_cast<float>(std::bit_cast<uint32_t>(value) | sign);
}

}  // namespace voxlab
