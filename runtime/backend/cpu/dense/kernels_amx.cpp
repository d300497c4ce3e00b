// The dense kernels on AMX, built for amx-bf16 and avx512; flags come from isa_flags.cmake.
#include "runtime/backend/cpu/dense/kernels_amx_impl.h"

namespace voxlab::cpu {

constexpr AmxTable kernels_amx = make_amx_table();

}  // namespace voxlab::cpu
