// The dense kernels built for the baseline instruction set.
#include "runtime/backend/cpu/dense/table_impl.h"

namespace voxlab::cpu {

constexpr KernelTable kernels_plain = make_table();

}  // namespace voxlab::cpu
