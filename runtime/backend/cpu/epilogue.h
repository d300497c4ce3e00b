// A product's precision and what follows it, in the dense core's terms.
#pragma once

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

}  // namespace voxlab::cpu
