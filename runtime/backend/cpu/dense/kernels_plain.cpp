// The dense kernels built for the baseline instruction set.
#include "runtime/backend/cpu/dense/tile_impl.h"
#include "runtime/backend/cpu/dense/depthwise_impl.h"
#include "runtime/backend/cpu/dense/copy_impl.h"

namespace voxlab::cpu {

constexpr KernelTable kernels_plain = make_table();

}  // namespace voxlab::cpu
