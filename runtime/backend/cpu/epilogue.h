// A product's precision and what follows it, in the dense core's terms.
#pragma once

#include <vector>

#include "runtime/backend/cpu/dense/dense.h"
#include "runtime/core/arithmetic.h"
#include "runtime/ops/fused.h"

namespace voxlab::cpu {

static_assert(static_cast<int>(Activation::hardswish) == static_cast<int>(voxlab::Activation::hardswish));

// Read once, when a kernel is prepared.
inline Precision f32_precision() {
  switch (current_arithmetic()) {
    case Arithmetic::bf16x3: return Precision::bf16x3;
    case Arithmetic::bf16: return Precision::bf16;
    case Arithmetic::strict:
    case Arithmetic::automatic: break;
  }
  return Precision::strict;
}

inline Epilogue epilogue_of(const Finish& f) {
  return {.activation = static_cast<Activation>(f.activation), .slope = static_cast<float>(f.slope)};
}

// A bf16 bias: epilogues take f32.
inline std::vector<float> widened_bias(const std::byte* bias, int64_t n) {
  std::vector<float> wide;
  for (int64_t i = 0; i < n; ++i) wide.push_back(float(reinterpret_cast<const bfloat16*>(bias)[i]));
  return wide;
}

}  // namespace voxlab::cpu
