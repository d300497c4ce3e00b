// Weight gradient by F(2x2, 3x3): the adjoint of winograd_conv. At each point the gradient is a matrix product over
// tiles; the 16 products are turned into 9 taps at the end.
#include <algorithm>
#include <cstddef>
#include <vector>

#include "runtime/backend/cpu/dense/blocks.h"
#include "runtime/backend/cpu/dense/scratch.h"
#include "runtime/backend/cpu/dense/winograd.h"
#include "runtime/core/parallel.h"

namespace voxlab::cpu {
namespace {

constexpr int64_t float_bytes = sizeof(float);
constexpr int64_t points = winograd_points;
using Triple = std::array<int64_t, 3>;

struct Call {
  const KernelTable& kernels;
  const GatherConv& conv;
  ConstBuffer dy;
  Triple block;
  std::vector<Panel> panels;
  int64_t taps, rows;  // rows of a point: tap along D, channel
  const PairTable* pairs;

  // Of a block: tiles, or pairs of neighbours in a row.
  int64_t terms(const BlockPlace& block) const {
    return block.size[0] * block.size[1] * ceil_div(block.size[2], pairs != nullptr ? 2 : 1);
  }
  PointFormat input_format() const {
    return pairs != nullptr ? PointFormat{pairs->winograd_input_pairs, float_bytes, 2}
                            : PointFormat{&kernels.winograd_input, float_bytes, 1};
  }
};

// dy of a block at the points, [point][plane][tile row][tile or pair][column].
const float* transform_gradient(const Call& call, const BlockPlace& block) {
  const GatherConv& c = call.conv;
  const int64_t point = call.terms(block) * c.columns;
  const int64_t line = point / (block.size[0] * block.size[1]);
  float* p = scratch(Purpose::rows, points * point);
  const int64_t bytes = size_of(call.dy.dtype);
  const auto* sample = static_cast<const std::byte*>(call.dy.data) + (c.out_offset + block.sample * c.out_batch) * bytes;
  WinogradInputArgs args = {};
  args.pitch = c.out_step[2];
  args.width = c.axis[2].out;
  args.first = winograd_side * block.begin[2];
  args.channels = c.columns;
  args.tiles = block.size[2];
  args.point_step = point;
  args.tile_step = c.columns;
  const auto row_at = [&](int64_t d, int64_t h, int64_t i) -> const void* {
    const int64_t y = winograd_side * (block.begin[1] + h) + i;
    return y < c.axis[1].out ? sample + ((block.begin[0] + d) * c.out_step[0] + y * c.out_step[1]) * bytes : nullptr;
  };
  for (int64_t d = 0; d < block.size[0]; ++d) {
    for (int64_t h = 0; h < block.size[1]; ++h) {
      set_rows(args, winograd_side, block.size[0], block.size[1], d, h, row_at);
      args.v = p + (d * block.size[1] + h) * line;
      (call.pairs != nullptr ? call.pairs->winograd_gradient_pairs[type_index(call.dy.dtype)] : call.kernels.winograd_gradient)(args);
    }
  }
  return p;
}

// Adds one tap of one point of a block to its sums: u[channel] += sum over rows of v[row, channel] * p[row].
void add_tap(const Call& call, const Panel& panel, const float* v, const float* p, int64_t rows, float* u) {
  const GatherConv& c = call.conv;
  const Run run = {0, 0};
  alignas(64) float dropped[max_panel_vectors * 16] = {};
  float* to[max_tile_rows];
  TileArgs args = {};
  args.k_step = c.channels * float_bytes;
  args.runs = &run;
  args.run_count = 1;
  args.k = rows;
  args.b = p + panel.column;
  args.ldb = c.columns;
  args.c = to;
  args.last_columns = panel.last_columns;
  args.accumulate = true;
  const int64_t pairs = ceil_div(c.channels, 2);
  const int64_t tiles = ceil_div(pairs, call.kernels.unit_pairs[panel.vectors - 1]);
  for (int64_t t = 0; t < tiles; ++t) {
    const int64_t from = 2 * (pairs * t / tiles), end = 2 * (pairs * (t + 1) / tiles);
    for (int64_t m = from; m < end; ++m)
      to[m - from] = m < c.channels ? u + m * c.columns + panel.column : dropped;
    args.a = reinterpret_cast<const char*>(v + from);
    (call.pairs != nullptr ? call.pairs->unit_tile : call.kernels.unit_tile)[panel.vectors - 1][(end - from) / 2 - 1](args);
  }
}

// Blocks [first, last) added to the sums u of panels [from, to).
void add_blocks(const Call& call, int64_t first, int64_t last, int64_t from, int64_t to, float* u) {
  for (int64_t index = first; index < last; ++index) {
    const BlockPlace block = place_block(tiles_of(call.conv), call.block, index);
    const InputPoints v = transform_input(call.input_format(), call.conv, block);
    const float* p = transform_gradient(call, block);
    const int64_t rows = call.terms(block);
    for (int64_t point = 0; point < points; ++point) {
      for (int64_t panel = from; panel < to; ++panel) {
        for (int64_t tap = 0; tap < call.taps; ++tap) {
          add_tap(call, call.panels[static_cast<size_t>(panel)], static_cast<const float*>(v.data) + point * v.point + tap * v.plane,
                  p + point * rows * call.conv.columns, rows,
                  u + (point * call.rows + tap * call.conv.channels) * call.conv.columns);
        }
      }
    }
  }
}

// The taps of channels [begin, end) of all kernel planes.
void store_taps(const Call& call, const float* u, int64_t begin, int64_t end, float* dw, int64_t pitch) {
  const int64_t channels = call.conv.channels, columns = call.conv.columns;
  for (int64_t row = begin; row < end; ++row) {
    const int64_t tap = row / channels, channel = row % channels;
    call.kernels.winograd_weight_gradient(u + row * columns, call.rows * columns, columns,
                                          dw + (9 * tap * channels + channel) * pitch, channels * pitch);
  }
}

}  // namespace

bool suits_winograd_wgrad(const KernelTable& kernels, const GatherConv& c, double speed) {
  constexpr int64_t least_channels = 8;  // fewer leave most of a tile empty
  return c.channels >= least_channels && suits_winograd(kernels, c, speed);
}

void winograd_wgrad(const KernelTable& kernels, const GatherConv& conv, ConstBuffer dy, float* dw, int64_t pitch,
                    const PairTable* pairs) {
  const auto taps = static_cast<int64_t>(conv.axis[0].taps.size());
  const int64_t rows = taps * conv.channels;
  const auto vectors = static_cast<double>(ceil_div(conv.columns, kernels.width));
  // Every block reads and writes all sums once, some two cycles a vector each: with many channels, blocks that
  // leave the second-level cache are better than small ones, the more so where the sums come from memory.
  const int64_t floats = points * rows * conv.columns;
  const int64_t least_rows = floats * float_bytes >= far_bytes() ? 224 : 112;
  const double sums = static_cast<double>(points * rows) * vectors;
  const int64_t floats_a_row = points * (2 * conv.channels + conv.columns);
  const Triple block = choose_tiles(conv, {.sums = sums,
                                           .fixed = 4 * sums,
                                           .floats_a_row = points * conv.columns,
                                           .budget = std::max(l2_bytes() / 2 / float_bytes, least_rows * floats_a_row) *
                                                     (pairs != nullptr ? 2 : 1),
                                           .speed = pairs != nullptr ? pair_speed : 1,
                                           .tiles = pairs != nullptr ? 2 : 1});
  const Call call = {kernels, conv, dy, block, split_columns(conv.columns, kernels.width), taps, rows, pairs};
  const int64_t blocks = block_count(conv.batch, tiles_of(conv), block);
  const auto panels = static_cast<int64_t>(call.panels.size());
  const int64_t threads = task_grain(2, multiply_adds(conv)) > 1 ? 1 : thread_count();
  // Large sums are not held once a thread: threads then share the panels, and each transforms every input.
  const bool share_panels = 4 * floats > conv.batch * product(tiles_of(conv)) * points * conv.channels && panels >= threads;
  const int64_t parts = share_panels ? threads : std::min(threads, blocks);
  const int64_t copies = share_panels ? 1 : parts;
  float* u = scratch(Purpose::partial, copies * floats);
  parallel_for(copies * floats, 1 << 14, [&](int64_t begin, int64_t end) { std::fill(u + begin, u + end, 0.0F); });
  parallel_for(parts, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      if (share_panels) {
        add_blocks(call, 0, blocks, panels * part / parts, panels * (part + 1) / parts, u);
      } else {
        add_blocks(call, blocks * part / parts, blocks * (part + 1) / parts, 0, panels, u + part * floats);
      }
    }
  });
  for (int64_t copy = 1; copy < copies; ++copy) {
    parallel_for(floats, 4096, [&](int64_t begin, int64_t end) {
      kernels.add(u + copy * floats + begin, end - begin, u + begin);
    });
  }
  parallel_for(rows, task_grain(rows, 100 * rows * conv.columns), [&](int64_t begin, int64_t end) {
    store_taps(call, u, begin, end, dw, pitch);
  });
}

}  // namespace voxlab::cpu
