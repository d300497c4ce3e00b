// The loops that write bf16, where one instruction rounds to it; flags come from dense/isa_flags.cmake.
#include "runtime/backend/cpu/elementwise_impl.h"
#include "runtime/backend/cpu/norm_impl.h"

namespace voxlab::cpu {

void set_bf16_loops(Loops& table) {
  set_elementwise(table);
  set_norms(table);
}

}  // namespace voxlab::cpu
