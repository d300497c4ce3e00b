// Narrow attention on AMX, built for amx-bf16 and avx512; flags come from dense/isa_flags.cmake.
#include "runtime/backend/cpu/attention_tiles_impl.h"

namespace voxlab::cpu {

constexpr TileAttention attention_amx[2] = {tile_attention<8>(), tile_attention<16>()};

}  // namespace voxlab::cpu
