// Filling and sizing of the depthwise scratch rows.
#include "runtime/backend/cpu/dense/depthwise_rows.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

int64_t span(const GatherAxis& a) {
  return a.taps.empty() ? 1 : a.taps.back() - a.taps.front() + 1;
}

int64_t first_tap(const GatherAxis& a) { return a.taps.empty() ? 0 : a.taps.front(); }

}  // namespace

ScratchRows scratch_rows(const std::array<KernelTaps, 3>& taps, const std::array<int64_t, 2>& begin,
                         const std::array<int64_t, 2>& size, int64_t group) {
  ScratchRows rows;
  for (int i = 0; i < 2; ++i) {
    const GatherAxis& a = taps[i].axis;
    rows.box.begin[i] = begin[i] * a.stride + first_tap(a);
    rows.box.size[i] = (size[i] - 1) * a.stride + span(a);
  }
  const GatherAxis& w = taps[2].axis;
  rows.box.begin[2] = first_tap(w);
  rows.box.size[2] = (w.out - 1) * w.stride + span(w);
  rows.stride = w.stride;
  rows.per_phase = ceil_div(rows.box.size[2], w.stride);
  rows.group = group;
  return rows;
}

void fill_plane(const KernelTable& kernels, const DepthwiseSource& s, const ScratchRows& rows,
                int64_t plane, int64_t first, float* to) {
  const Box& box = rows.box;
  const int64_t pitch = s.map.source_channels;
  const int64_t real = std::min(rows.group, s.channels - first);
  std::array<int32_t, 64> lanes;
  for (int64_t c = 0; c < real; ++c) {
    lanes[static_cast<size_t>(c)] = static_cast<int32_t>(s.map.source(first + c, plane));
  }
  const auto zeros = [&](float* p, int64_t positions) {
    std::memset(p, 0, static_cast<size_t>(positions * rows.group) * sizeof(float));
  };
  const auto outside = [&](int axis, int64_t at) { return at < 0 || at >= s.extent[axis]; };
  for (int64_t d = 0; d < box.size[0]; ++d) {
    for (int64_t h = 0; h < box.size[1]; ++h, to += rows.row()) {
      const int64_t at_d = box.begin[0] + d;
      const int64_t at_h = box.begin[1] + h;
      if (outside(0, at_d) || outside(1, at_h)) {
        zeros(to, rows.stride * rows.per_phase);
        continue;
      }
      const float* row = s.sample + (at_d * s.extent[1] + at_h) * s.extent[2] * pitch;
      for (int64_t phase = 0; phase < rows.stride; ++phase) {
        // Positions begin + phase + i * stride, of which [from, end) lie in the row.
        const int64_t start = box.begin[2] + phase;
        const int64_t from =
            std::clamp<int64_t>(start >= 0 ? 0 : ceil_div(-start, rows.stride), 0, rows.per_phase);
        const int64_t end = std::clamp<int64_t>(
            start >= s.extent[2] ? 0 : ceil_div(s.extent[2] - start, rows.stride), from,
            rows.per_phase);
        float* p = to + phase * rows.per_phase * rows.group;
        zeros(p, from);
        for (int64_t c = 0; c < rows.group; c += kernels.width) {
          const auto count = static_cast<int>(std::min<int64_t>(kernels.width, real - c));
          kernels.pick_lanes(row + (start + from * rows.stride) * pitch, rows.stride * pitch,
                             end - from, lanes.data() + c, count, p + from * rows.group + c,
                             rows.group);
        }
        zeros(p + end * rows.group, rows.per_phase - end);
      }
    }
  }
}

std::array<int64_t, 2> choose_rows(const std::array<KernelTaps, 3>& taps, const RowChoice& choice) {
  // Cycles for one output vector: per vector copied, and for the cache and TLB misses of channel
  // slices taken out of a block too large for the second-level cache.
  constexpr double copy_cycles = 4.0;
  constexpr double miss_cycles = 40.0;
  const int64_t budget = l2_bytes() / 2 / static_cast<int64_t>(sizeof(float));
  const int64_t wanted = 4 * thread_count();
  std::array<int64_t, 2> best = {1, 1};
  double best_cost = std::numeric_limits<double>::infinity();
  const int64_t depth = taps[0].axis.out;
  const int64_t height = taps[1].axis.out;
  const int64_t width = taps[2].axis.out;
  for (int64_t d = depth; d >= 1; d = d == 1 ? 0 : ceil_div(d, 2)) {
    for (int64_t h = height; h >= 1; h = h == 1 ? 0 : ceil_div(h, 2)) {
      const int64_t outputs = d * h * width;
      const Box box = scratch_rows(taps, {0, 0}, {d, h}, 1).box;
      const int64_t inputs = box.size[0] * box.size[1] * box.size[2];
      const int64_t held = inputs * choice.planes * choice.group + outputs * choice.output_group;
      const int64_t tasks = choice.other_tasks * ceil_div(depth, d) * ceil_div(height, h);
      if (held > budget || (tasks < wanted && d * h > 4)) continue;
      const bool spread =
          inputs * choice.source_channels + outputs * choice.result_channels > budget;
      const double cost = copy_cycles * static_cast<double>(held) / static_cast<double>(outputs * choice.group) +
                          (spread ? miss_cycles : 0.0);
      if (cost < best_cost) {
        best_cost = cost;
        best = {d, h};
      }
    }
  }
  return best;
}

std::vector<Panel> channel_panels(int64_t channels, int width, int vectors) {
  std::vector<Panel> panels;
  for (int64_t c = 0; c < channels;) {
    const int take = channels - c > width ? vectors : 1;
    const int64_t last = std::min<int64_t>(width, channels - c - (take - 1) * width);
    panels.push_back({c, take, static_cast<int>(last)});
    c += take * width;
  }
  return panels;
}

}  // namespace voxlab::cpu
