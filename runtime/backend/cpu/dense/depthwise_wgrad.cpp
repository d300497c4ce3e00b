// Weight gradient of depthwise and narrow grouped convolution, one channel vector at a time.
#include <algorithm>
#include <array>
#include <numeric>
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

struct WgradCall {
  const KernelTable& kernels;
  const ConvGeometry& g;
  Triple out;
  std::array<KernelTaps, 3> taps;
  ChannelMap map;
  const float* x;
  const float* dy;
};

// Kernel rows along H summed by one kernel call, so that few taps along W still fill the registers.
int64_t heights_together(const ConvGeometry& g) {
  return std::clamp<int64_t>(max_wgrad_taps / g.kernel[2], 1, g.kernel[1]);
}

class WgradWorker {
 public:
  WgradWorker(const WgradCall& call, const Panel& panel) : c_(call), panel_(panel) {
    sums_.assign(static_cast<size_t>(call.map.source_group * product(call.g.kernel) * width()),
                 0.0F);
  }

  void add(int64_t sample, const std::array<int64_t, 2>& begin,
           const std::array<int64_t, 2>& size) {
    rows_ = scratch_rows(c_.taps, begin, size, width());
    const int64_t planes = c_.map.source_group;
    float* x = scratch(Purpose::tile, planes * rows_.plane());
    const DepthwiseSource source = {c_.x + sample * product(c_.g.in) * c_.g.in_channels, c_.g.in,
                                    c_.map, c_.g.out_channels};
    for (int64_t p = 0; p < planes; ++p) {
      fill_plane(c_.kernels, source, rows_, p, panel_.column, x + p * rows_.plane());
    }
    const float* dy = copy_gradient(sample, begin, size);
    const int64_t together = heights_together(c_.g);
    for (int64_t p = 0; p < planes; ++p) {
      for (int64_t kd = 0; kd < c_.g.kernel[0]; ++kd) {
        for (int64_t kh = 0; kh < c_.g.kernel[1]; kh += together) {
          const int64_t heights = std::min(together, c_.g.kernel[1] - kh);
          list_rows(begin, size, kd, kh, heights);
          if (!row_x_.empty()) add_taps(x + p * rows_.plane(), dy, p, kd, kh, heights);
        }
      }
    }
  }

  // To rows (kernel position, plane) of all out channels.
  void write(float* dw) const {
    const int64_t planes = c_.map.source_group;
    const int64_t real = std::min<int64_t>(width(), c_.g.out_channels - panel_.column);
    const int64_t positions = product(c_.g.kernel);
    for (int64_t p = 0; p < planes; ++p) {
      for (int64_t tap = 0; tap < positions; ++tap) {
        std::copy_n(sums_.data() + (p * positions + tap) * width(), real,
                    dw + (tap * planes + p) * c_.g.out_channels + panel_.column);
      }
    }
  }

 private:
  int64_t width() const { return c_.kernels.width; }

  const float* copy_gradient(int64_t sample, const std::array<int64_t, 2>& begin,
                             const std::array<int64_t, 2>& size) {
    const int64_t channels = c_.g.out_channels;
    const auto real = static_cast<int>(std::min<int64_t>(width(), channels - panel_.column));
    std::array<int32_t, 16> lanes;
    std::iota(lanes.begin(), lanes.end(), 0);
    float* copy = scratch(Purpose::rows, size[0] * size[1] * c_.out[2] * width());
    float* to = copy;
    for (int64_t d = begin[0]; d < begin[0] + size[0]; ++d) {
      const int64_t row = (sample * c_.out[0] + d) * c_.out[1] + begin[1];
      const int64_t positions = size[1] * c_.out[2];
      c_.kernels.pick_lanes(c_.dy + row * c_.out[2] * channels + panel_.column, channels, positions,
                            lanes.data(), real, to, width());
      to += positions * width();
    }
    return copy;
  }

  // Output rows of the block for which some of the kernel rows [kh, kh + heights) meet the input.
  void list_rows(const std::array<int64_t, 2>& begin, const std::array<int64_t, 2>& size,
                 int64_t kd, int64_t kh, int64_t heights) {
    row_x_.clear();
    row_dy_.clear();
    const GatherAxis& ad = c_.taps[0].axis;
    const GatherAxis& ah = c_.taps[1].axis;
    for (int64_t d = 0; d < size[0]; ++d) {
      const int64_t at_d = (begin[0] + d) * ad.stride + ad.taps[static_cast<size_t>(kd)];
      if (at_d < 0 || at_d >= ad.in) continue;
      for (int64_t h = 0; h < size[1]; ++h) {
        const int64_t low = (begin[1] + h) * ah.stride + ah.taps[static_cast<size_t>(kh)];
        const int64_t high = low + (heights - 1) * c_.g.dilation[1];
        if (high < 0 || low >= ah.in) continue;
        row_x_.push_back((d * ad.stride * rows_.box.size[1] + h * ah.stride) * rows_.row() *
                         float_bytes);
        row_dy_.push_back((d * size[1] + h) * c_.out[2] * width() * float_bytes);
      }
    }
  }

  void add_taps(const float* x, const float* dy, int64_t plane, int64_t kd, int64_t kh,
                int64_t heights) {
    const ConvGeometry& g = c_.g;
    std::vector<int64_t> taps;
    for (int64_t i = kh; i < kh + heights; ++i) {
      for (int64_t kw = 0; kw < g.kernel[2]; ++kw) {
        const int64_t row = kd * g.dilation[0] * rows_.box.size[1] + i * g.dilation[1];
        taps.push_back((row * rows_.row() + rows_.at(kw * g.dilation[2])) * float_bytes);
      }
    }
    DepthwiseWgradArgs args = {};
    args.x = reinterpret_cast<const char*>(x);
    args.dy = reinterpret_cast<const char*>(dy);
    args.row_x_bytes = row_x_.data();
    args.row_dy_bytes = row_dy_.data();
    args.rows = static_cast<int64_t>(row_x_.size());
    args.width = c_.out[2];
    const auto count = static_cast<int64_t>(taps.size());
    float* sums = sums_.data() +
                  (plane * product(g.kernel) + (kd * g.kernel[1] + kh) * g.kernel[2]) * width();
    for (int64_t first = 0; first < count; first += max_wgrad_taps) {
      const int64_t now = std::min<int64_t>(max_wgrad_taps, count - first);
      args.tap_bytes = taps.data() + first;
      args.dw = sums + first * width();
      c_.kernels.depthwise_wgrad[now - 1](args);
    }
  }

  const WgradCall& c_;
  Panel panel_;
  ScratchRows rows_ = {};
  std::vector<float> sums_;
  std::vector<int64_t> row_x_;
  std::vector<int64_t> row_dy_;
};

}  // namespace

void depthwise_wgrad(const KernelTable& kernels, const ConvGeometry& g, const float* x,
                     const float* dy, float* dw) {
  if (is_depthwise_plane(g, {})) return depthwise_plane_wgrad(kernels, g, x, dy, dw);
  WgradCall call = {
      kernels, g, g.out(), {}, {g.in_channels, g.in_channels / g.groups, g.out_channels / g.groups},
      x,       dy};
  for (int i = 0; i < 3; ++i) call.taps[i] = forward_taps(g, i);
  const std::vector<Panel> panels = channel_panels(g.out_channels, kernels.width, 1);
  const auto panel_count = static_cast<int64_t>(panels.size());
  const auto size = choose_rows(call.taps, {call.map.source_group, kernels.width, g.in_channels,
                                            g.out_channels, kernels.width, g.batch * panel_count});
  const int64_t blocks_d = ceil_div(call.out[0], size[0]);
  const int64_t blocks_h = ceil_div(call.out[1], size[1]);
  const int64_t blocks = g.batch * blocks_d * blocks_h;
  // Each panel in as many parts as make all threads equally busy; their sums are added in order.
  const int64_t threads = thread_count();
  const int64_t parts = std::min(blocks, threads / std::gcd(panel_count, threads));
  const int64_t weights = product(g.kernel) * (g.in_channels / g.groups) * g.out_channels;
  float* partial = scratch(Purpose::partial, (parts - 1) * weights);
  const int64_t work = g.batch * product(call.out) * weights;
  parallel_for(
      panel_count * parts, task_grain(panel_count * parts, work), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t part = i % parts;
          WgradWorker worker(call, panels[static_cast<size_t>(i / parts)]);
          for (int64_t b = blocks * part / parts; b < blocks * (part + 1) / parts; ++b) {
            const int64_t d = b / blocks_h % blocks_d * size[0];
            const int64_t h = b % blocks_h * size[1];
            worker.add(b / (blocks_d * blocks_h), {d, h},
                       {std::min(size[0], call.out[0] - d), std::min(size[1], call.out[1] - h)});
          }
          worker.write(part == 0 ? dw : partial + (part - 1) * weights);
        }
      });
  for (int64_t part = 1; part < parts; ++part) {
    kernels.add(partial + (part - 1) * weights, weights, dw);
  }
}

}  // namespace voxlab::cpu
