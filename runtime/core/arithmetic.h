// Arithmetic: how the products of a network (convolutions, matrix products and their gradients) are formed. One
// word, which numbers depend on, so it stands in the resolved configuration and beside every number.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <utility>

#include "runtime/core/device.h"
#include "runtime/core/dtype.h"

namespace voxlab {

// strict: f32 multiply-adds. bf16x3: each f32 factor as two bf16 parts, three products on AMX. bf16: factors
// rounded to bf16. Sums are f32 in all. automatic: the machine's, before it is resolved.
enum class Arithmetic : uint8_t { automatic, strict, bf16x3, bf16 };

constexpr auto enum_names(Arithmetic) {
  return std::array{std::pair{std::string_view("auto"), Arithmetic::automatic},
                    std::pair{std::string_view("strict"), Arithmetic::strict},
                    std::pair{std::string_view("bf16x3"), Arithmetic::bf16x3},
                    std::pair{std::string_view("bf16"), Arithmetic::bf16}};
}

// What Autocast (call.h) casts f32 factors to. Kernels of the CPU round factors as they read them, so that tensors stay
// f32 (meta plans for them); on other devices the tensors themselves are bf16.
constexpr DType cast_type(Arithmetic a, Device device) {
  const bool by_kernels = device == Device::cpu || device == Device::meta;
  return a == Arithmetic::bf16 && !by_kernels ? DType::bf16 : DType::f32;
}

// How kernels that are prepared now on this thread form products of f32 tensors: as the innermost scope says,
// strict without one.
Arithmetic current_arithmetic();

class ArithmeticScope {
 public:
  explicit ArithmeticScope(Arithmetic arithmetic);  // Error for `automatic`
  ~ArithmeticScope();
  ArithmeticScope(const ArithmeticScope&) = delete;
  ArithmeticScope& operator=(const ArithmeticScope&) = delete;

 private:
  Arithmetic previous_;
};

}  // namespace voxlab
