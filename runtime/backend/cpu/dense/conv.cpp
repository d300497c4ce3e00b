// Forward convolution and data gradient as gathers. The data gradient of a strided convolution
// splits into one stride-1 gather for each residue of the input position modulo the stride, or on
// tiles, where all classes are as large, into one whose groups of columns they are.
#include <algorithm>
#include <utility>
#include <vector>

#include "runtime/backend/cpu/dense/gather_conv.h"
#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/dense/weights_amx.h"
#include "runtime/backend/cpu/dense/winograd.h"

namespace voxlab::cpu {
namespace {

using Triple = std::array<int64_t, 3>;

const float* offset_bias(const Epilogue& epilogue, int64_t channels) {
  return epilogue.bias == nullptr ? nullptr : epilogue.bias + channels;
}

// The first of the last axes along which the kernel's positions are patches that do not overlap; 3 where W is not one.
// Those positions of a patch and its channels are columns of one product.
int first_patch_axis(const ConvGeometry& g, const Triple& out) {
  int axis = 3;
  const auto patches = [&](int i) {
    return g.kernel[i] == g.stride[i] && g.pad[i] == 0 && g.dilation[i] == 1 && g.in[i] == out[i] * g.kernel[i];
  };
  while (g.groups == 1 && axis > 0 && patches(axis - 1)) --axis;
  return axis;
}

bool run_gather(const KernelTable& kernels, GatherConv conv, GatherMode mode) {
  switch (mode) {
    case GatherMode::f32:
      gather_conv(kernels, std::move(conv));
      return true;
    case GatherMode::winograd:
    case GatherMode::winograd3:
      winograd_conv(kernels, conv, mode == GatherMode::winograd3);
      return true;
    case GatherMode::winograd_pairs:
    case GatherMode::winograd3_pairs:
      winograd_conv(kernels, conv, mode == GatherMode::winograd3_pairs, active_pairs());
      return true;
    case GatherMode::bf16:
    case GatherMode::bf16x3:
      return gather_conv_amx(kernels, std::move(conv), mode == GatherMode::bf16x3);
  }
  return false;
}

struct DgradCall {
  const ConvGeometry& geometry;
  Triple out;
  ConstBuffer dy;
  const float* w;
  Buffer dx;
  Epilogue epilogue;
  int first_patch_axis;
};

// Elements between positions of the input along each axis.
Triple input_pitch(const ConvGeometry& g) {
  return {g.in[1] * g.in[2] * g.in_channels, g.in[2] * g.in_channels, g.in_channels};
}

// One residue class of input positions, one group. Axes of patches hold all residues at once.
GatherConv dgrad_gather(const DgradCall& call, const Triple& residue, int64_t group) {
  const ConvGeometry& g = call.geometry;
  const int64_t group_in = g.in_channels / g.groups;
  const int64_t group_out = g.out_channels / g.groups;
  std::array<KernelTaps, 3> taps;
  for (int i = 0; i < 3; ++i) taps[i] = residue_taps(g, i, residue[i]);
  for (int i = call.first_patch_axis; i < 3; ++i) {
    taps[i].axis = {call.out[i], call.out[i], 1, {0}};
    taps[i].kernel = {0};  // whose rows of W run on through all positions of the patch
  }
  GatherConv c;
  c.batch = g.batch;
  for (int i = 0; i < 3; ++i) c.axis[i] = taps[i].axis;
  c.in = call.dy;
  c.in_offset = group * group_out;
  c.in_pitch = g.out_channels;
  c.channels = group_out;
  c.columns = group_in;
  for (int i = call.first_patch_axis; i < 3; ++i) c.columns *= g.kernel[i];
  const int64_t tap_elements = group_in * g.out_channels;
  c.weights = {call.w + group * group_out, g.out_channels, tap_elements, true, g.kernel, {}};
  for (size_t i = 0; i < 3; ++i) c.weights.kernel[i] = taps[i].kernel;
  const Triple pitch = input_pitch(g);
  c.out = call.dx;
  c.out_offset = group * group_in;
  for (int i = 0; i < 3; ++i) {
    c.out_offset += residue[i] * pitch[i];
    c.out_step[i] = g.stride[i] * pitch[i];
  }
  c.out_batch = product(g.in) * g.in_channels;
  c.epilogue = call.epilogue;
  // The channels of a row of a patch follow each other; its rows and planes lie apart.
  const int64_t planes = call.first_patch_axis <= 0 ? g.kernel[0] : 1, rows = call.first_patch_axis <= 1 ? g.kernel[1] : 1;
  c.group_out.clear();
  for (int64_t d = 0; d < planes; ++d)
    for (int64_t h = 0; h < rows; ++h) c.group_out.push_back(d * pitch[0] + h * pitch[1]);
  if (call.first_patch_axis == 3) c.epilogue.bias = offset_bias(call.epilogue, group * group_in);
  return c;
}

// Whether something is strided, but not in patches, and all residue classes have one size.
bool merges_residues(const ConvGeometry& g) {
  if (g.groups > 1 || product(g.stride) == 1 || first_patch_axis(g, g.out()) < 3) return false;
  for (size_t i = 0; i < 3; ++i)
    if (g.in[i] % g.stride[i] != 0) return false;
  return true;
}

// All residue classes of a strided convolution's data gradient as one gather, each a group of columns with taps of its own:
// dy is read once, and dx written once from end to end.
GatherConv merged_residues(const DgradCall& call) {
  const ConvGeometry& g = call.geometry;
  GatherConv c = dgrad_gather(call, {0, 0, 0}, 0);
  std::array<std::vector<std::vector<int64_t>>, 3> kernel;  // by residue and tap
  for (int i = 0; i < 3; ++i) {
    std::vector<int64_t>& taps = c.axis[i].taps;
    taps.clear();
    std::vector<KernelTaps> residues;
    for (int64_t r = 0; r < g.stride[i]; ++r) {
      residues.push_back(residue_taps(g, i, r));
      taps.insert(taps.end(), residues.back().axis.taps.begin(), residues.back().axis.taps.end());
    }
    std::sort(taps.begin(), taps.end());
    taps.erase(std::unique(taps.begin(), taps.end()), taps.end());
    const auto axis = static_cast<size_t>(i);
    for (const KernelTaps& own : residues) {
      std::vector<int64_t>& of = kernel[axis].emplace_back(taps.size(), -1);
      for (size_t k = 0; k < own.kernel.size(); ++k)
        of[static_cast<size_t>(std::find(taps.begin(), taps.end(), own.axis.taps[k]) - taps.begin())] = own.kernel[k];
    }
    c.weights.kernel[axis].assign(taps.size(), 0);
  }
  const Triple pitch = input_pitch(g);
  c.group_out.clear();
  for (int64_t d = 0; d < g.stride[0]; ++d)
    for (int64_t h = 0; h < g.stride[1]; ++h)
      for (int64_t v = 0; v < g.stride[2]; ++v) {
        c.group_out.push_back(d * pitch[0] + h * pitch[1] + v * pitch[2]);
        c.group_kernel.push_back(
            {kernel[0][static_cast<size_t>(d)], kernel[1][static_cast<size_t>(h)], kernel[2][static_cast<size_t>(v)]});
      }
  c.columns *= product(g.stride);
  return c;
}

std::vector<float> repeated(const float* bias, int64_t channels, int64_t times) {
  std::vector<float> all;
  for (int64_t i = 0; i < times; ++i) all.insert(all.end(), bias, bias + channels);
  return all;
}

}  // namespace

GatherConv forward_gather(const ConvGeometry& g, ConstBuffer x, const float* w, Buffer y, const Epilogue& epilogue,
                          int64_t group) {
  const Triple out = g.out();
  const int64_t group_in = g.in_channels / g.groups;
  const int64_t group_out = g.out_channels / g.groups;
  GatherConv c;
  c.batch = g.batch;
  c.weights = {w + group * group_out, g.out_channels, group_in * g.out_channels, false, g.kernel, {}};
  for (int i = 0; i < 3; ++i) {
    KernelTaps taps = forward_taps(g, i);
    c.axis[i] = std::move(taps.axis);
    c.weights.kernel[static_cast<size_t>(i)] = std::move(taps.kernel);
  }
  c.in = x;
  c.in_offset = group * group_in;
  c.in_pitch = g.in_channels;
  c.channels = group_in;
  c.columns = group_out;
  c.out = y;
  c.out_offset = group * group_out;
  c.out_batch = product(out) * g.out_channels;
  c.out_step = {out[1] * out[2] * g.out_channels, out[2] * g.out_channels, g.out_channels};
  c.epilogue = epilogue;
  c.epilogue.bias = offset_bias(epilogue, group * group_out);
  return c;
}

GatherMode winograd_mode(const KernelTable& kernels, const GatherConv& conv, const PairTable* pairs) {
  if (pairs != nullptr && suits_pairs(conv) && suits_winograd(kernels, conv, pair_speed))
    return suits_winograd3(kernels, conv, pair_speed) ? GatherMode::winograd3_pairs : GatherMode::winograd_pairs;
  if (pairs != nullptr || !suits_winograd(kernels, conv)) return GatherMode::f32;
  return suits_winograd3(kernels, conv) ? GatherMode::winograd3 : GatherMode::winograd;
}

GatherMode forward_mode(const KernelTable& kernels, const ConvGeometry& g, const PairTable* pairs) {
  return winograd_mode(kernels, forward_gather(g, {}, nullptr, {}, {}, 0), pairs);
}

GatherMode dgrad_mode(const KernelTable& kernels, const ConvGeometry& g, const PairTable* pairs) {
  if (product(g.stride) != 1) return GatherMode::f32;
  const DgradCall call = {g, g.out(), {}, nullptr, {}, {}, 3};
  return winograd_mode(kernels, dgrad_gather(call, {0, 0, 0}, 0), pairs);
}

GatherMode wgrad_mode(const KernelTable& kernels, const ConvGeometry& g, const PairTable* pairs) {
  const GatherConv conv = forward_gather(g, {}, nullptr, {}, {}, 0);
  if (pairs != nullptr && suits_winograd_wgrad(kernels, conv, pair_speed)) return GatherMode::winograd_pairs;
  if (!suits_winograd_wgrad(kernels, conv)) return GatherMode::f32;
  return suits_winograd3_wgrad(kernels, conv) ? GatherMode::winograd3 : GatherMode::winograd;
}

namespace {

// Calls run(gather, index), which returns false to stop, for all that make up a data gradient.
template <class Run>
bool for_dgrad_gathers(const ConvGeometry& g, ConstBuffer dy, const float* w, Buffer dx, const Epilogue& epilogue,
                       const Run& run) {
  const Triple out = g.out();
  DgradCall call = {g, out, dy, w, dx, epilogue, first_patch_axis(g, out)};
  Triple residues = g.stride;
  int64_t positions = 1;  // of a patch
  for (int i = call.first_patch_axis; i < 3; ++i) {
    residues[i] = 1;
    positions *= g.kernel[i];
  }
  std::vector<float> bias;
  if (call.first_patch_axis < 3 && epilogue.bias != nullptr) {
    bias = repeated(epilogue.bias, g.in_channels, positions);
    call.epilogue.bias = bias.data();
  }
  size_t index = 0;
  for (int64_t group = 0; group < g.groups; ++group) {
    for (int64_t d = 0; d < residues[0]; ++d) {
      for (int64_t h = 0; h < residues[1]; ++h) {
        for (int64_t v = 0; v < residues[2]; ++v) {
          GatherConv c = dgrad_gather(call, {d, h, v}, group);
          if (c.axis[0].out * c.axis[1].out * c.axis[2].out == 0) continue;
          if (!run(std::move(c), index++)) return false;
        }
      }
    }
  }
  return true;
}

bool run_with(const KernelTable& kernels, GatherConv conv, const KeptWeights* kept, size_t index, GatherMode mode) {
  if (kept != nullptr) conv.weights.tiles = &kept->gathers[index].tiles;
  return run_gather(kernels, std::move(conv), mode);
}

}  // namespace

bool dense_forward(const KernelTable& kernels, const ConvGeometry& g, ConstBuffer x, const DenseWeights& w,
                   Buffer y, const Epilogue& epilogue, GatherMode mode, const ConvExtras& extras) {
  for (int64_t group = 0; group < g.groups; ++group) {
    GatherConv conv = forward_gather(g, x, w.data, y, epilogue, group);
    conv.second = extras.second;
    conv.in_pitch -= extras.second.channels;
    conv.norm = extras.norm;
    conv.moments = extras.moments;
    if (!run_with(kernels, std::move(conv), w.kept, static_cast<size_t>(group), mode)) return false;
  }
  return true;
}

bool dense_dgrad(const KernelTable& kernels, const ConvGeometry& g, ConstBuffer dy, const DenseWeights& w,
                 Buffer dx, const Epilogue& epilogue, GatherMode mode) {
  const bool on_bf16 = mode == GatherMode::bf16 || mode == GatherMode::bf16x3;
  if (on_bf16 && w.kept == nullptr && merges_residues(g)) {
    DgradCall call = {g, g.out(), dy, w.data, dx, epilogue, 3};
    std::vector<float> bias;
    if (epilogue.bias != nullptr) {
      bias = repeated(epilogue.bias, g.in_channels, product(g.stride));
      call.epilogue.bias = bias.data();
    }
    return run_gather(kernels, merged_residues(call), mode);
  }
  return for_dgrad_gathers(g, dy, w.data, dx, epilogue, [&](GatherConv conv, size_t index) {
    return run_with(kernels, std::move(conv), w.kept, index, mode);
  });
}

bool keep_forward(const KernelTable& kernels, const ConvGeometry& g, const float* w, GatherMode mode, KeptWeights& to) {
  bool finite = true;
  for (int64_t group = 0; group < g.groups; ++group)
    finite &= keep_tiles(kernels, forward_gather(g, {}, w, {}, {}, group), w, mode == GatherMode::bf16x3, to);
  return finite;
}

bool keep_dgrad(const KernelTable& kernels, const ConvGeometry& g, const float* w, GatherMode mode, KeptWeights& to) {
  return for_dgrad_gathers(g, {}, w, {}, {}, [&](GatherConv conv, size_t) {
    return keep_tiles(kernels, std::move(conv), w, mode == GatherMode::bf16x3, to);
  });
}

}  // namespace voxlab::cpu
