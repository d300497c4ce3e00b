#include "runtime/backend/cpu/dense/weights_amx.h"

#include <algorithm>
#include <atomic>

#include "runtime/core/parallel.h"

namespace voxlab::cpu {

RunShape run_shape(const GatherConv& c, bool slabs) {
  const std::vector<int64_t>& w = c.axis[2].taps;
  const auto count = static_cast<int64_t>(w.size()), slab_count = slabs ? c.channels / amx_depth : 1;
  const int64_t channels = c.channels / slab_count, run = count * channels;
  const bool joined = c.group_kernel.empty() && (count == 0 || w.back() - w.front() + 1 == count);
  if (!joined) return {count, channels, slab_count};
  const auto rows = static_cast<int64_t>(c.axis[0].taps.size() * c.axis[1].taps.size());
  const bool all_taps = c.channels == 1 && c.axis[2].stride == 1 && rows > 1 && rows * run <= amx_depth;
  return all_taps ? RunShape{1, rows * run, 1, true} : RunShape{1, run, slab_count};
}

#if defined(__x86_64__)

namespace {

// The first row of K of a depth block of a run: slab after slab, in each tap after tap.
int64_t row_of(const GatherConv& c, const RunShape& shape, int64_t run, int64_t block) {
  const int64_t slab_runs = weight_rows(c) / shape.length / shape.slabs;
  return run % slab_runs * shape.length * shape.slabs + run / slab_runs * amx_depth + block * (shape.slabs == 1 ? amx_depth : c.channels);
}

// Where tiles are made of the weights in place: rows of them, whole vectors of columns, follow each other in a whole run
// of K; or transposed a depth block lies within one tap.
bool packs_in_place(const GatherConv& c, const RunShape& shape, const Panel& panel) {
  if (shape.all_taps) return false;
  const GatherWeights& w = c.weights;
  const std::vector<int64_t>& kw = w.kernel[2];
  if (w.transposed) return c.channels % amx_depth == 0 || shape.length <= c.channels;
  const bool ascending = kw.size() == 1 || kw.back() - kw.front() + 1 == static_cast<int64_t>(kw.size());
  return panel.last_columns == amx_columns && ascending && kw.front() <= kw.back() &&
         (kw.size() == 1 || w.position == c.channels * w.pitch);
}

// The weights of a run's kernel row and tap, from the panel's first column and the first channel of its slab on; null where
// the panel's group leaves the tap out.
const float* weights_at(const GatherConv& c, const RunShape& shape, const Panel& panel, int64_t run, int64_t tap) {
  const GatherWeights& w = c.weights;
  const auto group = static_cast<size_t>(panel.group);
  const std::array<std::vector<int64_t>, 3>& kernel = c.group_kernel.empty() ? w.kernel : c.group_kernel[group];
  const int64_t column = panel.column - (c.group_kernel.empty() ? 0 : panel.group * c.columns / std::ssize(c.group_out));
  const auto height = static_cast<int64_t>(kernel[1].size()), width = static_cast<int64_t>(kernel[2].size());
  const int64_t slab_runs = weight_rows(c) / shape.length / shape.slabs, slab = run / slab_runs;
  run %= slab_runs;
  if (shape.runs_a_row > 1) tap = run % width;
  const int64_t kernel_row = run / shape.runs_a_row;
  const auto kd = static_cast<size_t>(kernel_row / height), kh = static_cast<size_t>(kernel_row % height);
  const int64_t d = kernel[0][kd], h = kernel[1][kh], v = kernel[2][static_cast<size_t>(tap)];
  if (std::min({d, h, v}) < 0) return nullptr;
  return w.data + ((d * w.kernel_size[1] + h) * w.kernel_size[2] + v) * w.position +
         slab * amx_depth * (w.transposed ? 1 : w.pitch) + column * (w.transposed ? w.pitch : 1);
}

// One panel: run by run, tiles of K pairs; `rows_at` gives a run's first row, rows `pitch` apart, depth blocks `block_rows`.
template <class RowsAt>
bool pack_runs(const AmxTable& amx, const RunShape& shape, int64_t runs, const Panel& panel, const RowsAt& rows_at, int64_t pitch,
               int64_t block_rows, const AmxParts& to) {
  bool finite = true;
  int64_t tile = 0;
  for (int64_t run = 0; run < runs; ++run) {
    const float* from = rows_at(run);
    for (int64_t k = 0; k < shape.length; k += amx_depth, from += block_rows * pitch) {
      const int64_t left = std::min(amx_depth, shape.length - k);
      const float* const next = from + block_rows * pitch;
      for (int64_t r = 0; r < std::min(amx_depth, shape.length - k - amx_depth); ++r) {
        __builtin_prefetch(next + r * pitch);
        for (int v = 1; v < panel.vectors; ++v) __builtin_prefetch(next + r * pitch + v * amx_columns);
      }
      for (int v = 0; v < panel.vectors; ++v, ++tile)
        finite &= amx.pack(from + v * amx_columns, left, pitch, const_cast<uint16_t*>(to.high) + tile * amx_tile,
                           to.low == nullptr ? nullptr : const_cast<uint16_t*>(to.low) + tile * amx_tile);
    }
  }
  return finite;
}

// The same of transposed weights, where they lie.
bool pack_turned(const AmxTable& amx, const GatherConv& c, const RunShape& shape, int64_t runs, const Panel& panel, const AmxParts& to) {
  bool finite = true;
  int64_t tile = 0;
  for (int64_t run = 0; run < runs; ++run)
    for (int64_t k = 0; k < shape.length; k += amx_depth) {
      const int64_t tap = shape.slabs > 1 ? k / amx_depth : k / c.channels, channel = shape.slabs > 1 ? 0 : k % c.channels;
      const float* from = weights_at(c, shape, panel, run, tap);
      if (from == nullptr) {
        tile += panel.vectors;
        continue;
      }
      from += channel;
      for (int v = 0; v < panel.vectors; ++v, ++tile)
        finite &= amx.pack_turned(from + v * amx_columns * c.weights.pitch, std::min(amx_depth, shape.length - k),
                                  v + 1 == panel.vectors ? panel.last_columns : amx_columns, c.weights.pitch,
                                  const_cast<uint16_t*>(to.high) + tile * amx_tile,
                                  to.low == nullptr ? nullptr : const_cast<uint16_t*>(to.low) + tile * amx_tile);
    }
  return finite;
}

bool pack_tiles(const KernelTable& kernels, const AmxTable& amx, const GatherConv& c, const RunShape& shape,
                const Panel& panel, const AmxParts& to) {
  const int64_t rows = weight_rows(c), runs = rows / shape.length;
  const int64_t block_rows = shape.slabs == 1 ? amx_depth : c.channels;
  if (packs_in_place(c, shape, panel)) {
    if (c.weights.transposed) return pack_turned(amx, c, shape, runs, panel, to);
    const auto rows_at = [&](int64_t run) { return weights_at(c, shape, panel, run, 0); };
    return pack_runs(amx, shape, runs, panel, rows_at, c.weights.pitch, block_rows, to);
  }
  const int64_t pitch = panel.vectors * amx_columns;
  float* f32 = scratch(Purpose::panel, rows * pitch);
  std::fill(f32, f32 + rows * pitch, 0.0F);
  pack_panel(kernels, c, panel, f32);
  const auto rows_at = [&](int64_t run) { return f32 + row_of(c, shape, run, 0) * pitch; };
  return pack_runs(amx, shape, runs, panel, rows_at, pitch, block_rows, to);
}

}  // namespace

namespace {

int64_t panel_depth_blocks(const GatherConv& conv, const RunShape& shape) {
  return shape.length == 0 ? 0 : weight_rows(conv) / shape.length * shape.depth_blocks();
}

}  // namespace

std::vector<Panel> weight_panels(const GatherConv& conv) { return split_groups(conv, amx_columns, has_amx(active_isa()) ? 3 : 2); }

int64_t packed_halves(const GatherConv& conv, const RunShape& shape, const std::vector<Panel>& panels, bool split) {
  return vectors_of(panels) * panel_depth_blocks(conv, shape) * amx_tile * (split ? 2 : 1);
}

bool pack_weights(const KernelTable& kernels, const AmxTable& amx, const GatherConv& conv, const RunShape& shape,
                  const std::vector<Panel>& panels, bool split, uint16_t* memory, AmxWeights& to) {
  const auto count = static_cast<int64_t>(panels.size());
  to.data = memory;
  to.depth_blocks = panel_depth_blocks(conv, shape);
  to.slabs = shape.slabs > 1;
  to.low = packed_halves(conv, shape, panels, false);
  if (to.depth_blocks == 0) return true;
  std::atomic<bool> finite = true;
  // Copying a weight costs about as much as a hundred multiply-adds.
  parallel_for(count, task_grain(count, weight_rows(conv) * conv.columns * 100), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Panel& panel = panels[static_cast<size_t>(i)];
      if (!pack_tiles(kernels, amx, conv, shape, panel, to.panel(panel, split))) finite = false;
    }
  });
  return finite;
}

namespace {

// Where the weight of this row of K and column lies among its gather's.
int64_t place_of(const GatherConv& c, int64_t row, int64_t column) {
  const GatherWeights& w = c.weights;
  const int64_t tap = row / c.channels, channel = row % c.channels;
  const auto height = static_cast<int64_t>(w.kernel[1].size()), width = static_cast<int64_t>(w.kernel[2].size());
  const auto at = [&](size_t axis, int64_t i) { return w.kernel[axis][static_cast<size_t>(i)]; };
  const int64_t kernel_row = at(0, tap / (height * width)) * w.kernel_size[1] + at(1, tap / width % height);
  const int64_t position = kernel_row * w.kernel_size[2] + at(2, tap % width);
  return position * w.position + (w.transposed ? column * w.pitch + channel : channel * w.pitch + column);
}

void unpack_panel(const KeptWeights::Gather& g, const RunShape& shape, const Panel& panel, float* to) {
  const AmxParts tiles = g.tiles.panel(panel, g.split);
  const auto *high = reinterpret_cast<const bfloat16*>(tiles.high), *low = reinterpret_cast<const bfloat16*>(tiles.low);
  const int64_t columns = (panel.vectors - 1) * amx_columns + panel.last_columns;
  for (int64_t run = 0; run < weight_rows(g.conv) / shape.length; ++run) {
    for (int64_t k = 0; k < shape.length; ++k) {
      const int64_t row = row_of(g.conv, shape, run, k / amx_depth) + k % amx_depth;
      for (int64_t i = 0; i < columns; ++i) {
        const int64_t tile = (run * shape.depth_blocks() + k / amx_depth) * panel.vectors + i / amx_columns;
        const int64_t at = tile * amx_tile + k % amx_depth / 2 * amx_depth + 2 * (i % amx_columns) + k % 2;
        to[place_of(g.conv, row, panel.column + i)] = float(high[at]) + (g.split ? float(low[at]) : 0.0F);
      }
    }
  }
}

}  // namespace

void unpack_weights(const KeptWeights& kept, int64_t count, float* to) {
  std::fill(to, to + count, 0.0F);
  for (const KeptWeights::Gather& g : kept.gathers) {
    const RunShape shape = run_shape(g.conv, g.tiles.slabs);
    if (shape.length == 0) continue;
    const std::vector<Panel> panels = weight_panels(g.conv);
    parallel_for(std::ssize(panels), 1, [&](int64_t begin, int64_t end) {
      for (int64_t p = begin; p < end; ++p) unpack_panel(g, shape, panels[static_cast<size_t>(p)], to + g.first);
    });
  }
}

#else

void unpack_weights(const KeptWeights&, int64_t, float*) {}

#endif

}  // namespace voxlab::cpu
