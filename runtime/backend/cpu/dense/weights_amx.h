// Weights of a gather as tiles of B.
#pragma once

#include <cstdint>
#include <vector>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/scratch.h"

namespace voxlab::cpu {

// K runs: neighbouring taps along W and their channels are one run, else each tap is its own.
struct RunShape {
  int64_t runs_a_row;  // for one (tap D, tap H)
  int64_t length;      // bf16 values of K
  int64_t depth_blocks() const { return ceil_div(length, amx_depth); }
};

RunShape run_shape(const GatherConv& conv);

struct AmxWeights {
  const uint16_t* data;
  int64_t low;           // from a high part to its low part
  int64_t depth_blocks;  // of a whole panel
  AmxParts panel(const Panel& p, bool split) const {
    const uint16_t* high = data + p.before * depth_blocks * amx_tile;
    return {high, split ? high + low : nullptr};
  }
};

// All panels, in scratch of the caller's thread. False when a weight is not finite.
bool pack_weights(const KernelTable& kernels, const AmxTable& amx, const GatherConv& conv, const std::vector<Panel>& panels,
                  bool split, AmxWeights& to);

}  // namespace voxlab::cpu
