// The seam to the kernels of narrow attention on AMX tiles, real or emulated: heads 8 and 16 deep, keys in blocks of 32.
#pragma once

#include "runtime/backend/cpu/loops.h"

namespace voxlab::cpu {

constexpr int64_t tile_keys = 32;  // that weights and values meet at a time

// Halves that keys and values take as tiles of 512, at the larger depth: PackedTiles.
constexpr int64_t packed_tile_halves(int64_t keys) { return 2 * 512 * (keys / 16 * 2 + keys / tile_keys * 2); }

// Floats of scratch: of the forward, of the gradient.
constexpr int64_t tile_attention_floats(int64_t keys) { return 4096 + 128 * keys; }
constexpr int64_t tile_gradient_floats(int64_t keys) { return 8192 + 512 * keys; }

struct TileAttention {
  void (*pack)(const float* k, const float* v, int64_t keys, uint16_t* tiles);  // both one row a key
  // [split]: bf16 weights and values in two parts, or in one.
  void (*attend[2])(const NarrowAttentionArgs&);
  void (*gradients[2])(const NarrowAttentionGradArgs&);
};

#if defined(__x86_64__)
// Of heads 8 and 16 deep.
extern const TileAttention attention_amx[2];
extern const TileAttention attention_amx_emulated[2];
#endif

}  // namespace voxlab::cpu
