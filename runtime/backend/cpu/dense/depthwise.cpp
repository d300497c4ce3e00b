// Depthwise and narrow grouped convolution: vectors run across channels of all groups. A group of I
// input and J output channels is I depthwise sums over inputs spread J-fold, so no lane is wasted
// and no channel ever multiplies another group's values.
#include <algorithm>
#include <array>
#include <vector>

#include "runtime/backend/cpu/dense/depthwise_plane.h"
#include "runtime/backend/cpu/dense/depthwise_rows.h"
#include "runtime/backend/cpu/dense/passes.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t float_bytes = sizeof(float);
using Triple = std::array<int64_t, 3>;

// One gather: a forward convolution, or one residue of its data gradient.
struct DepthwiseGather {
  int64_t batch;
  std::array<KernelTaps, 3> taps;
  Triple kernel;
  const float* in;
  ChannelMap map;
  const float* w;  // rows (kernel position, plane) of `channels`
  int64_t channels;
  Epilogue epilogue;
};

// Where outputs go: the first of them, and what lies between neighbours along each axis.
struct Target {
  float* at;
  Triple step;
};

// Output rows of one sample along D and H, with all of W.
struct RowBlock {
  int64_t sample;
  std::array<int64_t, 2> begin, size;
};

// Row tiles shorter than this are no better than plain ones.
constexpr int least_row_outputs = 6;

class DepthwiseRunner {
 public:
  DepthwiseRunner(const KernelTable& kernels, const DepthwiseGather& call)
      : k_(kernels), c_(call) {}

  // `to` is where the block's first output goes.
  void run(const RowBlock& block, const Panel& panel, const Target& to) {
    const auto& [sample, begin, size] = block;
    const int64_t group = panel.vectors * k_.width;
    rows_ = scratch_rows(c_.taps, begin, size, group);
    const Triple extent = {c_.taps[0].axis.in, c_.taps[1].axis.in, c_.taps[2].axis.in};
    const DepthwiseSource source = {c_.in + sample * product(extent) * c_.map.source_channels,
                                    extent, c_.map, c_.channels};
    x_ = scratch(Purpose::tile, c_.map.source_group * rows_.plane());
    for (int64_t p = 0; p < c_.map.source_group; ++p) {
      fill_plane(k_, source, rows_, p, panel.column, x_ + p * rows_.plane());
    }
    pack_weights(panel);
    // Down the rows of one stretch of W, whose input rows then come from the first-level cache.
    const int64_t width = c_.taps[2].axis.out;
    const int64_t most = most_outputs(panel);
    const int64_t tiles = ceil_div(width, most);
    for (int64_t d = 0; d < size[0]; ++d) {
      for (int64_t t = 0; t < tiles; ++t) {
        const int64_t from = width * t / tiles;
        const int64_t end = width * (t + 1) / tiles;
        for (int64_t h = 0; h < size[1]; ++h) {
          list_rows(begin, d, h);
          float* y = to.at + d * to.step[0] + h * to.step[1] + from * to.step[2] + panel.column;
          const float* x = x_ + d * c_.taps[0].axis.stride * rows_.box.size[1] * rows_.row() +
                           h * c_.taps[1].axis.stride * rows_.row() + from * rows_.group;
          run_tile(panel, x, y, to.step[2], end - from);
        }
      }
    }
  }

 private:
  // [plane][tap D][tap H][tap W][group], zero past the last channel.
  void pack_weights(const Panel& panel) {
    if (panel.column == packed_column_) return;
    packed_column_ = panel.column;
    const int64_t group = panel.vectors * k_.width;
    const int64_t planes = c_.map.source_group;
    const int64_t real = std::min(group, c_.channels - panel.column);
    const auto& [td, th, tw] = c_.taps;
    const auto positions =
        static_cast<int64_t>(td.kernel.size() * th.kernel.size() * tw.kernel.size());
    w_ = scratch(Purpose::panel, planes * positions * group);
    bias_.assign(static_cast<size_t>(group), 0.0F);
    if (c_.epilogue.bias != nullptr) {
      std::copy_n(c_.epilogue.bias + panel.column, real, bias_.begin());
    }
    float* to = w_;
    for (int64_t p = 0; p < planes; ++p) {
      for (const int64_t kd : td.kernel) {
        for (const int64_t kh : th.kernel) {
          for (const int64_t kw : tw.kernel) {
            const int64_t tap = (kd * c_.kernel[1] + kh) * c_.kernel[2] + kw;
            const float* from = c_.w + (tap * planes + p) * c_.channels + panel.column;
            std::copy_n(from, real, to);
            std::fill(to + real, to + group, 0.0F);
            to += group;
          }
        }
      }
    }
    tap_bytes_.clear();
    for (const int64_t tap : tw.axis.taps) {
      tap_bytes_.push_back(rows_.at(tap - tw.axis.taps[0]) * float_bytes);
    }
  }

  // Kernel rows that meet the input for output row (d, h) of the block.
  void list_rows(const std::array<int64_t, 2>& begin, int64_t d, int64_t h) {
    runs_.clear();
    const GatherAxis& ad = c_.taps[0].axis;
    const GatherAxis& ah = c_.taps[1].axis;
    const auto width = static_cast<int64_t>(c_.taps[2].kernel.size());
    if (width == 0) return;
    for (int64_t p = 0; p < c_.map.source_group; ++p) {
      for (size_t i = 0; i < ad.taps.size(); ++i) {
        const int64_t at_d = (begin[0] + d) * ad.stride + ad.taps[i];
        if (at_d < 0 || at_d >= ad.in) continue;
        for (size_t j = 0; j < ah.taps.size(); ++j) {
          const int64_t at_h = (begin[1] + h) * ah.stride + ah.taps[j];
          if (at_h < 0 || at_h >= ah.in) continue;
          const int64_t x = p * rows_.plane() + ((ad.taps[i] - ad.taps[0]) * rows_.box.size[1] +
                                                 ah.taps[j] - ah.taps[0]) *
                                                    rows_.row();
          const auto kernel_row =
              (p * static_cast<int64_t>(ad.taps.size()) + static_cast<int64_t>(i)) *
                  static_cast<int64_t>(ah.taps.size()) +
              static_cast<int64_t>(j);
          runs_.push_back({x * float_bytes, kernel_row * width});
        }
      }
    }
  }

  // Tiles for kernels of neighbouring taps, if the rows of this gather are such.
  const DepthwiseFn* row_tiles(const Panel& panel) const {
    const std::vector<int64_t>& taps = c_.taps[2].axis.taps;
    const auto count = static_cast<int64_t>(taps.size());
    const bool neighbours = c_.taps[2].axis.stride == 1 && count >= 3 && count <= 7 &&
                            count % 2 == 1 && taps.back() - taps.front() + 1 == count;
    if (!neighbours) return nullptr;
    const DepthwiseFn* tiles = k_.depthwise_row[(count - 3) / 2][panel.vectors - 1];
    return tiles[least_row_outputs - 1] == nullptr ? nullptr : tiles;
  }

  int64_t most_outputs(const Panel& panel) const {
    const DepthwiseFn* tiles = row_tiles(panel);
    if (tiles == nullptr) return k_.depthwise_outputs[panel.vectors - 1];
    int64_t most = 1;
    while (most < max_depthwise_outputs && tiles[most] != nullptr) ++most;
    return most;
  }

  void run_tile(const Panel& panel, const float* x, float* y, int64_t step, int64_t outputs) {
    DepthwiseArgs args = {};
    args.x = reinterpret_cast<const char*>(x);
    args.rows = runs_.data();
    args.row_count = static_cast<int64_t>(runs_.size());
    args.tap_bytes = tap_bytes_.data();
    args.taps = static_cast<int64_t>(tap_bytes_.size());
    args.w = w_;
    args.y = reinterpret_cast<char*>(y);
    args.y_step = step * float_bytes;
    args.bias = c_.epilogue.bias == nullptr ? nullptr : bias_.data();
    args.activation = static_cast<int>(c_.epilogue.activation);
    args.slope = c_.epilogue.slope;
    args.last_columns = panel.last_columns;
    const DepthwiseFn* tiles = row_tiles(panel);
    (tiles != nullptr ? tiles : k_.depthwise[panel.vectors - 1])[outputs - 1](args);
  }

  const KernelTable& k_;
  const DepthwiseGather& c_;
  ScratchRows rows_ = {};
  float* x_ = nullptr;
  float* w_ = nullptr;
  int64_t packed_column_ = -1;
  std::vector<float> bias_;
  std::vector<int64_t> tap_bytes_;
  std::vector<Run> runs_;
};

// How a gather is cut: into panels of channels, and blocks of output rows.
struct DepthwiseCut {
  std::vector<Panel> panels;
  std::array<int64_t, 2> rows, size, blocks;  // along D and H

  int64_t count(int64_t batch) const { return batch * blocks[0] * blocks[1]; }
  RowBlock at(int64_t i) const {
    const int64_t d = i / blocks[1] % blocks[0] * size[0], h = i % blocks[1] * size[1];
    return {i / (blocks[0] * blocks[1]), {d, h}, {std::min(size[0], rows[0] - d), std::min(size[1], rows[1] - h)}};
  }
};

// With `whole` one task makes all channels of a block, whose outputs stay in the second-level cache.
DepthwiseCut cut_of(const KernelTable& kernels, const DepthwiseGather& call, bool whole) {
  constexpr int64_t short_row = 11;
  const int vectors = call.taps[2].axis.out <= short_row ? 2 : 1;
  DepthwiseCut cut = {.panels = channel_panels(call.channels, kernels.width, vectors),
                      .rows = {call.taps[0].axis.out, call.taps[1].axis.out}};
  const auto panels = static_cast<int64_t>(cut.panels.size());
  cut.size = choose_rows(call.taps, {.planes = call.map.source_group,
                                     .group = vectors * kernels.width,
                                     .source_channels = call.map.source_channels,
                                     .result_channels = call.channels,
                                     .output_group = whole ? call.channels : 0,
                                     .other_tasks = whole ? call.batch : call.batch * panels});
  for (size_t i = 0; i < 2; ++i) cut.blocks[i] = ceil_div(cut.rows[i], cut.size[i]);
  return cut;
}

int64_t multiply_adds(const DepthwiseGather& call) {
  int64_t work = call.batch * call.channels, taps = 1;
  for (const KernelTaps& t : call.taps) {
    work *= t.axis.out;
    taps *= static_cast<int64_t>(t.kernel.size());
  }
  return work * (taps * call.map.source_group + 8);
}

// `sample` is what lies between the outputs of two samples.
void depthwise_gather(const KernelTable& kernels, const DepthwiseGather& call, const Target& out, int64_t sample) {
  const int64_t work = multiply_adds(call);
  if (work == 0) return;
  const DepthwiseCut cut = cut_of(kernels, call, false);
  const auto panels = static_cast<int64_t>(cut.panels.size()), tasks = panels * cut.count(call.batch);
  parallel_for(tasks, task_grain(tasks, work), [&](int64_t begin, int64_t end) {
    DepthwiseRunner runner(kernels, call);
    for (int64_t i = begin; i < end; ++i) {
      // All panels of a block in turn: its cache lines are shared by neighbouring panels.
      const RowBlock block = cut.at(i / panels);
      float* const first = out.at + block.sample * sample + block.begin[0] * out.step[0] + block.begin[1] * out.step[1];
      runner.run(block, cut.panels[static_cast<size_t>(i % panels)], {first, out.step});
    }
  });
}

DepthwiseGather forward_gather(const ConvGeometry& g, const float* x, const float* w, const Epilogue& epilogue) {
  DepthwiseGather c = {};
  c.batch = g.batch;
  for (int i = 0; i < 3; ++i) c.taps[i] = forward_taps(g, i);
  c.kernel = g.kernel;
  c.in = x;
  c.map = {g.in_channels, g.in_channels / g.groups, g.out_channels / g.groups};
  c.w = w;
  c.channels = g.out_channels;
  c.epilogue = epilogue;
  return c;
}

}  // namespace

bool is_depthwise(const ConvGeometry& g, int width) {
  if (g.groups == 1) return false;
  const int64_t in = g.in_channels / g.groups;
  const int64_t out = g.out_channels / g.groups;
  return std::max(in, out) <= 4 || (std::min(in, out) == 1 && std::max(in, out) < width);
}

void depthwise_forward(const KernelTable& kernels, const ConvGeometry& g, const float* x,
                       const float* w, float* y, const Epilogue& epilogue) {
  if (is_depthwise_plane(g, epilogue)) return depthwise_plane_forward(kernels, g, x, w, y, epilogue.bias);
  const Triple out = g.out();
  const Triple step = {out[1] * out[2] * g.out_channels, out[2] * g.out_channels, g.out_channels};
  depthwise_gather(kernels, forward_gather(g, x, w, epilogue), {y, step}, out[0] * step[0]);
}

void depthwise_forward_rows(const KernelTable& kernels, const ConvGeometry& g, const float* x, const float* w, const float* bias,
                            const UseRows& use) {
  if (is_depthwise_plane(g, {})) return depthwise_plane_rows(kernels, g, {x, DType::f32}, w, bias, use);
  const DepthwiseGather call = forward_gather(g, x, w, {.bias = bias});
  const int64_t work = multiply_adds(call), channels = g.out_channels;
  if (work == 0) return;
  const DepthwiseCut cut = cut_of(kernels, call, true);
  const int64_t tasks = cut.count(g.batch), width = call.taps[2].axis.out;
  parallel_for(tasks, task_grain(tasks, work), [&](int64_t begin, int64_t end) {
    DepthwiseRunner runner(kernels, call);
    float* const made = scratch(Purpose::output, cut.size[0] * cut.size[1] * width * channels);
    for (int64_t i = begin; i < end; ++i) {
      const RowBlock block = cut.at(i);
      const int64_t rows = block.size[1] * width;  // that lie together
      for (const Panel& panel : cut.panels) runner.run(block, panel, {made, {rows * channels, width * channels, channels}});
      for (int64_t d = 0; d < block.size[0]; ++d) {
        const int64_t plane = block.sample * cut.rows[0] + block.begin[0] + d;
        use((plane * cut.rows[1] + block.begin[1]) * width, rows, made + d * rows * channels);
      }
    }
  });
}

void depthwise_dgrad(const KernelTable& kernels, const ConvGeometry& g, const float* dy,
                     const float* w, float* dx, const Epilogue& epilogue) {
  if (is_depthwise_plane(g, epilogue)) return depthwise_plane_dgrad(kernels, g, dy, w, dx, epilogue.bias);
  const ChannelMap map = {g.out_channels, g.out_channels / g.groups, g.in_channels / g.groups};
  const int64_t planes = map.source_group;
  if (!map.identity()) {
    // Rows (tap, in of group) of out channels become rows (tap, out of group) of in channels.
    float* packed = scratch(Purpose::weights, product(g.kernel) * planes * g.in_channels);
    for (int64_t tap = 0; tap < product(g.kernel); ++tap) {
      for (int64_t c = 0; c < g.in_channels; ++c) {
        for (int64_t p = 0; p < planes; ++p) {
          packed[(tap * planes + p) * g.in_channels + c] =
              w[(tap * map.result_group + c % map.result_group) * g.out_channels +
                map.source(c, p)];
        }
      }
    }
    w = packed;
  }
  const Triple pitch = {g.in[1] * g.in[2] * g.in_channels, g.in[2] * g.in_channels, g.in_channels};
  DepthwiseGather c = {};
  c.batch = g.batch;
  c.kernel = g.kernel;
  c.in = dy;
  c.map = map;
  c.w = w;
  c.channels = g.in_channels;
  c.epilogue = epilogue;
  Triple step;
  for (size_t i = 0; i < 3; ++i) step[i] = g.stride[i] * pitch[i];
  for (int64_t d = 0; d < g.stride[0]; ++d) {
    for (int64_t h = 0; h < g.stride[1]; ++h) {
      for (int64_t v = 0; v < g.stride[2]; ++v) {
        c.taps = {residue_taps(g, 0, d), residue_taps(g, 1, h), residue_taps(g, 2, v)};
        depthwise_gather(kernels, c, {dx + d * pitch[0] + h * pitch[1] + v * pitch[2], step}, product(g.in) * g.in_channels);
      }
    }
  }
}

}  // namespace voxlab::cpu
