// A product's precision and what follows it, in the dense core's terms.
#pragma once

#include <memory>
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

// Of a Kernel whose weight is kept, or is not.
inline std::vector<size_t> kept_inputs(const std::shared_ptr<const KeptWeights>& kept, size_t weight) {
  return kept == nullptr ? std::vector<size_t>() : std::vector{weight};
}

inline Epilogue epilogue_of(const Finish& f) {
  return {.activation = static_cast<Activation>(f.activation), .slope = static_cast<float>(f.slope)};
}

inline void set_residual(Epilogue& e, const std::byte* residual, DType type) {
  if (type == DType::bf16) {
    e.residual_bf16 = reinterpret_cast<const uint16_t*>(residual);
  } else {
    e.residual = reinterpret_cast<const float*>(residual);
  }
}

// A bias, null where there is none, as the f32 that epilogues take; bf16 is widened into `wide`.
inline const float* f32_bias(const std::byte* bias, DType type, int64_t n, std::vector<float>& wide) {
  if (bias == nullptr || type == DType::f32) return reinterpret_cast<const float*>(bias);
  for (int64_t i = 0; i < n; ++i) wide.push_back(float(reinterpret_cast<const bfloat16*>(bias)[i]));
  return wide.data();
}

}  // namespace voxlab::cpu
