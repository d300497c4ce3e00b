// Channel scaling: grouped 1x1x1 convolution with one channel a group on one side. It reads and writes every
// value once, row by row, so it runs at the speed of memory.
#include <algorithm>
#include <vector>

#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t chunk_rows = 64;  // summed in f32 before f64 takes over

int64_t rows_of(const ConvGeometry& g) { return g.batch * g.in[0] * g.in[1] * g.in[2]; }
bool widens(const ConvGeometry& g) { return g.in_channels <= g.out_channels; }

int64_t ratio_of(const ConvGeometry& g) {
  return std::max(g.in_channels, g.out_channels) / std::min(g.in_channels, g.out_channels);
}

int ratio_index(int64_t ratio) { return ratio == 1 ? 0 : ratio == 2 ? 1 : ratio == 4 ? 2 : 3; }

// Weights in the order of the wide channels: as they are where outputs are wide, else (ratio, channels) transposed.
std::vector<float> wide_order(const ConvGeometry& g, const float* w) {
  const int64_t wide = std::max(g.in_channels, g.out_channels), ratio = ratio_of(g);
  std::vector<float> ordered(w, w + wide);
  if (widens(g)) return ordered;
  for (int64_t i = 0; i < wide; ++i)
    ordered[static_cast<size_t>(i)] = w[i % ratio * g.out_channels + i / ratio];
  return ordered;
}

ChannelScaleArgs arguments(const ConvGeometry& g, const Epilogue& epilogue) {
  return {.bias = epilogue.bias,
          .channels = std::min(g.in_channels, g.out_channels),
          .activation = static_cast<int>(epilogue.activation),
          .slope = epilogue.slope};
}

void scale_rows(const KernelTable& kernels, const ConvGeometry& g, bool to_wide, const float* in,
                const float* w, float* out, const Epilogue& epilogue) {
  const std::vector<float> ordered = wide_order(g, w);
  const ChannelScaleArgs whole = arguments(g, epilogue);
  const int64_t narrow = whole.channels, wide = narrow * ratio_of(g);
  const auto* table = to_wide ? kernels.widen_channels : kernels.narrow_channels;
  const ChannelScaleFn run = table[ratio_index(ratio_of(g))];
  const int64_t rows = rows_of(g);
  parallel_for(rows, task_grain(rows, rows * wide), [&](int64_t begin, int64_t end) {
    ChannelScaleArgs args = whole;
    (to_wide ? args.narrow : args.wide) = in + begin * (to_wide ? narrow : wide);
    args.w = ordered.data();
    args.out = out + begin * (to_wide ? wide : narrow);
    args.rows = end - begin;
    run(args);
  });
}

}  // namespace

bool is_channel_scale(const ConvGeometry& g) {
  for (size_t i = 0; i < 3; ++i)
    if (g.kernel[i] != 1 || g.stride[i] != 1 || g.pad[i] != 0) return false;
  if (g.groups == 1 || g.groups != std::min(g.in_channels, g.out_channels)) return false;
  const int64_t ratio = ratio_of(g);
  return ratio == 1 || ratio == 2 || ratio == 4 || ratio == 8;
}

void channel_scale_forward(const KernelTable& kernels, const ConvGeometry& g, const float* x,
                           const float* w, float* y, const Epilogue& epilogue) {
  scale_rows(kernels, g, widens(g), x, w, y, epilogue);
}

void channel_scale_dgrad(const KernelTable& kernels, const ConvGeometry& g, const float* dy,
                         const float* w, float* dx, const Epilogue& epilogue) {
  scale_rows(kernels, g, !widens(g), dy, w, dx, epilogue);
}

void channel_scale_wgrad(const KernelTable& kernels, const ConvGeometry& g, const float* x,
                         const float* dy, float* dw) {
  const ChannelScaleArgs whole = arguments(g, {});
  const int64_t ratio = ratio_of(g), narrow = whole.channels, wide = narrow * ratio, rows = rows_of(g);
  const ChannelScaleFn run = kernels.scale_wgrad[ratio_index(ratio)];
  const float* narrow_side = widens(g) ? x : dy;
  const float* wide_side = widens(g) ? dy : x;
  // One piece of rows a thread, added in order.
  const int64_t grain = task_grain(rows, rows * wide);
  std::vector<std::vector<double>> sums(static_cast<size_t>(thread_count()));
  parallel_pieces(rows, grain, [&](int piece, int64_t begin, int64_t end) {
    std::vector<double>& sum = sums[static_cast<size_t>(piece)];
    sum.assign(static_cast<size_t>(wide), 0);
    float* part = scratch(Purpose::panel, wide);
    for (int64_t r = begin; r < end; r += chunk_rows) {
      ChannelScaleArgs args = whole;
      args.narrow = narrow_side + r * narrow;
      args.wide = wide_side + r * wide;
      args.out = part;
      args.rows = std::min(chunk_rows, end - r);
      run(args);
      for (int64_t i = 0; i < wide; ++i) sum[static_cast<size_t>(i)] += double(part[i]);
    }
  });
  for (int64_t i = 0; i < wide; ++i) {
    double total = 0;
    for (const std::vector<double>& sum : sums)
      if (!sum.empty()) total += sum[static_cast<size_t>(i)];
    const int64_t at = widens(g) ? i : i % ratio * g.out_channels + i / ratio;
    dw[at] = static_cast<float>(total);
  }
}

}  // namespace voxlab::cpu
