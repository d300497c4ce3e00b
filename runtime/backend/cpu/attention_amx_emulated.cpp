// Narrow attention on emulated AMX tiles, built for avx512; flags come from dense/isa_flags.cmake.
#define VOXLAB_EMULATE_TILES
#include "runtime/backend/cpu/attention_tiles_impl.h"

namespace voxlab::cpu {

constexpr TileAttention attention_amx_emulated[2] = {tile_attention<8>(), tile_attention<16>()};

}  // namespace voxlab::cpu
