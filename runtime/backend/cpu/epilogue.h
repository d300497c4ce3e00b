// What follows a product, from the op's attributes to the dense core's terms.
#pragma once

#include "runtime/backend/cpu/dense/dense.h"
#include "runtime/ops/fused.h"

namespace voxlab::cpu {

static_assert(static_cast<int>(Activation::hardswish) == static_cast<int>(voxlab::Activation::hardswish));

inline Epilogue epilogue_of(const Finish& f) {
  return {.activation = static_cast<Activation>(f.activation), .slope = static_cast<float>(f.slope)};
}

}  // namespace voxlab::cpu
