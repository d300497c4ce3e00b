// Convolution with a 3x3 kernel over H and W by F(2x2, 3x3), 16 products where the direct sum takes 36, and with a
// 3x3x3 kernel by F(2x2x2, 3x3x3), 64 for 216: with the same f32 rounding error (docs/design/0016).
#pragma once

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/gather_conv.h"

namespace voxlab::cpu {

constexpr int64_t winograd_points = 16;
constexpr int64_t winograd_side = 2;  // outputs of a tile along H and along W

// Whether a gather has that form and is large enough to gain. Any taps along D.
bool suits_winograd(const KernelTable& kernels, const GatherConv& conv);
// Of those, whether the form with three sides is faster.
bool suits_winograd3(const KernelTable& kernels, const GatherConv& conv);

// On f32 input and output, with two or three sides.
void winograd_conv(const KernelTable& kernels, const GatherConv& conv, bool three);

// The weight gradient of a forward gather that suits: weights (tap along D, 3, 3, channel) with rows `pitch` apart
// from dw on; dy lies like the gather's output.
bool suits_winograd_wgrad(const KernelTable& kernels, const GatherConv& conv);
void winograd_wgrad(const KernelTable& kernels, const GatherConv& conv, const float* dy, float* dw, int64_t pitch);

// What both are made of. Blocks count planes, and rows and columns of tiles.
std::array<int64_t, 3> tiles_of(const GatherConv& conv);

// Input at the points, [point][plane][tile row][tile][channel]; distances in floats.
struct InputPoints {
  const float* data;
  int64_t plane, point;
};
InputPoints transform_input(const KernelTable& kernels, const GatherConv& conv, const BlockPlace& block);

// What a block costs, in cycles of one multiply-add, beside the transforms of its input.
struct TileCost {
  double sums;           // a row
  double fixed;          // a block
  int64_t floats_a_row;  // held beside the transformed input
  int64_t budget;        // floats
};
// The cheapest block, idle threads counted.
std::array<int64_t, 3> choose_tiles(const GatherConv& conv, const TileCost& cost);

}  // namespace voxlab::cpu
