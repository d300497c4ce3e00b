// Weights of a gather as tiles of B.
#pragma once

#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/kernels_amx.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/allocator.h"

namespace voxlab::cpu {

// K runs: neighbouring taps along W and their channels are one run, else each tap is its own. Channels may also fall into
// slabs of one depth block each, one after the other. The taps of one channel, whose runs would leave most of a depth block
// empty, are one run (im2col): tiles of A are made of neighbouring positions' values.
struct RunShape {
  int64_t runs_a_row;  // for one slab and one (tap D, tap H)
  int64_t length;      // bf16 values of K
  int64_t slabs = 1;
  bool all_taps = false;
  int64_t depth_blocks() const { return ceil_div(length, amx_depth); }
};

RunShape run_shape(const GatherConv& conv, bool slabs);

struct AmxWeights {
  const uint16_t* data;
  int64_t low;           // from a high part to its low part
  int64_t depth_blocks;  // of a whole panel
  bool slabs;
  AmxParts panel(const Panel& p, bool split) const {
    const uint16_t* high = data + p.before * depth_blocks * amx_tile;
    return {high, split ? high + low : nullptr};
  }
};

// Its columns on tiles.
std::vector<Panel> weight_panels(const GatherConv& conv);

// bf16 values of all panels, with `split` of both parts.
int64_t packed_halves(const GatherConv& conv, const RunShape& shape, const std::vector<Panel>& panels, bool split);

// All panels, in `memory`. False when a weight is not finite.
bool pack_weights(const KernelTable& kernels, const AmxTable& amx, const GatherConv& conv, const RunShape& shape,
                  const std::vector<Panel>& panels, bool split, uint16_t* memory, AmxWeights& to);

// Of the gathers that make up one call, in the order in which it runs them.
struct KeptWeights {
  struct Gather {
    Gather(int64_t bytes, GatherConv of, bool split, int64_t first) : memory(bytes, Device::cpu), conv(std::move(of)), split(split), first(first) {}
    Storage memory;
    AmxWeights tiles = {};
    GatherConv conv;
    bool split;
    int64_t first;  // of its weights among those of the call
  };
  std::deque<Gather> gathers;
};

// The weights as tiles hold them, rounded to bf16 or to the sum of two; those that no gather reads become zero.
void unpack_weights(const KeptWeights& kept, int64_t count, float* to);

}  // namespace voxlab::cpu
