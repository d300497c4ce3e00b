// The dense kernels built for avx512; flags come from isa_flags.cmake.
#include "runtime/backend/cpu/dense/table_impl.h"

namespace voxlab::cpu {

constexpr KernelTable kernels_avx512 = make_table();

}  // namespace voxlab::cpu
