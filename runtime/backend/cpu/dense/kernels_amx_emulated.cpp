// The dense kernels on emulated AMX tiles, built for avx512; flags come from isa_flags.cmake.
#define VOXLAB_EMULATE_TILES
#include "runtime/backend/cpu/dense/kernels_amx_impl.h"

namespace voxlab::cpu {

constexpr AmxTable kernels_amx_emulated = make_amx_table();

}  // namespace voxlab::cpu
