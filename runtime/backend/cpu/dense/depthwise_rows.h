// Compact input rows for the depthwise kernels, and how they are filled.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "runtime/backend/cpu/dense/gather_conv.h"

namespace voxlab::cpu {

// Plane p of result channel c is source channel (c / result_group) * source_group + p.
struct ChannelMap {
  int64_t source_channels;
  int64_t source_group;  // also the number of planes
  int64_t result_group;
  int64_t source(int64_t channel, int64_t plane) const {
    return channel / result_group * source_group + plane;
  }
  bool identity() const { return source_group == 1 && result_group == 1; }
};

// Scratch rows keep the positions of one residue modulo the stride along W together, so
// neighbouring outputs always read neighbouring scratch positions.
struct ScratchRows {
  Box box;            // input positions held
  int64_t stride;     // along W
  int64_t per_phase;  // positions of one residue
  int64_t group;      // floats a position: whole vectors
  int64_t row() const { return stride * per_phase * group; }
  int64_t plane() const { return box.size[0] * box.size[1] * row(); }
  int64_t at(int64_t w) const { return (w % stride * per_phase + w / stride) * group; }
};

// One sample to fill from.
struct DepthwiseSource {
  const float* sample;
  std::array<int64_t, 3> extent;
  ChannelMap map;
  int64_t channels;  // of the result
};

// Scratch for output rows [begin, begin + size) along D and H, all of W.
ScratchRows scratch_rows(const std::array<KernelTaps, 3>& taps, const std::array<int64_t, 2>& begin,
                         const std::array<int64_t, 2>& size, int64_t group);

// Fills one plane of result channels [first, first + group); channels past the end are zero.
void fill_plane(const KernelTable& kernels, const DepthwiseSource& source, const ScratchRows& rows,
                int64_t plane, int64_t first, float* to);

// What a choice of block depends on besides the taps.
struct RowChoice {
  int64_t planes;
  int64_t group;  // floats a position
  int64_t source_channels;
  int64_t result_channels;
  int64_t output_group;  // floats of output held a position
  int64_t other_tasks;  // tasks there are for one block
};

// Output rows (D, H) to handle with one fill.
std::array<int64_t, 2> choose_rows(const std::array<KernelTaps, 3>& taps, const RowChoice& choice);

// Channel vectors one or two at a time.
std::vector<Panel> channel_panels(int64_t channels, int width, int vectors);

}  // namespace voxlab::cpu
