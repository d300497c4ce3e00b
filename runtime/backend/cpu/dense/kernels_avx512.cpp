// The dense kernels built for avx512; flags come from isa_flags.cmake.
#include "runtime/backend/cpu/dense/tile_impl.h"
#include "runtime/backend/cpu/dense/depthwise_impl.h"
#include "runtime/backend/cpu/dense/copy_impl.h"

namespace voxlab::cpu {

constexpr KernelTable kernels_avx512 = make_table();

}  // namespace voxlab::cpu
