// The dense kernels built for avx2; flags come from isa_flags.cmake.
#include "runtime/backend/cpu/dense/table_impl.h"

namespace voxlab::cpu {

constexpr KernelTable kernels_avx2 = make_table();

}  // namespace voxlab::cpu
