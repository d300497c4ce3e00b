// Softmax along an axis, for kernels that have one among other work.
#pragma once

#include <cstdint>

namespace voxlab::cpu {

// Of each column of a contiguous matrix, over its rows. y may be x.
void softmax_columns(const float* x, float* y, int64_t rows, int64_t columns);

}  // namespace voxlab::cpu
