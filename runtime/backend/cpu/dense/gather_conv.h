// The driver shared by forward convolution, both forms of data gradient and transposed convolution:
// every output position gathers a fixed set of input positions.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "runtime/backend/cpu/dense/dense.h"
#include "runtime/backend/cpu/dense/kernels.h"

namespace voxlab::cpu {

// out[o] reads in[o * stride + tap] for each tap; positions outside [0, in) count as zero.
struct GatherAxis {
  int64_t in = 1;
  int64_t out = 1;
  int64_t stride = 1;
  std::vector<int64_t> taps = {0};  // ascending
};

struct AmxWeights;

// Where the weights of a gather lie: rows (kernel position, channel) of `columns`, or, transposed,
// rows (kernel position, column) of channels. The taps use the kernel positions `kernel[axis]`
// lists.
struct GatherWeights {
  const float* data = nullptr;
  int64_t pitch = 0;     // elements between rows
  int64_t position = 0;  // elements between kernel positions
  bool transposed = false;
  std::array<int64_t, 3> kernel_size = {1, 1, 1};
  std::array<std::vector<int64_t>, 3> kernel = {{{0}, {0}, {0}}};
  const AmxWeights* tiles = nullptr;  // the same as tiles of B, where somebody kept them
};

struct GatherConv {
  int64_t batch = 1;
  std::array<GatherAxis, 3> axis;
  ConstBuffer in;
  int64_t in_offset = 0;  // elements to the first channel used
  int64_t in_pitch = 0;   // elements from one input position to the next
  int64_t channels = 0;   // input channels used
  SecondInput second;     // the last of them may lie elsewhere: direct products of bf16 and minimal filtering read that
  GatherWeights weights;
  int64_t columns = 0;
  // Columns may fall into equal groups that go to places of their own, in elements from out_offset; else they follow
  // each other.
  std::vector<int64_t> group_out = {0};
  // Of AMX alone: the kernel position along D, H and W that each tap stands for, by group, -1 where the group leaves it out.
  // Empty: weights.kernel for all.
  std::vector<std::array<std::vector<int64_t>, 3>> group_kernel;
  Buffer out;
  int64_t out_offset = 0;
  int64_t out_batch = 0;                 // elements between output samples
  std::array<int64_t, 3> out_step = {};  // and between output positions along D, H, W
  Epilogue epilogue;
  // Of the same alone.
  const InputNorm* norm = nullptr;
  float* moments = nullptr;
};

// On f32 input and output.
void gather_conv(const KernelTable& kernels, GatherConv conv);

// Of k terms each: longer sums go through C in parts. Added up one by one, ten thousand products would lose two digits more
// than PyTorch's convolutions do.
int64_t runs_of_a_part(int64_t k);

// Merges axes that only enumerate positions into W.
void flatten(GatherConv& conv);

// The output block (D, H, W) that costs least by a small model of arithmetic, copying and idle
// threads. `vectors`: columns in units of one multiply-add.
std::array<int64_t, 3> choose_block(const GatherConv& conv, double vectors);

// Input positions (D, H, W) under an output block.
std::array<int64_t, 3> input_extent(const GatherConv& conv, const std::array<int64_t, 3>& block);

int64_t multiply_adds(const GatherConv& conv);

std::array<int64_t, 3> out_size(const GatherConv& conv);

// Whether the output is larger than the caches and its rows fall into whole lines, so that writing past the caches saves reading
// the lines first.
bool leaves_caches(const GatherConv& conv);

bool consecutive(const std::vector<int64_t>& taps);

// Weight rows (tap, channel), and one panel of them copied to whole vectors next to each other.
int64_t weight_rows(const GatherConv& conv);
struct Panel;
void pack_panel(const KernelTable& kernels, const GatherConv& conv, const Panel& panel, float* to);

// On AMX with bf16 products, or with `split` three of them for nearly f32 results; f32 or bf16
// input and output, f32 weights. False, and nothing useful written, when an input or weight is not
// finite.
bool gather_conv_amx(const KernelTable& kernels, GatherConv conv, bool split);
// Adds the conv's weights, which lie from `first_weight` on, in the form of weights.tiles; false when one is not finite.
bool keep_tiles(const KernelTable& kernels, GatherConv conv, const float* first_weight, bool split, KeptWeights& to);

// Taps along one axis and the kernel index each stands for.
struct KernelTaps {
  GatherAxis axis;
  std::vector<int64_t> kernel;
};

// A forward convolution, or one group of it, as a gather.
GatherConv forward_gather(const ConvGeometry& geometry, ConstBuffer x, const float* w, Buffer y,
                          const Epilogue& epilogue, int64_t group);

// Of a forward convolution, over x.
KernelTaps forward_taps(const ConvGeometry& geometry, int axis);

// Of its data gradient, over dy: dx[i] sums dy[(i + pad - k * dilation) / stride] over the k that
// divide. For i = residue + stride * j that is dy[j + tap], with one set of taps a residue.
KernelTaps residue_taps(const ConvGeometry& geometry, int axis, int64_t residue);

// Columns of one panel: up to three vectors, the last perhaps partial.
struct Panel {
  int64_t column = 0;
  int vectors = 1;
  int last_columns = 0;
  int64_t before = 0;  // vectors of the panels before it
  int64_t out = 0;     // where its first column goes, in elements from the output position
  int64_t group = 0;
};

std::vector<Panel> split_columns(int64_t columns, int width, int most_vectors = 3);

// The same of every group of columns; and vectors of all panels.
std::vector<Panel> split_groups(const GatherConv& conv, int width, int most_vectors = 3);
int64_t vectors_of(const std::vector<Panel>& panels);
// Columns of neighbouring panels, from `first` to `last`.
int64_t columns_of(const Panel& first, const Panel& last, int width);

// A box of a channels-last volume, in input coordinates; may reach outside.
struct Box {
  std::array<int64_t, 3> begin;
  std::array<int64_t, 3> size;
};

// Copies `channels` channels of every position of the box of one sample to `to` (compact), zeros
// outside.
void copy_box(const float* in, const std::array<int64_t, 3>& extent, int64_t pitch,
              int64_t channels, const Box& box, float* to);

}  // namespace voxlab::cpu
