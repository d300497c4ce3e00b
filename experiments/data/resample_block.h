// What resampling is made of: the map of one axis, and a block of f64 values that is resized axis
// by axis.
#pragma once

#include <array>
#include <vector>

#include "experiments/data/resample.h"

namespace voxlab {

// Where an output index falls, and the weights of the four (cubic), two or one voxels around it.
struct Tap {
  int64_t first = 0;
  std::array<double, 4> weight{};
};

struct AxisMap {
  int order = 0;
  int64_t in = 0, out = 0, pad = 0;  // cubic: taps count from `pad` voxels before the first
  std::vector<Tap> taps;
  int64_t tap_count() const { return order + 1; }
};

double source_position(int64_t o, int64_t in, int64_t out);
int64_t nearest_index(int64_t o, int64_t in, int64_t out);
AxisMap make_map(int64_t in, int64_t out, int order);

struct Block {
  Size3 size{};
  int64_t channels = 1;
  std::vector<double> values;  // (z, y, x, C)

  int64_t outer(size_t axis) const {
    return axis == 0 ? 1 : axis == 1 ? size[0] : size[0] * size[1];
  }
  int64_t inner(size_t axis) const {
    return channels * (axis == 0 ? size[1] * size[2] : axis == 1 ? size[2] : 1);
  }
  void resize(size_t axis, int64_t to, int order, std::vector<double>& scratch);
};

void resize_block(Block& block, const Size3& size, const ResampleRule& rule,
                  std::vector<double>& scratch);

}  // namespace voxlab
