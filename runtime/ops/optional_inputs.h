// Inputs of an op that may be left out: missing at the end, or an empty place before others.
#pragma once

#include "runtime/ops/op.h"

namespace voxlab {

inline bool given(MetaSpan in, size_t i) { return i < in.size() && in[i].shape != Shape{0}; }
inline Tensor input(const Tensors& in, size_t i) { return i < in.size() ? in[i] : Tensor(); }

}  // namespace voxlab
