// Convolution with a 3x3 kernel over H and W by F(2x2, 3x3), 16 products where the direct sum takes 36, and with a
// 3x3x3 kernel by F(2x2x2, 3x3x3), 64 for 216: with the same f32 rounding error (docs/design/0016).
#pragma once

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/gather_conv.h"

namespace voxlab::cpu {

constexpr int64_t winograd_points = 16;
constexpr int64_t winograd_side = 2;          // outputs of a tile along H and along W, with three sides along D too
constexpr int64_t winograd_depth_points = 4;  // along D, of a tile with three sides
constexpr double pair_speed = 2;              // of products by pairs of bf16, beside f32's

bool three_neighbours(const GatherAxis& axis);  // whether three taps beside each other are read, of stride 1

// Whether a gather has that form and is large enough to gain, its products being `speed` times as fast as f32's. Any
// taps along D.
bool suits_winograd(const KernelTable& kernels, const GatherConv& conv, double speed = 1);
// Of those, whether the form with three sides is faster.
bool suits_winograd3(const KernelTable& kernels, const GatherConv& conv, double speed = 1);
// With an even number of channels, points can be rounded to bf16.
bool suits_pairs(const GatherConv& conv);

// With two or three sides; products of points are f32, of f32 tensors, or bf16 with `pairs`, of tensors of either type.
void winograd_conv(const KernelTable& kernels, const GatherConv& conv, bool three, const PairTable* pairs = nullptr);

// The weight gradient of a forward gather that suits: weights (tap along D, 3, 3, channel) with rows `pitch` apart
// from dw on; dy lies like the gather's output. Types as above; three sides are of f32 alone.
bool suits_winograd_wgrad(const KernelTable& kernels, const GatherConv& conv, double speed = 1);
bool suits_winograd3_wgrad(const KernelTable& kernels, const GatherConv& conv);  // of those, whether three are faster
void winograd_wgrad(const KernelTable& kernels, const GatherConv& conv, ConstBuffer dy, float* dw, int64_t pitch, bool three,
                    const PairTable* pairs = nullptr);

// What both are made of. Blocks count planes, and rows and columns of tiles.
std::array<int64_t, 3> tiles_of(const GatherConv& conv);

// Where functions of PairTable that read f32 or bf16 have theirs; those of KernelTable read f32 alone.
inline size_t type_index(DType dtype) { return dtype == DType::bf16 ? 1 : 0; }

// Which transform makes points, and what it stores: values of f32 or bf16, or pairs of two tiles' bf16.
struct PointFormat {
  void (*const* transform)(const WinogradInputArgs&);  // by type_index
  int64_t value_bytes;
  int64_t tiles;  // in one value
  int64_t group;  // channels that lie together, which tiles then follow
};

// The first `count` rows under tile row h of plane d, and those that are read after them, of `planes` planes of `lines` tile rows;
// row_at(d, h, i) is null outside of the tensor.
template <class RowAt>
void set_rows(WinogradInputArgs& args, int64_t count, int64_t planes, int64_t lines, int64_t d, int64_t h, const RowAt& row_at) {
  const bool line_ends = h + 1 == lines, ends = line_ends && d + 1 == planes;
  for (int64_t i = 0; i < count; ++i) {
    args.rows[i] = row_at(d, h, i);
    const void* next = ends ? nullptr : row_at(line_ends ? d + 1 : d, line_ends ? 0 : h + 1, i);
    args.next[i] = next == nullptr ? args.rows[i] : next;
  }
}

// Input at the points, [point][group][plane][tile row][tile or pair][channel of the group], written to `to`, which holds
// input_values; distances in values.
struct InputPoints {
  const void* data;
  int64_t plane, group, point;
};
int64_t input_values(const PointFormat& format, const GatherConv& conv, const BlockPlace& block);
InputPoints transform_input(const PointFormat& format, const GatherConv& conv, const BlockPlace& block, void* to);

// What a block costs, in cycles of one multiply-add, beside the transforms of its input.
struct TileCost {
  double sums;           // a row
  double fixed;          // a block
  int64_t floats_a_row;  // held beside the transformed input
  int64_t budget;        // floats
  double speed = 1;      // of the products, beside f32's
  int64_t tiles = 1;     // along W that share a row: of an odd count one place is empty
  int64_t rows = 1;      // of a product, which takes as long for fewer
};
// The cheapest block, idle threads counted.
std::array<int64_t, 3> choose_tiles(const GatherConv& conv, const TileCost& cost);

}  // namespace voxlab::cpu
